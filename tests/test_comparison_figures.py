"""Figures of a comparison: every method is there once, and costs are spent over succeeded."""

import pandas as pd
import pytest

from creativelib.comparison.figures import cost_of_success, plane, rare_and_new


def table():
    rows = []
    for number, (method, budget) in enumerate([("plain", 50), ("creative[space=lora,target=40]", 200), ("a $5 trick", 50)]):
        row = {"method": method, "budget": budget}
        for name, value in (("novelty", 1 + 0.3 * number), ("judge", 0.9 - 0.2 * number)):
            row |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.05}
        rows.append(row)
    return pd.DataFrame(rows)


def test_the_plane_shows_every_method_with_both_intervals(tmp_path):
    figure = plane(table(), title="6 subjects, 5 seeds")
    (axis,) = figure.axes
    assert [text.get_text().replace("\\", "") for text in axis.get_legend().get_texts()] == [
        "plain (50)",
        "creative[space=lora,target=40] (200)",
        "a $5 trick (50)",
    ]
    assert len({container.lines[0].get_marker() for container in axis.containers}) == 3
    figure.savefig(tmp_path / "plane.png")
    with pytest.raises(ValueError, match="^summary: has no 'structure'"):
        plane(table(), across="structure")


def test_a_single_cell_is_drawn_without_an_interval():
    rows = table().assign(
        novelty_low=lambda frame: frame["novelty"] + 1e-16, novelty_high=lambda frame: frame["novelty"] - 1e-9
    )
    (axis,) = plane(rows).axes
    assert len(axis.containers) == 3


def test_rare_and_new_are_two_marks_a_row_and_said_to_be_explored(tmp_path):
    rows = table()[["method", "budget"]].assign(novel_and_valid=[0.3, 0.1, 0.0], explored_new=[0.1, 0.0, 0.0])
    for name in ("novel_and_valid", "explored_new"):
        rows = rows.assign(**{f"{name}_low": [0.0, 0.0, float("nan")], f"{name}_high": [0.4, 0.2, float("nan")]})
    figure = rare_and_new(rows)
    (axis,) = figure.axes
    assert "explored" in axis.get_title() and [tick.get_text() for tick in axis.get_yticklabels()][0] == "plain (50)"
    far, new = (container.lines[0].get_xdata().tolist() for container in axis.containers)
    assert (far, new) == ([0.3, 0.1, 0.0], [0.1, 0.0, 0.0])
    figure.savefig(tmp_path / "rare.png")


def test_a_success_costs_all_that_was_spent():
    frame = pd.DataFrame(
        {
            "method": ["tail", "tail", "plain"], "budget": 50, "results": [4, 4, 4], "novel_and_valid": [0.5, 0.0, 0.0],
            "cost_prior": [100, 100, 40], "cost_decodes": [12, 8, 4], "cost_questions": [8, 8, 0],
        }
    )  # fmt: skip
    costs = cost_of_success(frame).set_index("method")
    assert costs.loc["tail", ["pictures", "successes", "prior", "decodes", "questions"]].tolist() == [8, 2, 100, 10, 8]
    assert costs.loc["plain", ["successes", "prior", "questions"]].tolist() == [0, float("inf"), 0]
