"""Frames of ratings: what every analysis asks of them.

A frame has one rating a row, with the columns rater, stimulus, value (0 to 5) and what the analysis needs besides; where there
is a column kind, only the rows with 'image' count. One analysis is of one scale: where there is a column scale it must not be
mixed.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from creativelib.study import HIGHEST, LOWEST


def checked_ratings(ratings: pd.DataFrame, columns: Iterable[str], name: str = "ratings", raters: int = 2) -> pd.DataFrame:
    """The rows of images, with at least these columns and ``raters`` different raters.

    Args:
        columns: that the caller needs. Of them, ``value`` must lie in 0..5; numbers must be finite. name: what errors call it.

    Raises:
        TypeError: no data frame. ValueError: a column or all rows are missing, bad values, several scales, too few raters.
    """
    if not isinstance(ratings, pd.DataFrame):
        raise TypeError(f"{name}: got {type(ratings).__name__}; give a pandas data frame, one rating a row")
    missing = [column for column in columns if column not in ratings]
    if missing:
        raise ValueError(f"{name}: got the columns {list(ratings)}; {missing} are missing")
    rows = ratings[ratings["kind"] == "image"] if "kind" in ratings else ratings
    if rows.empty:
        raise ValueError(f"{name}: got {len(ratings)} rows, none of an image; give at least one (a row whose kind is 'image')")
    if "scale" in rows and rows["scale"].nunique(dropna=False) > 1:
        raise ValueError(
            f"{name}: got ratings on {rows['scale'].nunique(dropna=False)} scales, {rows['scale'].unique().tolist()}; "
            "give those on one (rows[rows['scale'] == 'creative'])"
        )
    for column in columns:
        bad = rows[column].isna()
        if column in ("value", "surprise", "iteration", "seed"):
            numbers = pd.to_numeric(rows[column], errors="coerce").astype(float)
            bad = ~np.isfinite(numbers)
            if column == "value":
                bad |= ~numbers.between(LOWEST, HIGHEST)
        if bad.any():
            allowed = f"numbers from {LOWEST} to {HIGHEST}" if column == "value" else "a known, finite value in every row"
            raise ValueError(
                f"{name}: column {column!r} holds {rows[column][bad].tolist()[0]!r} ({bad.sum()} rows); give {allowed}"
            )
    if "rater" in columns and rows["rater"].nunique() < raters:
        raise ValueError(f"{name}: got {rows['rater'].nunique()} rater(s); give the ratings of at least {raters}")
    return rows


def checked_count(name: str, value: int, least: int) -> int:
    """``value`` if it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: got {value!r}; give a whole number of at least {least}")
    return int(value)


def checked_level(level: float) -> float:
    """``level`` if it can be that of an interval."""
    if not 0 < level < 1:
        raise ValueError(f"level: got {level!r}; give a share between 0 and 1, for example 0.95")
    return level


def resampled(raters: int, resamples: int, seed: int) -> np.ndarray:
    """How often each rater is drawn in each bootstrap resample of raters, (resamples, raters), whole numbers as floats."""
    checked_count("resamples", resamples, 1)
    return np.random.default_rng(seed).multinomial(raters, np.full(raters, 1 / raters), size=resamples).astype(float)


def checked_shares(**shares: float) -> None:
    """Raises ValueError that names the first which is no share."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: got {share!r}; give a share from 0 to 1")


def checked_spreads(**spreads: float | None) -> None:
    """Raises ValueError that names the first which is no standard deviation; ``None`` is let through."""
    for name, spread in spreads.items():
        if spread is not None and not 0 <= spread < np.inf:
            raise ValueError(f"{name}: got {spread!r}; give 0 or more")
