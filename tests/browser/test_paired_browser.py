"""The paired panel in a real browser: arrow keys, clicks, presses that count once, a killed kernel, a narrow page."""

import os
import signal

import pytest
from harness import open_notebook, run_all, wait_for

from creativelib.study.store import Store

pytestmark = pytest.mark.browser
CELL = """
import os
from pathlib import Path
from PIL import Image
from creativelib.study.paired_panel import PairedPanel
from creativelib.study.pairing import PairedSession, picture_set
from creativelib.study.store import Store
Path("kernel.pid").write_text(str(os.getpid()))
shades = iter(range(10, 250, 5))
sets = [picture_set([Image.new("RGB", (64, 64), (next(shades), 60, 200)) for _ in range(3)], method, subject, 0)
        for method in ("creative", "conceptlab") for subject in ("vehicle", "chair", "pet", "fruit")]
PairedPanel(PairedSession(Store("choices.sqlite"), sets, ("creative", "conceptlab")))
"""
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
GLANCE = 350  # ms, a little more than the panel's


class Chooser:
    """Somebody with a notebook of one cell open, which shows the panel."""

    def __init__(self, lab, page, name):
        self.page, self.folder = page, open_notebook(lab, page, name, CELL)
        self.run_cells()

    def run_cells(self):
        run_all(self.page)
        self.panel = self.page.locator(".creativelib-paired").last
        self.panel.wait_for()

    def agree(self, code):
        self.panel.get_by_label("Your code:").fill(code)
        self.panel.get_by_label("I have read this and agree").check()
        self.panel.get_by_role("button", name="Begin").click()

    def expect(self, text):
        count = self.panel.locator(".count")
        wait_for(lambda: count.inner_text() == text, f"{text!r}, not {count.inner_text()!r}")

    def press(self, key):
        self.page.wait_for_timeout(GLANCE)
        self.page.keyboard.press(key)

    def kept(self):
        store = Store(self.folder / "choices.sqlite")
        try:
            return store.choices()["chosen"].tolist()
        finally:
            store.close()


def test_choosing_by_arrows_and_clicks_and_a_killed_kernel(lab, page):
    chooser = Chooser(lab, page, "paired")
    chooser.agree("blue-fox")
    chooser.expect("blue-fox: 0 of 4")
    left = chooser.panel.get_by_role("button", name="left: three pictures of ")
    right = chooser.panel.get_by_role("button", name="right: three pictures of ")
    assert (left.count(), right.count()) == (1, 1)
    boxes = left.bounding_box(), right.bounding_box()
    assert boxes[0]["x"] < boxes[1]["x"] and abs(boxes[0]["width"] - boxes[1]["width"]) < 2
    chooser.press("ArrowRight")
    chooser.expect("blue-fox: 1 of 4")
    page.keyboard.press("ArrowRight")  # at once: nobody has seen the next pair
    page.wait_for_timeout(GLANCE)
    left.dblclick()
    chooser.expect("blue-fox: 2 of 4")
    page.wait_for_timeout(GLANCE)
    assert chooser.kept() == ["right", "left"] and page.locator(".jp-Notebook .jp-Cell").count() == 1

    killed = (chooser.folder / "kernel.pid").read_text()
    os.kill(int(killed), signal.SIGKILL)
    page.locator(".jp-Dialog").get_by_role("button", name="Ok").click()  # JupyterLab says that it starts another kernel
    chooser.run_cells()
    wait_for(lambda: (chooser.folder / "kernel.pid").read_text() not in ("", killed), "another kernel")
    wait_for(lambda: page.locator(".creativelib-paired").count() == 1, "one panel")
    chooser.agree("blue-fox")
    go_on = chooser.panel.get_by_role("button", name="Go on as blue-fox")
    go_on.wait_for()
    chooser.panel.get_by_label("Your code:").fill("blue-foxes")  # no: somebody else
    assert go_on.count() == 0 and chooser.panel.get_by_role("button", name="Begin").count() == 1
    chooser.panel.get_by_label("Your code:").fill("blue-fox")
    go_on.click()
    chooser.expect("blue-fox: 2 of 4")
    page.evaluate(HIDE, True)
    chooser.press("ArrowRight")  # nobody sees the pair
    page.wait_for_timeout(GLANCE)
    chooser.expect("blue-fox: 2 of 4")
    page.evaluate(HIDE, False)
    page.set_viewport_size({"width": 1060, "height": 1200})
    for number, key in ((3, "ArrowLeft"), (4, "ArrowRight")):
        chooser.press(key)
        chooser.expect(f"blue-fox: {number} of 4")
    chooser.panel.get_by_text("That was all: thank you.").wait_for()
    assert chooser.kept() == ["right", "left", "left", "right"]
    if folder := os.environ.get("CREATIVELIB_SCREENSHOTS"):
        chooser.panel.get_by_role("button", name="Withdraw").click()
        page.screenshot(path=f"{folder}/paired-done.png")
    chooser.panel.get_by_role("button", name="Stop here").click()
    chooser.agree("red-owl")
    chooser.expect("red-owl: 0 of 4")
    if folder:
        page.wait_for_timeout(GLANCE)
        chooser.panel.screenshot(path=f"{folder}/paired.png")
