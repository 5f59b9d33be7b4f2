"""What the things of the icon world are called: the noun of each Unicode subgroup, and the paper's eight subjects.

Thin subjects are widened on purpose, and the model card says so: *alien* includes monsters, robots and ghosts, *dinosaur*
includes dragons, *chair* includes seats and sofas, *handbag* includes all bags, *pet* includes all animals that people keep.
"""

import re

SUBJECTS = ("building", "vehicle", "alien", "fruit", "handbag", "chair", "pet", "dinosaur")
"""The paper's subjects (Figs. 5 to 25)."""

# Noun of each Unicode subgroup that the corpus keeps (emojibase's names). Symbols, flags and components are left out.
SUBGROUP_NOUNS = {
    "face-smiling": "face", "face-affection": "face", "face-tongue": "face", "face-hand": "face",
    "face-neutral-skeptical": "face", "face-sleepy": "face", "face-unwell": "face", "face-hat": "face",
    "face-glasses": "face", "face-concerned": "face", "face-negative": "face", "face-costume": "creature",
    "cat-face": "animal", "monkey-face": "animal", "heart": "heart",
    "hand-fingers-open": "hand", "hand-fingers-partial": "hand", "hand-single-finger": "hand",
    "hand-fingers-closed": "hand", "hands": "hand", "hand-prop": "hand", "body-parts": "body part",
    "person": "person", "person-gesture": "person", "person-role": "person", "person-fantasy": "character",
    "person-activity": "person", "person-sport": "person", "person-resting": "person",
    "animal-mammal": "animal", "animal-bird": "bird", "animal-amphibian": "animal", "animal-reptile": "animal",
    "animal-marine": "sea animal", "animal-bug": "insect", "plant-flower": "flower", "plant-other": "plant",
    "food-fruit": "fruit", "food-vegetable": "vegetable", "food-prepared": "food", "food-asian": "food",
    "food-sweet": "dessert", "drink": "drink", "dishware": "dishware", "place-map": "place",
    "place-geographic": "landscape", "place-building": "building", "place-religious": "building",
    "place-other": "place", "transport-ground": "vehicle", "transport-water": "vehicle", "transport-air": "vehicle",
    "time": "clock", "sky-weather": "weather", "event": "celebration", "award-medal": "award", "sport": "sport",
    "game": "game", "arts-crafts": "art", "clothing": "clothing", "sound": "device", "music": "device",
    "musical-instrument": "instrument", "phone": "device", "computer": "device", "light-video": "device",
    "book-paper": "book", "money": "money", "mail": "mail", "writing": "stationery", "office": "stationery",
    "lock": "tool", "tool": "tool", "science": "science", "medical": "medicine", "household": "furniture",
    "other-object": "object", "hotel": "object",
}  # fmt: skip

# Labels of a transport or building subgroup that are no vehicle and no building.
NOT_A_VEHICLE = {
    "bus stop", "motorway", "railway track", "fuel pump", "wheel", "police car light", "horizontal traffic light",
    "vertical traffic light", "stop sign", "construction", "anchor", "ring buoy", "airplane departure sign", "seat",
    "oil drum", "airplane departure", "airplane arrival", "parachute", "skateboard", "roller skate", "station",
}  # fmt: skip
NOT_A_BUILDING = {"brick", "rock", "wood", "statue of liberty", "wedding"}

# Exact emoji labels that belong to a subject beyond their subgroup.
EXTRA_LABELS = {
    "alien": """alien|alien monster|robot|ogre|goblin|troll|ghost|hairy creature|zombie|angry face with horns
        |smiling face with horns""",
    "dinosaur": "sauropod|t-rex|dragon|dragon face",
    "chair": "chair|seat|couch and lamp|manual wheelchair|motorized wheelchair",
    "handbag": "handbag|purse|clutch bag|shopping bags|backpack|briefcase|luggage",
    "pet": """dog|dog face|guide dog|service dog|poodle|cat|cat face|black cat|grinning cat|grinning cat with smiling eyes
        |cat with tears of joy|smiling cat with heart-eyes|cat with wry smile|kissing cat|weary cat|crying cat|pouting cat
        |rabbit|rabbit face|hamster|mouse|mouse face|rat|hedgehog|horse|horse face|pig|pig face|bird|parrot|black bird
        |hatching chick|baby chick|front-facing baby chick|rooster|chicken|duck|goose|dove|frog|turtle|lizard|snake|fish
        |tropical fish|blowfish|snail|spider|goat|ewe|ram|donkey|chipmunk|cow face|raccoon|monkey|monkey face|see-no-evil monkey
        |hear-no-evil monkey|speak-no-evil monkey|fox|owl|crab|squid|octopus|lady beetle|butterfly|ferret|pony""",
    "vehicle": "sled|shopping cart",
    "building": "tent|circus tent|cityscape",
    "fruit": "avocado",
}  # fmt: skip
EXTRA_LABELS = {noun: {label.strip() for label in labels.split("|")} for noun, labels in EXTRA_LABELS.items()}

# Words in an icon's file name that make it one of the thin subjects (for sets without Unicode names).
NAME_PATTERNS = {
    "alien": r"alien|ufo|monster|robot(?!-vacuum|-mower|-industrial|-leg|-grab|-off)|ghost",
    "dinosaur": r"dinosaur-rex|dinosaur|dino|diplodocus|triceratops|stegosaurus|pterodactylus|velociraptor"
    r"|dragon-(?:head|spiral)|drakkar-dragon|sea-dragon|spiked-dragon|dragon-zodiac|dragon",
    "chair": r"chair|armchair|sofa|couch|stool|throne|recliner|car-seat|seat|bench",
    "handbag": r"handbag|hand-bag|purse|backpack|briefcase|suitcase|satchel|tote|knapsack|beach-bag|duffel-bag|gym-bag"
    r"|school-bag|shoulder-bag|shopping-bag|bag-personal|bag-suitcase|travel-bag|commuter-bag|retro-bag|swap-bag|bag",
}
# ... and words that say it is something else after all.
NAME_REFUSED = re.compile(
    r"blood|tea-bag|iv-bag|intravenous|chips|concrete|fertilizer|powder-bag|punching|sleeping-bag|golf|paper-bag-crumpled"
    r"|boxing|mower|bones|egg|orb|balls|breath|shield|skull|tracks|double-dragon|vacuum|test-stool|tree-and|sign|-off\b"
    r"|account|arrow|check|clock|download|edit|eye|minus|plus|remove|search|upload|heater|cooler|legroom|recline|child"
    r"|asterisk|bolt|cross|info|key|xray|document|umbrella|moving-walkway|transfusion|medical|ai-|toilet-seat|baggage"
    r"|cancel|add|disabled|dismiss|play|clear|vip|person|user|alert|love|angry|dead|confused|flip|reduce|extra"
)


def subject_of_name(slug: str) -> str | None:
    """The thin subject that an icon's file name speaks of, e.g. ``"office-chair"`` -> ``"chair"``, or None."""
    if NAME_REFUSED.search(slug):
        return None
    for noun, words in NAME_PATTERNS.items():
        if re.search(rf"(?:^|[-_])(?:{words})s?(?:[-_]|$)", slug):
            return noun
    return None


def nouns_of_label(label: str, subgroup: str) -> list[str]:
    """All nouns of an emoji, the most specific subject first: ``("dog face", "animal-mammal")`` -> ``["pet", "animal"]``."""
    label = label.lower()
    nouns = [noun for noun, labels in EXTRA_LABELS.items() if label in labels]
    noun = SUBGROUP_NOUNS.get(subgroup)
    refused = NOT_A_VEHICLE if noun == "vehicle" else NOT_A_BUILDING if noun == "building" else ()
    if noun and noun not in nouns and label not in refused:
        nouns.append(noun)
    return nouns or ["object"]
