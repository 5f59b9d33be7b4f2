"""Intervals over subjects and seeds, Holm's correction and verdicts, on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from creativelib.comparison.answers import answer, estimate, in_words, interval, matrix, p_value, summary, worth
from creativelib.comparison.plan import Hypothesis


def frame(shift, spread=1.0, subjects=6, seeds=8, seed=0):
    """Novelty of plain (about 1) and of creative (``shift`` more)."""
    source = np.random.default_rng(seed)
    names = [f"subject {number}" for number in range(subjects)]
    rows = [
        {"method": method, "subject": subject, "seed": number, "budget": 50, "novelty": source.normal(mean, spread)}
        for method, mean in (("plain", 1.0), ("creative", 1.0 + shift))
        for subject in names
        for number in range(seeds)
    ]
    return pd.DataFrame(rows)


def hypothesis(says="more", **options):
    return Hypothesis(
        **{"id": says, "source": "", "a": "creative", "b": "plain", "budget": 50, "measure": "novelty", "says": says, **options}
    )


def test_the_interval_counts_subjects_as_well_as_seeds():
    by_subject = np.repeat([[0.0], [1.0], [2.0], [3.0]], 30, axis=1)  # seeds change nothing, subjects all
    mean, low, high = interval(by_subject)
    # four numbers 0 to 3: standard error sqrt(5 / 3) / 2, and 97.5 % of Student's t with 3 degrees of freedom is 3.182
    assert mean == 1.5 and [low, high] == pytest.approx([1.5 - 3.182 * 0.6455, 1.5 + 3.182 * 0.6455], abs=1e-3)
    assert estimate(by_subject.T) == pytest.approx(estimate(by_subject))
    for equal in (np.ones((3, 4)), np.array([[1.0, np.nan], [1.0, 1.0]])):  # no spread is no certainty
        mean, *ends = interval(equal)
        assert mean == 1 and np.isnan(ends).all()


def test_one_subject_says_nothing_of_others():
    assert p_value(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])) == p_value(np.array([[1.0], [2.0], [3.0], [4.0]])) == 1
    assert p_value(np.array([[1.0, 2.0, 3.0], [1.1, 2.1, 3.1]])) < 1


def test_the_error_of_both_by_hand():
    # means of subjects 1, 3, of seeds 1, 3: mean squares 4 and 4, and 0 of the rest; (4 + 4 - 0) / 4 cells, 64 / (16 + 16)
    assert estimate(np.array([[0.0, 2.0], [2.0, 4.0]])) == pytest.approx((2, 2**0.5, 2))
    # a line of seeds: the usual standard error
    assert estimate(np.array([[1.0, 2.0, 3.0]])) == pytest.approx((2, 3**-0.5, 2))
    some = np.array([[0.0, 2.0, np.nan], [2.0, 4.0, np.nan], [np.nan, np.nan, np.nan]])  # what is missing counts for nothing
    assert estimate(some) == pytest.approx((2, 2**0.5, 2))


# how much differs by subject, by seed, and by cell; then at most how often the interval may hold, and how far it may reach, in
# units of what a known spread would give (Student's t of so few subjects or seeds alone makes that 1.2 or 1.3)
SPREADS = {
    "subjects": ((1, 0.1, 0.3), 0.98, 1.3),
    "seeds": ((0.1, 1, 0.3), 0.98, 1.45),
    "both": ((1, 1, 1), 0.98, 1.3),
    "cells": ((0, 0, 1), 0.995, 1.7),  # too wide, and known to be: nobody can see that neither subjects nor seeds matter
}


@pytest.mark.parametrize("spread", SPREADS)
def test_the_interval_covers_as_often_as_it_says(spread):
    """Of the grid of the comparison, whatever differs most in it: subjects, seeds, or single cells."""
    ((subject, seed, cell), most, widest), source, trials = SPREADS[spread], np.random.default_rng(0), 600
    known = 1.96 * (subject**2 / 7 + seed**2 / 5 + cell**2 / 35) ** 0.5
    hits = alarms = reach = 0
    for _ in range(trials):
        values = subject * source.normal(size=(7, 1)) + seed * source.normal(size=(1, 5)) + cell * source.normal(size=(7, 5))
        mean, low, high = interval(values)
        hits, alarms, reach = hits + (low <= 0 <= high), alarms + (p_value(values) < 0.01), reach + (high - mean) / known
    assert 0.93 <= hits / trials <= most and alarms / trials <= 0.025
    assert 1 <= reach / trials <= widest


def test_one_cell_proves_nothing_and_a_few_equal_ones_little():
    assert p_value(np.array([[0.75]])) == 1 and np.isnan(interval(np.array([[0.75]]))[1:]).all()
    assert p_value(np.full((2, 2), 0.25)) == 0.125 and p_value(np.full((7, 5), 0.25)) < 1e-9
    assert p_value(np.zeros((7, 5))) == 1
    result = answer(frame(2.0, subjects=1, seeds=1), [hypothesis("more")])
    assert result["verdict"].item() == "undecided"
    assert "one cell, which has no interval" in in_words(result.to_dict("records")[0])


def test_verdicts():
    asked = [hypothesis("more"), hypothesis("less"), hypothesis("open"), hypothesis("more", a="tail", id="absent")]
    result = answer(frame(2.0), asked).set_index("id")
    assert result["verdict"].to_dict() == {"more": "holds", "less": "contradicted", "open": "more", "absent": "not run"}
    assert result.loc["more", "difference"] == pytest.approx(2, abs=0.6) and result.loc["more", "low"] > 1
    assert result.loc["more", "cells"] == 48 and result.loc["absent", "cells"] == 0
    assert (result["p_holm"].dropna() >= result["p"].dropna()).all()
    assert answer(frame(0.0, seed=1), asked[:1])["verdict"].item() == "undecided"
    assert answer(frame(2.0), [hypothesis("more", a="tail")])["verdict"].item() == "not run"


def test_holm_asks_more_of_many_questions():
    one = answer(frame(0.45), [hypothesis("more")])
    many = answer(frame(0.45), [hypothesis("more", id=str(number)) for number in range(20)])
    assert many["p_holm"].iloc[0] == pytest.approx(min(1, 20 * one["p"].iloc[0]))


def test_cells_are_paired_by_subject_and_seed():
    table = frame(1.0, spread=0.0)
    table = table.drop(table[(table["method"] == "plain") & (table["seed"] == 3)].index)
    result = answer(table, [hypothesis("more")])
    assert result["cells"].item() == 42 and result["difference"].item() == pytest.approx(1)
    assert matrix(table, "creative", 50, "novelty").shape == (6, 8)


def test_a_summary_has_an_interval_for_each_method():
    table = summary(frame(2.0), ["novelty"]).set_index("method")
    assert list(table.columns) == ["budget", "cells", "novelty", "novelty_low", "novelty_high"]
    assert (table["novelty_low"] < table["novelty"]).all() and table.loc["creative", "novelty_low"] > table.loc[
        "plain", "novelty_high"
    ]


def test_the_interval_of_a_share_ends_where_shares_do():
    shares = frame(0.0).assign(judge=lambda rows: np.where(rows["seed"] == 3, 0.75, 1.0))
    table = summary(shares, ["judge"])
    assert (table["judge_high"] == 1).all() and (table["judge_low"] < table["judge"]).all() and (table["judge"] < 1).all()
    few = frame(0.0, subjects=2, seeds=2).assign(judge=[0, 0, 0, 0, 0, 0, 1, 1])  # one subject differs by 0, the other by 1
    found = answer(few, [hypothesis("open", measure="judge")]).iloc[0]
    assert (found["low"], found["high"]) == (-1, 1)  # by Student's t with one degree of freedom it were wider


def test_an_answer_is_said_in_words():
    found = answer(frame(2.0), [hypothesis("open"), hypothesis("less"), hypothesis("more", b="tail")]).to_dict("records")
    words = [in_words(row) for row in found]
    assert words[0].startswith("creative against plain, novelty: +2") and words[0].endswith("), more")
    assert words[1].endswith("contradicted (claimed: less)") and words[2] == "creative against tail, novelty: not run"
    assert worth("this", found[0]) == "this does better than the search" and worth("it", found[2]) == "it was not run"
    (none,) = answer(frame(0.0, subjects=2, seeds=2), [hypothesis("open")]).to_dict("records")
    assert worth("it", none) == "no difference between it and the search was shown"
