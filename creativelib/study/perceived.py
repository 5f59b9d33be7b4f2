"""Surprise as people see it: the mean rating on the second scale, by others than those who rate creativity.

Nats say how improbable a picture is to the model that made it. Berlyne's variable is what a person finds surprising. Whether
the one
is the other has to be asked, and where it matters: below the peak, where ratings should rise.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from creativelib.study.ratings import checked_level, checked_ratings, resampled


def perceived_surprise(ratings: pd.DataFrame) -> pd.Series:
    """Mean rating of each stimulus on the scale "surprising", 0 to 5, by stimulus.

    Args:
        ratings: with rater, stimulus, value; where there is a column scale, only its rows of "surprising" count.

    Raises:
        TypeError, ValueError: as ``checked_ratings``; no rating on that scale.
    """
    if isinstance(ratings, pd.DataFrame) and "scale" in ratings:
        if not (ratings["scale"] == "surprising").any():
            raise ValueError(f"ratings: got {len(ratings)} rows, none on the scale 'surprising'; let other people rate on it")
        ratings = ratings[ratings["scale"] == "surprising"]
    return checked_ratings(ratings, ["rater", "stimulus", "value"]).groupby("stimulus")["value"].mean().rename("perceived")


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation with its interval over so many runs and their pictures."""

    correlation: float
    low: float
    high: float
    pictures: int
    runs: int


def agreement_of_surprise(
    pictures: pd.DataFrame, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> RankCorrelation:
    """How far nats and perceived surprise put pictures in one order; the interval resamples runs, for pictures of one are
    alike.

    Args:
        pictures: with seed (of the run), surprise (nats), perceived; one row a picture. Give a part to ask about a part: the
            default and creative pictures, say, between which ratings should rise.

    Raises:
        ValueError: columns missing, fewer than three runs, options out of range.
    """
    missing = [column for column in ("seed", "surprise", "perceived") if column not in pictures]
    if missing:
        raise ValueError(f"pictures: got the columns {list(pictures)}; {missing} are missing")
    runs = [part[["surprise", "perceived"]].to_numpy(float) for _, part in pictures.groupby("seed")]
    if len(runs) < 3:
        raise ValueError(f"pictures: got {len(runs)} run(s); give those of at least 3")
    checked_level(level)

    def correlation(rows: np.ndarray) -> float:
        ranks = rankdata(rows, axis=0)
        return float(np.corrcoef(ranks.T)[0, 1]) if (np.ptp(ranks, axis=0) > 0).all() else np.nan

    drawn = [
        correlation(np.concatenate([run for run, times in zip(runs, row, strict=True) for _ in range(int(times))]))
        for row in resampled(len(runs), resamples, seed)
    ]
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return RankCorrelation(correlation(np.concatenate(runs)), float(low), float(high), len(pictures), len(runs))
