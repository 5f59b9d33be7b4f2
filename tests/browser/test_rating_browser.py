"""The rating panel in JupyterLab, used by keys and mouse in headless Chromium, as a rater would."""

import os
import signal
import sqlite3

import pytest
from harness import open_notebook, run_all, wait_for

from creativelib.study.store import Store

pytestmark = pytest.mark.browser
COUNT = 8

CELL = """
import os
from pathlib import Path
from PIL import Image
from creativelib.study import database
from creativelib.study.panel import RatingPanel
from creativelib.study.session import RatingSession
from creativelib.study.stimuli import Stimulus
from creativelib.study.store import Store
from creativelib.widgets import png

picture = lambda shade: png(Image.new("RGB", (64, 64), (shade, 20, 90)))
stimuli = [Stimulus("a" * 12, "anchor", picture(0))]
stimuli += [Stimulus(f"{k:012x}", "image", picture(20 + 20 * k), 0, k, 70.0 + k) for k in range(8)]
database.BUSY_SECONDS = 1
Path("kernel.pid").write_text(str(os.getpid()))
RatingPanel(RatingSession(Store("ratings.sqlite"), stimuli), "alien")
"""
PIXEL = """image => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data[0];
}"""
GLANCE = 300  # ms; the panel takes nothing for an answer that comes sooner


class Rater:
    """A rater with a notebook of one cell open, which shows the panel."""

    def __init__(self, lab, page, name):
        self.page, self.folder = page, open_notebook(lab, page, name, CELL)
        self.run_cells()

    def run_cells(self):
        run_all(self.page)
        self.panel = self.page.locator(".creativelib-rating").last
        self.panel.wait_for()
        self.count, self.error = self.panel.locator(".count"), self.panel.locator(".error")
        self.stage = self.panel.get_by_role("img", name="picture ")

    def agree(self, code):
        self.panel.get_by_label("Your code:").fill(code)
        self.panel.get_by_label("I have read this and agree").check()
        self.panel.get_by_role("button", name="Begin").click()

    def expect_count(self, text):
        wait_for(lambda: self.count.inner_text() == text, f"{text!r}, not {self.count.inner_text()!r}")

    def shown(self):
        """The stimulus on the page, by its shade."""
        return f"{(self.stage.locator('img').evaluate(PIXEL) - 20) // 20:012x}"

    def press(self, key):
        self.stage.locator("img").evaluate("image => image.decode()")  # a busy machine shows the picture later than the count
        self.page.wait_for_timeout(GLANCE)
        self.page.keyboard.press(key)

    def kept(self):
        store = Store(self.folder / "ratings.sqlite")
        try:
            return store.ratings()[["stimulus", "value"]].values.tolist()
        finally:
            store.close()


@pytest.fixture
def rater(lab, page, request):
    return Rater(lab, page, request.node.name.removeprefix("test_"))


def test_rating_by_keys_and_a_killed_kernel(rater):
    page = rater.page
    rater.agree("blue-fox")
    rater.expect_count(f"blue-fox: 0 of {COUNT}")
    seen = []
    for number, value in enumerate((3, 0, 0, 5), start=1):  # in JupyterLab 3 makes a heading and 0 0 restarts the kernel
        seen.append([rater.shown(), value])
        rater.press(str(value))
        rater.expect_count(f"blue-fox: {number} of {COUNT}")
        assert rater.kept() == seen  # by now it is on disk
    rater.press("u")
    rater.expect_count(f"blue-fox: 3 of {COUNT}")
    assert rater.shown() == seen[3][0] and rater.kept() == seen[:3]
    where = rater.shown()
    assert page.locator(".jp-Dialog").count() == 0

    killed = (rater.folder / "kernel.pid").read_text()
    os.kill(int(killed), signal.SIGKILL)
    page.locator(".jp-Dialog").get_by_role("button", name="Ok").click()  # JupyterLab says that it starts another kernel
    rater.run_cells()
    wait_for(lambda: (rater.folder / "kernel.pid").read_text() not in ("", killed), "another kernel")
    wait_for(lambda: page.locator(".creativelib-rating").count() == 1, "one panel")
    rater.agree("blue-fox")
    again = rater.panel.get_by_role("button", name="Go on as blue-fox")
    again.wait_for()
    assert "blue-fox has rated 3 of 8 pictures already" in rater.panel.inner_text()
    again.click()
    rater.expect_count(f"blue-fox: 3 of {COUNT}")
    assert rater.shown() == where
    for number in range(4, COUNT + 1):
        rater.press("2")
        rater.expect_count(f"blue-fox: {number} of {COUNT}")
    rater.panel.get_by_text("That was all: thank you.").wait_for()
    assert [value for _, value in rater.kept()] == [3, 0, 0, 2, 2, 2, 2, 2]
    assert len({name for name, _ in rater.kept()}) == COUNT


def test_clicks_double_presses_and_held_keys(rater):
    page = rater.page
    rater.agree("red-owl")
    rater.expect_count(f"red-owl: 0 of {COUNT}")
    page.wait_for_timeout(GLANCE)
    four = rater.panel.get_by_role("button", name="4, very interesting")
    four.dblclick()
    rater.expect_count(f"red-owl: 1 of {COUNT}")
    page.wait_for_timeout(2 * GLANCE)
    rater.expect_count(f"red-owl: 1 of {COUNT}")
    page.keyboard.press("1")
    page.keyboard.press("1")  # at once: nobody has seen the next picture
    rater.expect_count(f"red-owl: 2 of {COUNT}")
    page.wait_for_timeout(GLANCE)
    for _ in range(5):  # held down
        page.keyboard.down("5")
        page.wait_for_timeout(60)
    page.keyboard.up("5")
    rater.expect_count(f"red-owl: 3 of {COUNT}")
    page.wait_for_timeout(2 * GLANCE)
    assert [value for _, value in rater.kept()] == [4, 1, 5]
    rater.press("Control+z")
    rater.expect_count(f"red-owl: 2 of {COUNT}")
    rater.press("9")
    rater.press("a")
    page.wait_for_timeout(GLANCE)
    assert len(rater.kept()) == 2 and page.locator(".jp-Notebook .jp-Cell").count() == 1  # no key reached JupyterLab


def test_consent_leaving_withdrawing_and_names_for_screen_readers(rater):
    panel = rater.panel
    panel.get_by_label("Your code:").fill("grey-seal")
    panel.get_by_role("button", name="Begin").click()
    wait_for(lambda: "consent" in rater.error.inner_text(), "an error")
    assert rater.stage.count() == 0
    rater.agree("grey-seal")
    rater.expect_count(f"grey-seal: 0 of {COUNT}")
    assert panel.get_by_role("img", name="picture 1 of 8").evaluate("stage => stage === document.activeElement")
    bar = panel.get_by_role("progressbar", name="Pictures rated")
    assert (bar.get_attribute("aria-valuenow"), bar.get_attribute("aria-valuemax")) == ("0", "8")
    assert panel.get_by_role("group", name="Your rating, keys 0 to 5").get_by_role("button").count() == 6
    assert panel.get_by_role("img", name="the default alien").count() == 1
    rater.press("0")
    rater.expect_count(f"grey-seal: 1 of {COUNT}")
    panel.get_by_role("button", name="Stop here").click()
    panel.get_by_role("button", name="Begin").wait_for()
    assert panel.get_by_label("Your code:").input_value() == "grey-seal" and len(rater.kept()) == 1
    panel.get_by_role("button", name="Begin").click()
    panel.get_by_role("button", name="Go on as grey-seal").click()
    rater.expect_count(f"grey-seal: 1 of {COUNT}")
    panel.get_by_role("button", name="Withdraw").click()
    panel.get_by_role("button", name="Keep it").click()
    assert len(rater.kept()) == 1
    panel.get_by_role("button", name="Withdraw").click()
    panel.get_by_role("button", name="Delete all of grey-seal").click()
    panel.get_by_text("Everything of grey-seal is deleted.").wait_for()
    assert rater.kept() == []


def test_a_locked_file_is_said_and_the_answer_sent_again(rater):
    panel, page = rater.panel, rater.page
    assert panel.get_by_label("Your code:").get_attribute("autocapitalize") == "none"
    rater.agree("Plum Toad")
    rater.expect_count(f"plum-toad: 0 of {COUNT}")
    for width in (700, 360):
        page.set_viewport_size({"width": width + 700, "height": 1200})
        boxes = [button.bounding_box() for button in panel.locator(".value").all()]
        assert len({round(box["width"]) for box in boxes}) == 1 and min(box["height"] for box in boxes) >= 44
    other = sqlite3.connect(rater.folder / "ratings.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # a database browser with a change that is not saved
    shown = rater.shown()
    rater.press("4")
    wait_for(lambda: "Not kept: another program holds" in rater.error.inner_text(), "an error")
    assert rater.shown() == shown and rater.kept() == []
    other.rollback()
    other.close()
    panel.get_by_role("button", name="Send it again").click()
    rater.expect_count(f"plum-toad: 1 of {COUNT}")
    assert rater.kept() == [[shown, 4]] and rater.error.inner_text() == ""
    panel.get_by_role("button", name="Stop here").click()
    rater.agree("plum\u2011toad")  # as a phone may write it
    panel.get_by_role("button", name="Go on as plum-toad").click()
    rater.expect_count(f"plum-toad: 1 of {COUNT}")
