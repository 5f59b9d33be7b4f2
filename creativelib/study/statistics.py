"""Other statistics of the study: means (Fig. 4), a mixed-effects check, agreement, attention, power, paired choices (7.4.2).

Ratings are frames as in ``creativelib.study.wundt``; choices are frames with the columns rater, left, right and chosen ('left'
or 'right'). Intervals resample raters, because the ratings of one person are not independent.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import choix
import krippendorff
import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from creativelib.study import LOWEST
from creativelib.study.simulation import simulate_class
from creativelib.study.wundt import WundtCurve, checked_count, checked_level, checked_ratings, inverted_u, resampled

LEVELS = ("nominal", "ordinal", "interval")


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


@dataclass(frozen=True)
class MixedEffects:
    """A linear mixed model of ratings.

    Attributes:
        terms: index intercept, linear, quadratic (of surprise in standard deviations of the images); columns estimate, error,
            low, high, p. rater_sd, residual_sd: rating points. converged: what the optimiser says. note: how to read it.
    """

    terms: pd.DataFrame
    rater_sd: float
    residual_sd: float
    converged: bool
    note: str


def mixed_effects(ratings: pd.DataFrame, *, level: float = 0.95) -> MixedEffects:
    """A check by another road: value ~ z + z^2 with a random intercept for each rater, by REML.

    Args:
        ratings: with rater, stimulus, value, surprise.

    Raises:
        TypeError, ValueError: as ``checked_ratings``, fewer than three values of surprise.
    """
    rows = checked_ratings(ratings, ["rater", "stimulus", "value", "surprise"])
    images = rows.groupby("stimulus")["surprise"].first().astype(float)
    if images.nunique() < 3:
        raise ValueError(f"ratings: got {images.nunique()} value(s) of surprise; give images of at least 3")
    z = ((rows["surprise"].astype(float) - images.mean()) / images.std()).to_numpy()
    design = np.stack([np.ones_like(z), z, z**2], axis=1)
    notes = ["images are taken as fixed: the p-values speak of other raters, not of other images"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = sm.MixedLM(rows["value"].to_numpy(float), design, groups=pd.factorize(rows["rater"])[0])
            fit = fit.fit(reml=True, method=["bfgs", "lbfgs", "powell"])  # the last needs no gradient: for the edge
            estimate, error = np.asarray(fit.fe_params), np.asarray(fit.bse_fe)
            rater_variance, scale, converged = float(np.asarray(fit.cov_re).ravel()[0]), float(fit.scale), bool(fit.converged)
        except np.linalg.LinAlgError as problem:
            estimate = error = np.full(3, np.nan)
            rater_variance, scale, converged = np.nan, np.nan, False
            notes.append(f"no estimate: {problem}")
    if not converged:
        notes.append("the optimiser did not converge: take no number from here")
    elif rater_variance < 1e-3 * scale:
        notes.append("raters hardly differ in their means: their variance is at 0, the edge of what is allowed")
    if not converged or not error.all() or np.isnan(error).any():  # those of attempts that a later one made good are no news
        notes += sorted({str(warning.message).split("\n")[0] for warning in caught})
    reach = norm.ppf((1 + checked_level(level)) / 2) * error
    columns = {"estimate": estimate, "error": error, "low": estimate - reach, "high": estimate + reach}
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["p"] = 2 * norm.sf(np.abs(estimate / error))
    terms = pd.DataFrame(columns, index=pd.Index(["intercept", "linear", "quadratic"], name="term"))
    return MixedEffects(terms, float(np.sqrt(rater_variance)), float(np.sqrt(scale)), converged, "; ".join(notes))


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


def power(
    stimuli: pd.DataFrame,
    raters: Sequence[int] = (10, 20, 30),
    *,
    seed: int,
    curve: WundtCurve | Callable | None = None,
    repeats: int = 100,
    resamples: int = 200,
    alpha: float = 0.05,
    level: float = 0.95,
    **options,
) -> pd.DataFrame:
    """How many raters the study needs: simulated classes, analysed by ``inverted_u`` like real ones.

    Args:
        stimuli: as for ``simulate_class``. curve: the effect, for example ``berlyne(low, high, peak=, height=)``.
        raters: numbers to try. repeats: simulated studies for each. options: of ``simulate_class``.

    Returns:
        raters, detected (share of verdicts True), low, high (exact interval of that share), width (median width of the
        interval of the peak, nats).

    Raises:
        TypeError, ValueError: as ``simulate_class`` and ``inverted_u``.
    """
    checked_count("repeats", repeats, 1)
    if not len(raters):
        raise ValueError("raters: got none; give at least one number of raters, for example [10, 20, 30]")
    rows = []
    for number in raters:
        checked_count("raters", number, 2)
        seeds = np.random.default_rng([checked_count("seed", seed, 0), number]).integers(2**31, size=repeats)
        found = [
            inverted_u(
                simulate_class(stimuli, number, seed=int(one), curve=curve, **options),
                alpha=alpha,
                resamples=resamples,
                level=level,
                seed=int(one),
            )
            for one in seeds
        ]
        share = share_interval(sum(one.verdict for one in found), repeats, level=level)
        widths = pd.Series([one.interval[1] - one.interval[0] for one in found])
        rows.append({"raters": number, "detected": share.share, "low": share.low, "high": share.high, "width": widths.median()})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Difference:
    """A mean difference in rating points with its interval and two-sided p-value, over so many raters and runs."""

    difference: float
    low: float
    high: float
    p_value: float
    raters: int
    runs: int


def paired_difference(ratings: pd.DataFrame, of: str, versus: str, *, level: float = 0.95) -> Difference:
    """How much higher one condition is rated than another, by the same rater in the same run (the confirmatory round).

    The interval speaks of other raters *and* other runs: the squared errors of the mean over raters and over runs are added,
    and Student's law has the degrees of freedom of the fewer. That counts the noise of single ratings twice, so it is
    careful: 95 % intervals held the truth in 97 % of simulated rounds or more.

    Args:
        ratings: with rater, seed (of the run), condition, value. of, versus: two of the conditions.

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
    means = [np.nanmean(pairs, axis=axis) for axis in (0, 1)]  # by run, by rater
    difference, error = float(np.nanmean(pairs)), math.sqrt(sum(mean.var(ddof=1) / len(mean) for mean in means))
    law = student(min(pairs.shape) - 1)
    reach = float(law.ppf((1 + checked_level(level)) / 2)) * error
    p_value = float(2 * law.sf(abs(difference) / error)) if error else float(difference == 0)
    return Difference(difference, difference - reach, difference + reach, p_value, *pairs.shape)


@dataclass(frozen=True)
class Share:
    """A share with its exact (Clopper-Pearson) interval, and the two-sided p-value of a share of one half."""

    share: float
    low: float
    high: float
    p_value: float


def share_interval(chosen: int, n: int, *, level: float = 0.95) -> Share:
    """Interval of a share: ``chosen`` of ``n`` independent choices (Fig. 7).

    Choices of one rater are not independent: with several each, give raters (by their majority), or use ``bradley_terry``.

    Raises:
        ValueError: not 0 <= chosen <= n, n < 1, a level outside 0 to 1.
    """
    checked_count("n", n, 1)
    if checked_count("chosen", chosen, 0) > n:
        raise ValueError(f"chosen: got {chosen} of n={n}; give at most n")
    test = binomtest(chosen, n)
    interval = test.proportion_ci(checked_level(level), method="exact")
    return Share(chosen / n, float(interval.low), float(interval.high), float(test.pvalue))


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
