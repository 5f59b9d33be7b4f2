"""The labelling widget in JupyterLab, used by mouse and keys in headless Chromium, as a reader would."""

import json
import os
import signal

import pytest
from harness import open_notebook, run_all, wait_for

from creativelib.labels import Labels

pytestmark = pytest.mark.browser
IDS = [f"image-{index}" for index in range(12)]

# 12 images on a map of 4 x 3 places, 1 apart: image k + 1 is at (k % 4, k // 4), the first below left.
CELL = """
import os, time
from pathlib import Path
import numpy as np
from PIL import Image
from creativelib.labelling import Labelling
from creativelib.labels import Labels

images = [Image.new("RGB", (64, 64), (20 * k, 255 - 20 * k, 90)) for k in range(12)]
labels = Labels("labels.jsonl", [f"image-{k}" for k in range(12)])

def fit(labels):
    Path("fitted.json").write_text(labels.to_json())
    return f"Fitted to {labels.progress[0]} images."

def run(labels):
    while not Path("go").exists():
        time.sleep(0.05)
    if labels.progress[0] > 3:
        raise RuntimeError("too many")

Path("kernel.pid").write_text(str(os.getpid()))
Labelling(labels, images, np.array([(k % 4, k // 4) for k in range(12)]), on_fit=fit, on_run=run)
"""


class Reader:
    """A reader with a notebook of one cell open, which shows the widget."""

    def __init__(self, lab, page, name):
        self.page, self.folder = page, open_notebook(lab, page, name, CELL)
        self.run_cells()

    def run_cells(self):
        run_all(self.page)
        self.widget = self.page.locator(".creativelib-labelling").last
        self.widget.wait_for()
        self.tiles, self.dots = self.widget.locator(".tile"), self.widget.locator(".dot")
        self.progress = self.widget.locator(".summary")

    def expect(self, locator, text):
        wait_for(lambda: locator.inner_text() == text, f"{text!r}, not {locator.inner_text()!r}")

    def expect_pressed(self, *numbers):
        """Exactly these images, counted from 1, are marked: in the grid, on the map and in the journal."""
        pressed = "elements => elements.flatMap((e, i) => e.getAttribute('aria-pressed') === 'true' ? [i + 1] : [])"
        wait_for(lambda: self.tiles.evaluate_all(pressed) == list(numbers), f"pressed {numbers}")
        assert self.dots.evaluate_all(pressed) == list(numbers)
        assert list(self.journal()) == [IDS[number - 1] for number in numbers]

    def journal(self):
        return Labels(self.folder / "labels.jsonl", IDS).labels


@pytest.fixture
def reader(lab, page, request):
    return Reader(lab, page, request.node.name.removeprefix("test_"))


def test_marking_fitting_running_and_a_killed_kernel(reader):
    widget, page = reader.widget, reader.page
    for number in (2, 5, 7):
        reader.tiles.nth(number - 1).click()
    reader.expect_pressed(2, 5, 7)
    reader.expect(reader.progress, "3 of 12 marked; A cluster 1: 3")
    widget.get_by_role("button", name="Fit cluster").click()
    reader.expect(widget.locator(".note"), "Fitted to 3 images.")
    assert len(json.loads((reader.folder / "fitted.json").read_text())["labels"]) == 3

    run = widget.get_by_role("button", name="Run")
    run.click()
    reader.expect(run, "Running …")
    reader.expect(widget.locator(".note"), "Marking waits until it has finished.")
    assert run.get_attribute("aria-disabled") == "true" and widget.get_attribute("aria-busy") == "true"
    reader.tiles.first.click()  # not taken while Python is busy
    (reader.folder / "go").touch()
    reader.expect(run, "Run again")
    assert "Run again: finished in" in widget.locator(".note").inner_text()
    reader.expect_pressed(2, 5, 7)

    reader.tiles.nth(1).click()  # again: to clear
    reader.expect_pressed(5, 7)
    for number in (9, 10):
        reader.tiles.nth(number - 1).click()
    reader.expect_pressed(5, 7, 9, 10)
    run.click()
    reader.expect(widget.locator(".error"), "RuntimeError: too many")

    killed = (reader.folder / "kernel.pid").read_text()
    os.kill(int(killed), signal.SIGKILL)
    page.locator(".jp-Dialog").get_by_role("button", name="Ok").click()  # JupyterLab says that it starts another kernel
    reader.run_cells()
    wait_for(lambda: (reader.folder / "kernel.pid").read_text() not in ("", killed), "another kernel")
    wait_for(lambda: page.locator(".creativelib-labelling").count() == 1, "one widget")
    reader.expect_pressed(5, 7, 9, 10)
    reader.tiles.nth(0).click()
    reader.expect_pressed(1, 5, 7, 9, 10)


def test_keys_clusters_and_names_for_screen_readers(reader):
    widget, page = reader.widget, reader.page
    reader.tiles.first.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    reader.expect_pressed(3)
    assert widget.get_by_role("button", name="image 3, unappealing: cluster 1", pressed=True).count() == 2  # grid and map
    assert widget.get_by_role("button", name="image 4", exact=True, pressed=False).count() == 2

    name = widget.get_by_role("textbox", name="Name of a new cluster")
    name.click()
    page.keyboard.type("uneven")  # u is a letter here
    page.keyboard.press("Enter")
    chosen = widget.get_by_role("radio", name="uneven")
    chosen.wait_for()
    assert chosen.is_checked() and reader.journal() == {"image-2": "cluster 1"}
    reader.tiles.nth(2).focus()
    page.keyboard.press("End")
    page.keyboard.press(" ")
    reader.expect_pressed(3, 12)
    reader.expect(reader.progress, "2 of 12 marked; A cluster 1: 1, B uneven: 1")
    page.keyboard.press("Control+z")
    reader.expect_pressed(3)
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    reader.expect_pressed(1, 3)
    page.keyboard.press("u")
    reader.expect_pressed(3)
    widget.get_by_role("button", name="Undo").click()  # the naming
    wait_for(lambda: widget.get_by_role("radio").count() == 1, "one cluster")
    widget.get_by_role("button", name="Undo").click()
    reader.expect_pressed()
    assert page.locator(".jp-Notebook .jp-Cell").count() == 1  # JupyterLab took no key for its own

    name.click()
    page.keyboard.press("Enter")
    reader.expect(widget.locator(".error"), "cluster: got ''; give a name, for example 'blotchy'")


def test_the_lasso_and_the_links_between_map_and_grid(reader):
    page = reader.page
    middles = []
    for index in range(12):
        box = reader.dots.nth(index).locator(".spot").bounding_box()
        middles.append((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
    step = middles[1][0] - middles[0][0]
    left, bottom = middles[0]
    assert middles[4][1] < bottom  # the second axis goes upwards

    def drag(*corners):
        """Around places on the map, in its units."""
        for index, (x, y) in enumerate(corners):
            page.mouse.move(left + x * step, bottom - y * step, steps=4)
            if index == 0:
                page.mouse.down()
        page.mouse.up()

    drag((-0.2, -0.2), (1.4, -0.2), (1.4, 1.4), (-0.2, 1.4))
    reader.expect_pressed(1, 2, 5, 6)
    page.keyboard.press("u")  # one drag is one change
    reader.expect_pressed()
    drag((1.5, 0.4), (1.6, 0.4), (1.6, 0.6))
    reader.expect(reader.widget.locator(".note"), "There is no image in the lasso.")

    page.mouse.click(*middles[7])
    reader.expect_pressed(8)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    reader.expect_pressed(8, 12)

    def linked(elements):
        return elements.evaluate_all("elements => elements.flatMap((e, i) => e.classList.contains('linked') ? [i + 1] : [])")

    assert linked(reader.tiles) == linked(reader.dots) == [12]
    page.mouse.move(*middles[1])
    wait_for(lambda: linked(reader.tiles) == linked(reader.dots) == [2], "a link from the map")
    reader.tiles.nth(4).hover()
    wait_for(lambda: linked(reader.tiles) == linked(reader.dots) == [5], "a link from the grid")
    reader.tiles.nth(6).focus()
    assert linked(reader.tiles) == linked(reader.dots) == [7]
