"""What is rated: pictures under blinded ids, and the folder of them (section 7.3, S4.1).

Needs no torch, so that rating works on any machine: `rounds` makes the pictures.
"""

import hashlib
import io
import itertools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from creativelib.disk import sync
from creativelib.widgets import png

CONDITIONS = ("default", "creative", "overshoot")
FORMAT = "creativelib stimuli 2"


@dataclass(frozen=True)
class Stimulus:
    """A picture to rate, and what a rater must not see of it.

    Attributes:
        id: blinded: a hash of the picture, so that equal ids are equal pictures in everybody's store.
        kind: "image"; "repeat" of another; "outsider", no member; "anchor", a default image that stands for 1 (footnote 3).
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

    def __post_init__(self):
        for name in ("seed", "iteration"):  # a NumPy number would be another in a database
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else operator.index(value))
        object.__setattr__(self, "surprise", None if self.surprise is None else float(self.surprise))

    @classmethod
    def blinded(cls, kind: str, image: Image.Image | bytes, **facts) -> "Stimulus":
        """The stimulus of a picture (or of its PNG file), under an id that says nothing."""
        if not isinstance(image, bytes):
            image = png(image)
        return cls(hashlib.sha256(kind.encode() + image).hexdigest()[:12], kind, image, **facts)

    @property
    def facts(self) -> dict:
        """What ``Store.add_stimuli`` keeps: everything but the picture, and its sha256."""
        facts = asdict(self)
        return facts | {"sha256": hashlib.sha256(facts.pop("png")).hexdigest()}

    @property
    def image(self) -> Image.Image:
        """The picture."""
        return Image.open(io.BytesIO(self.png)).convert("RGB")


class Stimuli(list):
    """Stimuli, and ``design``: by which rule they were made (names and numbers), so that a study can say so afterwards."""

    def __init__(self, stimuli: Iterable[Stimulus] = (), design: Mapping | None = None):
        super().__init__(stimuli)
        self.design = dict(design or {})


def save_stimuli(stimuli: Sequence[Stimulus], folder: str | Path) -> Path:
    """Write ``pictures/`` and ``key.json``, last, so that a folder with that file is whole; returns the folder.

    ``pictures`` holds pixels under blinded ids: it is all that may be handed out. The key says which picture is of what kind,
    run, iteration and surprise, and by which rule they were made: it stays with who makes the study.
    """
    folder = Path(folder).expanduser()
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for one in sorted(stimuli, key=lambda one: one.id):  # files keep the time: run by run it would say what is what
        path = folder / "pictures" / f"{one.id}.png"
        path.write_bytes(one.png)
        sync(path)
    partial = folder / "key.json.partial"
    facts = {"format": FORMAT, "design": getattr(stimuli, "design", {}), "stimuli": [one.facts for one in stimuli]}
    partial.write_text(json.dumps(facts, indent=1))
    sync(partial)
    partial.replace(folder / "key.json")
    return folder


def load_stimuli(folder: str | Path) -> Stimuli:
    """What ``save_stimuli`` wrote.

    Raises:
        FileNotFoundError: no such folder, or a picture is missing. ValueError: another file, or a picture that was changed.
    """
    folder = Path(folder).expanduser()
    path = folder / "key.json"
    if not path.is_file():
        old = ", but stimuli.json of an older version: make the pictures anew" if (folder / "stimuli.json").is_file() else ""
        raise FileNotFoundError(f"folder: there is no {path}{old or '; make stimuli with make_stimuli and save_stimuli'}")
    try:
        facts = json.loads(path.read_text())
        rows = facts["stimuli"] if facts["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError):
        rows = None
    if rows is None:
        raise ValueError(f"folder: {path} is no list of stimuli ({FORMAT!r}); choose another folder")
    result = Stimuli(design=facts.get("design"))
    for row in rows:
        png = folder / "pictures" / f"{row['id']}.png"
        if not png.is_file():
            raise FileNotFoundError(f"folder: the picture {png} is missing; fetch the whole folder")
        digest = row.pop("sha256")
        result.append(Stimulus(png=png.read_bytes(), **row))
        if hashlib.sha256(result[-1].png).hexdigest() != digest:
            raise ValueError(f"folder: the picture {png} was changed; fetch the folder again")
    return result


def conditions(stimuli: Iterable[Stimulus], names: Sequence[str] = CONDITIONS) -> dict[str, str]:
    """Which image is in which condition, by id: in each run the iterations follow each other as ``names`` do.

    Raises:
        ValueError: a run with more or fewer images than ``names``, such as those of ``trajectory_stimuli``.
    """
    images = sorted((one for one in stimuli if one.kind == "image"), key=lambda one: (one.seed, one.iteration))
    runs = [list(run) for _, run in itertools.groupby(images, key=lambda one: one.seed)]
    if not runs or any(len(run) != len(names) for run in runs):
        raise ValueError(
            f"stimuli: got {[len(run) for run in runs]} images of each run; give those of make_stimuli or dial_stimuli, "
            f"one for each of {tuple(names)}"
        )
    return {one.id: condition for run in runs for one, condition in zip(run, names, strict=True)}
