"""The possible world: strange drawings made from the corpus by a program, without end.

The corpus is what is *typical*. A search that leaves the typical needs something to find: a decoder that has seen nothing
else draws strokes out there, and an image encoder cannot tell a polka-dot dinosaur from a stain. So all parts of Pocket
Kandinsky but the two that say what is typical, the text encoder and the prior, learn from this world too.

A drawing is taken apart and put together again where its edges stay clean, in its SVG source: other palettes, patterns on its
shapes, other proportions, outlines and silhouettes; one half under the other half of something else, a thing that wears a
smaller one, parts of one on another. Picture ``i`` of a seed depends on the two numbers alone, and its record tells how it was
made, from which drawings, and which nouns still hold.

``python -m creativelib.pocket.possible --count 200000`` writes blocks of pictures, their alpha and their records to
``possible/{split}`` in the work folder, goes on where it was interrupted, and takes an hour on one core.
"""

import argparse
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter

from creativelib.pocket import corpus, drawings, taxonomy

CANVAS = 192  # pixels that a drawing is rendered at, before it is warped and made small
SUBJECT_SHARE = 0.75  # of all pictures that begin with one of the eight subjects
BLOCK = 500  # pictures written at once


@dataclass
class Possible:
    """A possible picture: ``image`` (128, 128, 3) uint8 on white, ``alpha`` (128, 128) uint8, and how it was made.

    ``nouns`` are those that still hold: the drawing's own after any change of its looks or of a smaller part, none where a
    half of something else took its place.
    """

    image: np.ndarray
    alpha: np.ndarray
    nouns: list[str]
    sources: list[int] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)

    @property
    def record(self) -> dict:
        """How it was made, as JSON values; ``sources`` are rows of the corpus's records."""
        return {"nouns": self.nouns, "sources": self.sources, "operations": self.operations}


# ---------------------------------------------------------------------------------- putting together
def _placed(body: str, view: tuple, where: tuple, clip: str = "") -> str:
    """A nested SVG that shows the part ``view`` of a drawing in the box ``where``, stretched to it."""
    left, top, width, height = where
    inside = (
        f'<svg x="{left:.3f}" y="{top:.3f}" width="{width:.3f}" height="{height:.3f}" preserveAspectRatio="none" '
        f'overflow="visible" viewBox="{view[0]:.3f} {view[1]:.3f} {view[2]:.3f} {view[3]:.3f}">{body}</svg>'
    )
    return f'<g clip-path="url(#{clip})">{inside}</g>' if clip else inside


def _clip(name: str, left: float, top: float, width: float, height: float) -> str:
    rect = f'<rect x="{left:.3f}" y="{top:.3f}" width="{width:.3f}" height="{height:.3f}"/>'
    return f'<clipPath id="{name}">{rect}</clipPath>'


class PossibleWorld:
    """All possible pictures of one list of sources.

    Args:
        records, sources, images: the corpus, as ``corpus.load`` and ``corpus.load_drawings`` give them.
        split: the split whose drawings may be used: ``"train"``, or ``"held-out"`` for both held-out ones.
        seed: another seed is another world.
    """

    def __init__(self, records: list[dict], sources: list[str], images: np.ndarray, split: str = "train", seed: int = 0):
        self.seed, self.split = seed, split
        self.rows = [i for i, record in enumerate(records) if record["split"].startswith(split)]
        if not self.rows:
            raise ValueError(f"split: got {split!r}, of which the corpus has no drawing; give 'train' or 'held-out'")
        self.records, self.sources, self.images = records, sources, images
        self.by_noun: dict[str, list[int]] = {}
        for row in self.rows:
            self.by_noun.setdefault(records[row]["nouns"][0], []).append(row)
        self.subjects = [noun for noun in taxonomy.SUBJECTS if noun in self.by_noun]
        self.nouns = sorted(self.by_noun)
        self._opened: dict[int, drawings.Source] = {}

    def source(self, row: int) -> drawings.Source:
        """The drawing of one row of the corpus, opened once."""
        if row not in self._opened:
            self._opened[row] = drawings.open_source(row, self.records[row], self.sources[row], np.asarray(self.images[row]))
        return self._opened[row]

    def _any(self, rng: np.random.Generator, noun: str | None = None) -> drawings.Source:
        noun = noun or self.nouns[rng.integers(len(self.nouns))]
        return self.source(self.by_noun[noun][rng.integers(len(self.by_noun[noun]))])

    def picture(self, index: int) -> Possible:
        """Possible picture ``index``, always the same one."""
        for attempt in range(20):
            made = self._try(np.random.default_rng([self.seed, index, attempt]))
            if made is not None:
                return made
        raise RuntimeError(f"possible picture {index} of seed {self.seed} came out blank twenty times")

    def _try(self, rng: np.random.Generator) -> Possible | None:
        subject = self.subjects and rng.random() < SUBJECT_SHARE
        first = self._any(rng, self.subjects[rng.integers(len(self.subjects))] if subject else None)
        noun, made = first.nouns[0], Possible(None, None, list(first.nouns), [first.record])
        left, top, width, height = first.drawn

        def look(source: drawings.Source, name: str, palette: float, pattern: float, style: float) -> str:
            body = source.body
            if rng.random() < palette:
                body = self._recoloured(source, body, rng)
                made.operations.append("palette")
            if rng.random() < pattern and (patterned := drawings.with_pattern(body, source.box, name, rng)):
                body = patterned
                made.operations.append("pattern")
            if rng.random() < style:
                body, kind = drawings.restyled(body, source.box, rng)
                made.operations.append(kind)
            return body

        body = look(first, "p", 0.6, 0.28, 0.12)
        layers, definitions = [], ""
        if rng.random() < 0.25:  # one half of it, the other half of something else
            kin = rng.random() < 0.65
            second = self._any(rng, noun if kin else None)
            other, share = look(second, "q", 0.4, 0.2, 0.0), rng.uniform(0.35, 0.65)
            if rng.random() < 0.6:
                definitions = _clip("upper", -1e4, -1e4, 2e4, 1e4 + top + share * height)
                definitions += _clip("lower", -1e4, top + share * height, 2e4, 2e4)
            else:
                definitions = _clip("upper", -1e4, -1e4, 1e4 + left + share * width, 2e4)
                definitions += _clip("lower", left + share * width, -1e4, 2e4, 2e4)
            ends = ("upper", "lower") if rng.random() < 0.5 else ("lower", "upper")
            layers += [_placed(body, first.drawn, first.drawn, ends[0]), _placed(other, second.drawn, first.drawn, ends[1])]
            made.sources.append(second.record)
            made.operations.append("halves of one kind" if kin else "halves of two kinds")
            made.nouns = [word for word in first.nouns if word in second.nouns] if not kin else [noun]
        elif rng.random() < 0.12:  # one half and its mirror image
            across = left + width / 2
            definitions = _clip("upper", -1e4, -1e4, 1e4 + across, 2e4) + _clip("lower", across, -1e4, 2e4, 2e4)
            plain = _placed(body, first.drawn, first.drawn)
            turned = f'<g transform="translate({2 * across:.3f} 0) scale(-1 1)"><g clip-path="url(#upper)">{plain}</g></g>'
            layers += [f'<g clip-path="url(#upper)">{plain}</g>', turned]
            made.operations.append("mirrored")
        else:
            layers.append(_placed(body, first.drawn, first.drawn))
        if rng.random() < 0.22:  # it wears, or carries, something small
            second = self._any(rng, noun if rng.random() < 0.25 else None)
            body, size = look(second, "r", 0.4, 0.15, 0.0), rng.uniform(0.28, 0.55)
            wide, high = (size * side for side in _fitted(second.drawn, width, height))
            x = left + rng.uniform(-0.15, 1.15) * (width - wide)
            y = top + (rng.uniform(-0.5, 0.1) if rng.random() < 0.5 else rng.uniform(0, 1)) * (height - high)
            layers.append(_placed(body, second.drawn, (x, y, wide, high)))
            made.sources.append(second.record)
            made.operations.append("worn")
        if rng.random() < 0.18:  # parts of another one of its kind, where they would be on it
            second = self._any(rng, noun if rng.random() < 0.6 else None)
            parts = drawings.parts_of(second.body)
            if len(parts) > 1:
                begun = rng.integers(len(parts))
                some = parts[begun : begun + 1 + int(rng.integers(max(1, len(parts) // 2)))]
                layers.append(_placed("".join(some), second.drawn, first.drawn))
                made.sources.append(second.record)
                made.operations.append("parts")
        if rng.random() < 0.08:  # on a badge
            shape, ground = rng.choice(("circle", "rect")), drawings.bright(rng)
            reach = 0.62 * max(width, height)
            x, y = left + width / 2, top + height / 2
            back = {
                "circle": f'<circle cx="{x:.3f}" cy="{y:.3f}" r="{1.15 * reach:.3f}" fill="{ground}"/>',
                "rect": f'<rect x="{x - reach:.3f}" y="{y - reach:.3f}" width="{2 * reach:.3f}" height="{2 * reach:.3f}" '
                f'rx="{0.35 * reach:.3f}" fill="{ground}"/>',
            }[str(shape)]
            layers.insert(0, back)
            made.operations.append("badge")
        wide, high = np.exp(rng.normal(0, 0.16, 2)) if rng.random() < 0.5 else (1.0, 1.0)
        lean = rng.normal(0, 9) if rng.random() < 0.25 else 0.0
        turn = rng.normal(0, 9) if rng.random() < 0.25 else 0.0
        flip = -1 if rng.random() < 0.5 else 1
        made.operations += [
            name for name, done in (("stretched", wide != 1.0), ("leaning", lean != 0.0), ("turned", turn != 0.0)) if done
        ]
        centre = (left + width / 2, top + height / 2)
        move = (
            f"translate({centre[0]:.3f} {centre[1]:.3f}) rotate({turn:.1f}) skewX({lean:.1f}) "
            f"scale({flip * wide:.3f} {high:.3f}) translate({-centre[0]:.3f} {-centre[1]:.3f})"
        )
        reach = 1.7 * max(width, height)
        rgba = _rendered(
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{centre[0] - reach / 2:.3f} {centre[1] - reach / 2:.3f} {reach:.3f} {reach:.3f}" '
            f'width="{CANVAS}" height="{CANVAS}"><defs>{definitions}</defs><g transform="{move}">{"".join(layers)}</g></svg>'
        )
        if rgba is None:
            return None
        if rng.random() < 0.05:
            rgba = _sticker(rgba, drawings.bright(rng) if rng.random() < 0.5 else "#ffffff")
            made.operations.append("sticker")
        rgba = _centred(rgba, rng.uniform(0.85, 1.0))
        if rgba is None:
            return None
        if rng.random() < 0.4:
            rgba = _warped(rgba, rng)
            made.operations.append("warped")
        made.alpha = rgba[..., 3].copy()
        share = made.alpha[..., None].astype(np.float32) / 255
        made.image = np.round(rgba[..., :3] * share + 255 * (1 - share)).astype(np.uint8)
        covered = float((made.image < 245).any(-1).mean())
        made.operations = list(dict.fromkeys(made.operations))
        return made if 0.03 < covered < 0.95 else None

    def _recoloured(self, source: drawings.Source, body: str, rng: np.random.Generator) -> str:
        if not body.startswith("<image"):
            return drawings.new_palette(body, rng)
        image = np.asarray(Image.fromarray(np.asarray(self.images[source.record])).convert("HSV")).copy()
        image[..., 0] += np.uint8(rng.integers(256))  # pixels have no palette: all hues turn together
        image[..., 1] = np.clip(image[..., 1] * rng.uniform(0.7, 1.4), 0, 255).astype(np.uint8)
        return drawings.as_picture(np.asarray(Image.fromarray(image, "HSV").convert("RGB")))


def _fitted(drawn: tuple, width: float, height: float) -> tuple[float, float]:
    """Sides of a drawing scaled to fit a box without changing its proportions."""
    scale = min(width / drawn[2], height / drawn[3])
    return drawn[2] * scale, drawn[3] * scale


def _rendered(document: str) -> np.ndarray | None:
    """(CANVAS, CANVAS, 4) uint8, or None where the document cannot be drawn."""
    import resvg_py

    try:
        return np.asarray(
            Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document, width=CANVAS)))).convert("RGBA")
        )
    except Exception:  # a drawing whose parts make no sense alone; the picture is tried again with other numbers
        return None


def _sticker(rgba: np.ndarray, colour: str) -> np.ndarray:
    """A rim of one colour around the drawing, and a thin grey line around the rim."""
    result = Image.new("RGBA", (rgba.shape[1], rgba.shape[0]))
    for reach, paint in ((15, "#b9bcc4"), (11, colour)):
        rim = Image.new("RGBA", result.size, paint)
        rim.putalpha(Image.fromarray(maximum_filter(rgba[..., 3], reach)).filter(ImageFilter.GaussianBlur(0.8)))
        result.alpha_composite(rim)
    result.alpha_composite(Image.fromarray(rgba, "RGBA"))
    return np.asarray(result)


def _centred(rgba: np.ndarray, share: float) -> np.ndarray | None:
    """The drawn part, its longer side ``share`` of the corpus's, in the middle of (128, 128, 4)."""
    rows, columns = (np.flatnonzero((rgba[..., 3] > 16).any(axis)) for axis in (1, 0))
    if len(rows) < 8 or len(columns) < 8:
        return None
    part = Image.fromarray(rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], "RGBA").convert("RGBa")
    scale = share * drawings.INNER / max(part.size)
    part = part.resize(
        [max(1, round(side * scale)) for side in part.size], Image.Resampling.BOX if scale < 0.5 else Image.Resampling.LANCZOS
    )
    canvas = Image.new("RGBA", (corpus.SIZE,) * 2)
    canvas.paste(part.convert("RGBA"), tuple((corpus.SIZE - side) // 2 for side in part.size))
    return np.asarray(canvas)


def _warped(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture under a smooth displacement of 2 to 8 pixels."""
    side = corpus.SIZE
    coarse = rng.normal(size=(2, 16, 16))
    field = np.stack([gaussian_filter(one, rng.uniform(1.8, 3.6), mode="wrap") for one in coarse])
    field *= rng.uniform(2, 8) / np.abs(field).max()
    field = np.stack(
        [np.asarray(Image.fromarray(one.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)) for one in field]
    )
    where = np.mgrid[:side, :side] + field
    weight = rgba[..., 3:].astype(np.float32) / 255
    coloured = np.dstack([rgba[..., :3] * weight, rgba[..., 3:].astype(np.float32)])  # premultiplied: no dark rims
    moved = np.stack([map_coordinates(coloured[..., c], where, order=1, mode="constant") for c in range(4)], -1)
    weight = np.maximum(moved[..., 3:], 1e-3) / 255
    return np.clip(np.dstack([moved[..., :3] / weight, moved[..., 3:]]), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------- keeping
def make(work: Path, count: int, split: str = "train", seed: int = 0, first: int = 0) -> None:
    """Write pictures ``first`` to ``count`` of a world to ``work/possible/{split}``; goes on where it was stopped."""
    from tqdm.auto import tqdm

    images, records = corpus.load(work)
    world = PossibleWorld(records, corpus.load_drawings(work), images, split, seed)
    folder = Path(work) / "possible" / split
    folder.mkdir(parents=True, exist_ok=True)
    for begun in tqdm(range(first, count, BLOCK), desc=f"possible world, {split}", unit="block", mininterval=5):
        path = folder / f"{begun:07d}.npy"
        if path.exists():
            continue
        made = [world.picture(index) for index in range(begun, min(begun + BLOCK, count))]
        (folder / f"{begun:07d}.json").write_text(json.dumps([one.record for one in made]))
        np.save(folder / f"{begun:07d}.alpha.npy", np.stack([one.alpha for one in made]))
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, np.stack([one.image for one in made]))
        partial.replace(path)


def load(work: Path, split: str = "train") -> tuple[list[np.ndarray], list[dict]]:
    """The blocks of pictures (BLOCK, 128, 128, 3), mapped and not read, and all their records.

    Raises FileNotFoundError with the command that makes them.
    """
    folder = Path(work) / "possible" / split
    paths = sorted(path for path in folder.glob("???????.npy"))
    if not paths:
        raise FileNotFoundError(f"There is no possible world in {folder}. Make it with: python -m creativelib.pocket.possible")
    records = [record for path in paths for record in json.loads(path.with_suffix(".json").read_text())]
    return [np.load(path, mmap_mode="r") for path in paths], records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="work folder (default: %(default)s)")
    parser.add_argument("--count", type=int, default=200_000, help="pictures to learn from (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="begin with this one, for several processes (default: 0)")
    parser.add_argument(
        "--held-out", type=int, default=4000, help="pictures to measure on, made with --first 0 (default: %(default)s)"
    )
    options = parser.parse_args()
    if not options.first:  # the first of several processes makes them
        make(options.work, options.held_out, "held-out")
    make(options.work, options.count, "train", first=options.first)


if __name__ == "__main__":
    main()
