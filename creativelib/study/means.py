"""Mean ratings with their intervals: by iteration (Fig. 4), by surprise.

Intervals resample raters, because the ratings of one person are not independent.
"""

import numpy as np
import pandas as pd

from creativelib.study.ratings import checked_count, checked_level, checked_ratings, resampled


def _means(rater: pd.Series, group: np.ndarray, value: pd.Series, resamples: int, level: float, seed: int) -> pd.DataFrame:
    """Mean of each group 0, 1, ... and its percentile interval over resamples of raters."""
    rater, groups = pd.factorize(rater)[0], group.max() + 1
    counts, sums = (np.zeros((rater.max() + 1, groups)) for _ in range(2))
    np.add.at(counts, (rater, group), 1)
    np.add.at(sums, (rater, group), value.to_numpy(float))
    weights = resampled(len(counts), resamples, seed)
    with np.errstate(invalid="ignore"):
        means = (weights @ sums) / (weights @ counts)  # NaN where no rater of the group was drawn
    low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    n = counts.sum(0)
    return pd.DataFrame({"mean": sums.sum(0) / n, "low": low, "high": high, "n": n.astype(int)})


def mean_by_iteration(
    ratings: pd.DataFrame, *, by_seed: bool = False, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Fig. 4: mean rating at each iteration, with a bootstrap interval over raters.

    Args:
        ratings: with rater, value, iteration; for ``by_seed`` also seed, and one row for each run and iteration.

    Returns:
        (seed,) iteration, mean, low, high, n (ratings); sorted.

    Raises:
        TypeError, ValueError: as ``checked_ratings``, options out of range.
    """
    keys = ["seed", "iteration"] if by_seed else ["iteration"]
    rows = checked_ratings(ratings, ["rater", "value", *keys])
    groups = rows.groupby(keys, sort=True)
    found = _means(rows["rater"], groups.ngroup().to_numpy(), rows["value"], resamples, checked_level(level), seed)
    return pd.concat([groups.size().index.to_frame(index=False), found], axis=1)


def mean_by_surprise(
    ratings: pd.DataFrame, *, bins: int = 8, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Mean rating in bins of surprise that hold as many images each (but for ties), with a bootstrap interval over raters.

    Args:
        ratings: with rater, stimulus, value, surprise.

    Returns:
        surprise (nats, mean of the images in the bin), mean, low, high, n (ratings); by rising surprise.

    Raises:
        TypeError, ValueError: as ``checked_ratings``, options out of range, constant surprise.
    """
    rows = checked_ratings(ratings, ["rater", "stimulus", "value", "surprise"])
    checked_count("bins", bins, 1)
    images = rows.groupby("stimulus")["surprise"].first().astype(float)
    if images.nunique() < 2:
        raise ValueError("ratings: all images have the same surprise; give images of different surprise")
    image_bin = pd.qcut(images, bins, labels=False, duplicates="drop")
    image_bin = pd.Series(pd.factorize(image_bin, sort=True)[0], images.index)  # without empty ones
    group = image_bin.loc[rows["stimulus"]].to_numpy()
    found = _means(rows["rater"], group, rows["value"], resamples, checked_level(level), seed)
    found.insert(0, "surprise", images.groupby(image_bin).mean().to_numpy())
    return found
