"""Intervals over subjects and seeds, Holm's correction and verdicts, on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from creativelib.comparison.answers import answer, in_words, interval, matrix, resampled_means, summary, worth
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
    assert mean == 1.5 and high - low > 1.5
    assert resampled_means(by_subject.T).std() == pytest.approx(resampled_means(by_subject).std(), rel=0.1)
    assert interval(np.ones((3, 4))) == (1, 1, 1)
    assert interval(np.array([[1.0, np.nan], [1.0, 1.0]])) == (1, 1, 1)


def test_the_interval_covers_as_often_as_it_says():
    source, hits = np.random.default_rng(0), 0
    for number in range(200):
        values = source.normal(size=(8, 1)) + source.normal(size=(1, 10)) + source.normal(size=(8, 10))
        means = resampled_means(values, resamples=400, seed=number)
        hits += np.quantile(means, 0.025) <= 0 <= np.quantile(means, 0.975)
    assert 0.87 <= hits / 200 <= 1


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


def test_an_answer_is_said_in_words():
    found = answer(frame(2.0), [hypothesis("open"), hypothesis("less"), hypothesis("more", b="tail")]).to_dict("records")
    words = [in_words(row) for row in found]
    assert words[0].startswith("creative against plain, novelty: +2") and words[0].endswith("), more")
    assert words[1].endswith("contradicted (claimed: less)") and words[2] == "creative against tail, novelty: not run"
    assert worth("this", found[0]) == "this does better than the search" and worth("it", found[2]) == "it was not run"
    (none,) = answer(frame(0.0, subjects=2, seeds=2), [hypothesis("open")]).to_dict("records")
    assert worth("it", none) == "no difference between it and the search was shown"
