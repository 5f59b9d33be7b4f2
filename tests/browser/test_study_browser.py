"""The web pages of a study in headless Chromium: on a desktop with keys, on a phone with a finger and a bad network."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import wait_for
from studies import Server, make_study, proxied  # noqa: F401

from creativelib.study.server.folder import Study
from creativelib.study.server.guard import Signer

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
FILL = """() => {
  for (let size = 1 << 20; size; size >>= 1)
    try {
      while (true) localStorage.setItem(`other ${localStorage.length}`, "x".repeat(size));
    } catch {}
}"""
GLANCE = 300  # ms; the page takes nothing for an answer that comes sooner


class Rater:
    """Somebody with a browser of their own."""

    def __init__(self, browser, server, **profile):
        self.context = browser.new_context(**profile)
        self.page, self.server, self.hosts = self.context.new_page(), server, set()
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.touch = profile.get("has_touch", False)

    def press(self, locator):
        locator.tap() if self.touch else locator.click()

    def button(self, name):
        self.press(self.page.get_by_role("button", name=name, exact=True))

    def join(self):
        self.page.goto(f"{self.server.base}/join/{self.server.link}")
        self.press(self.page.get_by_label("I have read this"))
        self.button("Begin")

    def try_out(self):
        self.button("Try it out")
        for shape in (1, 2):
            self.ready(f"practice-{shape}")
            self.answer(3)

    def ready(self, what=""):
        """Wait until a picture can be rated."""
        self.page.wait_for_function(
            "what => document.querySelector('#picture').src.includes(what) && !document.querySelector('#picture').className",
            arg=what,
        )
        self.page.wait_for_timeout(GLANCE)

    def answer(self, value):
        if self.touch:
            self.page.locator(".value").nth(value).tap()
        else:
            self.page.keyboard.press(str(value))

    def rate(self, value, count):
        self.ready("/picture/")
        self.answer(value)
        self.expect(count)

    def expect(self, text):
        count = self.page.locator("#count")
        wait_for(lambda: count.inner_text() == text, f"{text!r}, not {count.inner_text()!r}")

    def arrived(self):
        wait_for(lambda: self.page.evaluate("document.body.dataset.waiting") == "0", "all answers to arrive")

    def look(self, name):
        """A picture of the page, where somebody wants to see it."""
        if folder := os.environ.get("CREATIVELIB_SCREENSHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.fixture
def rater(browser):
    made = []

    def new(server, **profile):
        made.append(Rater(browser, server, **profile))
        return made[-1]

    yield new
    for one in made:
        one.context.close()


@pytest.fixture
def serve(tmp_path):
    servers = []

    def started(**settings):
        servers.append(Server(make_study(tmp_path / "study", **settings)))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


def kept(server):
    study = Study(server.folder)
    try:
        return study.store.ratings(), study.store.choices()
    finally:
        study.close()


def test_a_person_on_a_desktop_from_consent_to_code(serve, rater):
    server = serve(runs=2, pairs=2, break_every=3)
    person = rater(server, **DESKTOP)
    page = person.page
    page.goto(f"{server.base}/join/{server.link}")
    person.button("Begin")
    page.get_by_text("Tick the box first").wait_for()
    assert "6 pictures" in page.inner_text("#consent") and "Ann Other, room 7" in page.inner_text("#consent")
    person.look("desktop-consent")
    person.join()
    page.get_by_text("How it works").wait_for()
    person.look("desktop-instructions")
    person.try_out()
    person.ready("/picture/")
    person.look("desktop-rate")
    for number, value in enumerate((5, 0, 3), start=1):
        person.rate(value, f"{number} of 8")
    page.get_by_text("Time for a break").wait_for()
    person.look("desktop-break")
    person.button("Go on")
    person.ready("/picture/")
    page.keyboard.press("u")
    person.expect("2 of 8")
    person.rate(4, "3 of 8")
    person.ready("/picture/")
    page.keyboard.press("7")
    page.keyboard.press("Control+1")
    for number in (4, 5, 6):
        person.rate(1, f"{number} of 8")
    page.get_by_text("Now two at a time").wait_for()
    person.button("Go on")
    page.get_by_role("heading", name="Which alien is more creative?").wait_for()
    for number, key in ((7, "ArrowLeft"), (8, "2")):
        page.wait_for_timeout(3 * GLANCE)
        person.look(f"desktop-pair-{number}")
        page.keyboard.press(key)
        person.expect(f"{number} of 8")
    page.get_by_text("Your completion code:").wait_for()
    person.look("desktop-done")
    ratings, choices = kept(server)
    assert ratings["value"].tolist() == [5, 0, 4, 1, 1, 1] and choices["chosen"].tolist() == ["left", "right"]
    assert ratings["milliseconds"].ge(200).all()
    assert person.hosts == {f"127.0.0.1:{server.port}"}  # nobody else is asked for anything
    page.reload()
    page.get_by_text("Your completion code:").wait_for()


def test_a_phone_on_a_bad_network_loses_nothing(serve, rater):
    server = serve(runs=3, pairs=0)
    person = rater(server, **PHONE)
    page = person.page
    page.goto(f"{server.base}/join/{server.link}")
    page.get_by_role("button", name="Begin", exact=True).wait_for()
    person.look("phone-consent")
    person.join()
    person.page.get_by_text("How it works").wait_for()
    person.look("phone-instructions")
    person.try_out()
    person.ready("/picture/")
    person.look("phone-rate")
    boxes = [page.locator(".value").nth(value).bounding_box() for value in range(6)]
    assert len({(round(box["width"]), round(box["height"])) for box in boxes}) == 1  # none is easier to hit
    assert all(box["width"] >= 44 and box["height"] >= 44 for box in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert boxes[5]["y"] + boxes[5]["height"] <= 740  # all of it without scrolling
    person.rate(2, "1 of 9")
    person.arrived()

    person.context.set_offline(True)
    for number in (2, 3, 4):
        person.rate(number, f"{number} of 9")
    page.get_by_text("No connection: 3 answers are kept here").wait_for()
    person.look("phone-offline")
    assert len(kept(server)[0]) == 1
    person.context.set_offline(False)
    person.arrived()
    assert kept(server)[0]["value"].tolist() == [2, 2, 3, 4]

    person.ready("/picture/")
    server.kill()
    person.answer(5)
    person.expect("5 of 9")
    page.get_by_text("No connection: 1 answer is kept here").wait_for()
    server.start()
    person.arrived()
    person.rate(0, "6 of 9")
    person.arrived()
    server.kill()
    person.ready("/picture/")
    person.answer(1)
    person.expect("7 of 9")
    server.start()
    page.reload()  # the answer is still in the browser
    person.expect("7 of 9")
    person.arrived()
    assert kept(server)[0]["value"].tolist() == [2, 2, 3, 4, 5, 0, 1]
    for number in (8, 9):
        person.rate(3, f"{number} of 9")
    page.get_by_text("Your completion code:").wait_for()
    person.look("phone-done")
    page.locator("summary").tap()
    person.button("Withdraw")
    person.look("phone-withdraw")
    person.button("Delete everything of mine")
    page.get_by_text("Nothing of yours is here").wait_for()
    person.look("phone-gone")
    assert kept(server)[0].empty
    person.join()  # and may take part anew
    page.get_by_text("How it works").wait_for()


def test_an_older_phone_rates_behind_the_proxy_with_tls(proxied, rater):  # noqa: F811
    outside = SimpleNamespace(base=proxied.proxy.base, link=proxied.server.link)
    person = rater(outside, **PHONE, ignore_https_errors=True)  # the authority is of this test's own; others check it
    person.page.add_init_script("delete AbortSignal.timeout; delete Array.prototype.at;")  # iOS before 15.4
    person.join()
    person.try_out()
    for number in range(1, 8):
        person.rate(number % 6, f"{number} of 8")
    person.button("Go on")
    person.page.wait_for_timeout(3 * GLANCE)
    person.press(person.page.locator("#left"))
    person.page.get_by_text("Your completion code:").wait_for()
    assert person.page.evaluate("isSecureContext") and [cookie["secure"] for cookie in person.context.cookies()] == [True]
    ratings, choices = kept(proxied.server)
    assert len(ratings) == 7 and len(choices) == 1
    assert person.hosts == {f"localhost:{proxied.proxy.port}"}
    teacher = rater(outside, **DESKTOP, ignore_https_errors=True)
    teacher.page.goto(f"{outside.base}/teacher/")
    teacher.page.get_by_label("Token of this study").fill(proxied.server.token)
    teacher.button("Sign in")  # forms say where they come from, and it is the proxy's name
    assert teacher.page.locator(".qr").evaluate("image => image.naturalWidth") > 100


def test_hidden_time_does_not_count_and_a_second_press_is_none(serve, rater):
    server = serve(runs=1, pairs=0)
    person = rater(server, **DESKTOP)
    page = person.page
    person.join()
    person.try_out()
    person.ready("/picture/")
    hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    page.wait_for_timeout(4000)
    page.keyboard.press("3")  # nobody sees the picture
    page.evaluate(hide, False)
    page.keyboard.press("4")
    page.keyboard.press("4")  # at once: nobody has seen the next one
    person.expect("1 of 3")
    person.arrived()
    page.wait_for_timeout(3 * GLANCE)
    ratings, _ = kept(server)
    assert ratings["value"].tolist() == [4] and ratings["milliseconds"].item() < 4000


def test_one_personal_link_on_two_devices_and_the_class_link_for_two(serve, rater):
    server = serve(runs=1, pairs=0)
    first, second, third = (rater(server, **DESKTOP) for _ in range(3))
    first.join()
    first.try_out()
    first.rate(5, "1 of 3")
    first.arrived()
    link = first.page.locator("#mylink").get_attribute("href")
    second.page.goto(server.base + link)
    second.expect("1 of 3")
    second.rate(1, "2 of 3")
    second.arrived()
    first.rate(4, "2 of 3")  # the same picture: the answer that came first stays
    first.arrived()
    third.join()
    third.page.get_by_text("How it works").wait_for()
    ratings, _ = kept(server)
    assert ratings["value"].tolist() == [5, 1] and ratings["rater"].nunique() == 1


def test_two_tabs_of_one_person_share_what_waits(serve, rater):
    server = serve(runs=2, pairs=0)
    person = rater(server, **DESKTOP)
    first, problems = person.page, []
    first.on("pageerror", lambda error: problems.append(str(error)))
    person.join()
    person.try_out()
    person.rate(5, "1 of 6")
    person.arrived()
    server.kill()
    for number in (2, 3):
        person.rate(number, f"{number} of 6")  # they wait in the first tab
    second = person.context.new_page()
    server.start()
    second.goto(server.base)  # which sends them
    wait_for(lambda: len(kept(server)[0]) == 3, "all answers to arrive")
    person.page = first
    person.arrived()
    person.expect("3 of 6")  # the first tab has heard of it
    person.rate(1, "4 of 6")
    person.arrived()
    assert kept(server)[0]["value"].tolist() == [5, 2, 3, 1] and not problems


def test_a_second_person_in_another_tab_gets_nobody_elses_answers(serve, rater):
    server = serve(runs=1, pairs=0)
    person = rater(server, **DESKTOP)
    first = person.page
    person.join()
    person.try_out()
    person.rate(5, "1 of 3")
    person.arrived()
    study = Study(server.folder)
    link = Signer(study.secret).token("person", 2)
    study.close()
    person.page = person.context.new_page()
    person.page.goto(server.base)
    person.page.evaluate("async ([link, key, version]) => fetch('/api/join', {method: 'POST', headers: {'Content-Type':"
                         " 'application/json'}, body: JSON.stringify({link, key, agreed: true, version})})",
                         [link, "0" * 32, first.evaluate("document.body.dataset.version")])  # fmt: skip
    person.page = first
    person.ready("/picture/")
    person.answer(4)
    first.get_by_text("Somebody else goes on in this browser now").wait_for()
    ratings, _ = kept(server)
    assert ratings["value"].tolist() == [5]
    first.reload()
    person.expect("0 of 3")  # the second person's


def test_a_browser_whose_storage_is_full_still_sends(serve, rater):
    server = serve(runs=1, pairs=0)
    person = rater(server, **DESKTOP)
    person.join()
    person.try_out()
    person.page.evaluate(FILL)
    for number in (1, 2, 3):
        person.rate(number, f"{number} of 3")
    person.page.get_by_text("Your completion code:").wait_for()
    assert kept(server)[0]["value"].tolist() == [1, 2, 3]


def test_the_teachers_page(serve, rater):
    server = serve(runs=1, pairs=0, outsiders=1)
    person = rater(server, **DESKTOP)
    person.join()
    person.try_out()
    for number in range(1, 5):
        person.rate(4, f"{number} of 4")
    person.page.get_by_text("Your completion code:").wait_for()
    code = person.page.inner_text("#mycode") or person.page.locator("#mycode").text_content()
    half = rater(server, **PHONE)
    half.join()
    half.try_out()
    half.rate(4, "1 of 4")
    half.arrived()
    teacher = rater(server, **DESKTOP)
    page = teacher.page
    page.goto(f"{server.base}/teacher/")
    teacher.look("teacher-sign-in")
    page.get_by_label("Token of this study").fill(server.token)
    teacher.button("Sign in")
    page.get_by_text("Who is where").wait_for()
    teacher.look("teacher-open")
    row = page.get_by_role("row").filter(has_text=code)
    assert "of something else" in row.inner_text() and "finished" in row.inner_text() and page.locator(".figure").count() == 0
    assert server.token not in page.url and page.locator(".qr").evaluate("image => image.naturalWidth") > 100
    teacher.button("Close the study")
    page.get_by_text("What they say").wait_for()
    figure = page.locator(".figure")
    wait_for(lambda: figure.evaluate("image => image.naturalWidth") > 100, "the figure")
    teacher.look("teacher-closed")
    half.page.reload()
    half.page.get_by_text("No more ratings are taken").wait_for()
    half.look("phone-closed-half")
    half.page.locator("summary").tap()  # who had not finished can withdraw also now
    half.button("Withdraw")
    half.button("Delete everything of mine")
    half.page.get_by_text("Nothing of yours is here").wait_for()
    page.get_by_role("button", name="Report").click()
    page.get_by_role("heading", name="Rating study: alien").wait_for()
    teacher.look("teacher-report")
    assert page.evaluate("getComputedStyle(document.body).maxWidth") == "960px"  # its style is let through
    page.go_back()
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    teacher.look("teacher-phone")
    page.set_viewport_size(DESKTOP["viewport"])
    form = page.locator("form[action='/teacher/delete']")
    form.get_by_label("Code", exact=True).fill(code)
    form.get_by_label("The code again").fill(code)
    form.get_by_role("button").click()
    page.get_by_text("Nobody has begun.").first.wait_for()
    late = rater(server, **PHONE)
    late.page.goto(f"{server.base}/join/{server.link}")
    late.page.get_by_text("The study is closed").wait_for()
    late.look("phone-closed")
    person.page.reload()
    person.page.get_by_text("Nothing of yours is here").wait_for()
