"""The finish: a decoder's picture of a drawing, traced to flat shapes with clean contours. It is display only.

Judge, checker, metrics and the method see the picture as it was decoded; a figure that shows traced ones says so.
"""

import dataclasses
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
import vtracer
from PIL import Image, ImageFilter
from scipy import ndimage
from scipy.cluster.hierarchy import fcluster, linkage

from creativelib.storage import replace

SIDE = 512  # pixels of a finished picture
COARSER = 3  # times that a document is made shorter before it is kept as it is
CAPTION = "pictures are traced for display"
WHITE = np.array([100.0, 0, 0])  # paper, in CIE Lab
# sRGB (IEC 61966-2-1) to linear light; that to XYZ over its white D65
LINEAR = np.where((value := np.arange(256) / 255) <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


@dataclass(frozen=True)
class Tracing:
    """How pictures are traced; lengths in pixels of the picture. The values were chosen by ``python -m bench.finish``.

    Attributes:
        contrast, radius: what blur took from edges and thin lines is given back by an unsharp mask, in percent.
        enlarge: contours are sought on a picture so many times as large, so that they run between the pixels.
        reach: how far a pixel on an edge moves. blur: of the edges that it moves away from.
        apart: groups of colours no wider than this become one (Delta E).
        paper: colours nearer than this to white become white.
        speck: islands of less than its square, in enlarged pixels, are left out. splice: degrees that a curve turns before
            the tracer begins another; more is shorter.
        most: bytes of a document; a longer one is traced again, up to ``COARSER`` times, with a larger ``apart``. Specks
            stay: a pattern is made of them.
    """

    contrast: int = 100
    radius: float = 1.5
    enlarge: int = 2
    reach: float = 1.5
    blur: float = 1.0
    apart: float = 16.0
    paper: float = 4.0
    speck: int = 5
    splice: int = 80
    most: int = 20_000


def trace(image: Image.Image, tracing: Tracing = Tracing()) -> str:
    """The picture as an SVG document of flat shapes on white, ``SIDE`` units high and wide by default; deterministic.

    Blur is undone where it can be: by contrast, then by moving each pixel off the edge that it lies on, until edges are
    steps. Of the colours that are left, near ones become one. A tracer turns each field of one colour into a path.

    Raises:
        ValueError: ``image`` is no picture, or smaller than 8 x 8 pixels.
    """
    if not isinstance(image, Image.Image) or min(image.size) < 8:
        got = f"{image.size[0]} x {image.size[1]} pixels" if isinstance(image, Image.Image) else type(image).__name__
        raise ValueError(f"image: got {got}; give a PIL picture of at least 8 x 8 pixels")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    crisp = page.convert("RGB").filter(ImageFilter.UnsharpMask(tracing.radius, tracing.contrast, threshold=0))
    steep = without_slopes(np.asarray(crisp), tracing)
    places, found = lab(steep), present(steep, tracing)
    for _ in range(1 + COARSER):
        colours = palette(*found, tracing)
        document = traced_fields(nearest(places, lab(colours)), colours, tracing)
        if len(document) <= tracing.most:
            break
        coarser = max(1.2, (len(document) / max(1, tracing.most)) ** 0.8)
        tracing = dataclasses.replace(tracing, apart=coarser * tracing.apart)
    return document


def without_slopes(pixels: np.ndarray, tracing: Tracing) -> np.ndarray:
    """(H, W, 3) uint8, enlarged, with steps where slopes were: a pixel takes the colour found ``reach`` pixels down the
    gradient of the edge strength, which is nearest the flat field that it belongs to. Fields without edges stay.
    """
    height, width = (side * tracing.enlarge for side in pixels.shape[:2])
    channels = np.moveaxis(lab(pixels), -1, 0)
    strength = np.sqrt(sum(ndimage.gaussian_gradient_magnitude(channel, tracing.blur) ** 2 for channel in channels))
    enlarged = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    strength = np.asarray(Image.fromarray(strength.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))
    down, across = np.gradient(strength)
    step = tracing.reach * tracing.enlarge / (np.hypot(down, across) + 0.5 / tracing.enlarge)
    source, result = np.asarray(enlarged), np.array(enlarged)
    moved = np.hypot(down, across) * step > 0.1 * tracing.enlarge
    rows, columns = np.nonzero(moved)
    where = [rows - (down * step)[moved], columns - (across * step)[moved]]
    for channel in range(3):
        result[moved, channel] = ndimage.map_coordinates(source[..., channel], where, order=1, mode="nearest")
    return result


def present(pixels: np.ndarray, tracing: Tracing, most: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """The picture's own colours but white, (K, 3), at most so many, and of how many pixels they are, (K,)."""
    some = Image.fromarray(np.ascontiguousarray(pixels[1::3, 1::3]))
    found = some.quantize(most, method=Image.Quantize.MEDIANCUT, kmeans=1)
    counts = np.array(found.histogram()[: len(found.getpalette()) // 3])
    colours = np.array(found.getpalette()).reshape(-1, 3)
    drawn = (counts > 0) & (np.linalg.norm(lab(colours.astype(np.uint8)) - WHITE, axis=1) >= tracing.paper)
    return colours[drawn], counts[drawn]


def palette(colours: np.ndarray, counts: np.ndarray, tracing: Tracing) -> np.ndarray:
    """White, and of ``colours`` (K, 3) with their ``counts`` of pixels (K,) the means of those within ``tracing.apart`` of each
    other: uint8.
    """
    if len(colours) > 1:
        group = fcluster(linkage(lab(colours.astype(np.uint8)), "complete"), tracing.apart, "distance") - 1
        colours = (
            np.stack([np.bincount(group, counts * channel) for channel in colours.T], 1) / np.bincount(group, counts)[:, None]
        )
    return np.concatenate([np.full((1, 3), 255), np.rint(colours)]).astype(np.uint8)


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest of centres (K, 3) for points (..., 3)."""
    return ((centres**2).sum(-1) - 2 * points @ centres.T).argmin(-1)


def lab(pixels: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of sRGB pixels (..., 3) uint8, float32."""
    xyz = LINEAR.astype(np.float32)[pixels] @ (TO_XYZ / TO_XYZ.sum(1, keepdims=True)).T.astype(np.float32)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (841 / 108) + 4 / 29)
    light, x, z = root[..., 1], root[..., 0], root[..., 2]
    return np.stack([116 * light - 16, 500 * (x - light), 200 * (light - z)], -1)


def traced_fields(fields: np.ndarray, colours: np.ndarray, tracing: Tracing) -> str:
    """An SVG document on white with a path for each field: ``fields`` (H, W) says which of ``colours`` (K, 3) a pixel has."""
    file = io.BytesIO()
    Image.fromarray(colours[fields]).save(file, "BMP")
    document = vtracer.convert_raw_image_to_svg(
        file.getvalue(),
        img_format="bmp",
        colormode="color",
        hierarchical="stacked",  # a shape goes on under those that lie on it: no seams
        mode="spline",
        color_precision=8,
        layer_difference=0,
        filter_speckle=tracing.speck,
        splice_threshold=tracing.splice,
        path_precision=2,
    )
    height, width = fields.shape
    fine = 2 * SIDE / max(height, width)  # whole numbers of half a unit are short, and finer than an eye

    paths, known = [], lab(colours)
    exact = {}  # by the tracer's colour, which is off by one: paper would not be white
    for curve, fill, place in re.findall(r'<path d="(.*?) ?" fill="#(\w{6})" transform="translate\((.*?)\)"', document):
        if fill not in exact:
            exact[fill] = bytes(colours[nearest(lab(np.array([*bytes.fromhex(fill)], np.uint8)), known)]).hex()
        paths.append(f'<path fill="#{exact[fill]}" d="{relative(curve, tuple(map(float, place.split(","))), fine)}"/>')
    high, wide = (2 * round(side * fine / 2) for side in (height, width))  # even, so that height and width are whole
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide // 2}" height="{high // 2}">\n'
        + "\n".join([f'<rect width="{wide}" height="{high}" fill="#fff"/>', *paths, "</svg>\n"])
    )


def relative(curve: str, place: tuple[float, float], fine: float) -> str:
    """A curve of absolute ``M``, ``L``, ``C`` and ``Z`` at ``place``, in whole numbers of 1 / ``fine``; each point but an ``M``
    is told from where the pen was: the same shape in three quarters of the bytes.
    """
    parts, pen = [], (0, 0)
    for command, numbers in re.findall("([MLCZ])([^MLCZ]*)", curve):
        numbers = [round((float(number) + place[axis % 2]) * fine) for axis, number in enumerate(numbers.split())]
        at_once = 6 if command == "C" else 2
        for first in range(0, len(numbers), at_once):
            step = numbers[first : first + at_once]
            told = step if command == "M" else [number - pen[axis % 2] for axis, number in enumerate(step)]
            parts.append((command if command == "M" else command.lower()) + " ".join(map(str, told)))
            pen = step[-2:]
        if command == "Z":  # what follows is an M, which needs no pen
            parts.append("z")
    return "".join(parts).replace(" -", "-")


def render(document: str, side: int = SIDE) -> Image.Image:
    """An SVG document as a picture, ``side`` pixels wide.

    Raises:
        ValueError: ``document`` is no SVG document, or ``side`` no whole number of at least 1.
    """
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise ValueError(f"side: got {side!r}; give a whole number of pixels, for example {SIDE}")
    try:
        drawn = resvg_py.svg_to_bytes(svg_string=document, width=side, skip_system_fonts=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"document: got {str(document)[:40]!r}; give an SVG document ({error})") from error
    return Image.open(io.BytesIO(bytes(drawn))).convert("RGB")


def finish(images: Sequence[Image.Image], side: int = SIDE) -> list[Image.Image]:
    """The pictures as they are shown: traced, ``side`` pixels wide."""
    return [render(trace(image), side) for image in images]


def save_pictures(images: Sequence[Image.Image], folder: Path, stem: str = "creative", *, traced: bool = True) -> list[Path]:
    """Write ``stem-1.png`` ... into ``folder`` and, if ``traced``, ``stem-1.svg`` ... for any editor of drawings.

    Returns:
        What was written. Without ``traced``, an SVG of that name is deleted: it would show another picture.
    """
    paths = []
    for number, image in enumerate(images, 1):
        svg, png = (folder / f"{stem}-{number}{suffix}" for suffix in (".svg", ".png"))
        if traced:
            document = trace(image)
            replace(svg, lambda temporary, text=document: temporary.write_text(text, encoding="utf-8"))
            image = render(document)
            paths.append(svg)
        else:
            svg.unlink(missing_ok=True)
        replace(png, lambda temporary, picture=image: picture.save(temporary, "PNG"))
        paths.append(png)
    return paths
