"""Figures of the study: what they show is what was rated, and none hides that its raters were simulated."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from creativelib.study import figures
from creativelib.study.contrasts import p_words, rise_and_fall
from creativelib.study.inverted_u import inverted_u
from creativelib.study.means import mean_by_iteration
from creativelib.study.simulation import simulate_class
from creativelib.study.stimuli import CONDITIONS as CONDITION_NAMES
from creativelib.study.stimuli import Stimulus
from creativelib.study.taste import berlyne
from creativelib.widgets import png

STIMULI = [
    Stimulus(f"{seed}-{step}", "image", png(Image.new("RGB", (8, 8))), seed, step, 60.0 + 10 * step + seed)
    for seed in range(3)
    for step in range(0, 14, 2)
]
TABLE = pd.DataFrame([one.facts for one in STIMULI]).rename(columns={"id": "stimulus"})
CONDITIONS = {
    one.id: {0: "default", 4: "creative", 12: "overshoot"}[one.iteration] for one in STIMULI if one.iteration in (0, 4, 12)
}


def ratings(human=False):
    simulated = simulate_class(TABLE, 12, seed=0, curve=berlyne(60, 170))
    if not human:
        return simulated
    return simulated.drop(columns="simulated").assign(rater=simulated["rater"].str.replace("simulated", "rater"))


def texts_inside(axis):
    return " | ".join(text.get_text() for text in axis.get_children() if isinstance(text, Text))


def drawn(rows):
    return [
        figures.by_iteration(rows, STIMULI, seeds=(0, 2), resamples=50),
        figures.wundt_curve(rows, inverted_u(rows, resamples=20)),
        figures.by_condition(rows, STIMULI, CONDITIONS),
        figures.contrasts(within(rows), rise_and_fall(within(rows))),
    ]


def within(rows):
    return rows.assign(condition=rows["stimulus"].map(CONDITIONS)).dropna(subset="condition")


def test_every_figure_says_inside_its_axes_who_rated():
    for figure in drawn(ratings()):
        assert "12 simulated raters" in texts_inside(figure.axes[0])
    for figure in drawn(ratings(human=True)):
        assert "12 raters" in texts_inside(figure.axes[0]) and "simulated" not in texts_inside(figure.axes[0])


def test_contrasts_are_those_of_the_test_with_their_intervals():
    rows = within(ratings())
    found = rise_and_fall(rows)
    left, right = figures.contrasts(rows, found).axes
    mean = next(line for line in left.lines if line.get_label() == "mean of 3 runs")
    assert np.allclose(mean.get_ydata(), [rows[rows["condition"] == name]["value"].mean() for name in CONDITION_NAMES])
    assert [bar.lines[0].get_ydata()[0] for bar in right.containers] == [found.rise.difference, found.fall.difference]
    assert p_words(found.fall.p_greater) in texts_inside(right) and "simulated" in texts_inside(right)


def test_a_p_value_is_never_said_to_be_nought():
    rows = within(ratings())
    found = rise_and_fall(rows)
    tiny = replace(found, fall=replace(found.fall, p_greater=4e-4), rise=replace(found.rise, p_greater=0.25))
    words = texts_inside(figures.contrasts(rows, tiny).axes[1])
    assert "p < .001" in words and "p = .250" in words and "0.000" not in words
    assert [p_words(value) for value in (0.0, 0.00099, 0.001, 0.0314, 1.0)] == [
        "p < .001", "p < .001", "p = .001", "p = .031", "p = 1.000",
    ]  # fmt: skip


@pytest.mark.parametrize("difference", [-4.0, 0.2, 4.0])
def test_what_the_contrasts_say_is_not_written_over(difference):
    rows = within(ratings())
    found = rise_and_fall(rows)
    one = replace(found.fall, difference=difference, low=difference - 0.8, high=difference + 0.8)
    figure = figures.contrasts(rows, replace(found, fall=one))
    figure.draw_without_rendering()
    right = figure.axes[1]
    written = [text for text in right.texts if text.get_text()]
    boxes = [text.get_window_extent() for text in written]
    marks = [(bar.lines[0], *bar.lines[1]) for bar in right.containers]  # the mean and both ends
    drawn = [Bbox.union([line.get_window_extent() for line in bar]) for bar in marks]
    assert len(boxes) == 3 and len(drawn) == 2
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.overlaps(one) for box in boxes for one in drawn)
    for axis in figure.axes:
        outside = [axis.yaxis.label, axis.title, *axis.get_xticklabels()]
        assert all(
            figure.bbox.x0 <= box.x0 and box.y1 <= figure.bbox.y1 for box in (one.get_window_extent() for one in outside)
        )
        labels = [one.get_window_extent() for one in axis.get_xticklabels()]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(labels, 2))


def test_who_rated_counts_both_kinds_and_cannot_be_fooled_by_a_store():
    both = pd.concat([ratings(), ratings(human=True)])
    assert figures.who_rated(both) == "12 raters and 12 simulated raters"
    without = ratings().drop(columns="simulated")  # as they come back from a store: the code tells
    assert figures.who_rated(without) == "12 simulated raters"
    assert figures.who_rated(ratings()[lambda rows: rows["rater"] == "simulated 001"]) == "1 simulated rater"


def test_the_line_of_fig_4_is_the_mean_by_iteration_with_its_interval():
    rows = ratings()
    axis = figures.by_iteration(rows, resamples=50).axes[0]
    mean = mean_by_iteration(rows, resamples=50)
    line = next(line for line in axis.lines if line.get_label() == "mean")
    assert np.allclose(line.get_xydata(), mean[["iteration", "mean"]])
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(mean["low"].min()) and band.max() == pytest.approx(mean["high"].max())
    assert {line.get_label() for line in axis.lines} == {"mean", "run 0", "run 1", "run 2"}


def test_the_images_below_are_those_of_the_seeds():
    figure = figures.by_iteration(ratings(), STIMULI, seeds=(0, 2), resamples=20)
    assert sum(bool(axis.images) for axis in figure.axes) == 14
    with pytest.raises(ValueError, match=r"seeds: got 7; the stimuli have images of \[0, 1, 2\]"):
        figures.by_iteration(ratings(), STIMULI, seeds=(7,))


def test_the_peak_is_drawn_where_it_was_found():
    rows = ratings()
    found = inverted_u(rows, resamples=50)
    axis = figures.wundt_curve(rows, found).axes[0]
    line = next(line for line in axis.lines if "peak" in line.get_label())
    assert line.get_xdata()[0] == found.peak and len(axis.collections[0].get_offsets()) == len(STIMULI)


def test_each_picture_of_the_second_round_has_its_nats_and_its_rating():
    rows = ratings()
    figure = figures.by_condition(rows, STIMULI, CONDITIONS)
    means = rows.groupby("stimulus")["value"].mean()
    titles = {axis.get_title() for axis in figure.axes}
    assert titles == {f"{one.surprise:.0f} nats, {means[one.id]:.1f}" for one in STIMULI if one.id in CONDITIONS}


def test_runs_that_do_not_fit_beside_each_other_stand_below(monkeypatch):
    rows = ratings()
    monkeypatch.setattr(figures, "WIDE", 2)
    figure = figures.by_condition(rows, STIMULI, CONDITIONS)
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == [*CONDITION_NAMES] * 2
    titles = [axis.get_title() for axis in figure.axes]
    means = rows.groupby("stimulus")["value"].mean()
    said = {one.id: f"{one.surprise:.0f} nats, {means[one.id]:.1f}" for one in STIMULI if one.id in CONDITIONS}
    assert titles[:6] == [said[f"{run}-{step}"] for step in (0, 4, 12) for run in (0, 1)]
    assert titles[6:] == [text for step in (0, 4, 12) for text in (said[f"2-{step}"], "")]
