"""Which of two methods is preferred: by subject with exact intervals, over all by the people's majorities (Fig. 7)."""

import pandas as pd
from matplotlib.figure import Figure

from creativelib.plotting import PlainFigure, literal, without_latex
from creativelib.study.choices import checked_choices, share_interval
from creativelib.study.contrasts import p_words
from creativelib.study.figures import LINE, PEAK, who_rated

ALL = "all"


def preferences(choices: pd.DataFrame, of: str, versus: str, *, level: float = 0.95) -> pd.DataFrame:
    """How many people prefer the pictures of one method to those of another.

    A person counts once in each row, by the majority of their choices there; whose choices are even is left out. So the exact
    (Clopper-Pearson) interval is about other people, who see these pictures.

    Args:
        choices: with rater, subject, left, right (methods), chosen.

    Returns:
        subject (the last is "all"), chosen (people who prefer ``of``), people, share, low, high, p.

    Raises:
        TypeError, ValueError: as ``checked_choices``; no choice between the two.
    """
    rows = checked_choices(choices)
    between = rows["left"].isin([of, versus]) & rows["right"].isin([of, versus])
    rows = rows[between]
    if rows.empty:
        raise ValueError(f"of, versus: got {of!r} and {versus!r}; nobody chose between them")
    won = (rows["left"] == of) == (rows["chosen"] == "left")
    rows = pd.concat([rows.assign(won=won), rows.assign(won=won, subject=ALL)])
    found = []
    for subject, part in rows.groupby("subject", sort=False):
        share = part.groupby("rater")["won"].mean()
        share = share[share != 0.5]
        if len(share):
            one = share_interval(int((share > 0.5).sum()), len(share), level=level)
            found.append([subject, int((share > 0.5).sum()), len(share), one.share, one.low, one.high, one.p_value])
    return pd.DataFrame(found, columns=["subject", "chosen", "people", "share", "low", "high", "p"])


@without_latex
def preference_figure(choices: pd.DataFrame, found: pd.DataFrame, of: str, versus: str) -> Figure:
    """Fig. 7: for each subject the share of people who prefer ``of``, with its interval; the line is an even choice.

    Args:
        choices: those that ``found`` is of, to say who chose. found: of ``preferences``.
    """
    figure = PlainFigure(figsize=(6.6, 0.42 * len(found) + 1.3), layout="constrained", dpi=80)
    axis = figure.subplots()
    places = range(len(found))[::-1]
    axis.barh(places, found["share"], color=LINE, alpha=0.35, height=0.6)
    reach = [found["share"] - found["low"], found["high"] - found["share"]]
    axis.errorbar(found["share"], places, xerr=reach, fmt="s", color=LINE, capsize=4)
    for place, row in zip(places, found.to_dict("records"), strict=True):
        words = f"{row['chosen']} of {row['people']}, {p_words(row['p'])}"
        axis.text(1.03, place, words, va="center", fontsize=8)
    axis.axvline(0.5, color=PEAK, linestyle="--", linewidth=1)
    axis.set_yticks(list(places), [literal(name) for name in found["subject"]])
    axis.set(xlim=(0, 1.45), xticks=[0, 0.25, 0.5, 0.75, 1], ylim=(-0.6, len(found) - 0.4))
    axis.set_xlabel(literal(f"share of people who prefer {of} to {versus} (exact 95 % interval)"))
    axis.set_title(who_rated(choices), fontsize=10, weight="bold")
    return figure
