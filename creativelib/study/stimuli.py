"""What is rated: pictures under blinded ids, and the folder of them (section 7.3, S4.1).

Needs no torch, so that rating works on any machine: `rounds` makes the pictures.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from creativelib.widgets import png

CONDITIONS = ("default", "creative", "overshoot")
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


def conditions(stimuli: Iterable[Stimulus]) -> dict[str, str]:
    """Which image of ``dial_stimuli`` is in which of ``CONDITIONS``, by id: in each run the iterations follow each other."""
    images = sorted((one for one in stimuli if one.kind == "image"), key=lambda one: (one.seed, one.iteration))
    runs = [list(run) for _, run in itertools.groupby(images, key=lambda one: one.seed)]
    if not runs or any(len(run) != len(CONDITIONS) for run in runs):
        raise ValueError(f"stimuli: got {[len(run) for run in runs]} images of each run; give those of dial_stimuli")
    return {one.id: condition for run in runs for one, condition in zip(run, CONDITIONS, strict=True)}
