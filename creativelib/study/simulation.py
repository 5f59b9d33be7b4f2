"""A simulated class for the rating study: Berlyne's curve with persons in it, so that the analysis can be tried without any.

What it returns has the form of real ratings and says that it is none: ``frame.attrs["raters"]`` is "simulated raters", and all
names begin with "simulated".
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr

from creativelib.study import HIGHEST, LOWEST
from creativelib.study.wundt import WundtCurve, checked_count

MARK = "simulated raters"


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


def _checked_stimuli(stimuli: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(stimuli, pd.DataFrame):
        raise TypeError(f"stimuli: got {type(stimuli).__name__}; give a pandas data frame, one image a row")
    missing = [column for column in ("stimulus", "surprise") if column not in stimuli]
    if missing or stimuli.empty:
        raise ValueError(f"stimuli: got {len(stimuli)} rows and the columns {list(stimuli)}; give rows with stimulus, surprise")
    if stimuli["stimulus"].duplicated().any():
        twice = stimuli["stimulus"][stimuli["stimulus"].duplicated()].iloc[0]
        raise ValueError(f"stimuli: {twice!r} comes twice; give each image one row")
    for column in ("surprise", "perceived", "judged"):
        if column in stimuli:
            numbers = stimuli[column].to_numpy(float)
            if not np.isfinite(numbers).all() or (column == "judged" and ((numbers < 0) | (numbers > 1)).any()):
                allowed = "a bool or a share from 0 to 1" if column == "judged" else "finite nats"
                raise ValueError(f"stimuli: column {column!r} holds other values than {allowed} in some rows; leave those out")
    return stimuli.reset_index(drop=True)


def _checked_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: got {share!r}; give a share from 0 to 1")


def _checked_spreads(**spreads: float | None) -> None:
    for name, spread in spreads.items():
        if spread is not None and not 0 <= spread < math.inf:
            raise ValueError(f"{name}: got {spread!r}; give 0 or more")


def balanced_orders(n: int, raters: int, source: np.random.Generator) -> np.ndarray:
    """Orders of ``n`` images for each rater, (raters, n), indices: a Williams design, its rows and images shuffled.

    Within each block of n raters every image comes once in every place, and for even n once after every other image.
    """
    zigzag = np.array([k // 2 if k % 2 == 0 else n - 1 - k // 2 for k in range(n)])
    rows = np.concatenate([source.permutation(n) for _ in range(math.ceil(raters / n))])[:raters]
    return source.permutation(n)[(zigzag + rows[:, None]) % n]


class _Class:
    """Raters with a place of the peak and a strictness of their own; what they feel at each image, (raters, images)."""

    def __init__(self, stimuli, raters, curve, peak_spread, displeasure, offset, source):
        perceived = stimuli["perceived" if "perceived" in stimuli else "surprise"].to_numpy(float)
        low, width = perceived.min(), float(np.ptp(perceived))
        if curve is None:
            if width == 0:
                raise ValueError("stimuli: all have the same surprise; give images of different surprise, or a curve")
            curve = berlyne(low, low + width)
        predict = curve.predict if hasattr(curve, "predict") else curve
        peak_spread = 0.08 * width if peak_spread is None else peak_spread
        shift = source.normal(0, peak_spread, (raters, 1)) if peak_spread else np.zeros((raters, 1))
        unseen = 1 - stimuli["judged"].to_numpy(float) if "judged" in stimuli else np.zeros(len(stimuli))
        self.names = np.array([f"simulated {k + 1:03d}" for k in range(raters)])
        self.unseen = unseen
        self.hedonic = np.asarray(predict(perceived - shift), dtype=float) + source.normal(0, offset, (raters, 1))
        self.hedonic = self.hedonic - displeasure * unseen


def simulate_class(
    stimuli: pd.DataFrame,
    raters: int = 30,
    *,
    seed: int,
    curve: WundtCurve | Callable[[np.ndarray], np.ndarray] | None = None,
    peak_spread: float | None = None,
    offset: float = 0.4,
    noise: float = 0.9,
    displeasure: float = 1.5,
    out_of_domain: float = 0.6,
    lapse: float = 0.03,
    image_noise: float = 0.0,
    repeats: int = 0,
    order: str = "balanced",
) -> pd.DataFrame:
    """Ratings by raters who do not exist.

    A rater feels Berlyne's curve of the surprise that he measures, less ``displeasure`` where the judge no longer sees the
    subject, plus noise; says the nearest number of the scale; calls an image that is out of domain 0 with some probability; and
    now and then answers at random.

    Args:
        stimuli: stimulus, surprise (nats); seed and iteration are handed on. ``perceived``: the surprise that raters measure
            (nats), best with another encoder than the optimised one; without it they measure ``surprise``. ``judged``: bool or
            share to which the judge still sees the subject; without it all are seen.
        curve: expected rating by perceived surprise in nats; by default ``berlyne`` over the range of the images.
        peak_spread: standard deviation of the personal peaks in nats; by default 8 % of the range. offset, noise, image_noise:
            of strictness, of single ratings, of what all raters see in an image besides its surprise; rating points.
        displeasure: rating points for an image not seen as the subject. out_of_domain: probability that such an image gets 0.
        lapse: probability of a random answer. repeats: how many images each rater rates twice (kind 'repeat').
        order: 'balanced' (``balanced_orders``), 'random' or 'listed'.

    Returns:
        rater, stimulus, value, seed, iteration, surprise, kind, position (0, 1, ... in the order shown), simulated (True);
        sorted by rater and position. ``attrs["raters"]`` is ``MARK``.

    Raises:
        TypeError, ValueError: arguments out of range, named.
    """
    stimuli = _checked_stimuli(stimuli)
    checked_count("raters", raters, 1)
    checked_count("seed", seed, 0)
    checked_count("repeats", repeats, 0)
    _checked_shares(out_of_domain=out_of_domain, lapse=lapse)
    _checked_spreads(peak_spread=peak_spread, offset=offset, noise=noise, displeasure=displeasure, image_noise=image_noise)
    n = len(stimuli)
    if repeats > n:
        raise ValueError(f"repeats: got {repeats} for {n} images; give at most {n}")
    if order not in ("balanced", "random", "listed"):
        raise ValueError(f"order: got {order!r}; give 'balanced', 'random' or 'listed'")
    source = np.random.default_rng(seed)
    people = _Class(stimuli, raters, curve, peak_spread, displeasure, offset, source)
    hedonic = people.hedonic + source.normal(0, image_noise, n)
    if order == "balanced":
        shown = balanced_orders(n, raters, source)
    else:
        shown = np.tile(np.arange(n), (raters, 1))
        shown = source.permuted(shown, axis=1) if order == "random" else shown
    again = np.array([source.choice(n, repeats, replace=False) for _ in range(raters)], dtype=int).reshape(raters, repeats)
    shown = np.concatenate([shown, again], axis=1)  # (raters, n + repeats), indices of images
    felt = np.take_along_axis(hedonic, shown, axis=1) + source.normal(0, noise, shown.shape)
    value = np.clip(np.rint(felt), LOWEST, HIGHEST).astype(int)
    value[source.random(shown.shape) < people.unseen[shown] * out_of_domain] = 0
    lapsed = source.random(shown.shape) < lapse
    value[lapsed] = source.integers(LOWEST, HIGHEST + 1, shown.shape)[lapsed]
    flat = stimuli.iloc[shown.ravel()].reset_index(drop=True)
    frame = pd.DataFrame(
        {
            "rater": np.repeat(people.names, shown.shape[1]),
            "stimulus": flat["stimulus"],
            "value": value.ravel(),
            "seed": flat["seed"] if "seed" in flat else 0,
            "iteration": flat["iteration"] if "iteration" in flat else 0,
            "surprise": flat["surprise"].astype(float),
            "kind": np.tile(np.repeat(["image", "repeat"], [n, repeats]), raters),
            "position": np.tile(np.arange(shown.shape[1]), raters),
            "simulated": True,
        }
    )
    frame.attrs["raters"] = MARK
    return frame


def expected_rating(
    surprise,
    curve: WundtCurve | Callable[[np.ndarray], np.ndarray],
    *,
    peak_spread: float,
    offset: float = 0.4,
    noise: float = 0.9,
    lapse: float = 0.03,
) -> np.ndarray:
    """Mean rating that ``simulate_class`` gives at ``surprise`` (nats), in its shape: what an analysis should find.

    Not ``curve`` itself: personal peaks blur it and the ends of the scale press it together.
    """
    _checked_spreads(peak_spread=peak_spread, offset=offset, noise=noise)
    _checked_shares(lapse=lapse)
    surprise = np.asarray(surprise, dtype=float)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    predict = curve.predict if hasattr(curve, "predict") else curve
    felt = np.asarray(predict(surprise[..., None] - peak_spread * nodes), dtype=float)
    steps = np.arange(LOWEST, HIGHEST) + 0.5  # the mean of a rounded and clipped number: how many steps it is above
    mean = ndtr((felt[..., None] - steps) / max(math.hypot(offset, noise), 1e-9)).sum(-1) @ weights / weights.sum()
    return (1 - lapse) * mean + lapse * (LOWEST + HIGHEST) / 2


def simulate_choices(
    stimuli: pd.DataFrame,
    raters: int = 30,
    *,
    seed: int,
    pairs: int = 10,
    curve: WundtCurve | Callable[[np.ndarray], np.ndarray] | None = None,
    peak_spread: float | None = None,
    decision_noise: float = 0.5,
    displeasure: float = 1.5,
    lapse: float = 0.03,
) -> pd.DataFrame:
    """Choices of the more creative of two images by the raters of ``simulate_class``.

    The probability of an image is the sigmoid of what the rater feels for it less for the other, over ``decision_noise``.

    Args:
        pairs: of different images, drawn anew for each rater. decision_noise: rating points, above 0. Others: as
            ``simulate_class``.

    Returns:
        rater, left, right (stimuli), chosen ('left' or 'right'), simulated (True). ``attrs["raters"]`` is ``MARK``.

    Raises:
        TypeError, ValueError: arguments out of range, fewer than two images.
    """
    stimuli = _checked_stimuli(stimuli)
    checked_count("raters", raters, 1)
    checked_count("seed", seed, 0)
    checked_count("pairs", pairs, 1)
    _checked_shares(lapse=lapse)
    _checked_spreads(peak_spread=peak_spread, displeasure=displeasure)
    if not 0 < decision_noise < math.inf:
        raise ValueError(f"decision_noise: got {decision_noise!r}; give rating points above 0")
    if len(stimuli) < 2:
        raise ValueError("stimuli: got 1 row; give at least 2 images to choose between")
    source = np.random.default_rng(seed)
    people = _Class(stimuli, raters, curve, peak_spread, displeasure, 0.0, source)
    left = source.integers(len(stimuli), size=(raters, pairs))
    right = (left + source.integers(1, len(stimuli), size=left.shape)) % len(stimuli)
    ahead = np.take_along_axis(people.hedonic, left, 1) - np.take_along_axis(people.hedonic, right, 1)
    probability = (1 - lapse) * expit(ahead / decision_noise) + lapse / 2
    chosen = np.where(source.random(left.shape) < probability, "left", "right")
    names = stimuli["stimulus"].to_numpy()
    frame = pd.DataFrame({"rater": np.repeat(people.names, pairs), "left": names[left.ravel()], "right": names[right.ravel()]})
    frame["chosen"], frame["simulated"] = chosen.ravel(), True
    frame.attrs["raters"] = MARK
    return frame
