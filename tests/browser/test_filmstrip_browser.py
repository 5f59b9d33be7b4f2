"""The slider of a filmstrip in JupyterLab: arrow keys move it, and Python sends the picture and its note."""

import pytest
from harness import open_notebook, run_all, wait_for

pytestmark = pytest.mark.browser

CELL = """
from PIL import Image
from creativelib.widgets import Filmstrip

shades = {0: (255, 0, 0), 10: (0, 255, 0), 20: (0, 0, 255)}
frames = {step: Image.new("RGB", (32, 32), shade) for step, shade in shades.items()}
Filmstrip(frames, {step: f"{step} nats" for step in shades})
"""
CENTRE = """image => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 1, 1);
  return Array.from(context.getImageData(0, 0, 1, 1).data).slice(0, 3);
}"""


def test_the_slider_shows_every_picture(lab, page):
    open_notebook(lab, page, "filmstrip", CELL)
    run_all(page)
    slider = page.get_by_role("slider")
    slider.wait_for()
    slider.focus()
    picture = page.locator(".widget-image img, img.widget-image").first
    for note, shade in (("0 nats", [255, 0, 0]), ("10 nats", [0, 255, 0]), ("20 nats", [0, 0, 255])):
        page.get_by_text(note, exact=True).wait_for()
        wait_for(lambda shade=shade: picture.evaluate(CENTRE) == shade, f"the picture {shade}")
        page.keyboard.press("ArrowRight")
