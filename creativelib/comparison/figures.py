"""Figures of a comparison: novelty against validity, and what an accepted picture costs."""

import pandas as pd
from matplotlib.figure import Figure

from creativelib.plotting import PlainFigure, literal, without_latex

MARKERS = "osD^vPX*<>hpd"  # colour is never the only sign


def label(row: dict) -> str:
    """``"creative (50)"``: the method, and its budget in steps."""
    return literal(f"{row['method']} ({row['budget']})")


@without_latex
def plane(summary: pd.DataFrame, across: str = "novelty", up: str = "judge", title: str = "") -> Figure:
    """Each method and budget at its means, with the intervals of both measures: up and to the right is better.

    Args:
        summary: from ``answers.summary``, with both measures in it.
        across, up: measures.

    Raises:
        ValueError: a measure is not in the table.
    """
    for name in (across, up):
        if name not in summary:
            raise ValueError(f"summary: has no {name!r}; make it with answers.summary(frame, ({across!r}, {up!r}))")
    names = [label(row) for row in summary.to_dict("records")]
    figure = PlainFigure(figsize=(5.6 + max(map(len, names), default=0) / 14, 4.6), layout="constrained")
    axis = figure.subplots()
    for number, row in enumerate(summary.to_dict("records")):
        ends = [(row[name] - row[f"{name}_low"], row[f"{name}_high"] - row[name]) for name in (across, up)]
        errors = [[[max(0.0, reach)] for reach in pair] for pair in ends]  # of one cell both are 0, but for rounding
        axis.errorbar(
            row[across], row[up], xerr=errors[0], yerr=errors[1], marker=MARKERS[number % len(MARKERS)], markersize=7,
            color=f"C{number % 10}", linewidth=1, capsize=2, linestyle="none", label=names[number],
        )  # fmt: skip
    axis.set(xlabel=AXES.get(across, across), ylabel=AXES.get(up, up))
    place = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5), "frameon": False}
    axis.legend(title="method (budget in steps)", title_fontsize=8, fontsize=8, **place)
    axis.set_title(literal(title), fontsize=11)
    return figure


@without_latex
def rare_and_new(summary: pd.DataFrame, title: str = "explored after the run") -> Figure:
    """For each method and budget two shares of its pictures, with their intervals: recognised and far from plain pictures; and
    those of them that are far from every training picture too (``training``). What lies between is rare, and exists.

    Args:
        summary: from ``answers.summary``, with ``novel_and_valid`` and ``explored_new``.
    """
    rows = summary.to_dict("records")
    figure = PlainFigure(figsize=(7.4, 1.4 + 0.26 * len(rows)), layout="constrained")
    axis = figure.subplots()
    marks = {
        "novel_and_valid": ("o", "white", "far from plain pictures"),
        "explored_new": ("s", "C0", "and from training pictures"),
    }
    for shift, (name, (marker, face, text)) in zip((-0.15, 0.15), marks.items(), strict=True):
        ends = [
            [max(0.0, row[name] - row[f"{name}_low"]) for row in rows],
            [max(0.0, row[f"{name}_high"] - row[name]) for row in rows],
        ]
        axis.errorbar(
            [row[name] for row in rows], [place + shift for place in range(len(rows))], xerr=ends, marker=marker, markersize=6,
            color="C0", markerfacecolor=face, linewidth=1, capsize=2, linestyle="none", label=text,
        )  # fmt: skip
    axis.set(yticks=range(len(rows)), yticklabels=[label(row) for row in rows], xlabel="share of pictures, all recognised")
    axis.tick_params(axis="y", labelsize=8)
    axis.invert_yaxis()
    figure.legend(*axis.get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    axis.set_title(literal(title), fontsize=11)
    return figure


AXES = {
    "novelty": "novelty (1: as far from plain pictures as these from each other)",
    "structure": "novelty of the picture without colour",
    "judge": "share that the judge recognises",
    "novel_and_valid": "share that is new and recognised",
    "whole": "share that is whole",
}


def cost_of_success(frame: pd.DataFrame, measure: str = "novel_and_valid") -> pd.DataFrame:
    """What one picture that succeeds costs, by method and budget: all that was spent over all that succeeded.

    A method that never succeeded has an infinite cost. Columns: method, budget, pictures, successes; prior evaluations, decodes
    and questions of each success.
    """
    rows = []
    for (method, budget), group in frame.groupby(["method", "budget"], sort=False):
        successes = float((group[measure] * group["results"]).sum())
        row = {"method": method, "budget": budget, "pictures": int(group["results"].sum()), "successes": round(successes)}
        for name in ("prior", "decodes", "questions"):
            spent = float(group[f"cost_{name}"].sum())
            row[name] = spent / successes if successes else (float("inf") if spent else 0.0)
        rows.append(row)
    return pd.DataFrame(rows)
