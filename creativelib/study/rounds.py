"""The pictures of a rating study: of runs, iteration by iteration, and of the novelty dial (sections 3 and 7.3)."""

import math
import random
from collections.abc import Iterable, Sequence

import torch
from PIL import Image
from tqdm.auto import tqdm

from creativelib.generator import Generator, positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import SumRule
from creativelib.run import CreativeRun
from creativelib.seeds import derive_seed
from creativelib.spaces import make_space
from creativelib.study.stimuli import Stimulus
from creativelib.typicality import TypicalityModel

OUTSIDERS = {"alien": "vehicle"}  # what is shown as an obvious non-member of a subject; an alien for all others


def _at_least(**numbers: tuple[object, int]) -> None:
    for name, (value, least) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: got {value!r}; give a whole number of at least {least}")


class _Scene:
    """What the pictures of a study share: the model of what is typical, one decoding noise, the default image."""

    def __init__(self, generator: Generator, subject: str, n: int, dims: int, seed: int, progress: bool):
        self.generator, self.subject, self.seed, self.prompt = generator, subject, seed, positive_prompt(subject)
        baseline = sample_prior(generator, self.prompt, n=n, seed=derive_seed(seed, "baseline"), progress=progress)
        self.typicality = TypicalityModel.fit(baseline.embeddings, dims=dims, provenance=baseline.provenance)
        self.noise = derive_seed(seed, "noise")
        surprise = self.typicality.surprise(baseline.embeddings)
        default = int((surprise - surprise.median()).abs().argmin())
        picture = self.decode(baseline.embeddings[default : default + 1])[0]
        self.anchor = Stimulus.blinded("anchor", picture, surprise=float(surprise[default]))

    def decode(self, embeddings: torch.Tensor) -> list[Image.Image]:
        return self.generator.decode(embeddings, prompt=self.prompt, seed=[self.noise] * len(embeddings))

    def run(self, run_seed: int, pullback: bool, snapshot_every: int = 10, target: float | None = None) -> CreativeRun:
        space, rule = make_space("lora", self.generator, self.subject, seed=run_seed), None if pullback else SumRule(0.0)
        options = {"rule": rule, "seed": run_seed, "snapshot_every": snapshot_every, "target": target}
        return CreativeRun(self.generator, self.subject, space, self.typicality, **options)

    def images(self, number: int, steps: Sequence[int], embeddings: torch.Tensor) -> list[Stimulus]:
        """Stimuli of run ``number`` after ``steps``, whose embeddings (N, d) are these."""
        parts = zip(steps, self.decode(embeddings), self.typicality.surprise(embeddings).tolist(), strict=True)
        return [Stimulus.blinded("image", picture, seed=number, iteration=step, surprise=nats) for step, picture, nats in parts]

    def outsiders(self, count: int) -> list[Stimulus]:
        if not count:
            return []
        other, seed = positive_prompt(OUTSIDERS.get(self.subject, "alien")), derive_seed(self.seed, "outsiders")
        embeddings = sample_prior(self.generator, other, n=count, seed=seed, progress=False).embeddings
        return [
            Stimulus.blinded("outsider", image) for image in self.generator.decode(embeddings, prompt=other, seed=self.noise)
        ]


def _once(stimuli: Iterable[Stimulus]) -> list[Stimulus]:
    """Equal pictures once."""
    return list({one.id: one for one in stimuli}.values())


def make_stimuli(
    generator: Generator,
    subject: str = "alien",
    *,
    seeds: int = 5,
    iterations: Sequence[int] = (0, 16, 24, 32, 40, 48, 56, 64),
    pullback: bool = False,
    repeats: int = 2,
    outsiders: int = 2,
    n: int = 2000,
    dims: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> list[Stimulus]:
    """Pictures of several runs at several iterations, one noise seed a run, and what keeps the ratings honest.

    Args:
        seeds: number of runs. iterations: steps of each at which a picture is taken.
        pullback: search with the anchor; without, as in Fig. 4, the creative loss is alone.
        repeats: pictures that are shown twice. outsiders: pictures of something else, which deserve a 0.
        n, dims: of the baseline and its typicality model. seed: of everything.

    Returns:
        The anchor first, then images by run and iteration, then repeats and outsiders.

    Raises:
        ValueError: a number that makes no sense.
    """
    iterations = sorted(set(iterations))
    if not iterations or iterations[0] < 0 or iterations[-1] < 1:
        raise ValueError(f"iterations: got {iterations}; give steps of a run, for example (0, 20, 40)")
    _at_least(seeds=(seeds, 1), repeats=(repeats, 0), outsiders=(outsiders, 0))
    if repeats > seeds * len(iterations):
        raise ValueError(f"repeats: got {repeats}; there are only {seeds * len(iterations)} images to repeat")
    scene, images = _Scene(generator, subject, n, dims, seed, progress), []
    for number in tqdm(range(seeds), desc="runs", unit="run", leave=False, disable=not progress):
        run = scene.run(run_seed := derive_seed(seed, "run", number), pullback, math.gcd(*iterations))
        run.run(iterations[-1], progress=False)
        steps = [step for step in iterations if step in run.snapshots]  # all, unless the loss was no longer finite
        images += scene.images(number, steps, torch.cat([run.sample([run_seed], step) for step in steps]))
    again = [
        Stimulus.blinded("repeat", one.png, of=one.id, seed=one.seed, iteration=one.iteration, surprise=one.surprise)
        for one in random.Random(derive_seed(seed, "repeats")).sample(images, repeats)
    ]
    return _once([scene.anchor, *images, *again, *scene.outsiders(outsiders)])


def dial_stimuli(
    generator: Generator,
    subject: str,
    peak: float,
    *,
    overshoot: float = 3.0,
    runs: int = 6,
    steps: int = 100,
    candidates: int = 8,
    pullback: bool = False,
    outsiders: int = 2,
    n: int = 2000,
    dims: int = 50,
    seed: int = 1,
    progress: bool = True,
) -> list[Stimulus]:
    """The novelty dial: pictures *at* a surprise, for a second round that confirms the first (or does not).

    Each run makes three of one noise seed: the default, one where the surprise has reached ``peak`` (``target=`` of
    ``CreativeRun``), and one at ``overshoot`` times that. ``stimuli.conditions`` tells which is which.

    Args:
        peak: surprise in nats, for example of ``inverted_u`` on the first round. overshoot: factor, above 1.
        runs: new ones: ``seed`` must differ from the first round's. steps: the most that a run may take to get there.
        candidates: noise seeds to choose from: the one whose sample is nearest the peak. Others: as ``make_stimuli``.

    Raises:
        ValueError: a number that makes no sense; a peak below the surprise of plain samples, or not reached in ``steps``.
    """
    _at_least(runs=(runs, 1), steps=(steps, 1), candidates=(candidates, 1), outsiders=(outsiders, 0))
    if not 1 < overshoot < math.inf:
        raise ValueError(f"overshoot: got {overshoot!r}; give a factor above 1")
    scene, images = _Scene(generator, subject, n, dims, seed, progress), []
    if not scene.anchor.surprise < peak < math.inf:
        raise ValueError(f"peak: got {peak!r} nats; give more than a plain sample has, {scene.anchor.surprise:.0f}")
    for number in tqdm(range(runs), desc="runs", unit="run", leave=False, disable=not progress):
        run_seed = derive_seed(seed, "run", number)
        run = scene.run(run_seed, pullback, target=peak).run(steps, progress=False)
        if run.stopped != "target":
            reached = run.history[-1]["surprise"]
            raise ValueError(f"peak: run {number} came to {reached:.0f} of {peak:.0f} nats in {steps} steps; give more steps")
        there, noises = run.steps, [derive_seed(run_seed, "candidate", index) for index in range(candidates)]
        nats = scene.typicality.surprise(run.sample(noises, there))
        noise = noises[int((nats - peak).abs().argmin())]
        run.aim(overshoot * peak).run(steps, progress=False)
        at = (0, there, run.steps)
        embeddings = torch.cat([run.sample([noise], step) for step in at])
        images += scene.images(number, at, embeddings)
    return _once([scene.anchor, *images, *scene.outsiders(outsiders)])
