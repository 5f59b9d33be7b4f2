"""A simulated class for the rating study: Berlyne's curve with persons in it, so that the analysis can be tried without any.

What it returns has the form of real ratings and says that it is none: ``frame.attrs["raters"]`` is "simulated raters", and all
names begin with "simulated".
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit

from creativelib.study import HIGHEST, LOWEST
from creativelib.study.ratings import checked_count, checked_shares, checked_spreads
from creativelib.study.taste import berlyne
from creativelib.study.wundt import WundtCurve

MARK = "simulated raters"


def _kind(stimuli: pd.DataFrame) -> pd.Series:
    return stimuli["kind"] if "kind" in stimuli else pd.Series("image", stimuli.index)


def checked_stimuli(stimuli: pd.DataFrame) -> pd.DataFrame:
    """The table with a new index. Raises TypeError, ValueError: as ``simulate_class`` says."""
    if not isinstance(stimuli, pd.DataFrame):
        raise TypeError(f"stimuli: got {type(stimuli).__name__}; give a pandas data frame, one image a row")
    missing = [column for column in ("stimulus", "surprise") if column not in stimuli]
    if missing or stimuli.empty:
        raise ValueError(f"stimuli: got {len(stimuli)} rows and the columns {list(stimuli)}; give rows with stimulus, surprise")
    if stimuli["stimulus"].duplicated().any():
        twice = stimuli["stimulus"][stimuli["stimulus"].duplicated()].iloc[0]
        raise ValueError(f"stimuli: {twice!r} comes twice; give each image one row")
    images = stimuli[_kind(stimuli) == "image"]
    if images.empty:
        raise ValueError("stimuli: none is an image; give at least one row whose kind is 'image'")
    for column in ("surprise", "perceived", "judged"):
        if column in stimuli:
            numbers = images[column].to_numpy(float)
            if not np.isfinite(numbers).all() or (column == "judged" and ((numbers < 0) | (numbers > 1)).any()):
                allowed = "a bool or a share from 0 to 1" if column == "judged" else "finite nats"
                raise ValueError(f"stimuli: column {column!r} holds other values than {allowed} in some rows; leave those out")
    return stimuli.reset_index(drop=True)


class People:
    """Simulated raters, and what each feels at each picture.

    A person feels a curve of the surprise that they *perceive*, at a peak and with a strictness and a strength of their own,
    less ``displeasure`` where the subject is no longer seen. All of them see what is particular to a picture, and to a run.

    Args:
        stimuli, curve and the rest: as for ``simulate_class``. source: of everything random.

    Attributes:
        names: of the raters. felt: rating points before noise and rounding, (raters, pictures).
    """

    def __init__(
        self,
        stimuli: pd.DataFrame,
        raters: int,
        source: np.random.Generator,
        *,
        curve: WundtCurve | Callable[[np.ndarray], np.ndarray] | None = None,
        peak_spread: float | None = None,
        offset: float = 0.4,
        slope: float = 0.2,
        noise: float = 0.9,
        image_noise: float = 0.5,
        run_noise: float = 0.0,
        displeasure: float = 1.5,
        out_of_domain: float = 0.6,
        lapse: float = 0.03,
        carryover: float = 0.0,
    ):
        checked_shares(out_of_domain=out_of_domain, lapse=lapse)
        spreads = {"peak_spread": peak_spread, "offset": offset, "slope": slope, "noise": noise, "displeasure": displeasure}
        checked_spreads(**spreads, image_noise=image_noise, run_noise=run_noise)
        if not -1 < carryover < 1:
            raise ValueError(f"carryover: got {carryover!r}; give a number between -1 and 1")
        perceived = stimuli["perceived" if "perceived" in stimuli else "surprise"].to_numpy(float)
        low, width = perceived.min(), float(np.ptp(perceived))
        if curve is None:
            if width == 0:
                raise ValueError("stimuli: all have the same surprise; give images of different surprise, or a curve")
            curve = berlyne(low, low + width)
        predict = curve.predict if hasattr(curve, "predict") else curve
        shift = source.normal(0, 0.08 * width if peak_spread is None else peak_spread, (raters, 1))
        pleasure = np.asarray(predict(perceived - shift), dtype=float)
        strength = source.normal(1, slope, (raters, 1))
        middle = pleasure.mean(1, keepdims=True)
        self.names = np.array([f"simulated {k + 1:03d}" for k in range(raters)])
        self.felt = middle + strength * (pleasure - middle) + source.normal(0, offset, (raters, 1))
        self.felt += source.normal(0, image_noise, len(stimuli))
        if run_noise:
            runs = pd.factorize(stimuli["seed"])[0]
            self.felt += source.normal(0, run_noise, runs.max() + 1)[runs]
        self._unseen = 1 - stimuli["judged"].to_numpy(float) if "judged" in stimuli else np.zeros(len(stimuli))
        self.felt -= displeasure * self._unseen
        self._noise, self._out, self._lapse, self._carryover, self._source = noise, out_of_domain, lapse, carryover, source

    def answers(self, shown: np.ndarray) -> np.ndarray:
        """Ratings of the pictures ``shown``, in that shape (raters, k): indices in the order of seeing, -1 for an outsider."""
        source, own = self._source, self.felt.mean(1, keepdims=True)
        felt = np.where(shown < 0, own, np.take_along_axis(self.felt, shown, axis=1))
        before = np.concatenate([np.zeros((len(felt), 1)), (felt - own)[:, :-1]], axis=1)
        felt = felt + self._carryover * before + source.normal(0, self._noise, shown.shape)
        value = np.clip(np.rint(felt), LOWEST, HIGHEST).astype(int)
        value[source.random(shown.shape) < np.where(shown < 0, 1, self._unseen[shown] * self._out)] = LOWEST
        lapsed = source.random(shown.shape) < self._lapse
        return np.where(lapsed, source.integers(LOWEST, HIGHEST + 1, shown.shape), value)


def simulate_class(
    stimuli: pd.DataFrame,
    raters: int = 30,
    *,
    seed: int,
    orders: Sequence[Sequence[str]] | None = None,
    **options,
) -> pd.DataFrame:
    """Ratings by raters who do not exist.

    A rater feels Berlyne's curve of the surprise that he perceives, less ``displeasure`` where the judge no longer sees the
    subject, plus noise; says the nearest number of the scale; calls an image that is out of domain 0 with some probability; and
    now and then answers at random.

    Args:
        stimuli: stimulus, surprise (nats); seed and iteration are handed on. ``perceived``: the surprise that raters perceive
            (nats), best with another encoder than the optimised one; without it they perceive ``surprise``. ``judged``: bool or
            share to which the judge still sees the subject; without it all are seen. Rows of kind 'repeat' (their original in
            ``of``) and 'outsider' (rated 0, but for lapses) may be among them.
        orders: what each rater sees, in order (``orders.rating_order``); by default all images, shuffled for each.
        curve: expected rating by perceived surprise in nats; by default ``berlyne`` over the range of the images.
        peak_spread: standard deviation of the personal peaks in nats; by default 8 % of the range. offset: of strictness,
            rating points. slope: of how strongly a person feels (mean 1). noise: of single ratings. image_noise, run_noise: of
            what all see in a picture, or in all pictures of a run, besides its surprise; rating points.
        displeasure: rating points for an image not seen as the subject. out_of_domain: probability that such an image gets 0.
        lapse: probability of a random answer. carryover: share of what the picture before was above the rater's mean that is
            added to the next; negative for contrast.

    Returns:
        rater, stimulus, value, seed, iteration, surprise, kind, of, position (0, 1, ... in the order shown), simulated (True);
        sorted by rater and position. ``attrs["raters"]`` is ``MARK``.

    Raises:
        TypeError, ValueError: arguments out of range, named.
    """
    stimuli = checked_stimuli(stimuli)
    checked_count("raters", raters, 1)
    source = np.random.default_rng(checked_count("seed", seed, 0))
    images = stimuli[_kind(stimuli) == "image"].reset_index(drop=True)
    people = People(images, raters, source, **options)
    if orders is None:
        orders = images["stimulus"].to_numpy()[source.permuted(np.tile(np.arange(len(images)), (raters, 1)), axis=1)]
    elif len(orders) != raters:
        raise ValueError(f"orders: got {len(orders)} for {raters} raters; give one to each")
    sizes = [len(order) for order in orders]
    shown = np.concatenate([pd.Index(stimuli["stimulus"]).get_indexer(list(order)) for order in orders])  # rows of stimuli
    if (shown < 0).any():
        unknown = [name for order in orders for name in order][int((shown < 0).argmax())]
        raise ValueError(f"orders: {unknown!r} is not among the stimuli; give the table that the orders are of")
    flat = stimuli.iloc[shown].reset_index(drop=True)
    of = flat["of"].where(flat["of"].notna(), flat["stimulus"]) if "of" in flat else flat["stimulus"]
    there = np.arange(max(sizes)) < np.array(sizes)[:, None]  # (raters, k): who sees fewer pictures gets outsiders after them
    seen = np.full(there.shape, -1)
    seen[there] = pd.Index(images["stimulus"]).get_indexer(of)
    value = people.answers(seen)[there]
    frame = pd.DataFrame(
        {
            "rater": np.repeat(people.names, sizes),
            "stimulus": flat["stimulus"],
            "value": value,
            "seed": flat["seed"] if "seed" in flat else 0,
            "iteration": flat["iteration"] if "iteration" in flat else 0,
            "surprise": flat["surprise"].astype(float),
            "kind": _kind(flat),
            "of": flat["of"] if "of" in flat else None,
            "position": np.concatenate([np.arange(size) for size in sizes]),
            "simulated": True,
        }
    )
    frame.attrs["raters"] = MARK
    return frame


def simulate_choices(
    stimuli: pd.DataFrame,
    raters: int = 30,
    *,
    seed: int,
    pairs: int = 10,
    decision_noise: float = 0.5,
    lapse: float = 0.03,
    **options,
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
    stimuli = checked_stimuli(stimuli)
    checked_count("raters", raters, 1)
    checked_count("pairs", pairs, 1)
    checked_shares(lapse=lapse)
    if not 0 < decision_noise < math.inf:
        raise ValueError(f"decision_noise: got {decision_noise!r}; give rating points above 0")
    if len(stimuli) < 2:
        raise ValueError("stimuli: got 1 row; give at least 2 images to choose between")
    source = np.random.default_rng(checked_count("seed", seed, 0))
    people = People(stimuli, raters, source, **({"offset": 0.0} | options))
    left = source.integers(len(stimuli), size=(raters, pairs))
    right = (left + source.integers(1, len(stimuli), size=left.shape)) % len(stimuli)
    ahead = np.take_along_axis(people.felt, left, 1) - np.take_along_axis(people.felt, right, 1)
    probability = (1 - lapse) * expit(ahead / decision_noise) + lapse / 2
    chosen = np.where(source.random(left.shape) < probability, "left", "right")
    names = stimuli["stimulus"].to_numpy()
    frame = pd.DataFrame({"rater": np.repeat(people.names, pairs), "left": names[left.ravel()], "right": names[right.ravel()]})
    frame["chosen"], frame["simulated"] = chosen.ravel(), True
    frame.attrs["raters"] = MARK
    return frame
