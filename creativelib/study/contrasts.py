"""The test that the study was made for: within runs, do ratings rise from the default, and fall again beyond?

Each rater has seen all pictures of a run, so a difference of two of them is one number for each rater and run, free of what
makes a run or a rater high or low as a whole. What is left of both in the difference is random (``crossed``), so that a claim
is about other raters and other runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t as student

from creativelib.study.crossed import crossed_mean
from creativelib.study.ratings import checked_level, checked_ratings
from creativelib.study.stimuli import CONDITIONS


@dataclass(frozen=True)
class Difference:
    """A mean difference in rating points with its interval, over so many raters and runs.

    Attributes:
        p_value: two-sided. p_greater: one-sided, that it is above 0. error: standard error, rating points. freedom: of
        Student's law.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_greater: float
    error: float
    freedom: float
    raters: int
    runs: int


def difference_of(cells: np.ndarray, *, level: float = 0.95) -> Difference:
    """The difference whose values are ``cells`` (raters, runs), NaN where a rater did not see both pictures of a run.

    Raises:
        ValueError: as ``crossed_mean``; a level outside 0 to 1.
    """
    found = crossed_mean(cells)
    law = student(found.freedom)
    reach = float(law.ppf((1 + checked_level(level)) / 2)) * found.error
    if found.error:
        p_value, p_greater = float(2 * law.sf(abs(found.mean) / found.error)), float(law.sf(found.mean / found.error))
    else:
        p_value, p_greater = float(found.mean == 0), float(found.mean <= 0)
    seen = np.isfinite(cells)
    sizes = int(seen.any(1).sum()), int(seen.any(0).sum())
    return Difference(
        found.mean, found.mean - reach, found.mean + reach, p_value, p_greater, found.error, found.freedom, *sizes
    )


def paired_difference(ratings: pd.DataFrame, of: str, versus: str, *, level: float = 0.95, ordinal: bool = False) -> Difference:
    """How much higher one condition is rated than another, by the same rater in the same run.

    The interval speaks of other raters *and* other runs. Raters need not have seen all runs: what nobody compared is left out.

    Args:
        ratings: with rater, seed (of the run), condition, value. of, versus: two of the conditions.
        ordinal: only which of two is higher counts, not by how much, for nobody knows that 0 to 1 is as far as 4 to 5. The
            difference is then the share of comparisons in which ``of`` is higher, less the share in which it is lower.

    Raises:
        TypeError, ValueError: as ``checked_ratings``; a condition that nobody rated; fewer than two raters or runs with both.
    """
    rows = checked_ratings(ratings, ["rater", "seed", "condition", "value"])
    for name, condition in (("of", of), ("versus", versus)):
        if condition not in set(rows["condition"]):
            raise ValueError(f"{name}: got {condition!r}; give one of {sorted(set(rows['condition']))}")
    table = rows.pivot_table(index=["rater", "seed"], columns="condition", values="value")
    pairs = (table[of] - table[versus]).unstack("seed").dropna(how="all").dropna(axis=1, how="all").to_numpy()
    if min(pairs.shape) < 2:
        raise ValueError(f"ratings: got both conditions from {pairs.shape[0]} raters in {pairs.shape[1]} runs; give 2 of each")
    if not ordinal:
        return difference_of(pairs, level=level)
    found = difference_of(np.sign(pairs), level=level)
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))  # beyond there are no shares


def p_words(p_value: float) -> str:
    """For example "p = .031"; "p < .001" for what three digits do not show."""
    return "p < .001" if p_value < 0.001 else f"p = {p_value:.3f}".replace("0.", ".", 1)


@dataclass(frozen=True)
class RiseAndFall:
    """Two one-sided tests. ``p_value`` is the larger, because both must hold, so nothing is to be corrected for having two.

    Attributes:
        rise: of the middle condition above the first. fall: of the middle one above the last. verdict: both p below ``alpha``.
    """

    rise: Difference
    fall: Difference
    p_value: float
    alpha: float
    verdict: bool


def rise_and_fall(
    ratings: pd.DataFrame,
    *,
    names: Sequence[str] = CONDITIONS,
    alpha: float = 0.05,
    level: float = 0.95,
    ordinal: bool = False,
) -> RiseAndFall:
    """Whether ratings rise from the first to the middle condition *and* fall from there to the last (section 7.3, Fig. 4).

    To be fixed before anybody rates, with the number of runs and raters, and whom to leave out. It asks nothing of surprise:
    neither that it is measured well nor where the peak is.

    Args:
        ratings: with rater, seed (of the run), condition, value. names: the three conditions in order. ordinal: see
            ``paired_difference``: a check of the test that was fixed, not another chance.

    Raises:
        TypeError, ValueError: as ``paired_difference``; other than three names, ``alpha`` not between 0 and 1.
    """
    if len(set(names)) != 3:
        raise ValueError(f"names: got {tuple(names)}; give three conditions, for example {CONDITIONS}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: got {alpha!r}; give a share between 0 and 1, for example 0.05")
    first, middle, last = names
    rise, fall = (paired_difference(ratings, middle, other, level=level, ordinal=ordinal) for other in (first, last))
    p_value = max(rise.p_greater, fall.p_greater)
    return RiseAndFall(rise, fall, p_value, alpha, p_value < alpha)
