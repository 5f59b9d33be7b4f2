"""The peak and how sure it is, curves on held-out pictures, two lines: an inverted U is described where there is one."""

import math
import os

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize_scalar
from scipy.special import expit

from creativelib.study.inverted_u import _Table, held_out, inverted_u, peak_interval, two_lines
from creativelib.study.ratings import checked_ratings
from creativelib.study.simulation import simulate_class
from creativelib.study.taste import berlyne, expected_rating
from creativelib.study.wundt import MODELS, WundtCurve

STUDIES = 400 if os.environ.get("CREATIVELIB_SLOW") == "1" else 60
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
    """Of a class whose people feel equally strongly, at pictures that differ by their surprise alone, unless said otherwise."""
    options = {"peak_spread": SPREAD, "slope": 0, "image_noise": 0} | options
    return simulate_class(stimuli(seed=seed), raters, seed=seed, curve=curve, **options)


def true_peak(curve, image_noise: float = 0) -> float:
    """Where the mean rating of the simulated class is highest, nats."""
    options = {"peak_spread": SPREAD, "image_noise": image_noise}
    return float(minimize_scalar(lambda x: -expected_rating(x, curve, **options), bounds=(60, 140), method="bounded").x)


@pytest.mark.parametrize("name", CURVES)
def test_studies_find_the_inverted_u_and_cover_its_peak(name):
    """Of other raters and other pictures, whose merits differ by half a point; by default the interval is for both."""
    curve = CURVES[name]
    peak = true_peak(curve, 0.5)
    found = [inverted_u(ratings(seed, curve, image_noise=0.5), resamples=100, seed=seed) for seed in range(STUDIES)]
    assert np.mean([one.consistent for one in found]) >= 0.9
    assert np.mean([one.interval[0] <= peak <= one.interval[1] for one in found]) >= 0.9
    widths = [one.interval[1] - one.interval[0] for one in found]
    assert np.median(widths) < 45  # of 120: the intervals do not cover by being wide
    assert np.median([one.peak for one in found]) == pytest.approx(peak, abs=3)


@pytest.mark.parametrize("image_noise", [0, 0.5])
@pytest.mark.parametrize("name", NULL_WORLDS)
def test_studies_describe_no_inverted_u_where_there_is_none(name, image_noise):
    options = {"image_noise": image_noise, "slope": 0.2}
    found = [inverted_u(ratings(seed, NULL_WORLDS[name], **options), resamples=2, seed=seed) for seed in range(STUDIES)]
    assert np.mean([one.consistent for one in found]) <= (0.075 if STUDIES == 400 else 0.1)


def test_the_interval_is_for_other_images_too_unless_it_is_told_not_to():
    curve, covered = CURVES["middle"], {False: 0, True: 0}
    peak = true_peak(curve, 0.5)
    for seed in range(STUDIES):
        frame = ratings(seed, curve, image_noise=0.5)
        for images in covered:
            found = peak_interval(frame, resamples=100, seed=seed, **({} if images else {"images": False}))
            covered[images] += found.low <= peak <= found.high
    assert covered[True] >= 0.9 * STUDIES > 0.85 * STUDIES > covered[False]


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


def test_it_is_consistent_only_with_all_conditions():
    found = inverted_u(ratings(0, CURVES["middle"]), resamples=50)
    assert found.consistent and all(found.conditions.values()) and found.lines.p_value < 0.05
    assert found.interval[0] < found.peak < found.interval[1] and found.inner == 1
    best = max(found.log_likelihoods["wundt"], found.log_likelihoods["parabola"])
    rival = max(found.log_likelihoods["monotone"], found.log_likelihoods["line"])
    assert found.folds["difference"].sum() == pytest.approx(best - rival) and best > rival
    strict = inverted_u(ratings(0, CURVES["middle"]), resamples=50, alpha=found.lines.p_value / 2)
    assert not strict.consistent and not strict.conditions["two significant lines"]


def test_repeats_and_checks_are_left_out():
    frame = ratings(0, CURVES["middle"])
    frame = pd.concat(
        [frame, frame[frame["position"] < 5].assign(kind="repeat"), frame.tail(9).assign(kind="outsider", value=0)]
    )
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
        (lambda f: f.assign(scale=f["rater"]), "ratings: got ratings on 30 scales"),
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
    frame = ratings(0, CURVES["middle"])
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
    with pytest.raises(ValueError, match="^break_point: got 41"):
        two_lines(frame, break_point=41.0)
