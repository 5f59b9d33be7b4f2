"""The sentence about what is worth its compute says what the table says, whatever that is."""

import numpy as np
import pandas as pd
import pytest

from creativelib.comparison.advice import PURPOSES, SEARCH, SIMPLE, advise, cost_of_a_picture, questions
from creativelib.comparison.answers import answer
from creativelib.comparison.plan import hypotheses
from creativelib.comparison.report import Comparison

COST = {"plain": 10, "words": 10, "tail": 400, "creative": 500}


def table(**means):
    """Seven subjects, five seeds; by measure: the means of plain, words, tail and creative. ``None``: was not run."""
    source, rows = np.random.default_rng(0), []
    for place, method in enumerate((*SIMPLE, SEARCH)):
        if any(values[place] is None for values in means.values()):
            continue
        for subject in range(7):
            for seed in range(5):
                row = {"method": method, "subject": str(subject), "seed": seed, "budget": 50, "results": 4}
                row |= {measure: values[place] + 0.05 * source.normal() for measure, values in means.items()}
                rows.append(row | {"cost_prior": 4 * COST[method] + (method == "words")})  # in four pictures
    return pd.DataFrame(rows)


def test_the_search_is_worth_it_only_where_it_beats_every_simple_method():
    found = advise(table(novel_and_valid=(0.1, 0.3, 0.5, 0.3), structure=(1, 1, 1, 2), surprise=(0, 0, 3, 3)), 50)
    assert found.worth == ("structure",) and found.enough == {"novel_and_valid": "tail", "surprise": "tail"}
    assert found.better == ("novel_and_valid",)
    assert found.sentence == (
        "At the same budget, the search is worth its compute where pictures shall be drawn in another way and not only "
        "recoloured; where pictures shall be new and still recognised, tail does better than it; "
        "where pictures shall be improbable to the model, tail will do."
    )
    assert len(found.answers) == len(PURPOSES) * len(SIMPLE)


def test_the_cheapest_that_it_does_not_beat_will_do():
    even = advise(table(novel_and_valid=(0.3,) * 4, structure=(1, 2, 2, 2), surprise=(1, 2, 3, 3)), 50)
    assert even.enough == {"novel_and_valid": "plain", "structure": "words", "surprise": "tail"} and not even.better
    assert even.sentence.startswith("At the same budget, the search was not shown to be worth its compute for anything; where ")
    costs = cost_of_a_picture(table(structure=(1, 1, 1, 1)), 50)
    assert costs == pytest.approx({"plain": 10, "words": 10.25, "tail": 400, "creative": 500})


def test_what_was_not_run_is_not_spoken_of():
    measures = {"novel_and_valid": (None, 0.1, 0.1, 0.9), "structure": (None, 1, 1, 2), "surprise": (None, 0, 0, 9)}
    found = advise(table(**measures), 50)
    assert found.worth == tuple(PURPOSES) and not found.enough and "plain" not in found.sentence
    alone = advise(table(**{measure: (None, None, None, 1) for measure in PURPOSES}), 50)
    assert not alone.worth and not alone.enough and alone.sentence.endswith("were not run, so nothing can be said.")
    assert advise(table(**measures), 300).sentence == alone.sentence  # nor at that budget


def test_a_few_cells_show_nothing():
    few = table(novel_and_valid=(0.1, 0.1, 0.1, 0.4), structure=(1, 1, 1, 1.2), surprise=(0, 0, 0, 0.2))
    few = few[few["subject"].isin(["0", "1"]) & few["seed"].isin([0, 1])]
    assert advise(few, 50).enough == dict.fromkeys(PURPOSES, "plain")


def test_one_correction_over_both_families_changes_no_verdict_of_the_comparison_that_ships():
    stated, asked, results = hypotheses(), questions(50), Comparison().results
    twice = {frozenset((one.a, one.b, one.measure)) for one in stated if one.budget == 50 and one.budget_b in (None, 50)}
    new = [one for one in asked if frozenset((one.a, one.b, one.measure)) not in twice]
    assert (len(asked), len(new), len(stated) + len(new)) == (9, 5, 16)
    together, alone = (answer(results, part).set_index("id")["verdict"] for part in ([*stated, *new], asked))
    assert (together[[one.id for one in new]] == alone[[one.id for one in new]]).all()
    assert (together[[one.id for one in stated]] == Comparison().answers.set_index("id")["verdict"]).all()
