"""Paired choices give exact intervals and Bradley-Terry strengths that were worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from creativelib.study.choices import bradley_terry, crossed_share, share_interval
from creativelib.study.simulation import simulate_choices

EQUAL = {"peak_spread": 0, "slope": 0, "image_noise": 0, "lapse": 0}  # people who feel alike


def choices(*counts) -> pd.DataFrame:
    """(winner, loser, how often); sides alternate."""
    pairs = [(w, v) for w, v, n in counts for _ in range(n)]
    rows = [(f"r{k}", *((w, v, "left") if k % 2 else (v, w, "right"))) for k, (w, v) in enumerate(pairs)]
    return pd.DataFrame(rows, columns=["rater", "left", "right", "chosen"])


def test_share_interval_is_exact():
    found = share_interval(7, 10)  # Clopper-Pearson: the roots of the binomial tails at 2.5 %
    assert (found.share, found.low, found.high) == pytest.approx((0.7, 0.34755, 0.93326), abs=1e-5)
    assert found.p_value == pytest.approx(2 * (120 + 45 + 10 + 1) / 1024)
    none = share_interval(0, 20)
    assert (none.low, none.high) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))


def test_the_interval_of_a_share_is_for_other_raters_and_other_runs():
    """Raters and runs with a leaning of their own: choices as if independent promise too much."""
    source, raters, runs, each = np.random.default_rng(0), 24, 16, 8
    spread = np.hypot(1.0, 1.0)
    for middle in (0.0, 1.5):
        truth = expit(middle + spread * source.normal(size=1_000_000)).mean()
        covered = np.zeros(2)
        for _ in range(200):
            chance = expit(middle + source.normal(size=(raters, 1)) + source.normal(size=(1, runs)))
            won = (source.random((raters, runs)) < chance).astype(float)
            won[source.permuted(np.tile(np.arange(runs), (raters, 1)), axis=1) >= each] = np.nan
            both = crossed_share(won), share_interval(int(np.nansum(won)), raters * each)
            covered += [one.low <= truth <= one.high for one in both]
        assert covered[0] >= 0.92 * 200 and covered[1] < 0.85 * 200


def test_choices_that_are_all_alike_are_as_many_as_raters_or_runs():
    same = crossed_share(np.ones((5, 8)))
    assert (same.share, same.low, same.high) == (1, share_interval(5, 5).low, 1) and same.p_value == 2 * 0.5**5
    one_each = np.full((40, 40), np.nan)  # one choice of each rater, in a run of its own: independent
    np.fill_diagonal(one_each, np.arange(40) % 4 > 0)
    found, exact = crossed_share(one_each), share_interval(30, 40)
    assert (found.low, found.high, found.p_value) == pytest.approx((exact.low, exact.high, exact.p_value), abs=0.02)
    with pytest.raises(ValueError, match="at least 2 of each"):
        crossed_share(np.ones((1, 3)))


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
        given = simulate_choices(items, 30, seed=seed, pairs=8, curve=lambda x: x, decision_noise=2, **EQUAL)
        found = bradley_terry(given, resamples=100, seed=seed).set_index("item").loc[list("abcd")]
        truth = (np.arange(4) - 1.5) / 2
        covered.append((found["low"] <= truth) & (truth <= found["high"]))
    assert 0.88 <= np.mean(covered) <= 1


CHOICES = choices(("x", "y", 3), ("y", "x", 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
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
    with pytest.raises(TypeError, match="^choices: got list"):
        bradley_terry([])
