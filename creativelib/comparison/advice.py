"""When is the search worth its compute, when will words or the best of many do? One sentence, by a rule that was fixed before.

For each purpose the search is held against every simple method that was run, at the same budget:

- it is **worth its compute** for a purpose if it was shown to do better than all of them, Holm's correction made;
- else the simple method that was shown to do better than the search is named, or, if none was, the cheapest of those that the
  search was not shown to beat: it **will do**, for nothing that was seen here speaks for paying more.

These nine comparisons are corrected as nine. The table of stated hypotheses is another family, corrected for what it asks; four
comparisons stand in both, and each table is to be read alone. In the comparison that ships one correction over all sixteen
changes no verdict of either (a test says so).
"""

from dataclasses import dataclass

import pandas as pd

from creativelib.comparison.answers import answer
from creativelib.comparison.plan import Hypothesis

SEARCH, SIMPLE = "creative", ("plain", "words", "tail")
PURPOSES = {
    "novel_and_valid": "new and still recognised",
    "structure": "drawn in another way and not only recoloured",
    "surprise": "improbable to the model",
}  # by the measure that tells


def questions(budget: int) -> list[Hypothesis]:
    """The search against each simple method, for each purpose."""
    return [
        Hypothesis(f"{measure}-{simple}", "advice", SEARCH, simple, budget, measure, "open")
        for measure in PURPOSES
        for simple in SIMPLE
    ]


@dataclass(frozen=True)
class Advice:
    """What ``advise`` found.

    Attributes:
        answers: a row for each question: see ``answers.answer``.
        worth: measures of the purposes for which the search is worth its compute. enough: by measure, the simple method that
            will do. Purposes for which no simple method was run are in neither.
        better: measures of ``enough`` for which that method was shown to do better than the search.
        sentence: all of that, for a reader.
    """

    answers: pd.DataFrame
    worth: tuple[str, ...]
    enough: dict[str, str]
    better: tuple[str, ...]
    sentence: str


def advise(frame: pd.DataFrame, budget: int) -> Advice:
    """Of a table of cells (``table.table``), at one budget."""
    answers, costs = answer(frame, questions(budget)), cost_of_a_picture(frame, budget)
    worth, enough, better = [], {}, []
    for measure in PURPOSES:
        rows = answers[(answers["measure"] == measure) & (answers["verdict"] != "not run")]
        by_verdict = {verdict: sorted(part["b"], key=costs.get) for verdict, part in rows.groupby("verdict")}
        if by_verdict.get("less"):
            enough[measure] = by_verdict["less"][0]
            better.append(measure)
        elif by_verdict.get("undecided"):
            enough[measure] = by_verdict["undecided"][0]
        elif by_verdict:
            worth.append(measure)
    return Advice(answers, tuple(worth), enough, tuple(better), _sentence(worth, enough, better))


def cost_of_a_picture(frame: pd.DataFrame, budget: int) -> dict[str, float]:
    """Evaluations of the prior for one picture, by method."""
    chosen = frame[frame["budget"] == budget].groupby("method")[["cost_prior", "results"]].sum()
    return (chosen["cost_prior"] / chosen["results"]).to_dict()


def _sentence(worth: list[str], enough: dict[str, str], better: list[str]) -> str:
    if not worth and not enough:
        return f"The search, or all of {', '.join(SIMPLE)}, were not run, so nothing can be said."
    shown = ", or ".join(PURPOSES[measure] for measure in worth)
    parts = [f"the search is worth its compute where pictures shall be {shown}" if worth else
             "the search was not shown to be worth its compute for anything"]  # fmt: skip
    for method in SIMPLE:
        for verb, chosen in (("does better than it", set(better)), ("will do", set(enough) - set(better))):
            purposes = [PURPOSES[measure] for measure in enough if enough[measure] == method and measure in chosen]
            parts += [f"where pictures shall be {', or '.join(purposes)}, {method} {verb}"] if purposes else []
    return f"At the same budget, {'; '.join(parts)}."
