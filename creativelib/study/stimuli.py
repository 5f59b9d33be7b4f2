"""What is rated: pictures along creative runs under blinded ids, with checks of attention among them (section 7.3, S4.1)."""

import hashlib
import io
import itertools
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from PIL import Image
from tqdm.auto import tqdm

from creativelib.generator import Generator, positive_prompt
from creativelib.prior_sampling import derive_seed, sample_prior
from creativelib.pullback import SumRule
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel
from creativelib.widgets import png

OUTSIDERS = {"alien": "vehicle"}  # what is shown as an obvious non-member of a subject; an alien for all others
CONDITIONS = ("default", "peak", "overshoot")
FORMAT = "creativelib stimuli 1"


@dataclass(frozen=True)
class Stimulus:
    """A picture to rate, and what a rater must not see of it.

    Attributes:
        id: blinded: a hash of the picture, so that equal ids are equal pictures in everybody's store.
        kind: "image"; "anchor", the default image that stands for 1 (boring); "repeat" of another; "outsider", no member.
        png: the picture's file. seed: of the run. iteration: of the run, in steps. surprise: in nats.
        of: the id of what a repeat repeats.
    """

    id: str
    kind: str
    png: bytes = field(repr=False)
    seed: int | None = None
    iteration: int | None = None
    surprise: float | None = None
    of: str | None = None

    @property
    def facts(self) -> dict:
        """What ``Store.add_stimuli`` keeps: everything but the picture, and its sha256."""
        facts = asdict(self)
        return facts | {"sha256": hashlib.sha256(facts.pop("png")).hexdigest()}

    @property
    def image(self) -> Image.Image:
        """The picture."""
        return Image.open(io.BytesIO(self.png)).convert("RGB")


def _stimulus(kind: str, image: Image.Image | bytes, **facts) -> Stimulus:
    if not isinstance(image, bytes):
        image = png(image)
    return Stimulus(hashlib.sha256(kind.encode() + image).hexdigest()[:12], kind, image, **facts)


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
        self.anchor = _stimulus("anchor", picture, surprise=float(surprise[default]))

    def decode(self, embeddings: torch.Tensor) -> list[Image.Image]:
        return self.generator.decode(embeddings, prompt=self.prompt, seed=[self.noise] * len(embeddings))

    def run(self, run_seed: int, pullback: bool, snapshot_every: int = 10, target: float | None = None) -> CreativeRun:
        space, rule = make_space("lora", self.generator, self.subject, seed=run_seed), None if pullback else SumRule(0.0)
        options = {"rule": rule, "seed": run_seed, "snapshot_every": snapshot_every, "target": target}
        return CreativeRun(self.generator, self.subject, space, self.typicality, **options)

    def images(self, number: int, steps: Sequence[int], embeddings: torch.Tensor) -> list[Stimulus]:
        """Stimuli of run ``number`` after ``steps``, whose embeddings (N, d) are these."""
        parts = zip(steps, self.decode(embeddings), self.typicality.surprise(embeddings).tolist(), strict=True)
        return [_stimulus("image", picture, seed=number, iteration=step, surprise=nats) for step, picture, nats in parts]

    def outsiders(self, count: int) -> list[Stimulus]:
        if not count:
            return []
        other, seed = positive_prompt(OUTSIDERS.get(self.subject, "alien")), derive_seed(self.seed, "outsiders")
        embeddings = sample_prior(self.generator, other, n=count, seed=seed, progress=False).embeddings
        return [_stimulus("outsider", image) for image in self.generator.decode(embeddings, prompt=other, seed=self.noise)]


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
        _stimulus("repeat", one.png, of=one.id, seed=one.seed, iteration=one.iteration, surprise=one.surprise)
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
    ``CreativeRun``), and one at ``overshoot`` times that. ``conditions`` tells which is which.

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


def conditions(stimuli: Iterable[Stimulus]) -> dict[str, str]:
    """Which image of ``dial_stimuli`` is in which of ``CONDITIONS``, by id: in each run the iterations follow each other."""
    images = sorted((one for one in stimuli if one.kind == "image"), key=lambda one: (one.seed, one.iteration))
    runs = [list(run) for _, run in itertools.groupby(images, key=lambda one: one.seed)]
    if not runs or any(len(run) != len(CONDITIONS) for run in runs):
        raise ValueError(f"stimuli: got {[len(run) for run in runs]} images of each run; give those of dial_stimuli")
    return {one.id: condition for run in runs for one, condition in zip(run, CONDITIONS, strict=True)}


def rating_order(stimuli: Sequence[Stimulus], rater: int, *, count: int | None = None, seed: int = 0) -> list[str]:
    """The order in which rater number ``rater`` (0, 1, ...) sees the ids; the anchor stands beside every one and is left out.

    Balanced: of as many raters as there are images each sees another one first, so that all get nearly the same number of
    ratings, however few each person rates and however soon people stop. Random: after these the order is drawn anew. Everybody
    gets all outsiders, at places of their own; a repeat comes where its original does, far from it.

    Args:
        count: how many pictures the rater gets; all by default.

    Raises:
        ValueError: a rater below 0; a count with no room for an image beside the outsiders, or above the number of pictures.
    """
    if isinstance(rater, bool) or not isinstance(rater, int) or rater < 0:
        raise ValueError(f"rater: got {rater!r}; give their number, 0 or more")
    images, outsiders = ([one.id for one in stimuli if one.kind == kind] for kind in ("image", "outsider"))
    again = {one.of: one.id for one in stimuli if one.kind == "repeat"}
    least, most = len(outsiders) + 1, len(outsiders) + len(images) + len(again)
    count = most if count is None else count
    if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= most:
        raise ValueError(f"count: got {count!r}; give a whole number from {least} to {most}, or None for all")
    block, turn = divmod(rater, len(images))
    random.Random(derive_seed(seed, "order", block)).shuffle(images)
    order, room = [], count - len(outsiders)
    for image in images[turn:] + images[:turn]:
        if len(order) + sum(one in again for one in order) < room:
            order.append(image)
    source, repeated = random.Random(derive_seed(seed, "checks", rater)), [one for one in order if one in again]
    for image in repeated[: room - len(order)]:
        distance = {place: abs(place - order.index(image)) for place in range(1, len(order) + 1)}
        far = [place for place, steps in distance.items() if steps > len(order) // 4]
        order.insert(source.choice(far or [len(order)]), again[image])
    for outsider in outsiders:
        order.insert(source.randrange(1, len(order) + 1), outsider)
    return order


def save_stimuli(stimuli: Sequence[Stimulus], folder: str | Path) -> Path:
    """Write a PNG for each and ``stimuli.json``, last, so that a folder with that file is whole; returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for one in stimuli:
        (folder / f"{one.id}.png").write_bytes(one.png)
    partial = folder / "stimuli.json.partial"
    partial.write_text(json.dumps({"format": FORMAT, "stimuli": [one.facts for one in stimuli]}, indent=1))
    partial.replace(folder / "stimuli.json")
    return folder


def load_stimuli(folder: str | Path) -> list[Stimulus]:
    """What ``save_stimuli`` wrote.

    Raises:
        FileNotFoundError: no such folder, or a picture is missing. ValueError: another file, or a picture that was changed.
    """
    path = Path(folder) / "stimuli.json"
    if not path.is_file():
        raise FileNotFoundError(f"folder: there is no {path}; make stimuli with make_stimuli and save_stimuli")
    try:
        facts = json.loads(path.read_text())
        rows = facts["stimuli"] if facts["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError):
        rows = None
    if rows is None:
        raise ValueError(f"folder: {path} is no list of stimuli ({FORMAT!r}); choose another folder")
    result = []
    for row in rows:
        png = Path(folder) / f"{row['id']}.png"
        if not png.is_file():
            raise FileNotFoundError(f"folder: the picture {png} is missing; fetch the whole folder")
        digest = row.pop("sha256")
        result.append(Stimulus(png=png.read_bytes(), **row))
        if hashlib.sha256(result[-1].png).hexdigest() != digest:
            raise ValueError(f"folder: the picture {png} was changed; fetch the folder again")
    return result
