"""The pictures of a rating study: of runs, three or many of each, and of the novelty dial (sections 3 and 7.3)."""

import math
import random
from collections.abc import Iterable, Sequence

import torch
from PIL import Image
from tqdm.auto import tqdm

from creativelib.arguments import whole_number
from creativelib.generator import Generator, positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import SumRule, YesNoChecker, answers_to, load_checker
from creativelib.run import CreativeRun
from creativelib.seeds import derive_seed
from creativelib.spaces import make_space
from creativelib.study.stimuli import Stimuli, Stimulus
from creativelib.typicality import TypicalityModel

OUTSIDERS = {"alien": "vehicle"}  # what is shown as an obvious non-member of a subject; an alien for all others
PLAIN = 32  # pictures from which it is read what the checker says of plain ones
RECOGNISED = 0.9  # share of plain pictures that count as recognised
REACH = (
    80.0  # nats above the mean of plain samples: hardly one of 2,000 of these is as far out, and the subject is mostly there
)


class _Scene:
    """What the pictures of a study share: the model of what is typical, and one decoding noise."""

    def __init__(self, generator: Generator, subject: str, n: int, dims: int, seed: int, progress: bool):
        self.generator, self.subject, self.seed, self.prompt = generator, subject, seed, positive_prompt(subject)
        self._baseline = sample_prior(generator, self.prompt, n=n, seed=derive_seed(seed, "baseline"), progress=progress)
        self.plain = self._baseline.embeddings
        self.typicality = TypicalityModel.fit(self.plain, dims=dims, provenance=self._baseline.provenance)
        self.noise = derive_seed(seed, "noise")

    def decode(self, embeddings: torch.Tensor) -> list[Image.Image]:
        return self.generator.decode(embeddings, prompt=self.prompt, seed=[self.noise] * len(embeddings))

    def anchor(self) -> Stimulus:
        """The plain sample of median surprise, which stands for 1."""
        surprise = self.typicality.surprise(self.plain)
        middle = int((surprise - surprise.median()).abs().argmin())
        return Stimulus.blinded("anchor", self.decode(self.plain[middle : middle + 1])[0], surprise=float(surprise[middle]))

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


class Searches:
    """The runs behind a study's pictures, searched once: the creative loss alone, as in Fig. 4, or with the anchor.

    Args:
        runs: how many. steps: of each. every: steps between those at which pictures can be taken.
        pullback: search with the anchor. n, dims: of the baseline and its typicality model. seed: of everything.

    Raises:
        ValueError: a number that makes no sense. RuntimeError: a run that ended early because its loss was no longer finite.
    """

    def __init__(
        self,
        generator: Generator,
        subject: str,
        *,
        runs: int = 16,
        steps: int = 72,
        every: int = 6,
        pullback: bool = False,
        n: int = 2000,
        dims: int = 50,
        seed: int = 0,
        progress: bool = True,
    ):
        runs, self.steps = whole_number("runs", runs, 1), whole_number("steps", steps, 1)
        whole_number("every", every, 1)
        self.scene, self.seed, self._taken = _Scene(generator, subject, n, dims, seed, progress), seed, {}
        self.pullback = pullback
        self._runs = []
        for number in tqdm(range(runs), desc="runs", unit="run", leave=False, disable=not progress):
            run = self.scene.run(derive_seed(seed, "run", number), pullback, every).run(steps, progress=False)
            if run.stopped:
                raise RuntimeError(f"run {number} of {subject!r} ended after {run.steps} of {steps} steps: {run.stopped}")
            self._runs.append(run)

    def __len__(self) -> int:
        return len(self._runs)

    def pictures(self, number: int, steps: Sequence[int]) -> list[Stimulus]:
        """Of run ``number`` after each of ``steps`` (0: the default), of one noise seed; each is drawn once."""
        run, noise = self._runs[number], [derive_seed(self.seed, "run", number)]
        missing = [step for step in steps if (number, step) not in self._taken]
        if missing:
            embeddings = torch.cat([run.sample(noise, step) if step else run.default(noise) for step in missing])
            for step, one in zip(missing, self.scene.images(number, missing, embeddings), strict=True):
                self._taken[number, step] = one
        return [self._taken[number, step] for step in steps]

    def limit(self, reach: float | None) -> float:
        """Nats at ``reach`` above the mean of plain samples; without end for ``None``. Raises ValueError: not above 0."""
        if reach is not None and not 0 < reach < math.inf:
            raise ValueError(f"reach: got {reach!r}; give nats above the mean of plain samples, or None for no limit")
        return math.inf if reach is None else float(self.scene.typicality.surprise(self.scene.plain).mean()) + reach

    def accepted(self, checker: YesNoChecker, steps: Sequence[int], reach: float | None = None) -> list[int]:
        """For each run the last of ``steps`` whose picture is not beyond ``limit(reach)`` and still shows the subject to the
        checker; else the first: no run is left out for how it looks.

        Recognised is what the checker affirms as much as nine in ten plain pictures, or by its own threshold if that is less.
        """
        most = self.limit(reach)
        ask, plain = self._asked(checker), self.scene.decode(self.scene.plain[:PLAIN])
        plain = answers_to(checker, plain, self.scene.subject)
        least = min(checker.threshold, float(torch.tensor(plain).quantile(1 - RECOGNISED)))
        found = []
        for number in range(len(self)):
            one = {step: self.pictures(number, [step])[0] for step in steps}
            near = (step for step in sorted(steps, reverse=True) if one[step].surprise <= most)
            found.append(next((step for step in near if ask(one[step].image) >= least), min(steps)))
        return found

    def _asked(self, checker: YesNoChecker):
        return lambda picture: checker.check(picture, self.scene.subject).probability

    def study(
        self,
        checker: YesNoChecker | None = None,
        *,
        last: int = 48,
        reach: float | None = REACH,
        repeats: int = 1,
        outsiders: int = 2,
        anchor: bool = False,
    ) -> Stimuli:
        """Three pictures of each run, see ``make_stimuli``; ``design`` says by which rule."""
        first = [step for step in sorted(self._runs[0].snapshots) if 0 < step <= last]
        first = first[len(first) // 3 :]  # what hardly differs from the default is no candidate
        if not first or last >= self.steps:
            raise ValueError(f"last: got {last!r}; give a step at which pictures can be taken, before the last, {self.steps}")
        accepted = self.accepted(checker or load_checker(device=self.scene.generator.device), first, reach)
        images = [self.pictures(number, [0, step, self.steps]) for number, step in enumerate(accepted)]
        most = None if reach is None else self.limit(reach)
        design = {"candidates": first, "reach": reach, "most nats": most, "overshoot": self.steps}
        return self._with_checks(images, repeats, outsiders, anchor, design)

    def trajectory(
        self,
        iterations: Sequence[int],
        runs: int | None = None,
        *,
        repeats: int = 0,
        outsiders: int = 0,
        anchor: bool = False,
    ) -> Stimuli:
        """The design of Fig. 4: pictures of the first ``runs`` at each of ``iterations``, see ``trajectory_stimuli``."""
        known = set(self._runs[0].snapshots)
        if not iterations or not set(iterations) <= known:
            raise ValueError(f"iterations: got {list(iterations)}; pictures can be taken at {sorted(known)}")
        runs = len(self) if runs is None else whole_number("runs", runs, 1, len(self))
        images = [self.pictures(number, sorted(set(iterations))) for number in range(runs)]
        return self._with_checks(images, repeats, outsiders, anchor, {"iterations": sorted(set(iterations))})

    def _with_checks(self, runs: list[list[Stimulus]], repeats: int, outsiders: int, anchor: bool, design: dict) -> Stimuli:
        whole_number("repeats", repeats, 0, min(len(run) for run in runs))
        whole_number("outsiders", outsiders, 0)
        source = random.Random(derive_seed(self.seed, "repeats"))
        chosen = [one for run in runs for one in source.sample(run, repeats)]
        again = [
            Stimulus.blinded("repeat", one.png, of=one.id, seed=one.seed, iteration=one.iteration, surprise=one.surprise)
            for one in chosen
        ]
        anchors = [self.scene.anchor()] if anchor else []
        design = {"subject": self.scene.subject, "runs": len(runs), "seed": self.seed, "pullback": self.pullback} | design
        return _once([*anchors, *(one for run in runs for one in run), *again, *self.scene.outsiders(outsiders)], design)


def _once(stimuli: Iterable[Stimulus], design: dict | None = None) -> Stimuli:
    """Equal pictures once."""
    return Stimuli({one.id: one for one in stimuli}.values(), design)


def make_stimuli(
    generator: Generator,
    subject: str = "alien",
    *,
    runs: int = 16,
    steps: int = 72,
    last: int = 48,
    every: int = 6,
    reach: float | None = REACH,
    checker: YesNoChecker | None = None,
    repeats: int = 1,
    outsiders: int = 2,
    anchor: bool = False,
    **options,
) -> Stimuli:
    """The pictures of a study that can find a rise and a fall: three of each run, ``conditions`` says which is which.

    The default; the creative one, which is the last up to step ``last`` and up to ``reach`` nats above what is plain in which
    the checker still recognises the subject; and the overshoot after ``steps``. With a step alone the weights would decide how
    far out the creative picture lies, and whether anything is left of the subject there. The paper's Fig. 4 has nine of each
    of five runs (``trajectory_stimuli``); most of those say nothing about the rise, and five runs are too few to speak of
    others. Whoever rates sees whole runs (``orders``), default pictures like all others.

    Args:
        runs, steps, every: see ``Searches``. checker: by default the shipped one.
        reach: nats above the mean of plain samples, the most for a creative picture; ``None`` for no limit. ``design`` of what
            is returned says it, and ``save_stimuli`` keeps it.
        repeats: how many pictures of each run can be shown twice. outsiders: pictures of something else, which deserve a 0.
        anchor: the paper's footnote 3: a default picture stands beside every other and *is* 1. The scale is then anchored to
            what it is to measure the rise from; off by default. options: ``pullback``, ``n``, ``dims``, ``seed``, ``progress``.

    Returns:
        Images by run and iteration (after the anchor, if any), then repeats and outsiders.

    Raises:
        ValueError, RuntimeError: as ``Searches``.
    """
    searches = Searches(generator, subject, runs=runs, steps=steps, every=every, **options)
    return searches.study(checker, last=last, reach=reach, repeats=repeats, outsiders=outsiders, anchor=anchor)


def trajectory_stimuli(
    generator: Generator,
    subject: str = "alien",
    *,
    runs: int = 5,
    iterations: Sequence[int] = tuple(range(0, 97, 12)),
    repeats: int = 1,
    outsiders: int = 2,
    anchor: bool = False,
    **options,
) -> Stimuli:
    """The pictures of Fig. 4: of a few runs, iteration by iteration. Arguments and errors as for ``make_stimuli``."""
    iterations = sorted({whole_number("iterations", step, 0) for step in iterations})
    if not iterations or not iterations[-1]:
        raise ValueError(f"iterations: got {iterations}; give steps of a run, for example (0, 20, 40)")
    searches = Searches(generator, subject, runs=runs, steps=iterations[-1], every=math.gcd(*iterations), **options)
    return searches.trajectory(iterations, repeats=repeats, outsiders=outsiders, anchor=anchor)


def _nats(scene: _Scene, run: CreativeRun, noise: int) -> float:
    """Surprise of the sample of one noise seed, as the run stands."""
    return float(scene.typicality.surprise(run.sample([noise], run.steps)))


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
    runs, steps, candidates = (
        whole_number(name, value, 1) for name, value in (("runs", runs), ("steps", steps), ("candidates", candidates))
    )
    whole_number("outsiders", outsiders, 0)
    if not 1 < overshoot < math.inf:
        raise ValueError(f"overshoot: got {overshoot!r}; give a factor above 1")
    scene, images = _Scene(generator, subject, n, dims, seed, progress), []
    if not (middle := float(scene.typicality.surprise(scene.plain).median())) < peak < math.inf:
        raise ValueError(f"peak: got {peak!r} nats; give more than a plain sample has, {middle:.0f}")
    for number in tqdm(range(runs), desc="runs", unit="run", leave=False, disable=not progress):
        run_seed = derive_seed(seed, "run", number)
        run = scene.run(run_seed, pullback, target=peak).run(steps, progress=False)
        if run.stopped != "target":
            reached = run.history[-1]["surprise"]
            raise ValueError(f"peak: run {number} came to {reached:.0f} of {peak:.0f} nats in {steps} steps; give more steps")
        there, noises = run.steps, [derive_seed(run_seed, "candidate", index) for index in range(candidates)]
        nats = scene.typicality.surprise(run.sample(noises, there))
        noise = noises[int((nats - peak).abs().argmin())]
        run.aim(None)
        while run.steps < steps and not run.stopped and _nats(scene, run, noise) < overshoot * peak:
            run.run(run.steps + 1, progress=False)  # until this very picture is there: samples differ
        at = (0, there, run.steps)
        embeddings = torch.cat([run.sample([noise], step) if step else run.default([noise]) for step in at])
        images += scene.images(number, at, embeddings)
    return _once([*images, *scene.outsiders(outsiders)])
