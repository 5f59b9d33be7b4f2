"""What a picture of the corpus is called: random captions from its label, tags, nouns and style, in many templates."""

from collections import Counter
from typing import NamedTuple

import torch

from creativelib.generator import with_article
from creativelib.pocket.taxonomy import SUBJECTS

SYNONYMS = {
    "vehicle": ("vehicle", "vehicle", "means of transport"),
    "building": ("building", "building", "piece of architecture"),
    "alien": ("alien", "alien", "monster", "extraterrestrial"),
    "handbag": ("handbag", "handbag", "bag", "purse"),
    "chair": ("chair", "chair", "seat"),
    "pet": ("pet", "pet", "animal"),
    "dinosaur": ("dinosaur", "dinosaur", "dragon"),
    "fruit": ("fruit", "fruit", "piece of fruit"),
}

TEMPLATES = (
    "Professional high-quality photo of {a}. photorealistic, 4k, HQ.",  # the paper's own
    "Professional high-quality photo of {a}. photorealistic, 4k, HQ.",
    "Professional high-quality photo of a creative {x}. photorealistic, 4k, HQ.",
    "Professional high-quality full-body front view photo of {a}, product design studio photo, photorealistic, 4k, HQ, "
    "centered",
    "a photo of {a}",
    "a picture of {a}",
    "an icon of {a}",
    "an emoji of {a}",
    "a drawing of {a}",
    "{a}",
    "{x}",
    "{x}",
)


def fill(template: str, words: str) -> str:
    """Fill ``{a}`` (with its article) or ``{x}`` (without) of a template."""
    return template.format(a=with_article(words), x=words)


def pick(options, generator: torch.Generator):
    """One of ``options``, uniformly."""
    return options[int(torch.randint(len(options), (1,), generator=generator))]


def subject_phrase(record: dict, generator: torch.Generator) -> str:
    """What the picture shows: its noun (half of the time, the first noun most), its label, or a tag."""
    kind = float(torch.rand(1, generator=generator))
    noun = record["nouns"][0] if kind < 0.4 else record["nouns"][-1]
    if kind < 0.5:
        return pick(SYNONYMS.get(noun, (noun,)), generator)
    if kind < 0.85 or not record["tags"]:
        return record["label"]
    return pick(record["tags"], generator)


def name_of(record: dict, generator: torch.Generator) -> str:
    """What a picture of either world is called: ``subject_phrase``, or one of the nouns that still hold for a possible one."""
    if "label" in record:
        return subject_phrase(record, generator)
    noun = pick(record["nouns"], generator)
    return pick(SYNONYMS.get(noun, (noun,)), generator)


class Caption(NamedTuple):
    """A caption, the phrase that it is made from, and the style or colour that it names, or ``None``."""

    text: str
    phrase: str
    look: str | None


def draw(record: dict, generator: torch.Generator) -> Caption:
    """One random caption of one record of the corpus."""
    words = phrase = subject_phrase(record, generator)
    named, look = float(torch.rand(1, generator=generator)), None
    if named < 0.2:
        look, words = record["style"], f"{record['style']} {words}"
    elif named < 0.3:
        look, words = record["style"], f"{words}, {record['style']} style"
    elif named < 0.5 and record.get("colour"):
        look, words = record["colour"], f"{record['colour']} {words}"
    return Caption(fill(pick(TEMPLATES, generator), words), phrase, look)


def caption(record: dict, generator: torch.Generator) -> str:
    """The text of ``draw``."""
    return draw(record, generator).text


def pictures_of(records: list[dict]) -> dict[tuple[str, str | None], torch.Tensor]:
    """Rows of the records that a caption fits as well: by ``(phrase, style)`` or ``(phrase, colour)``, and by
    ``(phrase, None)`` whatever the look.
    """
    rows: dict[tuple[str, str | None], list[int]] = {}
    for row, record in enumerate(records):
        nouns = {word for noun in record["nouns"] for word in SYNONYMS.get(noun, (noun,))}
        for phrase in {record["label"], *record["tags"], *nouns}:
            for look in {record["style"], record.get("colour"), None}:
                rows.setdefault((phrase, look), []).append(row)
    return {key: torch.tensor(fitting) for key, fitting in rows.items()}


def all_phrases(records: list[dict]) -> list[str]:
    """Every word and phrase that a caption can hold, once each, sorted: what the vocabulary is made from."""
    phrases = set()
    for record in records:
        phrases |= {record["label"], record["style"], *record["tags"], *record["nouns"], record.get("colour") or "white"}
    phrases |= {word for words in SYNONYMS.values() for word in words}
    return sorted(phrases)


def sampling_weights(records: list[dict]) -> torch.Tensor:
    """Probability of each record in training, (N,): thin nouns more often, by the square root of how thin they are, and the
    paper's eight subjects three times as often as other things.
    """
    nouns = [record["nouns"][0] for record in records]
    counts = Counter(nouns)
    weights = torch.tensor([counts[noun] ** -0.5 * (3.0 if noun in SUBJECTS else 1.0) for noun in nouns])
    return weights / weights.sum()
