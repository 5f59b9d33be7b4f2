"""Answers: intervals for other subjects and other seeds, Holm's correction over all that was asked."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from creativelib.comparison.plan import SHARES, Hypothesis

LEVEL = 0.05


def matrix(frame: pd.DataFrame, method: str, budget: int, measure: str) -> pd.DataFrame:
    """A measure by subject (rows) and seed (columns); NaN where a cell is missing."""
    chosen = frame[(frame["method"] == method) & (frame["budget"] == budget)]
    return chosen.pivot_table(index="subject", columns="seed", values=measure, dropna=False)


class Estimate(NamedTuple):
    """A mean, its standard error, and the degrees of freedom of that; the latter two are NaN for a single number."""

    mean: float
    error: float
    freedom: float


def estimate(values: np.ndarray) -> Estimate:
    """Of (subjects, seeds), for a study with other subjects *and* other seeds; NaN cells are left out.

    Subjects and seeds are crossed (the noise of a seed is the same for all subjects), and both are random: the variance of
    the mean is (mean square of subjects + that of seeds - that of the rest) / cells, its degrees of freedom are Satterthwaite's
    (1946). With so few of either, resampling them would give intervals that are too narrow: of 7 subjects and 5 seeds those of
    a percentile bootstrap held in 85 to 91 % of trials where either differs much, these in 95 %. Where neither differs at all,
    these hold in 99 % and reach half as far again as they need to. An approximation where cells are missing.

    Args:
        values: with at least one that is finite.
    """
    known = np.isfinite(values)
    values = values[known.any(1)][:, known.any(0)]
    count, mean, levels = int(known.sum()), float(np.nanmean(values)), values.shape
    effects = [np.nanmean(values, axis=1 - axis) - mean for axis in (0, 1)]
    parts = []  # (mean square, degrees of freedom) of subjects and of seeds, where there are at least two
    for effect, number in zip(effects, levels, strict=True):
        if number > 1:
            parts.append((count / number * float((effect**2).sum()) / (number - 1), number - 1))
    if not parts:
        return Estimate(mean, np.nan, np.nan)
    total = sum(square for square, _ in parts)
    terms = list(parts)
    if len(parts) == 2 and (left := count - sum(levels) + 1) > 0:
        rest = float(np.nansum((values - mean - effects[0][:, None] - effects[1]) ** 2)) / left
        total, terms = total - rest, [*parts, (rest, left)]
    if (least := max(square for square, _ in parts)) > total:  # the rest is larger than the smaller of the two
        total, terms = least, parts
    spread = sum(square**2 / freedom for square, freedom in terms)
    freedom = max(total**2 / spread if spread else 0.0, min(freedom for _, freedom in parts))
    return Estimate(mean, (total / count) ** 0.5, freedom)


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean of (subjects, seeds), and the ends of its interval: NaN for a single number and for equal ones, which have none."""
    mean, error, freedom = estimate(values)
    reach = float(student.ppf(1 - level / 2, freedom)) * error if error > 0 else np.nan
    return mean, mean - reach, mean + reach


def difference(values: np.ndarray, measure: str) -> tuple[float, float, float]:
    """``interval`` of differences (subjects, seeds) of a measure: two shares cannot differ by more than 1."""
    mean, low, high = interval(values)
    return (mean, max(low, -1.0), min(high, 1.0)) if measure in SHARES and np.isfinite(low) else (mean, low, high)


def p_value(values: np.ndarray) -> float:
    """Two-sided, of the mean of (subjects, seeds) being 0; 1 of one subject or one seed, which says nothing of others.

    Never below that of a sign test of all cells: shares of a few pictures may be equal in all cells of a small grid, which
    proves less than no spread at all would.
    """
    known = np.isfinite(values)
    if min(known.any(0).sum(), known.any(1).sum()) < 2:
        return 1.0
    mean, error, freedom = estimate(values)
    least = min(1.0, 2.0 ** (1 - int(known.sum())))
    if not mean or not error > 0:
        return least if mean else 1.0
    return max(least, float(2 * student.sf(abs(mean) / error, freedom)))


def summary(frame: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Mean, low and high of each measure for each method and budget, with the number of cells; shares end at 0 and 1."""
    rows = []
    for (method, budget), group in frame.groupby(["method", "budget"], sort=False):
        row = {"method": method, "budget": budget, "cells": len(group)}
        for measure in measures:
            values = matrix(frame, method, budget, measure).to_numpy(dtype=float)
            mean, *ends = interval(values) if np.isfinite(values).any() else (np.nan, np.nan, np.nan)
            low, high = np.clip(ends, 0, 1) if measure in SHARES else ends
            row |= {measure: mean, f"{measure}_low": float(low), f"{measure}_high": float(high)}
        rows.append(row)
    return pd.DataFrame(rows)


def answer(frame: pd.DataFrame, asked: Sequence[Hypothesis]) -> pd.DataFrame:
    """One row a hypothesis: the mean of (a - b) over cells with both, its interval, p with Holm's correction, the verdict.

    ``verdict`` is "holds" or "contradicted" where the corrected p is below 0.05 and the mean lies on the side that is claimed,
    or on the other; "more" or "less" where nothing was claimed; else "undecided", or "not run" where no cell has both.
    """
    rows = []
    for one in asked:
        (a, b) = (matrix(frame, *side, one.measure) for side in one.sides)
        both = a.sub(b)  # aligned by subject and seed; what only one has becomes NaN
        values = both.to_numpy(dtype=float)
        row = {"id": one.id, "a": one.a, "b": one.b, "measure": one.measure, "says": one.says}
        row["cells"] = int(np.isfinite(values).sum())
        if row["cells"]:
            ends = zip(("difference", "low", "high"), difference(values, one.measure), strict=True)
            row |= dict(ends) | {"p": p_value(values)}
        rows.append(row)
    columns = ["id", "a", "b", "measure", "says", "cells", "difference", "low", "high", "p"]
    result = pd.DataFrame(rows, columns=columns)
    run = result["p"].notna()
    result["p_holm"] = np.nan
    if run.any():
        result.loc[run, "p_holm"] = multipletests(result.loc[run, "p"].astype(float), method="holm")[1]
    result["verdict"] = [_verdict(row) for row in result.to_dict("records")]
    return result


def _verdict(row: dict) -> str:
    if not row["cells"]:
        return "not run"
    if not row["p_holm"] < LEVEL:
        return "undecided"
    side = "more" if row["difference"] > 0 else "less"
    return side if row["says"] == "open" else "holds" if side == row["says"] else "contradicted"


def in_words(row: dict) -> str:
    """A row of ``answer`` as a sentence, for example "tail against creative, novel_and_valid: -0.10 (-0.30 to 0.10),
    undecided".
    """
    sides = f"{row['a']} against {row['b']}, {row['measure']}"
    if not row["cells"]:
        return f"{sides}: not run"
    claimed = "" if row["says"] == "open" else f" (claimed: {row['says']})"
    ends = "no spread, so no interval" if row["cells"] > 1 else "one cell, which has no interval"
    if np.isfinite(row["low"]):
        ends = f"{row['low']:+.2f} to {row['high']:+.2f}"
    return f"{sides}: {row['difference']:+.2f} ({ends}), {row['verdict']}{claimed}"


def worth(a: str, found: dict) -> str:
    """What an answer to "does ``a`` do as well as the search, at the same cost?" comes to, as a clause.

    Args:
        found: a row of ``answer`` with ``a`` against the search, with no side claimed.
    """
    return {
        "more": f"{a} does better than the search",
        "less": f"{a} does less than the search",
        "undecided": f"no difference between {a} and the search was shown",
        "not run": f"{a} was not run",
    }[found["verdict"]]
