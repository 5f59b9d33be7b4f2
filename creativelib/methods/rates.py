"""Learning rate of each conceptual space: a step means something else in each."""

from creativelib.generator import Generator

PUBLISHED_WIDTHS = (768, 1280)  # embedding widths of Kandinsky 2.1 and 2.2, for which papers publish rates and cosines
RATES = {"lora": 1.0, "subject-token": 2.1, "adjective-token": 2.5, "lora+subject-token": 0.95, "embedding": 24.0}
"""In units of the family's own, as ``python -m bench.rates`` measures them on Pocket Kandinsky: with these a run is 40 nats
above plain after about as many steps as one in LoRA."""


def space_rate(generator: Generator, space: str) -> float:
    """The rate of a space in units of the family's: ``RATES``, and 1 for the published Kandinsky: the paper has one for all."""
    return 1.0 if generator.embedding_dim in PUBLISHED_WIDTHS else RATES[space]
