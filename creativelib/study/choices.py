"""Paired choices, "which is more creative?" (section 7.4.2, Fig. 7): shares with intervals, Bradley-Terry strengths.

Choices are frames with the columns rater, left, right and chosen ('left' or 'right').
"""

from dataclasses import dataclass

import choix
import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta, binomtest
from scipy.stats import t as student

from creativelib.study.crossed import crossed_mean
from creativelib.study.ratings import checked_count, checked_level, resampled


@dataclass(frozen=True)
class Share:
    """A share with its exact (Clopper-Pearson) interval, and the two-sided p-value of a share of one half."""

    share: float
    low: float
    high: float
    p_value: float


def share_interval(chosen: int, n: int, *, level: float = 0.95) -> Share:
    """Interval of a share: ``chosen`` of ``n`` independent choices (Fig. 7).

    Choices of one rater are not independent: with several each use ``crossed_share`` or ``bradley_terry``.

    Raises:
        ValueError: not 0 <= chosen <= n, n < 1, a level outside 0 to 1.
    """
    checked_count("n", n, 1)
    if checked_count("chosen", chosen, 0) > n:
        raise ValueError(f"chosen: got {chosen} of n={n}; give at most n")
    test = binomtest(chosen, n)
    interval = test.proportion_ci(checked_level(level), method="exact")
    return Share(chosen / n, float(interval.low), float(interval.high), float(test.pvalue))


def crossed_share(won: np.ndarray, *, level: float = 0.95) -> Share:
    """Share of choices with an interval for other raters *and* other runs, whose choices are not independent of each other.

    It is the exact interval of as many independent choices as would leave the share as uncertain as ``crossed_mean`` finds it
    (Korn and Graubard 1998). Where all chose alike that number cannot be known; it is taken to be that of raters or of runs,
    whichever is less.

    Args:
        won: (raters, runs), 1 or 0 (their mean, where asked twice), NaN where not asked.

    Raises:
        ValueError: as ``crossed_mean``; a level outside 0 to 1.
    """
    found, asked = crossed_mean(won), np.isfinite(won)
    n, share, tail = int(asked.sum()), found.mean, (1 - checked_level(level)) / 2
    if found.error:
        wider = student(n - 1).ppf(tail) / student(found.freedom).ppf(tail)
        n = min(n, share * (1 - share) / found.error**2 * wider**2)
    else:
        n = min(asked.any(1).sum(), asked.any(0).sum())
    x = share * n
    low = beta.ppf(tail, x, n - x + 1) if x > 0 else 0.0
    high = beta.ppf(1 - tail, x + 1, n - x) if x < n else 1.0
    above = beta.cdf(0.5, x, n - x + 1) if x > 0 else 1.0  # of as many or more, if it were one half
    below = beta.sf(0.5, x + 1, n - x) if x < n else 1.0
    return Share(share, float(low), float(high), float(min(1.0, 2 * min(above, below))))


def checked_choices(choices: pd.DataFrame) -> pd.DataFrame:
    """Choices with rater, left, right and chosen.

    Raises:
        TypeError: no data frame. ValueError: no rows, missing columns or values, an image against itself, another answer.
    """
    if not isinstance(choices, pd.DataFrame):
        raise TypeError(f"choices: got {type(choices).__name__}; give a pandas data frame, one choice a row")
    columns = ["rater", "left", "right", "chosen"]
    missing = [column for column in columns if column not in choices]
    if missing:
        raise ValueError(f"choices: got the columns {list(choices)}; {missing} are missing")
    if choices.empty or choices[columns].isna().any(axis=None):
        raise ValueError(f"choices: got {len(choices)} rows; give at least one, with a value in each of {columns}")
    other = choices["chosen"][~choices["chosen"].isin(["left", "right"])]
    if len(other):
        raise ValueError(f"choices: column 'chosen' holds {other.iloc[0]!r}; give 'left' or 'right'")
    if (choices["left"] == choices["right"]).any():
        raise ValueError("choices: an image stands against itself; give two different ones in left and right")
    return choices


def bradley_terry(
    choices: pd.DataFrame, *, prior: float = 0.01, resamples: int = 500, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Bradley-Terry strengths: i is chosen before j with the probability sigmoid(strength_i - strength_j).

    Args:
        choices: with rater, left, right, chosen. prior: imagined wins each way between every two items; they keep what always
            wins finite (its strength then says little more than that) and tie groups never compared. 0: plain likelihood.
        resamples: of raters; 0 for no interval (low and high are NaN).

    Returns:
        item, strength (mean 0), low, high, wins, n (choices it was in); strongest first.

    Raises:
        TypeError, ValueError: as ``checked_choices``, options out of range, or a prior of 0 with choices that leave a strength
            infinite or undetermined.
    """
    rows = checked_choices(choices)
    checked_count("resamples", resamples, 0)
    checked_level(level)
    if not 0 <= prior < np.inf:
        raise ValueError(f"prior: got {prior!r}; give 0 or more imagined wins")
    left_won = rows["chosen"] == "left"
    winner, loser = rows["left"].where(left_won, rows["right"]), rows["right"].where(left_won, rows["left"])
    items = pd.Index(sorted(set(winner) | set(loser)))
    rater, names = pd.factorize(rows["rater"])
    beaten = np.zeros((len(names), len(items), len(items)))  # beaten[rater, i, j]: how often i was chosen before j
    np.add.at(beaten, (rater, items.get_indexer(winner), items.get_indexer(loser)), 1)
    imagined = prior * (1 - np.eye(len(items)))
    total = beaten.sum(0)
    if not prior and connected_components(total, connection="strong")[0] > 1:
        raise ValueError("prior: got 0, but some items always won or were never compared with others; give more, such as 0.01")

    def strengths(matrix: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        return choix.ilsr_pairwise_dense(matrix + imagined, initial_params=start, max_iter=1000, tol=1e-6)

    strength = strengths(total)
    drawn = np.full((1, len(items)), np.nan)
    if resamples:
        if not prior:
            imagined = 1e-3 * (1 - np.eye(len(items)))  # a resample may lack what kept a strength finite
        weights = resampled(len(names), resamples, seed)
        drawn = np.array([strengths(np.tensordot(one, beaten, 1), strength) for one in weights])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    wins, losses = total.sum(1).astype(int), total.sum(0).astype(int)
    columns = {"item": items, "strength": strength, "low": low, "high": high, "wins": wins, "n": wins + losses}
    return pd.DataFrame(columns).sort_values("strength", ascending=False, ignore_index=True, kind="stable")
