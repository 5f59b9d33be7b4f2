"""Contrasts within runs: worked by hand, and right about other raters and other runs in worlds with both kinds of effects."""

import math

import numpy as np
import pandas as pd
import pytest

from creativelib.study.contrasts import difference_of, paired_difference, rise_and_fall
from creativelib.study.crossed import crossed_mean
from creativelib.study.simulation import People

STUDIES = 400


def differences(rows):
    return pd.DataFrame(rows, columns=["rater", "seed", "condition", "value"])


def test_paired_difference_worked_by_hand():
    # new less old: rater a 2 and 0 in runs 0 and 1, rater b 3 and 1
    rows = [("a", 0, "old", 1), ("a", 0, "new", 3), ("a", 1, "old", 2), ("a", 1, "new", 2)]
    rows += [("b", 0, "old", 1), ("b", 0, "new", 4), ("b", 1, "old", 1), ("b", 1, "new", 2)]
    found = paired_difference(differences(rows), "new", "old")
    # By run 2.5 and 0.5, by rater 1 and 2: mean squares 4 and 1, and nothing is left over. So the squared error is (4 + 1) / 4,
    # at 5^2 / (4^2 + 1^2) degrees of freedom (Satterthwaite).
    assert found.difference == 1.5 and found.error == pytest.approx(math.sqrt(1.25)) and found.freedom == pytest.approx(25 / 17)
    assert found.high - 1.5 == pytest.approx(1.5 - found.low) and (found.raters, found.runs) == (2, 2)
    turned = paired_difference(differences(rows), "old", "new")
    assert (turned.difference, turned.p_value) == (-found.difference, found.p_value)
    assert found.p_greater == pytest.approx(found.p_value / 2) and turned.p_greater == pytest.approx(1 - found.p_greater)


def test_the_crossed_mean_of_a_whole_table_is_that_of_the_analysis_of_variance():
    source, (raters, runs) = np.random.default_rng(0), (7, 5)
    cells = source.normal(size=(raters, 1)) + source.normal(size=(1, runs)) + source.normal(0, 0.5, (raters, runs))
    by_rater, by_run = runs * cells.mean(1).var(ddof=1), raters * cells.mean(0).var(ddof=1)
    left = cells - cells.mean(1, keepdims=True) - cells.mean(0) + cells.mean()
    rest = np.square(left).sum() / ((raters - 1) * (runs - 1))
    square = by_rater + by_run - rest  # of the error, times the number of cells
    freedom = square**2 / (by_rater**2 / 6 + by_run**2 / 4 + rest**2 / 24)
    found = crossed_mean(cells)
    assert (found.error, found.freedom) == pytest.approx((math.sqrt(square / cells.size), freedom))
    assert (found.rater, found.run, found.rest) == pytest.approx(((by_rater - rest) / runs, (by_run - rest) / raters, rest))


def test_an_effect_that_is_not_there_is_left_out():
    source = np.random.default_rng(1)
    cells = source.normal(size=(12, 9)) + source.normal(0, 2, (1, 9))
    cells -= cells.mean(1, keepdims=True)  # raters do not differ at all
    found = crossed_mean(cells)
    assert found.rater == 0 and found.freedom == pytest.approx(8)
    assert found.error == pytest.approx(cells.mean(0).std(ddof=1) / 3)


def test_raters_of_one_run_each_count_as_rest():
    """So it is where hundreds rate a handful of pictures: no rater can be told from the rest, and the runs still count."""
    source = np.random.default_rng(2)
    cells = np.full((60, 4), np.nan)
    cells[np.arange(60), np.arange(60) % 4] = source.normal(size=60) + source.normal(size=4)[np.arange(60) % 4]
    found = crossed_mean(cells)
    assert found.rater == 0 and 0 < found.freedom < 5
    assert found.error == pytest.approx(np.nanmean(cells, 0).std(ddof=1) / 2, rel=1e-6)


def test_paired_difference_takes_what_both_conditions_have():
    rows = [(rater, seed, condition, 3) for rater in "abc" for seed in range(3) for condition in ("old", "new")]
    rows += [("d", 0, "new", 0), ("a", 9, "old", 5)]  # halves of pairs
    found = paired_difference(differences(rows), "new", "old")
    assert (found.difference, found.p_value, found.raters, found.runs) == (0, 1, 3, 3)


@pytest.mark.parametrize(
    ("raters", "runs", "each", "narrow"),
    [(20, 6, 6, 1.05), (6, 20, 20, 1.05), (30, 8, 8, 1.05), (48, 16, 3, 1.1)],  # the last: everybody sees three runs of sixteen
)
def test_its_intervals_cover_the_truth_of_other_raters_and_runs_and_are_no_wider_than_they_must(raters, runs, each, narrow):
    source, covered, widths = np.random.default_rng(3), 0, []
    unseen = (np.arange(runs) - each * np.arange(raters)[:, None]) % runs >= each
    for _ in range(STUDIES):
        cells = source.normal(0.5, 0.2, (raters, 1)) + source.normal(0, 0.3, runs) + source.normal(0, 0.4, (raters, runs))
        cells[unseen] = np.nan
        found = difference_of(cells)
        covered += found.low <= 0.5 <= found.high
        widths.append(found.error)
    truth = math.sqrt(0.2**2 / raters + 0.3**2 / runs + 0.4**2 / (raters * each))
    assert 0.925 <= covered / STUDIES <= 0.985 and np.sqrt(np.mean(np.square(widths))) < narrow * truth


WORLDS = {  # of default, creative, overshoot; in none of them ratings rise and fall
    "flat": (2.5, 2.5, 2.5),
    "rises, then level": (1.5, 3.0, 3.0),
    "level, then falls": (2.5, 2.5, 1.0),
    "rises": (1.5, 2.5, 3.5),
}


def studies(felt, raters=30, runs=16, each=16, count=STUDIES, seed=0, **options):
    """Differences (raters, runs) in simulated studies, middle less first and middle less last; pictures feel like this."""
    table = pd.DataFrame(
        {"stimulus": range(3 * runs), "surprise": np.tile([0.0, 1.0, 2.0], runs), "seed": np.arange(3 * runs) // 3}
    )
    source = np.random.default_rng(seed)
    settings = {
        "curve": lambda x: np.interp(x, [0, 1, 2], felt),
        "peak_spread": 0,
        "slope": 0.4,
        "run_noise": 0.4,
        "image_noise": 0.5,
    }
    unseen = (np.arange(runs) - each * np.arange(raters)[:, None]) % runs >= each
    for _ in range(count):
        people = People(table, raters, source, **(settings | options))
        people.felt += source.normal(0, 0.3, (raters, 3))[:, np.arange(3 * runs) % 3]  # who likes the default, who the odd
        value = people.answers(np.tile(np.arange(3 * runs), (raters, 1))).reshape(raters, runs, 3).astype(float)
        value[unseen] = np.nan
        yield value[:, :, 1] - value[:, :, 0], value[:, :, 1] - value[:, :, 2]


def found_in(felt, read=lambda cells: cells, **options) -> float:
    """The share of studies in which both one-sided tests are below .05."""
    pairs = studies(felt, **options)
    both = [max(difference_of(read(rise)).p_greater, difference_of(read(fall)).p_greater) for rise, fall in pairs]
    return float(np.mean(np.array(both) < 0.05))


@pytest.mark.parametrize("each", [16, 5])
@pytest.mark.parametrize("world", WORLDS)
def test_400_studies_find_no_rise_and_fall_where_there_is_none(world, each):
    """With effects of runs and pictures, raters who feel more or less strongly, whether all see all runs or five of them."""
    assert found_in(WORLDS[world], each=each, seed=5) <= 0.075


@pytest.mark.parametrize("world", WORLDS)
def test_by_order_alone_400_studies_find_no_rise_and_fall_where_there_is_none(world):
    assert found_in(WORLDS[world], np.sign, each=5, seed=7) <= 0.075


def test_by_order_alone_it_does_not_matter_how_far_two_numbers_are_apart():
    rows = [
        (r, s, NAMES, values)
        for r, s, values in [("a", 0, [1, 2, 0]), ("a", 1, [2, 2, 1]), ("b", 0, [0, 3, 1]), ("b", 1, [3, 2, 2])]
    ]
    found = rise_and_fall(rated(rows), ordinal=True)
    assert (found.rise.difference, found.fall.difference) == ((1 + 0 + 1 - 1) / 4, (1 + 1 + 1 + 0) / 4)
    assert found.rise.low >= -1 and found.fall.high <= 1
    stretched = rated(rows).assign(value=lambda frame: frame["value"].map({0: 0, 1: 1, 2: 4, 3: 5}))
    assert rise_and_fall(stretched, ordinal=True) == found and rise_and_fall(stretched) != rise_and_fall(rated(rows))


def test_400_studies_find_a_rise_and_a_fall_of_half_a_point():
    assert found_in((2.0, 2.75, 1.5), seed=6) >= 0.8


def rated(rows):
    return pd.concat(
        [pd.DataFrame({"rater": r, "seed": s, "condition": list(names), "value": values}) for r, s, names, values in rows]
    )


NAMES = ("default", "creative", "overshoot")


def test_the_verdict_needs_a_rise_and_a_fall():
    source = np.random.default_rng(0)

    def study(felt):
        rows = [(f"r{r}", s, NAMES, np.clip(felt + source.normal(0, 0.4, 3), 0, 5)) for r in range(6) for s in range(6)]
        return rise_and_fall(rated(rows))

    both, rise, fall = study([2, 4, 1]), study([2, 4, 4]), study([4, 4, 1])
    assert both.verdict and both.p_value == max(both.rise.p_greater, both.fall.p_greater) < 0.01
    assert both.rise.difference == pytest.approx(2, abs=0.4) and both.fall.difference == pytest.approx(3, abs=0.4)
    assert not rise.verdict and rise.rise.p_greater < 0.01 and not fall.verdict and fall.fall.p_greater < 0.01


FULL = rated([(r, s, NAMES, [2, 3, 1]) for r in "ab" for s in range(3)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference(FULL, "better", "default"), "of: got 'better'; give one of"),
        (lambda: paired_difference(FULL, "creative", "worse"), "versus: got 'worse'; give one of"),
        (
            lambda: paired_difference(FULL.query("seed == 0"), "creative", "default"),
            "ratings: got both .* 2 raters in 1 runs; give 2",
        ),
        (lambda: paired_difference(FULL, "creative", "default", level=95), "level: got 95"),
        (lambda: rise_and_fall(FULL.drop(columns="condition")), r"ratings: got the columns .*\['condition'\] are missing"),
        (lambda: rise_and_fall(FULL, names=("default", "creative")), "names: got .*; give three conditions"),
        (lambda: rise_and_fall(FULL, alpha=5), "alpha: got 5; give a share"),
        (lambda: crossed_mean(np.zeros((1, 5))), "cells: got numbers of 1 raters in 5 runs; give at least 2 of each"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
