"""Answers: intervals by a bootstrap over subjects and over seeds, Holm's correction over all that was asked."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from creativelib.comparison.plan import Hypothesis

RESAMPLES = 10_000
LEVEL = 0.05


def matrix(frame: pd.DataFrame, method: str, budget: int, measure: str) -> pd.DataFrame:
    """A measure by subject (rows) and seed (columns); NaN where a cell is missing."""
    chosen = frame[(frame["method"] == method) & (frame["budget"] == budget)]
    return chosen.pivot_table(index="subject", columns="seed", values=measure, dropna=False)


def resampled_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of (subjects, seeds) under resampling of both, with replacement and apart from each other, (resamples,).

    Subjects and seeds are crossed: the noise of a seed is the same for all subjects. Both would be others in a new study, so an
    interval over one of them alone would be too narrow. NaN cells are left out of a mean.
    """
    source = np.random.default_rng(seed)
    subjects, seeds = values.shape
    rows = source.integers(0, subjects, (resamples, subjects))
    columns = source.integers(0, seeds, (resamples, seeds))
    drawn = values[rows[:, :, None], columns[:, None, :]].reshape(resamples, -1)
    counts = np.isfinite(drawn).sum(1)
    return np.divide(np.nansum(drawn, axis=1), counts, out=np.full(resamples, np.nan), where=counts > 0)


def interval(values: np.ndarray, level: float = LEVEL, seed: int = 0) -> tuple[float, float, float]:
    """Mean and percentile interval of (subjects, seeds)."""
    means = resampled_means(values, seed=seed)
    return float(np.nanmean(values)), *(float(one) for one in np.nanquantile(means, (level / 2, 1 - level / 2)))


def summary(frame: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Mean, low and high of each measure for each method and budget, with the number of cells."""
    rows = []
    for (method, budget), group in frame.groupby(["method", "budget"], sort=False):
        row = {"method": method, "budget": budget, "cells": len(group)}
        for measure in measures:
            values = matrix(frame, method, budget, measure).to_numpy(dtype=float)
            parts = interval(values) if np.isfinite(values).any() else (np.nan, np.nan, np.nan)
            row |= dict(zip((measure, f"{measure}_low", f"{measure}_high"), parts, strict=True))
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
            means = resampled_means(values)
            row |= dict(zip(("difference", "low", "high"), interval(values), strict=True))
            beyond = min((means <= 0).sum(), (means >= 0).sum())
            row["p"] = min(1.0, 2 * (beyond + 1) / (len(means) + 1))
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
    return f"{sides}: {row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f}), {row['verdict']}{claimed}"


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
