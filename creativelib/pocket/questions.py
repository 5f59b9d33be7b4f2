"""What is true of a picture: the words that it may be called, and those that it is not."""

import torch

from creativelib.generator import with_article
from creativelib.pocket import captions, taxonomy
from creativelib.pocket.checker import ASSISTANT, END, KIND_QUESTION, OTHER_QUESTIONS, QUESTION, USER

# Nouns so close in meaning that a picture of one is never a "No" for another (two of the eight subjects still are).
CLOSE_NOUNS = (
    {"pet", "animal", "bird", "sea animal", "insect"},
    {"alien", "creature", "character"},
    {"person", "character", "sport", "hand", "body part", "face", "celebration", "art", "award"},
    {"plant", "flower", "vegetable", "fruit"},
    {"food", "dessert", "vegetable", "fruit", "drink", "dishware"},
    {"building", "place", "landscape"},
    {"landscape", "weather", "place", "celebration"},
    {"handbag", "clothing"},
    {"chair", "furniture"},
    {"book", "stationery", "mail", "money"},
    {"tool", "device", "science", "medicine", "instrument", "clock", "stationery", "furniture", "sport", "game"},
)
VAGUE_NOUNS = {"object"}  # never a "No": everything is an object


def described(record: dict, typical: list[dict]) -> dict:
    """A record with label, nouns and tags, of either world: a possible picture is still called what its first drawing is."""
    return record if "label" in record else {**typical[record["first"]], "nouns": record["nouns"]}


def only_noun(noun: str) -> dict:
    """The record of a picture of which nothing but its noun is known."""
    return {"label": noun, "nouns": [noun], "tags": []}


def yes_words(record: dict) -> list[str]:
    """All that a picture may be called: its nouns, their synonyms, its label, words of it that are also tags."""
    words = list(record["nouns"])
    for noun in record["nouns"]:
        words += captions.SYNONYMS.get(noun, ())
    parts = set(record["label"].split())
    return list(dict.fromkeys([*words, record["label"], *(tag for tag in record["tags"] if tag in parts)]))


def related(one: dict, other: dict) -> bool:
    """Whether two records share a noun, a label or a tag that names either, or have nouns close in meaning."""
    if (
        set(one["nouns"]) & set(other["nouns"])
        or set(yes_words(one)) & {*yes_words(other), *other["tags"]}
        or set(yes_words(other)) & set(one["tags"])
    ):
        return True
    return one["nouns"][0] != other["nouns"][0] and any(is_close(a, b) for a in one["nouns"] for b in other["nouns"])


def is_close(noun: str, other: str) -> bool:
    """Whether two nouns are too close in meaning for one to be a "No" for the other; two of the eight never are."""
    if noun == other:
        return True
    if noun in taxonomy.SUBJECTS and other in taxonomy.SUBJECTS:
        return False
    return any(noun in group and other in group for group in CLOSE_NOUNS)


def nouns_against(noun: str, record: dict) -> list[str]:
    """The nouns of a record that ``noun`` is held against.

    Only its subjects where ``noun`` is one too: *animal*, which both carry, would keep a dinosaur from being "no pet".
    """
    subjects = [known for known in record["nouns"] if known in taxonomy.SUBJECTS]
    return subjects if subjects and noun in taxonomy.SUBJECTS else record["nouns"]


class Refusals:
    """Draws words that a picture is *not*: often one of the eight subjects, else a noun or another label."""

    def __init__(self, records: list[dict]):
        self.records = records
        self.nouns = sorted({noun for record in records for noun in record["nouns"]} - VAGUE_NOUNS)

    def draw(self, sources: list[dict], generator: torch.Generator) -> str:
        """A word that none of the ``sources`` may be called (any word when there are none)."""
        called = {word for record in sources for word in (*yes_words(record), *record["tags"])}
        for _ in range(100):
            kind = float(torch.rand(1, generator=generator))
            if kind < 0.55:
                noun = captions.pick(taxonomy.SUBJECTS, generator)
            elif kind < 0.8:
                noun = captions.pick(self.nouns, generator)
            else:
                other = captions.pick(self.records, generator)
                if other["label"] not in called and not any(related(other, record) for record in sources):
                    return other["label"]
                continue
            if noun not in called and not any(
                is_close(noun, known) for record in sources for known in nouns_against(noun, record)
            ):
                words = [word for word in captions.SYNONYMS.get(noun, (noun,)) if word not in called]
                return captions.pick(words, generator) if kind < 0.35 else noun
        return "submarine sandwich made of concrete"  # every word was near: a phrase that nothing is called


def subject_word(record: dict, generator: torch.Generator) -> str:
    """What a picture is asked about when the answer is Yes: mostly its first noun, else any of its words."""
    return (
        record["nouns"][0] if float(torch.rand(1, generator=generator)) < 0.6 else captions.pick(yes_words(record), generator)
    )


def dialogue(word: str, answer: str | None, generator: torch.Generator | None = None, label: str = "") -> str:
    """A question about ``word`` and its answer as the chat template writes them; None asks for the kind."""
    if answer is None:
        return f"{USER}{KIND_QUESTION.format(x=word)}{ASSISTANT}{label}{END}"
    question = QUESTION
    if generator is not None and float(torch.rand(1, generator=generator)) < 0.1:
        question = captions.pick(OTHER_QUESTIONS, generator)
    return f"{USER}{question.format(a=with_article(word))}{ASSISTANT}{answer}{END}"
