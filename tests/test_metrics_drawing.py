"""Metrics on pixels: edges, wholeness, structure and colour, each on drawings whose answer is known by hand."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from creativelib.metrics import change, drawing, pictures


def page(draw=None, side=64):
    picture = Image.new("RGB", (side, side), "white")
    if draw:
        draw(ImageDraw.Draw(picture))
    return picture


def square(left=16, top=16, side=32, fill=(200, 0, 0)):
    return page(lambda pen: pen.rectangle((left, top, left + side - 1, top + side - 1), fill=fill))


def strokes():
    return page(lambda pen: [pen.line((4, y, 59, y), fill="black", width=2) for y in (6, 20, 34, 48)])


BLANK = page()


def test_a_blurred_drawing_has_softer_edges():
    sharp = [square(16 + i) for i in range(4)]
    soft = pictures.stack([one.filter(ImageFilter.GaussianBlur(2)) for one in sharp])
    assert drawing.sharpness(pictures.stack(sharp), pictures.stack(sharp)) == 1
    assert 0 < drawing.sharpness(soft, pictures.stack(sharp)) < 0.7


def test_the_edge_of_a_step_by_hand():
    ramp = np.zeros((1, 4, 20, 3), np.uint8)
    ramp[:, :, 10:] = 255  # the central difference over a step of 1 is 0.5 in the two columns beside it, 10 % of 20
    assert drawing.edge_strength(ramp) == pytest.approx([0.5])
    with pytest.raises(ValueError, match="^real: got pictures without any edge"):
        drawing.sharpness(ramp, pictures.stack([page()])[:, :4, :20])
    with pytest.raises(ValueError, match="^real: got pictures of"):
        drawing.sharpness(ramp, pictures.stack([square()]))


def test_a_square_fills_its_hull_and_an_l_most_of_it():
    shape = page(lambda pen: [pen.rectangle((10, 10, 19, 49), fill="blue"), pen.rectangle((10, 40, 49, 49), fill="blue")])
    # L: 10 x 40 + 30 x 10 = 700 pixels; its hull is 40 x 40 less the triangle with legs of 30, 1,150
    share = drawing.filled(pictures.stack([square(), shape, BLANK]))
    assert share == pytest.approx([1, 700 / 1150, 0])


def test_parts_are_counted_without_specks():
    two = page(lambda pen: [pen.rectangle((2, 2, 12, 12), fill="green"), pen.rectangle((30, 30, 50, 50), fill="green")])
    two.putpixel((60, 3), (0, 0, 0))
    assert drawing.loose_parts(pictures.stack([square(), two, strokes(), BLANK])).tolist() == [1, 2, 4, 0]


def test_whole_is_what_real_drawings_are():
    real = pictures.stack([square(10 + i, 12, 30 + i % 5) for i in range(20)])
    limits = drawing.wholeness_range(real)
    assert limits == {"filled": (1.0, 1.0), "parts": (1.0, 1.0)}
    assert drawing.is_whole(pictures.stack([square(), strokes(), BLANK]), limits).tolist() == [True, False, False]


def test_the_range_is_that_of_the_middle_nine_tenths():
    real = pictures.stack([square() if i < 95 else strokes() for i in range(100)])
    assert drawing.wholeness_range(real, 0.98)["parts"] == (1.0, 4.0) and drawing.wholeness_range(real, 0.8)["parts"] == (
        1.0,
        1.0,
    )
    with pytest.raises(ValueError, match="^share: got 1"):
        drawing.wholeness_range(real, 1)


def test_grey_correlation_by_hand():
    a = pictures.stack([square(), square(), BLANK])
    negative = 255 - a
    assert change.grey_correlation(a, a) == pytest.approx([1, 1, 0])
    assert change.grey_correlation(a, negative) == pytest.approx([-1, -1, 0])


def test_another_colour_is_no_change_of_structure_and_another_place_is():
    defaults = pictures.stack([square(0, 0), square(32, 32), square(0, 32), square(32, 0)])
    grey = round(0.299 * 200)  # as light as the red
    other_colour = pictures.stack([square(x, y, fill=(grey, grey, grey)) for x, y in ((0, 0), (32, 32), (0, 32), (32, 0))])
    assert change.structure_change(other_colour, defaults) == pytest.approx(np.zeros(4), abs=1e-3)
    assert change.structure_change(np.roll(defaults, 1, 0), defaults) == pytest.approx(np.ones(4))
    with pytest.raises(ValueError, match="all alike"):
        change.structure_change(defaults[:2], np.repeat(defaults[:1], 2, 0))
    with pytest.raises(ValueError, match="^others: got shape"):
        change.grey_correlation(defaults, defaults[:2])


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [((255, 255, 255), (100, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20)), ((0, 0, 255), (32.30, 79.19, -107.86))],
)
def test_lab_as_the_standard_has_it(rgb, expected):
    assert change.lab(np.array(rgb, np.uint8).reshape(1, 1, 1, 3)).ravel() == pytest.approx(expected, abs=0.02)


def test_colour_counts_wherever_it_is():
    red, moved, grey, dark = square(), square(2, 9, 40), square(fill=(119, 119, 119)), square(fill=(94, 94, 94))
    same, lightness = change.colour_distance(pictures.stack([red, grey]), pictures.stack([moved, dark]))
    assert same == pytest.approx(0, abs=1e-9)
    assert lightness == pytest.approx(50.03 - 39.90, abs=0.02)  # L* of the two greys
    assert np.isfinite(change.colour_features(pictures.stack([BLANK]))).all()


@pytest.mark.parametrize("bad", [[1], np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)])
def test_what_is_no_array_of_pictures_is_refused(bad):
    for measure in (
        drawing.filled,
        drawing.edge_strength,
        drawing.loose_parts,
        change.colour_features,
        pictures.without_colour,
    ):
        with pytest.raises(ValueError, match="^images: got"):
            measure(bad)
