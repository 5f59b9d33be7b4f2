"""A run by its surprise instead of its steps: a step means something else in each conceptual space (7.5.1, 7.5.2)."""

from collections.abc import Sequence

import numpy as np

from creativelib.run import CreativeRun
from creativelib.target import has_reached

RATE_TARGET = 40.0  # nats above plain that rates of learning are compared at


def surprises(run: CreativeRun, seeds: Sequence[int]) -> dict[int, float]:
    """Mean surprise (nats) of the samples of the same noise ``seeds`` at each snapshot of the run, by step."""
    return {step: float(run.typicality.surprise(run.sample(seeds, step).cpu()).mean()) for step in sorted(run.snapshots)}


def first_reaching(nats_by_step: dict[int, float], levels: Sequence[float]) -> dict[float, int | None]:
    """The first step with at least each of the ``levels`` (nats); ``None`` where the run never got there."""
    steps = sorted(nats_by_step)
    return {level: next((step for step in steps if nats_by_step[step] >= level), None) for level in levels}


def steps_to(history: Sequence[dict], nats: float) -> int | None:
    """Steps until the surprise of the samples is at least ``nats``, read as a run reads it for its target; ``None``: never."""
    return next((steps for steps in range(1, len(history) + 1) if has_reached(history[:steps], nats)), None)


def next_rate(rate: float, steps: int | None, wanted: int) -> float:
    """A better rate than one with which a run took ``steps``: in proportion, as far as a factor of 8 at once.

    AdamW's step has the length of its rate, so twice the rate comes about as far in half the steps. Four times as fast where a
    run did not arrive, for it may have been anywhere.
    """
    return rate * (4.0 if steps is None else float(np.clip(steps / wanted, 1 / 8, 8.0)))
