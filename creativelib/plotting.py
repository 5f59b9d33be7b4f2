"""Figures that can be drawn whatever the words in them are and however the reader's matplotlib is set up. Needs no torch."""

import matplotlib
from matplotlib.figure import Figure

WITHOUT_LATEX = {"text.usetex": False}
without_latex = matplotlib.rc_context(WITHOUT_LATEX)  # a decorator for functions that make figures: text is bound when made


class PlainFigure(Figure):
    """A figure that is drawn without LaTeX, also where a matplotlibrc asks for it: there may be none on this machine."""

    def draw(self, renderer) -> None:
        with matplotlib.rc_context(WITHOUT_LATEX):  # ticks are made when they are drawn
            super().draw(renderer)


def literal(words: str) -> str:
    """Words of a user for a title, label or legend: a ``$`` in them is a dollar, not the beginning of mathematics."""
    return words.replace("$", r"\$")
