"""Figures of the study. Each says inside its axes who rated, and "simulated raters" wherever one of them was not human."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from creativelib.plotting import PlainFigure
from creativelib.study import HIGHEST, LOWEST
from creativelib.study.contrasts import RiseAndFall, p_words
from creativelib.study.inverted_u import InvertedU
from creativelib.study.means import mean_by_iteration
from creativelib.study.ratings import checked_ratings
from creativelib.study.simulation import MARK
from creativelib.study.stimuli import CONDITIONS, Stimulus
from creativelib.study.wundt import WundtCurve

LINE, BAND, PEAK = "#0b5cad", "#9fc3ea", "#b3261e"
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDE = 8  # runs beside each other: on a page more could not be read


def who_rated(ratings: pd.DataFrame) -> str:
    """For example "27 raters" or "30 simulated raters"; with both, how many of each."""
    simulated = ratings["rater"].astype(str).str.startswith("simulated")
    if "simulated" in ratings:
        simulated |= ratings["simulated"].fillna(False).astype(bool)
    counts = [(ratings.loc[rows, "rater"].nunique(), name) for rows, name in ((~simulated, "raters"), (simulated, MARK))]
    return " and ".join(f"{count} {name if count > 1 else name[:-1]}" for count, name in counts if count)


def _say_who(axis: Axes, ratings: pd.DataFrame) -> None:
    axis.text(0.99, 0.97, who_rated(ratings), transform=axis.transAxes, ha="right", va="top", fontsize=9, weight="bold")
    axis.set_ylim(LOWEST - 0.15, HIGHEST + 0.15)
    axis.set_yticks(range(LOWEST, HIGHEST + 1))


def by_iteration(
    ratings: pd.DataFrame, stimuli: Sequence[Stimulus] = (), seeds: Sequence[int] = (), *, resamples: int = 1000
) -> Figure:
    """Fig. 4: mean rating by iteration with a 95 % interval over raters, each run a thin line, images of ``seeds``.

    Args:
        ratings: with rater, stimulus, value, seed, iteration. stimuli: where the images of ``seeds`` are taken from.

    Raises:
        TypeError, ValueError: as ``mean_by_iteration``; a seed that has no images in ``stimuli``.
    """
    images = {(one.seed, one.iteration): one for one in stimuli if one.kind == "image"}
    for seed in seeds:
        if seed not in {run for run, _ in images}:
            raise ValueError(f"seeds: got {seed!r}; the stimuli have images of {sorted({run for run, _ in images})}")
    mean = mean_by_iteration(ratings, resamples=resamples)
    runs = mean_by_iteration(ratings, by_seed=True, resamples=1)
    steps = mean["iteration"].tolist()
    figure = PlainFigure(figsize=(8.6, 3.2 + 0.95 * len(seeds)), layout="constrained", dpi=80)
    grid = figure.add_gridspec(1 + len(seeds), len(steps), height_ratios=[3.4] + [1] * len(seeds))
    axis = figure.add_subplot(grid[0, :])
    axis.fill_between(steps, mean["low"], mean["high"], color=BAND, alpha=0.7, label="95 % interval over raters")
    axis.plot(steps, mean["mean"], color=LINE, marker="o", linewidth=2.5, label="mean")
    for (seed, run), mark in zip(runs.groupby("seed"), MARKS * len(runs), strict=False):
        axis.plot(
            run["iteration"], run["mean"], color="#777777", linewidth=0.7, marker=mark, markersize=3, label=f"run {int(seed)}"
        )
    axis.set(xlabel="iteration", ylabel="mean rating", xticks=steps)
    axis.legend(fontsize=7, ncols=4, loc="upper left")
    _say_who(axis, ratings)
    for row, seed in enumerate(seeds, start=1):
        for column, step in enumerate(steps):
            panel = figure.add_subplot(grid[row, column])
            panel.set(xticks=[], yticks=[])
            for spine in panel.spines.values():
                spine.set_visible(False)
            if (seed, step) in images:
                panel.imshow(images[seed, step].image)
            if column == 0:
                panel.set_ylabel(f"run {int(seed)}", fontsize=8)
    return figure


def wundt_curve(ratings: pd.DataFrame, found: InvertedU, title: str = "", unit: str = "nats") -> Figure:
    """Mean rating of each image by its surprise, with the fitted Wundt curve, its peak and the interval of that.

    Args:
        ratings: with rater, stimulus, value, surprise, those that ``found`` is of. unit: of surprise, "nats" or what people
        gave.
    """
    rows = checked_ratings(ratings, ["rater", "stimulus", "value", "surprise"])
    images = rows.groupby("stimulus").agg(surprise=("surprise", "first"), mean=("value", "mean"))
    curve = WundtCurve.fit(rows["surprise"], rows["value"])
    figure = PlainFigure(figsize=(6.6, 3.4), layout="constrained", dpi=80)
    axis = figure.subplots()
    axis.scatter(images["surprise"], images["mean"], s=22, color="#777777", label=f"{len(images)} images")
    nats = np.linspace(curve.low, curve.high, 300)
    axis.plot(nats, curve.predict(nats), color=LINE, linewidth=2.5, label="Wundt curve")
    if np.isfinite(found.peak):
        axis.axvline(found.peak, color=PEAK, linestyle="--", label=f"peak: {found.peak:.3g} {unit}")
        axis.axvspan(*found.interval, color=PEAK, alpha=0.12, label="95 % interval of the peak")
    axis.set(xlabel=f"surprise, {unit}", ylabel="mean rating", title=title)
    axis.legend(fontsize=7, loc="center right")
    _say_who(axis, ratings)
    return figure


def contrasts(ratings: pd.DataFrame, found: RiseAndFall, names: Sequence[str] = CONDITIONS) -> Figure:
    """The test within runs: the mean of each condition, run by run and over all; and both differences with their intervals.

    Args:
        ratings: with rater, seed, condition, value, those that ``found`` is of. names: the three conditions in order.
    """
    rows = checked_ratings(ratings, ["rater", "seed", "condition", "value"])
    means = rows.groupby(["seed", "condition"])["value"].mean().unstack()[list(names)]
    figure = PlainFigure(figsize=(8.6, 3.2), layout="constrained", dpi=80)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    for run in means.to_numpy():
        left.plot(range(3), run, color="#777777", linewidth=0.7, marker="o", markersize=3)
    left.plot(range(3), means.mean(), color=LINE, linewidth=2.5, marker="s", label=f"mean of {len(means)} runs")
    left.set(xticks=range(3), xticklabels=names, ylabel="mean rating", xlim=(-0.3, 2.3))
    left.legend(fontsize=7, loc="upper left")
    _say_who(left, ratings)
    labels = [f"{names[1]}\nabove {other}" for other in (names[0], names[2])]
    for place, one in enumerate((found.rise, found.fall)):
        reach = [[one.difference - one.low], [one.high - one.difference]]
        right.errorbar([place], [one.difference], yerr=reach, fmt="s", color=LINE, capsize=5)
        words = p_words(one.p_greater)
        right.annotate(words, (place, one.difference), xytext=(8, 0), textcoords="offset points", fontsize=8)
    right.axhline(0, color=PEAK, linewidth=1)
    right.set(xticks=[0, 1], xticklabels=labels, xlim=(-0.5, 1.7), ylabel="difference, points")
    right.set_title("with 95 % intervals", fontsize=9)
    for axis in (left, right):  # room above for who rated
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.15 * (high - low))
    right.text(0.99, 0.97, who_rated(ratings), transform=right.transAxes, ha="right", va="top", fontsize=8, weight="bold")
    return figure


def by_condition(ratings: pd.DataFrame, stimuli: Sequence[Stimulus], conditions: dict[str, str]) -> Figure:
    """Images by run and condition, each with its surprise and mean rating; ``WIDE`` runs beside each other, others below.

    Args:
        ratings: with rater, stimulus, value. conditions: of the images' ids, see ``stimuli.conditions``.
    """
    rows = checked_ratings(ratings, ["rater", "stimulus", "value"])
    means = rows.groupby("stimulus")["value"].mean()
    names, runs = list(dict.fromkeys(conditions.values())), sorted({one.seed for one in stimuli if one.id in conditions})
    columns, bands = min(WIDE, len(runs)), -(-len(runs) // WIDE)
    figure = PlainFigure(figsize=(1.05 * columns + 0.3, 1.25 * len(names) * bands), layout="constrained", dpi=80)
    axes = figure.subplots(len(names) * bands, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
    for one in stimuli:
        if one.id in conditions:
            band, column = divmod(runs.index(one.seed), WIDE)
            axis = axes[band * len(names) + names.index(conditions[one.id]), column]
            axis.imshow(one.image)
            rated = f", {means[one.id]:.1f}" if one.id in means else ""
            axis.set_title(f"{one.surprise:.0f} nats{rated}", fontsize=7, pad=2)
    for row, name in zip(axes, names * bands, strict=True):
        row[0].set_ylabel(name, fontsize=9)
    who = {"fontsize": 6, "weight": "bold", "bbox": {"color": "white", "alpha": 0.85, "pad": 1}}
    axes[0, 0].text(0.02, 0.02, who_rated(ratings), transform=axes[0, 0].transAxes, **who)
    return figure
