"""The generator that a saved run was made with, loaded again."""

from typing import TYPE_CHECKING

import torch

from creativelib.generator import Generator, load_generator
from creativelib.sources import PUBLISHED

if TYPE_CHECKING:
    from creativelib.frameworks.one_step import OneStep


def generator_of(facts: dict, device: str | torch.device | None = None) -> "Generator | OneStep":
    """Load the generator that the ``facts`` of a run's state name: of the hub's, the revisions that the run had.

    Raises:
        ValueError, OSError: as ``load_generator`` and ``load_one_step``.
    """
    saved = facts["settings"]
    name = facts.get("origin", saved["model"])
    pinned = tuple(weights.partition(":")[2] for weights in saved.get("weights", {}).values()) or None
    if saved.get("framework") == "one-step":
        from creativelib.frameworks.loading import HYPER_SD, load_one_step  # seconds, and advice on the screen, for few runs

        return load_one_step(name, device=device, revisions=pinned if name == HYPER_SD.name else None)
    switches = {"anchor": saved.get("anchor"), "decoder_prompt": saved.get("decoder", {}).get("prompt")}
    return load_generator(name, device=device, revisions=pinned if name in PUBLISHED else None, **switches)
