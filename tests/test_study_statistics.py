"""The statistics of the study give published and hand-worked numbers, and intervals that cover what they should."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from creativelib.study.simulation import berlyne, simulate_choices, simulate_class
from creativelib.study.statistics import (
    bradley_terry,
    failed_checks,
    krippendorff_alpha,
    mean_by_iteration,
    mean_by_surprise,
    mixed_effects,
    paired_difference,
    power,
    repeat_agreement,
    share_interval,
)


def frame(rows, columns="rater stimulus value seed iteration surprise kind") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


SMALL = frame(
    [
        ("a", "s", 1, 0, 0, 10.0, "image"),
        ("b", "s", 2, 0, 0, 10.0, "image"),
        ("a", "t", 4, 0, 5, 30.0, "image"),
        ("b", "t", 5, 0, 5, 30.0, "image"),
        ("a", "u", 2, 1, 5, 20.0, "image"),
        ("b", "u", 0, 1, 5, 20.0, "image"),
        ("a", "u", 5, 1, 5, 20.0, "repeat"),
    ]
)


def stimuli(n: int = 20) -> pd.DataFrame:
    return pd.DataFrame({"stimulus": [f"s{k}" for k in range(n)], "surprise": np.linspace(40, 160, n), "iteration": range(n)})


def test_means_worked_by_hand():
    found = mean_by_iteration(SMALL)
    assert list(found) == ["iteration", "mean", "low", "high", "n"]
    assert found[["iteration", "mean", "n"]].values.tolist() == [[0, 1.5, 2], [5, 2.75, 4]]
    # Of two raters a resample has both, or one twice: the means are 1.5, 1 and 2.
    assert found.loc[0, ["low", "high"]].tolist() == [1, 2] and found.loc[1, ["low", "high"]].tolist() == [2.5, 3]
    by_seed = mean_by_iteration(SMALL, by_seed=True)
    assert by_seed[["seed", "iteration", "mean", "n"]].values.tolist() == [[0, 0, 1.5, 2], [0, 5, 4.5, 2], [1, 5, 1, 2]]
    bins = mean_by_surprise(SMALL, bins=3)
    assert bins[["surprise", "mean", "n"]].values.tolist() == [[10, 1.5, 2], [20, 1, 2], [30, 4.5, 2]]
    two = mean_by_surprise(SMALL, bins=2)
    assert two[["surprise", "mean", "n"]].values.tolist() == [[15, 1.25, 4], [30, 4.5, 2]]


def test_intervals_of_means_cover_and_know_that_raters_differ():
    truth, covered = 2.5, []
    for seed in range(200):
        options = {"curve": lambda x: truth + 0 * x, "peak_spread": 0, "lapse": 0, "offset": 0.8}
        found = mean_by_iteration(simulate_class(stimuli(6), 25, seed=seed, **options), resamples=200, seed=seed)
        covered.append((found["low"] <= truth) & (truth <= found["high"]))
    assert 0.88 <= np.mean(covered) <= 0.98


def test_alpha_is_that_of_krippendorffs_own_example():
    """Four observers, twelve units: "Computing Krippendorff's Alpha-Reliability" (2011)."""
    observed = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    rows = [(f"r{i}", f"u{k}", int(v)) for i, row in enumerate(observed) for k, v in enumerate(row) if v != "."]
    ratings = frame(rows, "rater stimulus value")
    for measure, alpha in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        assert krippendorff_alpha(ratings, measure=measure) == pytest.approx(alpha, abs=5e-4)
    again = pd.concat([ratings, ratings.assign(value=0)])  # a second rating of the same image does not count
    assert krippendorff_alpha(again) == krippendorff_alpha(ratings)


def test_mixed_effects_equal_those_of_a_formula():
    ratings = simulate_class(stimuli(), 12, seed=3)
    found = mixed_effects(ratings)
    surprise = stimuli()["surprise"]
    data = ratings.assign(z=(ratings["surprise"] - surprise.mean()) / surprise.std())
    expected = smf.mixedlm("value ~ z + I(z ** 2)", data, groups=data["rater"]).fit()
    np.testing.assert_allclose(found.terms["estimate"], expected.fe_params, rtol=1e-4)
    np.testing.assert_allclose(found.terms["p"], expected.pvalues.iloc[:3], rtol=1e-2, atol=1e-8)
    np.testing.assert_allclose(found.terms[["low", "high"]], expected.conf_int().iloc[:3], atol=1e-3)
    assert found.converged and found.terms.loc["quadratic", "estimate"] < 0 and found.terms.loc["quadratic", "p"] < 1e-6
    assert 0.1 < found.rater_sd < 1 and 0.8 < found.residual_sd < 1.3
    assert "images are taken as fixed" in found.note


def test_mixed_effects_say_where_they_fail(monkeypatch):
    same = mixed_effects(simulate_class(stimuli(), 5, seed=1, offset=0, peak_spread=0, noise=0, lapse=0))
    assert same.rater_sd < 0.01 and "raters hardly differ in their means" in same.note
    real = sm.MixedLM.fit
    monkeypatch.setattr(sm.MixedLM, "fit", lambda self, **options: real(self, reml=True, method="bfgs", maxiter=1))
    stopped = mixed_effects(simulate_class(stimuli(), 12, seed=3))
    assert not stopped.converged and "did not converge: take no number from here" in stopped.note

    def singular(self, **options):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(sm.MixedLM, "fit", singular)
    none = mixed_effects(simulate_class(stimuli(), 12, seed=3))
    assert not none.converged and "no estimate: Singular matrix" in none.note and none.terms.isna().all(axis=None)


def test_repeats_worked_by_hand():
    found = repeat_agreement(SMALL)
    assert found.loc["a", ["repeats", "difference", "within_one"]].tolist() == [1, 3, 0]
    assert found.loc["b", "repeats"] == 0 and math.isnan(found.loc["b", "difference"])
    three = frame([("a", "s", v) for v in (2, 3, 0)] + [("a", "t", 4), ("a", "t", 2)], "rater stimulus value")
    assert repeat_agreement(three).loc["a"].tolist() == [2, 1.5, 0.5]  # the third time is not compared


def test_failed_checks_worked_by_hand():
    checks = frame([("a", 4, 4), ("a", 1, 3), ("b", 4, 4), ("c", 0, 4), ("c", 0, 3)], "rater value expected")
    found = failed_checks(checks)
    assert found["checks"].to_dict() == {"a": 2, "b": 1, "c": 2} and found["failed"].to_dict() == {"a": 1, "b": 0, "c": 2}
    assert found["flagged"].to_dict() == {"a": True, "b": False, "c": True}
    assert failed_checks(checks, allowed=1)["flagged"].to_dict() == {"a": False, "b": False, "c": True}


def test_checks_and_repeats_as_a_store_gives_them():
    """From a store a repeat has an id of its own and names its original; outsiders are rows of the ratings."""
    rows = [
        ("a", "s", 1, "image", None), ("a", "r", 3, "repeat", "s"), ("a", "x", 0, "outsider", None),
        ("b", "s", 2, "image", None), ("b", "r", 2, "repeat", "s"), ("b", "x", 4, "outsider", None),
    ]  # fmt: skip
    ratings = frame(rows, "rater stimulus value kind of")
    assert repeat_agreement(ratings)["difference"].to_dict() == {"a": 2, "b": 0}
    assert failed_checks(ratings)["flagged"].to_dict() == {"a": False, "b": True}
    begun = failed_checks(ratings[ratings["kind"] != "outsider"])  # people who have seen none yet
    assert begun["checks"].to_dict() == {"a": 0, "b": 0} and not begun["flagged"].any()


def differences(rows):
    return frame(rows, "rater seed condition value")


def test_paired_difference_worked_by_hand():
    # new less old: rater a 2 and 0 in runs 0 and 1, rater b 3 and 1
    rows = [("a", 0, "old", 1), ("a", 0, "new", 3), ("a", 1, "old", 2), ("a", 1, "new", 2)]
    rows += [("b", 0, "old", 1), ("b", 0, "new", 4), ("b", 1, "old", 1), ("b", 1, "new", 2)]
    found = paired_difference(differences(rows), "new", "old")
    # by run 2.5 and 0.5, by rater 1 and 2: squared errors 2 / 2 + 0.5 / 2; Student's t at 1 degree of freedom is 12.706
    reach = 12.7062 * math.sqrt(1.25)
    assert found.difference == 1.5 and (found.low, found.high) == pytest.approx((1.5 - reach, 1.5 + reach), rel=1e-5)
    assert found.p_value == pytest.approx(1 - 2 / math.pi * math.atan(1.5 / math.sqrt(1.25)))  # Cauchy's law
    assert (found.raters, found.runs) == (2, 2)
    turned = paired_difference(differences(rows), "old", "new")
    assert (turned.difference, turned.p_value) == (-found.difference, found.p_value)


def test_paired_difference_takes_what_both_conditions_have():
    rows = [(rater, seed, condition, 3) for rater in "abc" for seed in range(3) for condition in ("old", "new")]
    rows += [("d", 0, "new", 0), ("a", 9, "old", 5)]  # halves of pairs
    found = paired_difference(differences(rows), "new", "old")
    assert (found.difference, found.p_value, found.raters, found.runs) == (0, 1, 3, 3)


@pytest.mark.parametrize(("raters", "runs"), [(20, 6), (6, 20), (30, 8)])
def test_paired_difference_covers_the_truth_of_other_raters_and_runs(raters, runs):
    """Crossed random effects of raters and runs; 2 is the rating of the old in all."""
    source, covered, repeats = np.random.default_rng(3), 0, 300
    rater, run = (part.ravel() for part in np.meshgrid(range(raters), range(runs), indexing="ij"))
    for _ in range(repeats):
        effects = source.normal(0, 0.15, raters)[rater] + source.normal(0, 0.3, runs)[run]
        new = (2.5 + effects + source.normal(0, 0.4, len(run))).clip(0, 5)
        parts = [
            pd.DataFrame({"rater": rater, "seed": run, "condition": name, "value": value})
            for name, value in (("old", np.full(len(run), 2.0)), ("new", new))
        ]
        found = paired_difference(pd.concat(parts), "new", "old")
        covered += found.low <= 0.5 <= found.high
    assert 0.93 <= covered / repeats


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("better", "old"), "of: got 'better'; give one of"), (("new", "worse"), "versus: got 'worse'; give one of")],
)
def test_paired_difference_names_a_condition_that_is_not_there(arguments, message):
    rows = [(rater, seed, condition, 3) for rater in "ab" for seed in range(2) for condition in ("old", "new")]
    with pytest.raises(ValueError, match=message):
        paired_difference(differences(rows), *arguments)
    with pytest.raises(ValueError, match="ratings: got both conditions from 2 raters in 1 runs; give 2 of each"):
        paired_difference(differences(rows).query("seed == 0"), "new", "old")


def test_power_rises_with_raters_and_effect_and_is_seeded():
    options = {"seed": 0, "repeats": 15, "resamples": 20}
    small = power(stimuli(), [4, 40], curve=berlyne(40, 160, height=0.7), **options)
    large = power(stimuli(), [4], curve=berlyne(40, 160, height=3), **options)
    assert list(small) == ["raters", "detected", "low", "high", "width"]
    assert small.loc[0, "detected"] < small.loc[1, "detected"] and small.loc[0, "detected"] < large.loc[0, "detected"]
    assert ((small["low"] <= small["detected"]) & (small["detected"] <= small["high"])).all()
    pd.testing.assert_frame_equal(large, power(stimuli(), [4], curve=berlyne(40, 160, height=3), **options))


def test_share_interval_is_exact():
    found = share_interval(7, 10)  # Clopper-Pearson: the roots of the binomial tails at 2.5 %
    assert (found.share, found.low, found.high) == pytest.approx((0.7, 0.34755, 0.93326), abs=1e-5)
    assert found.p_value == pytest.approx(2 * (120 + 45 + 10 + 1) / 1024)
    none = share_interval(0, 20)
    assert (none.low, none.high) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))


def choices(*counts) -> pd.DataFrame:
    """(winner, loser, how often); sides alternate."""
    pairs = [(w, v) for w, v, n in counts for _ in range(n)]
    rows = [(f"r{k}", *((w, v, "left") if k % 2 else (v, w, "right"))) for k, (w, v) in enumerate(pairs)]
    return frame(rows, "rater left right chosen")


def test_bradley_terry_worked_by_hand():
    two = bradley_terry(choices(("x", "y", 3), ("y", "x", 1)), prior=0, resamples=0)
    assert two["item"].tolist() == ["x", "y"] and two["wins"].tolist() == [3, 1] and two["n"].tolist() == [4, 4]
    assert two["strength"].tolist() == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    # Strengths log 4, log 2, log 1: of 6 or 5 encounters 4:2, 4:1 and 2:1 are won as often as expected.
    counts = [("x", "y", 4), ("y", "x", 2), ("x", "z", 4), ("z", "x", 1), ("y", "z", 2), ("z", "y", 1)]
    three = bradley_terry(choices(*counts), prior=0, resamples=0).set_index("item")["strength"]
    assert (three - three["z"]).to_dict() == pytest.approx({"x": math.log(4), "y": math.log(2), "z": 0}, abs=1e-5)
    assert three.sum() == pytest.approx(0)
    imagined = bradley_terry(choices(("x", "y", 4)), prior=1, resamples=0)["strength"]  # 5 to 1
    assert imagined.tolist() == pytest.approx([math.log(5) / 2, -math.log(5) / 2])


def test_intervals_of_bradley_terry_cover():
    items, covered = pd.DataFrame({"stimulus": list("abcd"), "surprise": [0.0, 1, 2, 3]}), []
    for seed in range(60):
        given = simulate_choices(items, 30, seed=seed, pairs=8, curve=lambda x: x, peak_spread=0, decision_noise=2, lapse=0)
        found = bradley_terry(given, resamples=100, seed=seed).set_index("item").loc[list("abcd")]
        truth = (np.arange(4) - 1.5) / 2
        covered.append((found["low"] <= truth) & (truth <= found["high"]))
    assert 0.88 <= np.mean(covered) <= 1


FULL = simulate_class(stimuli(), 4, seed=0)


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (function, change, message)
        for function in (mean_by_iteration, mean_by_surprise, mixed_effects, krippendorff_alpha, repeat_agreement)
        for change, message in [
            (lambda f: f.iloc[:0], "ratings: got 0 rows, none of an image; give at least one"),
            (lambda f: f.drop(columns="value"), r"ratings: got the columns .*\['value'\] are missing"),
            (lambda f: f.assign(value=5.5), "ratings: column 'value' holds 5.5 .*give numbers from 0 to 5"),
        ]
    ]
    + [
        (function, lambda f: f.assign(surprise=math.nan), "ratings: column 'surprise' holds nan")
        for function in (mean_by_surprise, mixed_effects)
    ]
    + [(mean_by_surprise, lambda f: f.assign(surprise=1.0), "ratings: all images have the same surprise")]
    + [(mixed_effects, lambda f: f.assign(surprise=1.0), "ratings: got 1 value.s. of surprise; give images of at least 3")]
    + [
        (function, lambda f: f.assign(rater="me"), "ratings: got 1 rater.s.; give the ratings of at least 2")
        for function in (mean_by_iteration, mean_by_surprise, mixed_effects, krippendorff_alpha)
    ]
    + [
        (krippendorff_alpha, lambda f: f.assign(value=3), "ratings: every rating is 3"),
        (krippendorff_alpha, lambda f: f.assign(stimulus=range(len(f))), "ratings: no image was rated by two raters"),
    ],
)
def test_bad_ratings_are_named(function, change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        function(change(FULL))


CHOICES = choices(("x", "y", 3), ("y", "x", 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_by_iteration(FULL, level=1), "level: got 1"),
        (lambda: mean_by_iteration(FULL, resamples=0), "resamples: got 0"),
        (lambda: mean_by_surprise(FULL, bins=0), "bins: got 0"),
        (lambda: krippendorff_alpha(FULL, measure="ratio"), "measure: got 'ratio'; give one of .*'ordinal'"),
        (lambda: failed_checks(FULL.drop(columns="kind")), r"checks: got the columns .*\['expected'\] are missing"),
        (lambda: failed_checks(FULL, allowed=-1), "allowed: got -1"),
        (lambda: power(stimuli(), [], seed=0), "raters: got none"),
        (lambda: power(stimuli(), [1], seed=0), "raters: got 1; give a whole number of at least 2"),
        (lambda: power(stimuli(), [5], seed=0, repeats=0), "repeats: got 0"),
        (lambda: share_interval(5, 4), "chosen: got 5 of n=4"),
        (lambda: share_interval(-1, 4), "chosen: got -1"),
        (lambda: share_interval(0, 0), "n: got 0"),
        (lambda: bradley_terry(CHOICES.iloc[:0]), "choices: got 0 rows"),
        (lambda: bradley_terry(CHOICES.drop(columns="right")), r"choices: got the columns .*\['right'\] are missing"),
        (lambda: bradley_terry(CHOICES.assign(chosen="both")), "choices: column 'chosen' holds 'both'; give 'left' or 'right'"),
        (lambda: bradley_terry(CHOICES.assign(left="x", right="x")), "choices: an image stands against itself"),
        (lambda: bradley_terry(CHOICES, prior=-1), "prior: got -1"),
        (lambda: bradley_terry(choices(("x", "y", 3)), prior=0), "prior: got 0, but some items always won"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_other_things_than_frames_are_refused():
    with pytest.raises(TypeError, match="^ratings: got dict"):
        krippendorff_alpha({})
    with pytest.raises(TypeError, match="^choices: got list"):
        bradley_terry([])


def test_the_analysis_needs_no_torch():
    script = "import sys, creativelib.study.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
