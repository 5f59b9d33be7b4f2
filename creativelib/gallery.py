"""A gallery: results of runs, none picked, each with what is known of it (Figs. 1 and 21 to 25 of the paper)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from creativelib.cli_request import Request
from creativelib.creation import COLUMNS, Studio
from creativelib.figures import picture_grid
from creativelib.metrics.features import features
from creativelib.metrics.memory import Memory
from creativelib.metrics.pictures import stack
from creativelib.run import CreativeRun
from creativelib.run_folder import hold
from creativelib.seeds import derive_seed

SUBJECTS = ("building", "vehicle", "alien", "fruit", "handbag", "chair", "pet", "dinosaur")  # the paper's
STEPS = 50  # within which results show (section 6)


@dataclass(frozen=True)
class Exhibit:
    """A picture, and all that is known of it.

    Attributes:
        image, default: of the result, and of the frozen model for the same noise. number: in its run, from 1.
        subject, run_seed, step, noise_seed, folder: the run that made it, and where it is kept.
        nats: surprise. above: how far over the expected surprise of a plain sample.
        accepted: the checker's P(yes); ``None`` without one.
        nearest, source, cosine: label and set of the training picture that is most like it, and how like, about the corpus's
            mean; index: its place in the memory.
    """

    image: Image.Image = field(repr=False)
    default: Image.Image = field(repr=False)
    number: int
    subject: str
    run_seed: int
    step: int
    noise_seed: int
    folder: str
    nats: float
    above: float
    accepted: float | None
    nearest: str
    source: str
    cosine: float
    index: int

    @property
    def id(self) -> str:
        """Says which picture it is, whenever it is made again."""
        return f"{self.subject.replace(' ', '-')}-seed{self.run_seed}-step{self.step}-{self.number}"

    @property
    def note(self) -> str:
        """Two lines for below the picture."""
        answer = "" if self.accepted is None else f", yes {self.accepted:.0%}"
        nearest = self.nearest if len(self.nearest) <= 15 else f"{self.nearest[:14].rstrip()}…"  # no wider than a picture
        return f"{self.above:+.0f} nats{answer}\n{nearest} {self.cosine:.2f}"

    @property
    def facts(self) -> dict:
        """Everything but the pictures, as JSON values."""
        return {name: value for name, value in vars(self).items() if name not in ("image", "default")} | {"id": self.id}


def find_run(studio: Studio, subject: str, folder: Path, steps: int = STEPS, *, n: int = 5000, seed: int = 0) -> CreativeRun:
    """The run of ``subject`` that is kept in ``folder``, finished; made, or gone on with, where it is not.

    A run there that answers another request, or is of other weights, is replaced.

    Args:
        n: samples of the baseline.
    """
    request = Request(subject=subject, seed=seed, n=n)
    with hold(folder):
        try:
            run = studio.open(request, folder, steps)
        except ValueError:
            run = None
        fresh = run is None
        if fresh:
            run = studio.make(request, folder, steps)
        return run.run(steps, progress=studio.progress, folder=folder, force=fresh)


def exhibits(run: CreativeRun, memory: Memory, count: int = COLUMNS) -> list[Exhibit]:
    """The first ``count`` pictures of a run's result: those that ``creativelib create`` draws of it."""
    seeds = [derive_seed(run.seed, "figure", number) for number in range(count)]
    (embeddings, images), (_, before) = run.draw(seeds), run.draw_default(seeds)
    nats, expected = run.typicality.surprise(embeddings.cpu()).tolist(), run.typicality.expected_surprise()
    index, cosine = memory.nearest(features(stack(images)))
    checker, found = run.checker, []
    for number, image in enumerate(images):
        record = memory.records[index[number]]
        found.append(
            Exhibit(
                image=image,
                default=before[number],
                number=number + 1,
                subject=run.subject,
                run_seed=run.seed,
                step=run.result_step,
                noise_seed=seeds[number],
                folder="" if run.folder is None else str(run.folder),
                nats=nats[number],
                above=nats[number] - expected,
                accepted=None if checker is None else float(checker.check(image, run.subject).probability),
                nearest=record["label"],
                source=record["set"],
                cosine=float(cosine[number]),
                index=int(index[number]),
            )
        )
    return found


def counts_as_yes(run: CreativeRun) -> str:
    """From which probability on, the mean over the pictures of a check, the run's checker accepted it; as a clause."""
    return "not checked" if run.checker is None else f"the checker's yes counts from {run.checker.threshold:.1%} on"


def wall(shown: Sequence[Exhibit], *, traced: bool = False, title: str = "") -> Figure:
    """Two rows for each subject, the default above the result of the same noise, with the notes below the latter."""
    rows, notes = {}, {}
    for one in shown:
        rows.setdefault(f"{one.subject}\ndefault", []).append(one.default)
        rows.setdefault(f"{one.subject}\ncreative", []).append(one.image)
        notes.setdefault(f"{one.subject}\ncreative", []).append(one.note)
    return picture_grid(rows, notes=notes, traced=traced, title=title, side=1.15)


def table(shown: Sequence[Exhibit]) -> list[str]:
    """The exhibits as lines of a Markdown table."""
    heads = ("picture", "nats", "above plain", "checker: yes", "nearest training picture", "set", "cosine")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in shown:
        answer = "not asked" if one.accepted is None else f"{one.accepted:.0%}"
        numbers = f"{one.nats:.1f} | {one.above:+.1f} | {answer}"
        lines.append(f"| {one.number} | {numbers} | {one.nearest} | {one.source} | {one.cosine:.2f} |")
    return lines
