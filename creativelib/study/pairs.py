"""Which of these two is more creative? The pairs of a person, two pictures of one run each (section 7.4.2, Fig. 7)."""

import itertools
import random
from collections.abc import Sequence

from creativelib.seeds import derive_seed
from creativelib.study.stimuli import Stimulus


def choice_pairs(stimuli: Sequence[Stimulus], count: int, turn: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Up to ``count`` pairs (left, right) of ids of a person's pictures: both of one run, of different iterations.

    Balanced over turns: all pairs of all runs stand in one shuffled line, and a person takes the next ones. The side is drawn.
    Each picture comes as seldom as that allows.

    Args:
        stimuli: what the person rated. count: how many pairs, 0 for none. turn: of the person. seed: of the study.
    """
    images = sorted((one for one in stimuli if one.kind == "image" and one.seed is not None), key=lambda one: one.id)
    runs: dict[int, list[Stimulus]] = {}
    for one in images:
        runs.setdefault(one.seed, []).append(one)
    pairs = [
        (first.id, second.id)
        for run in sorted(runs)
        for first, second in itertools.combinations(sorted(runs[run], key=lambda one: (one.iteration or 0, one.id)), 2)
        if first.iteration != second.iteration
    ]
    if not pairs or not count:
        return []
    random.Random(derive_seed(seed, "pairs")).shuffle(pairs)
    source, start = random.Random(derive_seed(seed, "sides", turn)), turn * count
    chosen = [pairs[(start + index) % len(pairs)] for index in range(min(count, len(pairs)))]
    return [pair if source.random() < 0.5 else pair[::-1] for pair in chosen]
