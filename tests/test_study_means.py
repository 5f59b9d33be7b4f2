"""Means by iteration and by surprise, worked by hand, with intervals that know that raters differ."""

import math

import numpy as np
import pandas as pd
import pytest

from creativelib.study.means import mean_by_iteration, mean_by_surprise
from creativelib.study.simulation import simulate_class


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
        options = {"curve": lambda x: truth + 0 * x, "peak_spread": 0, "lapse": 0, "offset": 0.8, "image_noise": 0}
        found = mean_by_iteration(simulate_class(stimuli(6), 25, seed=seed, **options), resamples=200, seed=seed)
        covered.append((found["low"] <= truth) & (truth <= found["high"]))
    assert 0.88 <= np.mean(covered) <= 0.98


FULL = simulate_class(stimuli(), 4, seed=0)


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (function, change, message)
        for function in (mean_by_iteration, mean_by_surprise)
        for change, message in [
            (lambda f: f.iloc[:0], "ratings: got 0 rows, none of an image; give at least one"),
            (lambda f: f.drop(columns="value"), r"ratings: got the columns .*\['value'\] are missing"),
            (lambda f: f.assign(value=5.5), "ratings: column 'value' holds 5.5 .*give numbers from 0 to 5"),
            (lambda f: f.assign(rater="me"), "ratings: got 1 rater.s.; give the ratings of at least 2"),
            (lambda f: f.assign(scale=["creative", "surprising"] * (len(f) // 2)), "ratings: got ratings on 2 scales"),
        ]
    ]
    + [
        (mean_by_surprise, lambda f: f.assign(surprise=math.nan), "ratings: column 'surprise' holds nan"),
        (mean_by_surprise, lambda f: f.assign(surprise=1.0), "ratings: all images have the same surprise"),
    ],
)
def test_bad_ratings_are_named(function, change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        function(change(FULL))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_by_iteration(FULL, level=1), "level: got 1"),
        (lambda: mean_by_iteration(FULL, resamples=0), "resamples: got 0"),
        (lambda: mean_by_surprise(FULL, bins=0), "bins: got 0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
