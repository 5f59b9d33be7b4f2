"""What the model's own searches draw, near and far: the checker's lessons about the decoder that it will be shown.

``spoilt`` is made from drawings by a program, and no decoder draws like it. So the new prior and decoder are searched before
there is a checker, with nothing but the anchor to hold them. Up to ``NEAR`` nats above plain what they draw still is the
subject; from ``FAR`` on, twice as far as anybody is told to go, little is left of it. What lies between is not shown: where a
subject ends is what the checker has to find. Right and wrong come from the distance alone; the judge is not asked.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from tqdm.auto import tqdm

from creativelib.pocket.evaluate_creative import Trials, figure_seeds
from creativelib.pocket.measured import Measured

NEAR, FAR = (25.0, 50.0), (200.0, 250.0, 300.0)  # nats above plain at which pictures are drawn, beside the plain ones
SEEDS = 100, 101, 102  # of the runs; those of an evaluation are smaller
NOISE_SEEDS = 8
EVERY = 4  # steps between looks at how far it is


@dataclass
class Searched:
    """Pictures (n, 128, 128, 3) uint8 of searches, the noun that each was a search for, and which are far, (n,) bool."""

    images: np.ndarray
    nouns: list[str]
    far: np.ndarray


def look(trials: Trials, seed: int, steps: int) -> dict[str, np.ndarray]:
    """Pictures of one run of at most ``steps`` steps, at each distance that it came to, and their ``nats`` above plain."""
    run, seeds = trials.begin(seed, 1.1 * FAR[-1]), figure_seeds(seed, NOISE_SEEDS)
    images, nats = [trials.draw(run.default(seeds), seeds)[0]], [0.0]
    for distance in NEAR + FAR:
        at = nats[-1]
        while at < distance and run.steps < steps and not run.stopped:
            run.run(min(steps, run.steps + EVERY), progress=False)
            at = float(trials.typicality.surprise(run.sample(seeds)).mean()) - trials.plain_nats
        if at >= distance and at > nats[-1]:  # one look may have come past two distances
            images.append(trials.draw(run.sample(seeds), seeds)[0])
            nats.append(at)
    return {"pictures": np.concatenate(images), "nats": np.repeat(nats, len(seeds))}


def search(measured: Measured, runs: int, steps: int) -> Searched:
    """Near and far pictures of ``runs`` searches, subject after subject and then seed after seed; what was done is kept."""
    trials_of = cache(lambda noun: Trials(measured, noun, checker=None))
    plan = [(noun, seed) for seed in SEEDS for noun in measured.subjects][:runs]
    found = [
        measured.kept(f"searched-{noun}-{seed}", lambda noun=noun, seed=seed: look(trials_of(noun), seed, steps))
        for noun, seed in tqdm(plan, desc="searching", unit="run", leave=False)
    ]
    nats, images = (np.concatenate([one[name] for one in found]) for name in ("nats", "pictures"))
    nouns = [noun for (noun, _), one in zip(plan, found, strict=True) for _ in one["nats"]]
    far = nats >= FAR[0]
    kept = np.flatnonzero(far | (nats < NEAR[-1] + 15))  # a look comes a few steps late
    return Searched(images[kept], [nouns[row] for row in kept], far[kept])
