"""Drawings that can be taken apart: the SVG source of a corpus picture, its parts, and other looks for it."""

import base64
import colorsys
import io
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import label

from creativelib.pocket import corpus

INNER = corpus.SIZE - 2 * corpus.MARGIN
COLOUR = re.compile(r"#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")
FILL = re.compile(r'fill="(#[0-9a-fA-F]{3,6}|url\(#[^)"]+\))"')


@dataclass(frozen=True)
class Source:
    """A drawing that can be taken apart.

    Attributes:
        record: its row of the corpus. body: what stands inside its SVG document. box: its viewBox (left, top, width, height).
        drawn: the part of it that is not blank, in the same units.
    """

    record: int
    nouns: tuple[str, ...]
    body: str
    box: tuple[float, float, float, float]
    drawn: tuple[float, float, float, float]


def open_source(row: int, record: dict, drawing: str, image: np.ndarray) -> Source:
    """The source of one corpus drawing: its SVG text, or, for a picture file or a large drawing, its pixels as one part."""
    nouns = tuple(record["nouns"])
    if drawing.startswith("<svg"):
        box = tuple(float(number) for number in re.search(r'viewBox="([^"]+)"', drawing).group(1).split())
        body = drawing[drawing.index(">") + 1 : drawing.rindex("</svg>")]
        body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>d{row}", body)  # two drawings in one document share no name
    else:
        box = (0.0, 0.0, float(corpus.SIZE), float(corpus.SIZE))
        body = as_picture(image)
    covered = (image < 245).any(-1)
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    if drawing.startswith("<svg"):  # where ``corpus.on_white`` put it
        scale = max(box[2:]) / INNER
        left, top = (box[i] - (corpus.SIZE * scale - box[2 + i]) / 2 for i in (0, 1))
    else:
        scale, left, top = 1.0, 0.0, 0.0
    drawn = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
    drawn = (left + drawn[0] * scale, top + drawn[1] * scale, drawn[2] * scale, drawn[3] * scale)
    return Source(row, nouns, body, box, drawn)


def as_picture(image: np.ndarray) -> str:
    """Pixels (128, 128, 3) as an SVG image whose white surroundings are transparent."""
    white = np.pad((image > 250).all(-1), 1, constant_values=True)
    regions, _ = label(white)
    alpha = np.where(regions == regions[0, 0], 0, 255).astype(np.uint8)[1:-1, 1:-1]
    soft = np.asarray(Image.fromarray(alpha).filter(ImageFilter.GaussianBlur(0.6)))
    rgba = np.dstack([image, np.minimum(soft, alpha)])
    buffer = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(buffer, "PNG", compress_level=1)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f'<image width="{corpus.SIZE}" height="{corpus.SIZE}" href="data:image/png;base64,{text}"/>'


def parts_of(body: str) -> list[str]:
    """The top-level shapes of a drawing, in the order that they are painted; definitions stay with each of them."""
    definitions = "".join(re.findall(r"<defs>.*?</defs>", body, re.S))
    shapes = re.sub(r"<defs>.*?</defs>", "", body, flags=re.S)
    while (inner := re.fullmatch(r"\s*(<g\b[^>]*>)(.*)</g>\s*", shapes, re.S)) and _balanced(inner.group(2)):
        opening, shapes = inner.groups()
        return [definitions + opening + shape + "</g>" for shape in _top_level(shapes)]
    return [definitions + shape for shape in _top_level(shapes)]


def _balanced(text: str) -> bool:
    depth = 0
    for tag in re.finditer(r"<(/?)g\b[^>]*?(/?)>", text):
        depth += -1 if tag.group(1) else 0 if tag.group(2) else 1
        if depth < 0:
            return False
    return depth == 0


def _top_level(text: str) -> list[str]:
    shapes, depth, begun = [], 0, 0
    for tag in re.finditer(r"<(/?)([a-zA-Z]+)\b[^>]*?(/?)>", text):
        if not tag.group(1) and depth == 0:
            begun = tag.start()
        depth += -1 if tag.group(1) else 0 if tag.group(3) else 1
        if depth == 0:
            shapes.append(text[begun : tag.end()])
    return shapes


# ---------------------------------------------------------------------------------- looks
def _rgb(colour: str) -> tuple[float, float, float]:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return tuple(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))


def _hex(rgb) -> str:
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, value))):02x}" for value in rgb)


def bright(rng: np.random.Generator) -> str:
    """Any colour that is neither black nor white."""
    return _hex(colorsys.hls_to_rgb(rng.random(), rng.uniform(0.25, 0.75), rng.uniform(0.3, 1.0)))


def new_palette(body: str, rng: np.random.Generator) -> str:
    """All colours turned in hue: together, or each twelfth of the wheel by an angle of its own; some in lightness too."""
    together, turn = rng.random() < 0.4, rng.random()
    turns = np.full(13, turn) if together else rng.random(13)
    lift = np.where(rng.random(13) < 0.35, rng.normal(0, 0.18, 13), 0.0)
    stretch = rng.uniform(0.7, 1.4)
    paint_grey = rng.random() < 0.3

    def other(match: re.Match) -> str:
        hue, light, saturation = colorsys.rgb_to_hls(*_rgb(match.group()))
        grey = saturation < 0.12
        place = 12 if grey else int(hue * 12) % 12
        if grey and not (paint_grey and 0.15 < light < 0.85):
            return match.group()
        saturation = 0.6 if grey else saturation
        light = light if light > 0.93 else min(0.92, max(0.08, light + lift[place]))
        return _hex(colorsys.hls_to_rgb((hue + turns[place]) % 1, light, min(1.0, saturation * stretch)))

    return COLOUR.sub(other, body)


def with_pattern(body: str, box: tuple, name: str, rng: np.random.Generator) -> str | None:
    """Stripes, dots, checks or waves on one or two of the larger fills; None where nothing is filled."""
    fills = list(dict.fromkeys(FILL.findall(body)))
    if not fills:
        return None
    chosen = [fills[i] for i in rng.permutation(min(len(fills), 4))[: 1 + (rng.random() < 0.4)]]
    size = max(box[2:]) * rng.uniform(1 / 22, 1 / 8)
    for number, fill in enumerate(chosen):
        ground = fill if fill.startswith("#") and rng.random() < 0.7 else bright(rng)
        ink, half, kind = bright(rng), size / 2, rng.choice(("stripes", "dots", "checks", "waves"))
        shape = {
            "stripes": f'<rect width="{half:.3f}" height="{size:.3f}" fill="{ink}"/>',
            "dots": f'<circle cx="{half:.3f}" cy="{half:.3f}" r="{size * rng.uniform(0.22, 0.36):.3f}" fill="{ink}"/>',
            "checks": f'<path d="M0 0h{half:.3f}v{size:.3f}h{half:.3f}v-{half:.3f}H0z" fill="{ink}"/>',
            "waves": f'<path d="M0 {half:.3f}q{half / 2:.3f} -{half:.3f} {half:.3f} 0t{half:.3f} 0" fill="none" '
            f'stroke="{ink}" stroke-width="{size * 0.3:.3f}"/>',
        }[kind]
        turn = rng.uniform(0, 180) if kind != "dots" else rng.uniform(0, 45)
        pattern = (
            f'<pattern id="{name}{number}" width="{size:.3f}" height="{size:.3f}" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate({turn:.0f})"><rect width="{size:.3f}" height="{size:.3f}" fill="{ground}"/>{shape}'
            "</pattern>"
        )
        body = f"<defs>{pattern}</defs>" + body.replace(f'fill="{fill}"', f'fill="url(#{name}{number})"')
    return body


def restyled(body: str, box: tuple, rng: np.random.Generator) -> tuple[str, str]:
    """The drawing in another style, and the name of that style: outlined, line, duotone, silhouette."""
    kind = str(rng.choice(("outlined", "outlined", "line", "duotone", "silhouette")))
    width = max(box[2:]) * rng.uniform(0.012, 0.03)
    ink = "#26242b" if rng.random() < 0.6 else bright(rng)
    if kind == "outlined":
        return f'<g stroke="{ink}" stroke-width="{width:.3f}" stroke-linejoin="round">{body}</g>', kind
    dark, pale = _rgb(bright(rng)), _rgb(_hex(colorsys.hls_to_rgb(rng.random(), rng.uniform(0.8, 0.95), 0.9)))
    if kind == "line":
        emptied = FILL.sub(lambda match: match.group() if match.group(1) == "none" else f'fill="{_hex(pale)}"', body)
        return f'<g stroke="{ink}" stroke-width="{width:.3f}" stroke-linejoin="round">{emptied}</g>', kind

    def toned(match: re.Match) -> str:
        light = sum(_rgb(match.group())) / 3
        share = 0.0 if kind == "silhouette" and light < 0.9 else light
        return _hex(tuple(d + (p - d) * share for d, p in zip(dark, pale, strict=True)))

    return COLOUR.sub(toned, body), kind
