"""Whole runs, dealt within one of each other at any moment; nothing stands always in one place or after one other."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from creativelib.study.orders import CREATIVE_AND_SURPRISING, assignment, rating_order, williams
from creativelib.study.simulation import simulate_class
from creativelib.study.stimuli import Stimulus


def stimuli(runs: int = 6, each: int = 3, repeats: int = 6, outsiders: int = 2) -> list[Stimulus]:
    images = [Stimulus(f"{run}-{k}", "image", b"", run, 24 * k, 50.0 + k) for run in range(runs) for k in range(each)]
    again = [Stimulus(f"again {run}", "repeat", b"", run, 0, 50.0, of=f"{run}-{run % each}") for run in range(repeats)]
    return [Stimulus("a", "anchor", b""), *images, *again, *(Stimulus(f"o{k}", "outsider", b"") for k in range(outsiders))]


STIMULI = stimuli()
RUN = {one.id: one.seed for one in STIMULI if one.kind == "image"}
OF = {one.id: one.of for one in STIMULI if one.of}


@pytest.mark.parametrize("n", [2, 3, 6, 9, 12, 15])
def test_a_williams_design(n):
    rows = [williams(n, row) for row in range(n * (1 + n % 2))]
    times = 1 + n % 2
    for place in range(n):
        assert Counter(row[place] for row in rows) == dict.fromkeys(range(n), times)
    follows = Counter(pair for row in rows for pair in pairwise(row))
    assert len(follows) == n * (n - 1) and set(follows.values()) == {times}


@pytest.mark.parametrize("runs", [6, 5])
def test_where_all_see_all_every_picture_is_equally_often_in_each_place_and_after_each_other(runs):
    pictures = stimuli(runs, repeats=0, outsiders=0)
    n = 3 * runs
    turns = n * (1 + n % 2)
    for first in (0, turns):
        orders = [rating_order(pictures, first + turn) for turn in range(turns)]
        for place in range(n):
            assert set(Counter(order[place] for order in orders).values()) == {turns // n}
        assert len(set(Counter(pair for order in orders for pair in pairwise(order)).values())) == 1
    assert rating_order(pictures, 0) != rating_order(pictures, turns)  # the next block is another design


@pytest.mark.parametrize("count", [6, 10, 13, 16, 19, 22, None])
def test_whole_runs_are_dealt_evenly_at_any_moment(count):
    dealt = Counter(dict.fromkeys(range(6), 0))
    for turn in range(120):
        order = rating_order(STIMULI, turn, count=count)
        runs = Counter(RUN[one] for one in order if one in RUN)
        assert set(runs.values()) == {3} and len(order) == len(set(order)) == 3 * len(runs) + min(2, len(runs)) + 2
        assert len(runs) == (1 if count == 6 else ((count or 22) - 4) // 3)
        dealt.update(runs.keys())
        assert max(dealt.values()) - min(dealt.values()) <= 1
        assert sum(one.startswith("o") for one in order) == 2 and order[0] in RUN


def test_everybody_meets_outsiders_and_two_repeats_far_from_their_originals():
    for turn in range(60):
        for count in (6, 14, None):
            order = rating_order(STIMULI, turn, count=count)
            again = [one for one in order if one in OF]
            assert len(again) == min(2, sum(one in RUN for one in order) // 3)
            assert all(OF[one] in order for one in again)
            if count is None:
                assert all(abs(order.index(one) - order.index(OF[one])) > len(RUN) // 4 for one in again)
    assert len({one for turn in range(60) for one in rating_order(STIMULI, turn) if one in OF}) == 6


def test_orders_are_repeatable_and_of_a_study():
    assert rating_order(STIMULI, 5) == rating_order(STIMULI, 5) != rating_order(STIMULI, 5, seed=1)
    assert len({tuple(rating_order(STIMULI, turn)) for turn in range(200)}) == 200
    assert len(rating_order(STIMULI, 2**40)) == 22


def test_one_shuffle_that_is_rotated_would_favour_what_follows_a_good_picture():
    """Simulated raters whose answers lean towards the picture before: the design keeps the means, a rotation does not."""
    images = [one for one in STIMULI if one.kind == "image"]
    table = pd.DataFrame([one.facts for one in images]).rename(columns={"id": "stimulus"})
    felt = np.random.default_rng(0).uniform(1, 4, len(table))
    table["surprise"] = np.arange(len(table), dtype=float)
    options = {"curve": lambda x: felt[np.rint(x).astype(int)], "peak_spread": 0, "slope": 0, "image_noise": 0, "lapse": 0}

    def bias(orders):
        means = [
            simulate_class(table, len(orders), seed=0, orders=orders, carryover=carryover, **options)
            .groupby("stimulus")["value"]
            .mean()
            for carryover in (0.4, 0.0)
        ]
        shift = means[0] - means[1]
        return float((shift - shift.mean()).std())

    names = list(np.random.default_rng(1).permutation(table["stimulus"]))
    rotated = [names[turn % 18 :] + names[: turn % 18] for turn in range(72)]
    assert bias(rotated) > 2.5 * bias([rating_order(images, turn) for turn in range(72)])


def test_scales_are_dealt_in_turn_and_each_is_balanced_for_itself():
    parts = [assignment(STIMULI, turn, scales=CREATIVE_AND_SURPRISING, count=10) for turn in range(48)]
    assert Counter(part.scale for part in parts) == {"creative": 36, "surprising": 12}
    for scale in ("creative", "surprising"):
        assert [part.number for part in parts if part.scale == scale] == list(range(36 if scale == "creative" else 12))
        dealt = Counter(RUN[one] for part in parts if part.scale == scale for one in part.order if one in RUN)
        assert max(dealt.values()) == min(dealt.values())
    alone = assignment(STIMULI, 7)
    assert alone.order == rating_order(STIMULI, 7) and (alone.scale, alone.number) == ("creative", 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rating_order(STIMULI, -1), "rater: got -1; give a whole number of at least 0"),
        (lambda: rating_order(STIMULI, True), "rater: got True"),
        (lambda: rating_order(STIMULI, 0, count=4), "count: got 4; give a whole number from 5 to 22 .the least is one run."),
        (lambda: rating_order(STIMULI, 0, count=23), "count: got 23; give a whole number from 5 to 22"),
        (lambda: rating_order(STIMULI, 0, repeats=-1), "repeats: got -1"),
        (lambda: rating_order(STIMULI[:1], 0), "stimuli: got no image to rate"),
        (lambda: assignment(STIMULI, 0, scales=()), "scales: got none"),
        (lambda: assignment(STIMULI, -1), "turn: got -1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_a_count_that_came_from_an_order_gives_as_long_ones():
    """Also where there are fewer repeats than runs."""
    few = stimuli(repeats=1)
    assert len(rating_order(few, 3, count=len(rating_order(few, 0)))) == 21
