"""One HTML report of a closed study: design, people and whom the rule leaves out, the test, figures, choices, agreement."""

import base64
import io
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from creativelib.study.agreement import krippendorff_alpha, repeat_agreement
from creativelib.study.choices import crossed_share
from creativelib.study.contrasts import Difference, RiseAndFall, p_words, paired_difference, rise_and_fall
from creativelib.study.exclusions import exclusions, rule
from creativelib.study.figures import by_condition, by_iteration, contrasts, who_rated, wundt_curve
from creativelib.study.inverted_u import inverted_u
from creativelib.study.perceived import agreement_of_surprise
from creativelib.study.schema import CREATIVE
from creativelib.study.stimuli import CONDITIONS, conditions

DPI = 110


def report(study) -> str:
    """The report as one HTML file with its figures inside.

    Args:
        study: a ``server.folder.Study``.
    """
    sessions, everything, choices = study.store.sessions(), study.store.ratings(), study.store.choices()
    reasons = exclusions(everything, study.settings)
    ratings = everything[~everything["rater"].isin(reasons)]
    people = [
        {"code": row["rater"], "scale": row["scale"], "rated": row["rated"], "of": len(row["stimuli"])}
        | {"reason": reasons.get(row["rater"], "")}
        for row in sessions.to_dict("records")
    ]
    choices = choices[~choices["rater"].isin(reasons)]
    scales = [
        _scale(study, scale, ratings[ratings["scale"] == scale], rows, choices[choices["scale"] == scale])
        for scale, rows in everything.groupby("scale")
    ]
    facts = {
        "settings": asdict(study.settings), "study": study, "people": people, "rule": rule(study.settings), "scales": scales,
        "consent": study.consent(), "version": study.version(), "made": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "withdrawals": study.store.withdrawals(), "fixed": study.fixed(),
        "kinds": pd.Series([one.kind for one in study.stimuli.values()]).value_counts().to_dict(),
    }  # fmt: skip
    folder = Path(__file__).parent / "server" / "templates"
    pages = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    return pages.get_template("report.html").render(facts)


def main_figure(study) -> bytes:
    """The figure of the teacher's page, PNG: that of the test, or of Fig. 4, without those whom the rule leaves out."""
    ratings = study.store.ratings()
    rows = ratings[(ratings["scale"] == CREATIVE) & ~ratings["rater"].isin(exclusions(ratings, study.settings))]
    try:
        rows = _with_conditions(study, rows)
        figure = contrasts(rows, rise_and_fall(rows))
    except ValueError:
        try:
            figure = by_iteration(rows)
        except ValueError as error:
            figure = Figure(figsize=(7, 1.2))
            figure.text(0.5, 0.5, str(error), ha="center", va="center", wrap=True)
    return _png(figure)


def _scale(study, scale: str, rows: pd.DataFrame, everybody: pd.DataFrame, choices: pd.DataFrame) -> dict:
    """What people who were asked one thing said: ``rows`` without those whom the rule leaves out."""
    found = {"name": scale, "who": who_rated(rows), "ratings": len(rows), "parts": [], "choices": _choices(study, choices)}

    def part(title: str, make: Callable[[], dict]) -> None:
        empty = {"title": title, "why": "", "text": "", "figure": "", "alt": "", "checks": []}
        try:
            found["parts"].append(empty | make())
        except ValueError as error:  # too few raters, another design
            found["parts"].append(empty | {"why": str(error)})

    if scale == CREATIVE:
        part("Do ratings rise from the default, and fall again beyond?", lambda: _test(study, rows, everybody))
    else:
        part("Does what people see rise with the search, and with nats?", lambda: _seen(study, rows, everybody))
    part("The pictures and their mean ratings", lambda: _pictures(study, rows))
    if not _has_conditions(study):  # else who was picked at which iteration follows from the pictures
        text = "Mean rating by iteration, with a line for each run."
        part("By iteration of the search", lambda: _figure(by_iteration(rows), text))
    if scale == CREATIVE:
        part("By surprise in nats", lambda: _curve(rows))
    part("Do raters agree with each other, and with themselves?", lambda: _agreement(rows))
    return found


def _has_conditions(study) -> bool:
    try:
        return bool(conditions(study.stimuli.values()))
    except ValueError:
        return False


def _test(study, rows: pd.DataFrame, everybody: pd.DataFrame) -> dict:
    """The test that was fixed, and beside it two that say whether it hangs on a choice: nobody left out, order alone."""
    rows, all_rows = _with_conditions(study, rows), _with_conditions(study, everybody)
    checks = [_with_everybody(rows, all_rows, lambda: _both(rise_and_fall(all_rows)))]
    try:
        found = rise_and_fall(rows)
    except ValueError as error:
        return {"why": str(error), "checks": checks}
    order = "By order alone (how often it is rated higher less how often lower, whatever the distance between two numbers): "
    checks.append(order + _both(rise_and_fall(rows, ordinal=True), "of comparisons"))
    alt = "Mean rating of each condition, a line for each run, and both differences with their intervals."
    return {"text": _both(found), "checks": checks} | _figure(contrasts(rows, found), alt)


def _with_everybody(rows: pd.DataFrame, all_rows: pd.DataFrame, say: Callable[[], str]) -> str:
    """What nobody was left out of says, beside the analysis that was fixed."""
    if len(all_rows) == len(rows):
        return "Nobody is left out."
    try:
        return f"With everybody, nobody left out: {say()}"
    except ValueError as error:
        return f"With everybody, nobody left out: not computed: {error}"


def _both(found: RiseAndFall, unit: str = "points") -> str:
    verdict = "Both tests hold" if found.verdict else "Not both tests hold"
    text = f"Rise: {_said(found.rise, unit)}. Fall: {_said(found.fall, unit)}. {verdict} at {found.alpha:g}"
    return f"{text} ({p_words(found.p_value)}, the larger of the two)."


def _seen(study, rows: pd.DataFrame, everybody: pd.DataFrame) -> dict:
    rows, all_rows = _with_conditions(study, rows), _with_conditions(study, everybody)
    checks = [_with_everybody(rows, all_rows, lambda: _rises(all_rows))]
    try:
        return {"text": _rises(rows), "checks": checks}
    except ValueError as error:
        return {"why": str(error), "checks": checks}


def _rises(rows: pd.DataFrame) -> str:
    facts = {name: (name, "first") for name in ("surprise", "seed", "condition")}
    pictures = rows.groupby("stimulus").agg(perceived=("value", "mean"), **facts)
    steps = [_said(paired_difference(rows, *pair)) for pair in ((CONDITIONS[1], CONDITIONS[0]), (CONDITIONS[2], CONDITIONS[1]))]
    text = f"From {CONDITIONS[0]} to {CONDITIONS[1]}: {steps[0]}. From there to {CONDITIONS[2]}: {steps[1]}. "
    plain = _rank(pictures[pictures["condition"] == CONDITIONS[0]])
    return text + f"Rank correlation with nats over {_rank(pictures)}; over {CONDITIONS[0]} pictures alone, {plain}."


def _rank(pictures: pd.DataFrame) -> str:
    """How far nats and people put pictures in one order, with the interval for other runs."""
    if pictures["perceived"].nunique() < 2:
        return f"{len(pictures)} pictures: none is more surprising than another"
    try:
        found = agreement_of_surprise(pictures)
    except ValueError:
        return f"{len(pictures)} pictures: needs three runs"
    return f"{len(pictures)} pictures: {found.correlation:.2f} (95 % interval {found.low:.2f} to {found.high:.2f})"


def _with_conditions(study, rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[rows["kind"] == "image"]
    return rows.assign(condition=rows["stimulus"].map(conditions(study.stimuli.values())))


def _said(one: Difference, unit: str = "points") -> str:
    interval = f"95 % interval {one.low:+.2f} to {one.high:+.2f}"
    return (
        f"{one.difference:+.2f} {unit} ({interval}, one-sided {p_words(one.p_greater)}; {one.raters} raters, {one.runs} runs)"
    )


def _pictures(study, rows: pd.DataFrame) -> dict:
    figure = by_condition(rows, list(study.stimuli.values()), conditions(study.stimuli.values()))
    return _figure(figure, "The pictures by run and condition, each with its surprise in nats and its mean rating.")


def _curve(rows: pd.DataFrame) -> dict:
    found = inverted_u(rows, resamples=300, folds=max(2, min(10, rows[rows["kind"] == "image"]["stimulus"].nunique() // 2)))
    words = "are consistent with an inverted U" if found.consistent else "do not show an inverted U"
    text = f"Ratings {words} of nats. This describes; the test above does not depend on how surprise is measured."
    return {"text": text} | _figure(
        wundt_curve(rows, found), "Mean rating of each picture by its surprise in nats, and the fitted curve."
    )


def _agreement(rows: pd.DataFrame) -> dict:
    text = f"Krippendorff's alpha: {krippendorff_alpha(rows):.2f} (1: raters agree; 0: as by chance)."
    if (rows["kind"] == "repeat").any():
        repeats = repeat_agreement(rows).query("repeats > 0")
        text += f" Of pictures shown twice, {repeats['within_one'].mean():.0%} were rated at most one point apart."
    return {"text": text}


def _choices(study, choices: pd.DataFrame) -> list[dict]:
    """For each two conditions (or iterations) of a run: how often the later one was chosen."""
    try:
        names = conditions(study.stimuli.values())
        order = list(dict.fromkeys(names.values()))
    except ValueError:
        names = {one.id: f"step {one.iteration}" for one in study.stimuli.values() if one.kind == "image"}
        order = sorted(set(names.values()), key=lambda name: int(name.split()[1]) if name != "step None" else -1)
    rows = []
    for rater, left, right, chosen in choices[["rater", "left", "right", "chosen"]].itertuples(index=False):
        first, second = sorted((left, right), key=lambda one: order.index(names[one]))
        won = (left if chosen == "left" else right) == second
        rows.append((names[first], names[second], rater, study.stimuli[first].seed, float(won)))
    found = []
    groups = pd.DataFrame(rows, columns=["first", "second", "rater", "run", "won"]).groupby(["first", "second"])
    for (first, second), group in sorted(groups, key=lambda pair: [order.index(name) for name in pair[0]]):
        found.append({"first": first, "second": second, "n": len(group), "share": f"{group['won'].mean():.0%}"})
        try:
            share = crossed_share(group.pivot_table(index="rater", columns="run", values="won").to_numpy())
            found[-1] |= {"interval": f"{share.low:.0%} to {share.high:.0%}"}
        except ValueError:
            found[-1] |= {"interval": "needs two people and two runs"}
    return found


def _figure(figure: Figure, alt: str) -> dict:
    return {"figure": base64.b64encode(_png(figure)).decode(), "alt": alt}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
