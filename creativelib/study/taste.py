"""What simulated people feel by surprise, and what an analysis of many of them should therefore find."""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr

from creativelib.study import HIGHEST, LOWEST
from creativelib.study.ratings import checked_shares, checked_spreads
from creativelib.study.wundt import WundtCurve


def berlyne(low: float, high: float, *, peak: float | None = None, height: float = 2.5, boring: float = 1.0) -> WundtCurve:
    """A Wundt curve that is ``boring`` at ``low``, rises by about ``height`` points to its peak and falls as far to ``high``.

    Args:
        low, high: range of surprise, nats. peak: its place in nats; by default the middle. height: 0 for a flat curve.

    Raises:
        ValueError: low >= high, a peak not between them, a negative height.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low, high: got {low!r} and {high!r}; give two finite numbers, low < high")
    peak = (low + high) / 2 if peak is None else peak
    if not low < peak < high:
        raise ValueError(f"peak: got {peak!r}; give a surprise between {low} and {high} nats")
    if not 0 <= height < math.inf:
        raise ValueError(f"height: got {height!r}; give rating points, 0 or more")
    half, scale = 0.22 * (high - low), 0.08 * (high - low)
    shape = WundtCurve([0, 1, 1, peak - half, scale, peak + half, scale], low, high)
    size = height / float(shape.predict(peak))
    return WundtCurve([boring, size, size, peak - half, scale, peak + half, scale], low, high)


def expected_rating(
    surprise,
    curve: WundtCurve | Callable[[np.ndarray], np.ndarray],
    *,
    peak_spread: float,
    offset: float = 0.4,
    noise: float = 0.9,
    image_noise: float = 0.5,
    lapse: float = 0.03,
) -> np.ndarray:
    """Mean rating of ``simulate_class`` at ``surprise`` (nats), in its shape, over other raters and other pictures.

    Not ``curve`` itself: personal peaks blur it and the ends of the scale press it together. For raters who all feel as
    strongly (``slope=0``) and pictures in which the subject is seen.
    """
    checked_spreads(peak_spread=peak_spread, offset=offset, noise=noise, image_noise=image_noise)
    checked_shares(lapse=lapse)
    surprise = np.asarray(surprise, dtype=float)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    predict = curve.predict if hasattr(curve, "predict") else curve
    felt = np.asarray(predict(surprise[..., None] - peak_spread * nodes), dtype=float)
    steps = np.arange(LOWEST, HIGHEST) + 0.5  # the mean of a rounded and clipped number: how many steps it is above
    mean = ndtr((felt[..., None] - steps) / max(math.hypot(offset, noise, image_noise), 1e-9)).sum(-1) @ weights / weights.sum()
    return (1 - lapse) * mean + lapse * (LOWEST + HIGHEST) / 2
