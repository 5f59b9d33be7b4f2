"""Whom to believe: raters among each other (Krippendorff's alpha), with themselves (repeats), and with the obvious (checks)."""

import krippendorff
import pandas as pd

from creativelib.study import LOWEST
from creativelib.study.ratings import checked_count, checked_ratings

LEVELS = ("nominal", "ordinal", "interval")
SAME = 8  # so many equal answers are no chance


def krippendorff_alpha(ratings: pd.DataFrame, *, measure: str = "interval") -> float:
    """Krippendorff's alpha: 1 raters agree, 0 as by chance. Who rates an image twice counts once, with the first.

    Args:
        ratings: with rater, stimulus, value; images that were rated once only have no influence.
        measure: 'interval', 'ordinal' or 'nominal': what a difference of two ratings means.

    Raises:
        TypeError, ValueError: as ``checked_ratings``, another measure, nothing to compare.
    """
    if measure not in LEVELS:
        raise ValueError(f"measure: got {measure!r}; give one of {LEVELS}")
    rows = checked_ratings(ratings, ["rater", "stimulus", "value"]).drop_duplicates(["rater", "stimulus"])
    shared = rows[rows.groupby("stimulus")["value"].transform("size") > 1]
    if shared.empty:
        raise ValueError("ratings: no image was rated by two raters; alpha needs images that several rated")
    if shared["value"].nunique() == 1:
        raise ValueError(f"ratings: every rating is {shared['value'].iloc[0]}; alpha is not defined without any difference")
    table = shared.pivot(index="rater", columns="stimulus", values="value").astype(float)
    return float(krippendorff.alpha(reliability_data=table.to_numpy(), level_of_measurement=measure))


def repeat_agreement(ratings: pd.DataFrame) -> pd.DataFrame:
    """How each rater agrees with himself on what he rated twice (rows of one rater and stimulus, kind 'image' or 'repeat').

    Args:
        ratings: with rater, stimulus, value, in the order in which they were given; the first two of a stimulus are compared.
            Where there is a column ``of`` (from a store), a row of kind 'repeat' is another rating of the stimulus named there.

    Returns:
        index rater; columns repeats, difference (mean absolute one, rating points), within_one (share at most 1 apart).
        Raters who repeated nothing have 0 repeats and NaN.

    Raises:
        TypeError, ValueError: as ``checked_ratings``.
    """
    if isinstance(ratings, pd.DataFrame) and "of" in ratings and "stimulus" in ratings:
        ratings = ratings.assign(stimulus=ratings["of"].fillna(ratings["stimulus"]))
    if isinstance(ratings, pd.DataFrame) and "kind" in ratings:
        ratings = ratings[ratings["kind"].isin(["image", "repeat"])].drop(columns="kind")
    rows = checked_ratings(ratings, ["rater", "stimulus", "value"], raters=1)
    rows = rows.assign(turn=rows.groupby(["rater", "stimulus"]).cumcount())
    pairs = rows[rows["turn"] < 2].pivot(index=["rater", "stimulus"], columns="turn", values="value").reindex(columns=[0, 1])
    difference = (pairs[1] - pairs[0]).abs().dropna()
    by_rater = difference.groupby("rater")
    found = pd.DataFrame({"repeats": by_rater.size(), "difference": by_rater.mean()})
    found["within_one"] = (difference <= 1).groupby("rater").mean()
    found = found.reindex(pd.Index(sorted(rows["rater"].unique()), name="rater"))
    return found.assign(repeats=found["repeats"].fillna(0).astype(int))


def failed_checks(checks: pd.DataFrame, *, allowed: int = 0) -> pd.DataFrame:
    """Who failed attention checks ("choose 4 here"; pictures of something else, which deserve a 0).

    Args:
        checks: with rater, value and expected, one check a row; or ratings without that column, whose rows of kind 'outsider'
            are the checks, with a 0 expected. allowed: how many a rater may fail.

    Returns:
        index rater, who has seen no check too; columns checks, failed, flagged (bool).

    Raises:
        TypeError, ValueError: as ``checked_ratings``.
    """
    checked_count("allowed", allowed, 0)
    check = True
    if isinstance(checks, pd.DataFrame) and "kind" in checks:
        if "expected" not in checks:
            check, checks = checks["kind"] == "outsider", checks.assign(expected=LOWEST)
        checks = checks.drop(columns="kind")
    rows = checked_ratings(checks, ["rater", "value", "expected"], "checks", raters=1)
    rows = rows.assign(checks=check, failed=check & (rows["value"] != rows["expected"]))
    found = rows.groupby("rater")[["checks", "failed"]].sum()
    return found.assign(flagged=found["failed"] > allowed)


def exclusions(ratings: pd.DataFrame, *, allowed: int = 0, fastest: float = 500) -> pd.DataFrame:
    """Whom to leave out, and why: a rule to be fixed, and published, before anybody rates.

    Out is who rated more than ``allowed`` outsiders above 0 (on the scale of creativity: surprise has no right answer), who
    gave all of eight pictures or more the same number, and whose median answer took less than ``fastest`` milliseconds (where a
    column milliseconds says so). Nobody is out for what they liked.

    Args:
        ratings: with rater, stimulus, value; all kinds of rows, of one scale.

    Returns:
        rater, reason; sorted by rater.

    Raises:
        TypeError, ValueError: as ``checked_ratings``.
    """
    rows = checked_ratings(ratings, ["rater", "stimulus", "value"], raters=1)
    reasons = {}
    if "milliseconds" in rows:
        median = rows.groupby("rater")["milliseconds"].median()
        reasons |= {
            rater: f"median answer after {ms:.0f} ms, less than {fastest:.0f}" for rater, ms in median.items() if ms < fastest
        }
    by_rater = rows.groupby("rater")["value"]
    same = (by_rater.nunique() == 1) & (by_rater.size() >= SAME)
    reasons |= {rater: "gave all pictures the same number" for rater in same[same].index}
    if "kind" in ratings and ratings.get("scale", pd.Series("creative")).iloc[0] == "creative":
        failed = failed_checks(ratings, allowed=allowed).query("flagged")["failed"]
        reasons |= {rater: f"rated {count} picture(s) of something else above {LOWEST}" for rater, count in failed.items()}
    return pd.DataFrame(sorted(reasons.items()), columns=["rater", "reason"])
