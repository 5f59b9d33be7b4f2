"""Is it still a drawing of one thing? Sharpness and wholeness, each against real pictures of the same subject."""

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from creativelib.metrics.pictures import checked, grey, silhouette

SPECK = 5e-4  # of the picture: a smaller island is a speck, not a part (8 pixels of 128 x 128)
EDGE = 0.95  # quantile of the gradient: the edges of a drawing, not its flat fields


def edge_strength(images: np.ndarray) -> np.ndarray:
    """95 % quantile of each picture's grey gradient, (N,), in luminance (0 to 1) a pixel."""
    down, across = np.gradient(grey(images), axis=(1, 2))
    return np.quantile(np.hypot(down, across), EDGE, axis=(1, 2))


def sharpness(images: np.ndarray, real: np.ndarray) -> float:
    """Mean edge strength of ``images`` over that of ``real`` ones of the same size: 1 is as sharp, 0.5 half as steep.

    Raises:
        ValueError: other sizes, or real pictures without any edge.
    """
    if checked(images).shape[1:] != checked(real, "real").shape[1:]:
        raise ValueError(
            f"real: got pictures of {real.shape[1:3]}, the others have {images.shape[1:3]}; scale them to one size"
        )
    steepest = float(edge_strength(real).mean())
    if not steepest:
        raise ValueError("real: got pictures without any edge; give drawings")
    return float(edge_strength(images).mean()) / steepest


def filled(images: np.ndarray) -> np.ndarray:
    """Share of the convex hull of what is drawn that is drawn, (N,), 0 to 1; 0 where nothing is.

    Paper that shows inside the outline counts as empty: a thing of loose strokes has a large hull and little in it.
    """
    return np.array([_filled(mask) for mask in silhouette(images)])


def _filled(mask: np.ndarray) -> float:
    rows, columns = np.nonzero(mask & ~ndimage.binary_erosion(mask))
    if not len(rows):
        return 0.0
    corners = np.concatenate([np.stack([rows + down, columns + across], 1) for down in (0, 1) for across in (0, 1)])
    share = mask.sum() / ConvexHull(corners).volume  # the volume of a plane figure is its area
    return round(float(share), 9)  # Qhull's last digits would put a square outside the range of squares


def loose_parts(images: np.ndarray) -> np.ndarray:
    """Into how many islands (diagonal neighbours touch) of at least ``SPECK`` of the picture a drawing falls, (N,) int."""
    counts = []
    for mask in silhouette(images):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        areas = ndimage.sum_labels(mask, labels, np.arange(1, count + 1))
        counts.append(int((areas >= SPECK * mask.size).sum()))
    return np.array(counts)


def wholeness_range(real: np.ndarray, share: float = 0.9) -> dict[str, tuple[float, float]]:
    """Where the middle ``share`` of real drawings of a subject lie: ``{"filled": (low, high), "parts": (low, high)}``.

    Raises:
        ValueError: no pictures, or ``share`` outside 0 to 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: got {share!r}; give a number between 0 and 1, for example 0.9")
    checked(real, "real")
    quantiles = (0.5 - share / 2, 0.5 + share / 2)
    measured = {"filled": filled(real), "parts": loose_parts(real)}
    return {name: tuple(float(value) for value in np.quantile(values, quantiles)) for name, values in measured.items()}


def is_whole(images: np.ndarray, real_range: dict[str, tuple[float, float]]) -> np.ndarray:
    """Whether each picture is as filled and in as few parts as real drawings are, (N,) bool; of these themselves most are.

    Args:
        real_range: from ``wholeness_range``, of the same subject.
    """
    (least, most), (fewest, many) = real_range["filled"], real_range["parts"]
    share, parts = filled(images), loose_parts(images)
    return (share >= least) & (share <= most) & (parts >= fewest) & (parts <= many)
