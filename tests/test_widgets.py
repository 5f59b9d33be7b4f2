"""The filmstrip: its state without a browser, its view, and what a static page shows."""

import io

import pytest
from PIL import Image

from creativelib.widgets import Filmstrip

COLOURS = {0: "red", 10: "green", 20: "blue"}


@pytest.fixture
def film():
    frames = {i: Image.new("RGB", (4, 4), colour) for i, colour in COLOURS.items()}
    return Filmstrip(frames, {i: colour for i, colour in COLOURS.items()})


def test_moving_the_slider_changes_state_picture_and_note(film):
    slider, picture, note = film.widget().children
    assert slider.description == "Iteration"  # its name for screen readers
    slider.value = 20
    assert film.iteration == 20 and note.value == "blue"
    assert Image.open(io.BytesIO(picture.value)).getpixel((0, 0)) == (0, 0, 255)


def test_static_pages_show_every_picture_in_order(film):
    bundle, metadata = film._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == "A strip of 3 pictures, from left to right: red, green, blue."
    strip = Image.open(io.BytesIO(bundle["image/png"]))
    assert strip.size == (12, 4)
    assert [strip.getpixel((4 * k, 0)) for k in range(3)] == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_bad_input_names_what_is_allowed(film):
    with pytest.raises(KeyError, match=r"got 5; allowed are \[0, 10, 20\]"):
        film.show(5)
    with pytest.raises(ValueError, match="frames"):
        Filmstrip({})
    with pytest.raises(ValueError, match="notes"):
        Filmstrip(film.frames, {1: "x"})
