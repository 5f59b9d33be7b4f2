"""What a picture of the corpus is called: random captions from its label, tags, nouns and style, in many templates."""

import torch

from creativelib.generator import with_article

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


def caption(record: dict, generator: torch.Generator) -> str:
    """One random caption of one record of the corpus."""
    words = subject_phrase(record, generator)
    style = float(torch.rand(1, generator=generator))
    if style < 0.25:
        words = f"{record['style']} {words}"
    elif style < 0.35:
        words = f"{words}, {record['style']} style"
    return fill(pick(TEMPLATES, generator), words)


def all_phrases(records: list[dict]) -> list[str]:
    """Every word and phrase that a caption can hold, once each, sorted: what the vocabulary is made from."""
    phrases = set()
    for record in records:
        phrases |= {record["label"], record["style"], *record["tags"], *record["nouns"]}
    phrases |= {word for words in SYNONYMS.values() for word in words}
    return sorted(phrases)


def sampling_weights(records: list[dict]) -> torch.Tensor:
    """Probability of each record in training, (N,): thin subjects more often, by the square root of how thin they are."""
    counts: dict[str, int] = {}
    for record in records:
        counts[record["nouns"][0]] = counts.get(record["nouns"][0], 0) + 1
    weights = torch.tensor([counts[record["nouns"][0]] ** -0.5 for record in records])
    return weights / weights.sum()
