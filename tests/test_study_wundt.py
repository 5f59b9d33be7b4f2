"""The Wundt curve finds a known peak, and an inverted U is claimed where there is one and not where there is none."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize_scalar
from scipy.special import expit

from creativelib.study.simulation import berlyne, expected_rating, simulate_class
from creativelib.study.wundt import (
    MODELS,
    Line,
    Monotone,
    Parabola,
    WundtCurve,
    _Table,
    checked_ratings,
    held_out,
    inverted_u,
    peak_interval,
    two_lines,
)

LOW, HIGH, SPREAD = 40.0, 160.0, 10.0
CURVES = {
    "middle": berlyne(LOW, HIGH),
    "late": berlyne(LOW, HIGH, peak=110, height=2),
    "falls three times as fast": WundtCurve([1, 2.8, 3.5, 75, 15, 135, 5], LOW, HIGH),
}
NULL_WORLDS = {
    "flat": lambda x: 2.5 + 0 * x,
    "line": lambda x: 1 + 3 * (x - LOW) / (HIGH - LOW),
    "falling line": lambda x: 4 - 3 * (x - LOW) / (HIGH - LOW),
    "saturating": lambda x: 1 + 3 * expit((x - 70) / 10),
}


def stimuli(n: int = 40, seed: int = 0) -> pd.DataFrame:
    surprise = np.random.default_rng(seed).uniform(LOW, HIGH, n)
    return pd.DataFrame({"stimulus": [f"s{k}" for k in range(n)], "surprise": surprise})


def ratings(seed: int, curve, raters: int = 30, **options) -> pd.DataFrame:
    return simulate_class(stimuli(seed=seed), raters, seed=seed, curve=curve, peak_spread=SPREAD, **options)


def true_peak(curve) -> float:
    """Where the mean rating of the simulated class is highest, nats."""
    found = minimize_scalar(lambda x: -expected_rating(x, curve, peak_spread=SPREAD), bounds=(60, 140), method="bounded")
    return float(found.x)


@pytest.mark.parametrize("name", CURVES)
def test_200_studies_find_the_inverted_u_and_cover_its_peak(name):
    curve = CURVES[name]
    peak = true_peak(curve)
    found = [inverted_u(ratings(seed, curve), resamples=150, seed=seed) for seed in range(200)]
    assert np.mean([one.verdict for one in found]) >= 0.9
    assert np.mean([one.interval[0] <= peak <= one.interval[1] for one in found]) >= 0.9
    widths = [one.interval[1] - one.interval[0] for one in found]
    assert np.median(widths) < 25  # of 120: the intervals do not cover by being wide
    assert np.median([one.peak for one in found]) == pytest.approx(peak, abs=2)


@pytest.mark.parametrize("image_noise", [0, 0.5])
@pytest.mark.parametrize("name", NULL_WORLDS)
def test_200_studies_claim_no_inverted_u_where_there_is_none(name, image_noise):
    found = [
        inverted_u(ratings(seed, NULL_WORLDS[name], image_noise=image_noise), resamples=2, seed=seed) for seed in range(200)
    ]
    assert np.mean([one.verdict for one in found]) <= 0.1


def test_with_images_of_their_own_merit_the_interval_needs_a_resampling_of_images():
    curve = CURVES["middle"]
    covered = {False: 0, True: 0}
    for seed in range(100):
        frame = ratings(seed, curve, image_noise=0.5)
        for images in covered:
            found = peak_interval(frame, resamples=100, images=images, seed=seed)
            covered[images] += found.low <= true_peak(curve) <= found.high
    assert covered[True] >= 90 > 85 > covered[False]


def test_the_curve_is_berlynes():
    curve = WundtCurve([1, 3, 2, 70, 5, 120, 8], LOW, HIGH)
    expected = 1 + 3 * expit((100 - 70) / 5) - 2 * expit((100 - 120) / 8)
    assert float(curve.predict(100.0)) == pytest.approx(expected)
    assert (curve.baseline, curve.reward, curve.punishment) == (1, 3, 2)
    assert (curve.x1, curve.s1, curve.x2, curve.s2) == (70, 5, 120, 8)
    assert curve.predict(np.zeros((2, 3))).shape == (2, 3)
    best = minimize_scalar(lambda x: -curve.predict(x), bounds=(LOW, HIGH), method="bounded").x
    assert curve.peak == pytest.approx(best, abs=0.01)


def test_fit_recovers_a_curve_without_noise():
    curve, x = WundtCurve([1, 2.5, 3, 70, 9, 125, 7], LOW, HIGH), np.linspace(LOW, HIGH, 60)
    for shift, factor in ((0, 1), (-1000, 1), (0, 1000)):  # surprise may be negative or large
        found = WundtCurve.fit(factor * x + shift, curve.predict(x))
        np.testing.assert_allclose(found.predict(factor * x + shift), curve.predict(x), atol=2e-3)
        assert found.peak == pytest.approx(factor * curve.peak + shift, abs=0.2 * factor)
        assert found.x1 < found.x2 and min(found.reward, found.punishment, found.s1, found.s2) > 0


@pytest.mark.parametrize(
    "values", [lambda x: 2 + 0 * x, lambda x: x / 40, lambda x: 5 - x / 40, lambda x: 4 * expit((x - 70) / 9)]
)
def test_a_curve_without_an_inner_maximum_has_no_peak(values):
    x = np.linspace(LOW, HIGH, 50)
    assert math.isnan(WundtCurve.fit(x, values(x)).peak)


def test_line_and_parabola_equal_numpy_also_with_weights():
    frame = ratings(3, CURVES["late"]).sample(700, random_state=0)  # images with different numbers of ratings
    x, y = frame["surprise"].to_numpy(), frame["value"].to_numpy(float)
    for model, degree in ((Line, 1), (Parabola, 2)):
        np.testing.assert_allclose(model.fit(x, y).parameters, np.polynomial.polynomial.polyfit(x, y, degree), rtol=1e-6)
    a, b, c = Parabola.fit(x, y).parameters
    assert Parabola.fit(x, y).peak == pytest.approx(-b / (2 * c), abs=1e-6)
    assert math.isnan(Line.fit(x, y).peak) and math.isnan(Monotone.fit(x, y).peak)


def test_the_wundt_curve_is_never_worse_than_one_sigmoid_that_rises():
    x = np.linspace(LOW, HIGH, 40)
    y = np.clip(NULL_WORLDS["saturating"](x) + np.random.default_rng(0).normal(0, 0.3, 40), 0, 5)
    errors = [np.square(model.fit(x, y).predict(x) - y).sum() for model in (WundtCurve, Monotone)]
    assert errors[0] <= errors[1] + 1e-9


def test_a_resample_of_all_raters_once_is_the_fit():
    frame = ratings(1, CURVES["middle"]).sample(900, random_state=0)
    table = _Table.of(frame)
    assert table.counts.sum() == 900 and table.sums.sum() == frame["value"].sum()
    assert table.squares.sum() == (frame["value"] ** 2).sum()
    whole = WundtCurve.fit(frame["surprise"], frame["value"])
    assert peak_interval(frame, resamples=5).peak == pytest.approx(whole.peak, abs=1e-3)


def test_peak_interval():
    frame = ratings(5, CURVES["middle"])
    wide, narrow = peak_interval(frame, resamples=300), peak_interval(frame, resamples=300, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high and wide.low < wide.peak < wide.high
    assert wide.inner == 1 and wide.peaks.shape == (300,)
    assert peak_interval(frame, resamples=300).peaks.tolist() == wide.peaks.tolist()
    assert peak_interval(frame, resamples=300, seed=1).peaks.tolist() != wide.peaks.tolist()
    rising = peak_interval(ratings(5, NULL_WORLDS["line"]), resamples=100)
    assert math.isnan(rising.peak) and rising.inner < 0.5


def test_held_out_is_the_log_likelihood_of_images_not_seen():
    frame = ratings(2, CURVES["middle"], 12)
    scores = held_out(frame, folds=5, seed=3)
    assert list(scores) == list(MODELS) and len(scores) == 5
    images = frame.groupby("stimulus")["surprise"].first().sort_values().index
    blocks = np.tile(np.arange(5), (8, 1))
    fold = pd.Series(np.random.default_rng(3).permuted(blocks, axis=1).ravel(), images)
    test = (fold.loc[frame["stimulus"]] == 2).to_numpy()
    x, y = frame["surprise"].to_numpy(), frame["value"].to_numpy(float)
    line = sm.OLS(y[~test], sm.add_constant(x[~test])).fit()
    variance = np.mean(line.resid**2)
    residual = y[test] - line.predict(sm.add_constant(x[test]))
    expected = (-0.5 * (np.log(2 * np.pi * variance) + residual**2 / variance)).sum()
    assert scores.loc[2, "line"] == pytest.approx(expected, rel=1e-9)


def test_two_lines_on_a_tent_worked_by_hand():
    x = np.arange(0, 21.0)
    rows = [
        (r, f"s{k}", v, x[k]) for k in range(21) for r, v in (("a", 2.5 - abs(x[k] - 10) / 5), ("b", 3 - abs(x[k] - 10) / 5))
    ]
    frame = pd.DataFrame(rows, columns=["rater", "stimulus", "value", "surprise"])
    found = two_lines(frame, break_point=10)
    assert found.left == pytest.approx(0.2) and found.right == pytest.approx(-0.2) and found.p_value < 1e-6
    upside_down = two_lines(frame.assign(value=5 - frame["value"]), break_point=10)
    assert upside_down.left == pytest.approx(-0.2) and upside_down.p_value == 1


def test_the_verdict_needs_all_conditions():
    found = inverted_u(ratings(0, CURVES["middle"]), resamples=50)
    assert found.verdict and all(found.conditions.values()) and found.p_value == found.lines.p_value < 0.05
    assert found.interval[0] < found.peak < found.interval[1] and found.inner == 1
    best = max(found.log_likelihoods["wundt"], found.log_likelihoods["parabola"])
    rival = max(found.log_likelihoods["monotone"], found.log_likelihoods["line"])
    assert found.folds["difference"].sum() == pytest.approx(best - rival) and best > rival
    strict = inverted_u(ratings(0, CURVES["middle"]), resamples=50, alpha=found.p_value / 2)
    assert not strict.verdict and not strict.conditions["two significant lines"]


def test_repeats_and_checks_are_left_out():
    frame = ratings(0, CURVES["middle"], repeats=5)
    assert len(checked_ratings(frame, ["rater"])) == 30 * 40
    alone = frame[frame["kind"] == "image"]
    assert inverted_u(frame, resamples=20).interval == inverted_u(alone.drop(columns="kind"), resamples=20).interval


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.iloc[:0], "ratings: got 0 rows, none of an image"),
        (lambda f: f.assign(kind="check"), "ratings: got 1200 rows, none of an image"),
        (lambda f: f.drop(columns="surprise"), r"ratings: got the columns .*\['surprise'\] are missing"),
        (lambda f: f.assign(surprise=math.nan), "ratings: column 'surprise' holds nan .1200 rows.; give a known, finite"),
        (lambda f: f.assign(surprise="much"), "ratings: column 'surprise' holds 'much'"),
        (lambda f: f.assign(value=6), "ratings: column 'value' holds 6 .* give numbers from 0 to 5"),
        (lambda f: f.assign(value=-1), "ratings: column 'value' holds -1"),
        (lambda f: f.assign(value=math.nan), "ratings: column 'value' holds nan"),
        (lambda f: f.assign(rater="me"), "ratings: got 1 rater.s.; give the ratings of at least 2"),
        (lambda f: f.assign(rater=None), "ratings: column 'rater' holds"),
        (lambda f: f.assign(surprise=3.0), "ratings: got 1 different value.s. of surprise; give images of at least 8"),
        (lambda f: f.assign(surprise=np.arange(len(f))), "ratings: stimulus 's.*' has several values of surprise"),
    ],
)
def test_bad_ratings_are_named(change, message):
    frame = change(ratings(0, CURVES["middle"]))
    for function in (inverted_u, peak_interval, held_out, two_lines):
        with pytest.raises(ValueError, match=f"^{message}"):
            function(frame)


def test_bad_arguments_are_named():
    frame, x = ratings(0, CURVES["middle"]), np.linspace(LOW, HIGH, 20)
    with pytest.raises(TypeError, match="^ratings: got list"):
        inverted_u([1, 2])
    for options, message in [
        ({"alpha": 0}, "alpha: got 0"),
        ({"resamples": 0}, "resamples: got 0"),
        ({"resamples": 2.5}, "resamples: got 2.5"),
        ({"level": 95}, "level: got 95"),
        ({"folds": 1}, "folds: got 1"),
        ({"folds": 21}, "folds: got 21 for 40 images; give at most 20"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            inverted_u(frame, **options)
    for arguments, message in [
        ((x, np.ones(19)), r"surprise, rating: got shapes \(20,\) and \(19,\)"),
        ((np.where(x > 100, np.nan, x), np.ones(20)), "surprise: .* of 20 are not finite"),
        ((x, np.full(20, 5.5)), "rating: got 5.5; give numbers from 0 to 5"),
        ((x, np.full(20, np.nan)), "rating: got nan"),
        ((np.ones(20), np.ones(20)), "surprise: got 1 different value"),
    ]:
        for model in MODELS.values():
            with pytest.raises(ValueError, match=f"^{message}"):
                model.fit(*arguments)
    with pytest.raises(ValueError, match="^break_point: got 41"):
        two_lines(frame, break_point=41.0)
