"""What is rated: pictures along creative runs under blinded ids, with checks of attention among them (section 7.3, S4.1)."""

import hashlib
import io
import json
import math
import random
from collections.abc import Sequence
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


def make_stimuli(
    generator: Generator,
    subject: str = "alien",
    *,
    seeds: int = 5,
    iterations: Sequence[int] = (0, 20, 40, 60, 80, 100),
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
    for name, value, least in (("seeds", seeds, 1), ("repeats", repeats, 0), ("outsiders", outsiders, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: got {value!r}; give a whole number of at least {least}")
    if repeats > seeds * len(iterations):
        raise ValueError(f"repeats: got {repeats}; there are only {seeds * len(iterations)} images to repeat")
    prompt = positive_prompt(subject)
    baseline = sample_prior(generator, prompt, n=n, seed=derive_seed(seed, "baseline"), progress=progress)
    typicality = TypicalityModel.fit(baseline.embeddings, dims=dims, provenance=baseline.provenance)
    surprise = typicality.surprise(baseline.embeddings)
    default = int((surprise - surprise.median()).abs().argmin())
    noise = derive_seed(seed, "noise")
    picture = generator.decode(baseline.embeddings[default : default + 1], prompt=prompt, seed=noise)[0]
    result = [_stimulus("anchor", picture, surprise=float(surprise[default]))]

    images = []
    for number in tqdm(range(seeds), desc="runs", unit="run", disable=not progress):
        run_seed = derive_seed(seed, "run", number)
        space = make_space("lora", generator, subject, seed=run_seed)
        rule = None if pullback else SumRule(0.0)
        every = math.gcd(*iterations)
        run = CreativeRun(generator, subject, space, typicality, rule=rule, seed=run_seed, snapshot_every=every)
        run.run(iterations[-1], progress=False)
        steps = [step for step in iterations if step in run.snapshots]  # all, unless the loss was no longer finite
        embeddings = torch.cat([run.sample([run_seed], step) for step in steps])
        pictures = generator.decode(embeddings, prompt=prompt, seed=[noise] * len(steps))
        nats = typicality.surprise(embeddings).tolist()
        images += [
            _stimulus("image", picture, seed=number, iteration=step, surprise=value)
            for step, picture, value in zip(steps, pictures, nats, strict=True)
        ]
    source = random.Random(derive_seed(seed, "repeats"))
    result += images
    for one in source.sample(images, repeats):
        facts = {"seed": one.seed, "iteration": one.iteration, "surprise": one.surprise}
        result.append(_stimulus("repeat", one.png, of=one.id, **facts))
    if outsiders:
        other = positive_prompt(OUTSIDERS.get(subject, "alien"))
        embeddings = sample_prior(generator, other, n=outsiders, seed=derive_seed(seed, "outsiders"), progress=False).embeddings
        result += [_stimulus("outsider", image) for image in generator.decode(embeddings, prompt=other, seed=noise)]
    return list({one.id: one for one in result}.values())  # equal pictures once


def rating_order(stimuli: Sequence[Stimulus], rater: int, *, seed: int = 0) -> list[str]:
    """The order in which rater number ``rater`` (0, 1, ...) sees the ids; the anchor stands beside every one and is left out.

    Balanced: of as many raters as there are stimuli each sees another one first, so that all get nearly the same number of
    ratings however soon people stop. Random: after these the order is drawn anew. A repeat never stands near its original.

    Raises:
        ValueError: a rater below 0.
    """
    if isinstance(rater, bool) or not isinstance(rater, int) or rater < 0:
        raise ValueError(f"rater: got {rater!r}; give their number, 0 or more")
    shown = [one for one in stimuli if one.kind != "anchor"]
    block, turn = divmod(rater, len(shown))
    source, order = random.Random(derive_seed(seed, "order", block)), list(range(len(shown)))
    pairs = [(index, [one.id for one in shown].index(one.of)) for index, one in enumerate(shown) if one.of]
    apart = len(shown) // 4
    for _ in range(10_000):
        source.shuffle(order)
        place = {index: position for position, index in enumerate(order)}
        gaps = [abs(place[a] - place[b]) for a, b in pairs]
        if all(apart <= gap <= len(shown) - apart for gap in gaps):  # in a circle: each rater starts elsewhere in it
            break
    return [shown[index].id for index in order[turn:] + order[:turn]]


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
