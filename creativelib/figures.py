"""The project's figures: made from arrays, independent of any display, returned as matplotlib figures."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from PIL import Image

from creativelib.typicality import TypicalityModel

BASELINE, CURRENT = "#2a8c4a", "#c8322b"  # the green and red clusters of Fig. 3; marks differ too


def before_after(
    default_images: Sequence[Image.Image],
    creative_images: Sequence[Image.Image],
    default_surprise: Sequence[float],
    creative_surprise: Sequence[float],
    title: str = "",
) -> Figure:
    """Two rows of images, default above creative; one column is one seed, each image with its surprise in nats."""
    counts = [len(part) for part in (default_images, creative_images, default_surprise, creative_surprise)]
    if len(set(counts)) != 1 or not counts[0]:
        raise ValueError(f"default_images and the rest: got {counts} of each; give one or more, as many of all four")
    columns = counts[0]
    figure = Figure(figsize=(1.7 * columns, 4.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    rows = ((default_images, default_surprise, "default"), (creative_images, creative_surprise, "creative"))
    for row, (images, surprises, label) in zip(axes, rows, strict=True):
        for axis, image, surprise in zip(row, images, surprises, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{float(surprise):.0f} nats", fontsize=9)
        row[0].set_ylabel(label, fontsize=11)
    figure.suptitle(title, fontsize=11)
    return figure


def cloud(typicality: TypicalityModel, baseline: torch.Tensor, current: torch.Tensor, title: str = "") -> Figure:
    """Fig. 3: baseline and current embeddings (N, d) in the first two principal directions of the baseline."""
    if typicality.dims < 2:
        raise ValueError("typicality: has 1 dimension; fit it with dims=2 or more to draw a plane")
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axis = figure.subplots()
    for embeddings, colour, mark, label in ((baseline, BASELINE, "o", "baseline"), (current, CURRENT, "x", "current")):
        points = typicality.transform(embeddings.detach().cpu().float())[:, :2]
        face = {"linewidths": 0} if mark == "o" else {}
        axis.scatter(
            points[:, 0], points[:, 1], s=12, c=colour, marker=mark, alpha=0.6, label=f"{label} ({len(points)})", **face
        )
    axis.set(xlabel="principal direction 1", ylabel="principal direction 2", title=title, aspect="equal")
    axis.legend(loc="best", fontsize=8)
    return figure
