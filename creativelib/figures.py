"""The project's figures: made from arrays, independent of any display, returned as matplotlib figures."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from creativelib.finish import CAPTION, finish
from creativelib.plotting import PlainFigure, literal, without_latex
from creativelib.typicality import TypicalityModel

NAME, HEADING, NOTE = 13, 14, 17  # letters to an inch: of a row's name, a column's heading, a note below a picture
BASELINE, CURRENT = "#2a8c4a", "#c8322b"  # the green and red clusters of Fig. 3; marks differ too


@without_latex
def before_after(
    default_images: Sequence[Image.Image],
    creative_images: Sequence[Image.Image],
    default_surprise: Sequence[float],
    creative_surprise: Sequence[float],
    title: str = "",
    *,
    traced: bool = False,
) -> Figure:
    """Two rows of images, default above creative; one column is one seed, each image with its surprise in nats.

    ``traced`` images are shown as ``finish`` traces them, and the figure says so.
    """
    counts = [len(part) for part in (default_images, creative_images, default_surprise, creative_surprise)]
    if len(set(counts)) != 1 or not counts[0]:
        raise ValueError(f"default_images and the rest: got {counts} of each; give one or more, as many of all four")
    columns = counts[0]
    figure = PlainFigure(figsize=(1.7 * columns, 4.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    rows = ((default_images, default_surprise, "default"), (creative_images, creative_surprise, "creative"))
    for row, (images, surprises, label) in zip(axes, rows, strict=True):
        for axis, image, surprise in zip(row, finish(images) if traced else images, surprises, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{float(surprise):.0f} nats", fontsize=9)
        row[0].set_ylabel(label, fontsize=11)
    if traced:
        figure.supxlabel(CAPTION, fontsize=8)
    figure.suptitle(literal(title), fontsize=11)
    return figure


@without_latex
def cloud(typicality: TypicalityModel, baseline: torch.Tensor, current: torch.Tensor, title: str = "") -> Figure:
    """Baseline and current embeddings (N, d) in the first two principal directions of the baseline."""
    figure = PlainFigure(figsize=(4.6, 4.2), layout="constrained")
    axis = figure.subplots()
    _scatter(axis, _plane(typicality, baseline), _plane(typicality, current))
    axis.set(xlabel="principal direction 1", ylabel="principal direction 2", title=literal(title), aspect="equal")
    axis.legend(loc="best", fontsize=8)
    return figure


@without_latex
def evolution(
    typicality: TypicalityModel,
    baseline: torch.Tensor,
    current: Mapping[int, torch.Tensor],
    images: Mapping[int, Sequence[Image.Image]] | None = None,
    title: str = "",
    *,
    traced: bool = False,
) -> Figure:
    """Figs. 3 and 12: one column an iteration, with the baseline (green) and the current embeddings (red) on common axes.

    Args:
        baseline: (N, d). current: iteration -> embeddings (n, d). images: iteration -> what to show under its cloud.
        traced: show them as ``finish`` traces them; the figure says so.

    Raises:
        ValueError: no iterations, images of other iterations, or a typicality model of one dimension.
    """
    images = images or {}
    if not current or not set(images) <= set(current):
        raise ValueError(f"current, images: got iterations {list(current)} and {list(images)}; give images of those in current")
    columns, rows = len(current), max((len(column) for column in images.values()), default=0)
    figure = PlainFigure(figsize=(1.7 * columns, 2.1 + 1.6 * rows), layout="constrained", dpi=80)
    grid = figure.subplots(1 + rows, columns, squeeze=False, height_ratios=[1.15] + [1] * rows)
    plain, clouds = _plane(typicality, baseline), {step: _plane(typicality, part) for step, part in current.items()}
    everything = torch.cat([plain, *clouds.values()])
    middle = (everything.amax(0) + everything.amin(0)) / 2
    half = 1.05 * float((everything - middle).abs().max())
    limits = [(float(value) - half, float(value) + half) for value in middle]
    for column, (step, points) in enumerate(clouds.items()):
        axis = grid[0, column]
        _scatter(axis, plain, points)
        axis.set(xlim=limits[0], ylim=limits[1], xticks=[], yticks=[], aspect="equal")
        axis.set_title(f"iteration {step}", fontsize=9)
        for row in range(rows):
            grid[1 + row, column].axis("off")
        shown = images.get(step, ())
        for axis, image in zip(grid[1:, column], finish(shown) if traced else shown, strict=False):
            axis.imshow(image)
    if traced and rows:
        figure.supxlabel(CAPTION, fontsize=8)
    grid[0, 0].legend(loc="upper left", fontsize=6)
    grid[0, 0].set(xlabel="principal direction 1", ylabel="direction 2")
    figure.suptitle(literal(title), fontsize=11)
    return figure


@without_latex
def picture_grid(
    rows: Mapping[str, Sequence[Image.Image | None]],
    *,
    columns: Sequence[str] = (),
    notes: Mapping[str, Sequence[str]] | None = None,
    title: str = "",
    side: float = 1.15,
    traced: bool = False,
) -> Figure:
    """Pictures in named rows, of which each may have a note below; where there is ``None`` the place stays empty.

    Args:
        rows: name -> pictures; all rows of one length. columns: headings. notes: name -> a line below each of its pictures.
            Lines that are wider than a picture are broken at their commas.
        side: of a picture, in inches. traced: show them as ``finish`` traces them; the figure says so.

    Raises:
        ValueError: no pictures, rows of different lengths, headings or notes that are not as many.
    """
    notes = notes or {}
    lengths = {len(row) for row in rows.values()}
    if len(lengths) != 1 or not max(lengths):
        raise ValueError(f"rows: got {[len(row) for row in rows.values()]} pictures; give rows of one length, of at least 1")
    width = lengths.pop()
    if columns and len(columns) != width:
        raise ValueError(f"columns: got {len(columns)} headings for {width} pictures a row; give as many")
    for name, lines in notes.items():
        if name not in rows or len(lines) != width:
            raise ValueError(f"notes: got {len(lines)} for the row {name!r}; give one for each picture of a row that there is")
    notes = {name: [_broken(note, side * NOTE) for note in below] for name, below in notes.items()}
    lines = [max((note.count("\n") + 1 for note in notes.get(name, ())), default=0) for name in rows]
    headings = [_broken(heading, side * HEADING) for heading in columns]
    heads = max((heading.count("\n") + 2 for heading in headings), default=0)
    height = sum(side + 0.16 * count + 0.08 for count in lines) + 0.15 * heads + 0.3 * bool(title) + 0.25 * traced
    aside = side < 0.9  # words are longer than the picture is high
    names = max(map(len, rows)) / NAME if aside else 0.45
    figure = PlainFigure(figsize=(side * width + names + 0.15, height), layout="constrained", dpi=80)
    axes = figure.subplots(len(rows), width, squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        shown = iter(finish([one for one in pictures if one is not None]) if traced else filter(None, pictures))
        for column, (axis, picture) in enumerate(zip(line, pictures, strict=True)):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if picture is not None:
                axis.imshow(next(shown))
            if name in notes:
                axis.set_xlabel(literal(notes[name][column]), fontsize=7, labelpad=2)
        line[0].set_ylabel(literal(name), fontsize=9, **({"rotation": 0, "ha": "right", "va": "center"} if aside else {}))
    for axis, heading in zip(axes[0], headings, strict=False):
        axis.set_title(literal(heading), fontsize=8)
    if traced:
        figure.supxlabel(CAPTION, fontsize=7)
    figure.suptitle(literal(title), fontsize=11)
    return figure


def _broken(text: str, letters: float) -> str:
    """``text``, of which lines that are longer than so many letters are broken at their commas."""
    return "\n".join(line.replace(", ", ",\n") if len(line) > letters else line for line in text.split("\n"))


def _plane(typicality: TypicalityModel, embeddings: torch.Tensor) -> torch.Tensor:
    """Coordinates (N, 2) in the first two principal directions."""
    if typicality.dims < 2:
        raise ValueError("typicality: has 1 dimension; fit it with dims=2 or more to draw a plane")
    return typicality.transform(embeddings.detach().cpu().float())[:, :2]


def _scatter(axis: Axes, baseline: torch.Tensor, current: torch.Tensor) -> None:
    """Both clouds, told apart by mark as well as by colour."""
    axis.scatter(*baseline.T, s=12, c=BASELINE, marker="o", linewidths=0, alpha=0.6, label=f"baseline ({len(baseline)})")
    axis.scatter(*current.T, s=12, c=CURRENT, marker="x", alpha=0.6, label=f"current ({len(current)})")
