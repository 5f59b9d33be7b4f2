"""Words with dollars and a matplotlib that is set to LaTeX: the figure is drawn all the same."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from creativelib.plotting import PlainFigure, literal, without_latex


def pixels(figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize(
    "words", ["a chair for 5$", r"$\frac{$", "Ba$$in", "$5 and $6", r"cost \$5", r"\$ and $", "$x^2$", "none"]
)
def test_what_is_written_is_what_is_drawn(words):
    unparsed, escaped = PlainFigure(figsize=(4, 1)), PlainFigure(figsize=(4, 1))
    unparsed.text(0.1, 0.5, words, parse_math=False)
    escaped.text(0.1, 0.5, literal(words))
    assert (pixels(unparsed) == pixels(escaped)).all() and pixels(unparsed).std() > 5


def test_latex_is_not_asked():
    @without_latex
    def draw():
        figure = PlainFigure(figsize=(2, 2))
        figure.subplots().set(title="title", xlim=(0, 3))
        return figure

    expected = pixels(draw())
    with matplotlib.rc_context({"text.usetex": True}):
        assert (pixels(draw()) == expected).all() and matplotlib.rcParams["text.usetex"]
