"""The rating session and its panel without a browser: what is kept, what a rater is shown, and what not."""

import io
import json
import shutil
import sqlite3

import pytest
from PIL import Image, ImageChops

from creativelib.study import database
from creativelib.study.panel import PICTURE, RatingPanel, meanings
from creativelib.study.session import RatingSession
from creativelib.study.stimuli import Stimulus
from creativelib.study.store import Store
from creativelib.widgets import png

COUNT = 8


def picture(shade):
    return png(Image.new("RGB", (900, 600), (shade, 20, 90)))


STIMULI = [
    Stimulus("a" * 12, "anchor", picture(0), surprise=70.25),
    *(Stimulus(f"{index:012x}", "image", picture(20 + index), index % 2, index, 70.25 + index) for index in range(COUNT - 2)),
    Stimulus("e" * 12, "repeat", picture(21), 1, 1, 71.25, of=f"{1:012x}"),
    Stimulus("f" * 12, "outsider", picture(200)),
]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "ratings.sqlite")
    yield store
    store.close()


@pytest.fixture
def session(store):
    return RatingSession(store, STIMULI)


@pytest.fixture
def panel(session):
    return RatingPanel(session, "alien")


def send(panel, **message):
    """As the page sends it. Returns the state that the page is then given."""
    panel._handle_custom_msg(message, [])
    return panel.state


def begin(panel, code="blue-fox", consent=True, again=""):
    return send(panel, do="begin", code=code, consent=consent, again=again)


def rate(panel, value, stimulus=None):
    return send(panel, do="rate", stimulus=stimulus or panel.state["stimulus"], value=value, milliseconds=900)


# --- the session ------------------------------------------------------------------------------------------------------


def test_a_session_shows_everything_but_the_anchor_once(session):
    session.join("blue-fox", consent=True)
    seen = []
    while session.current is not None:
        seen.append(session.current.id)
        assert session.rate(len(seen) % 6) and session.progress == (len(seen), COUNT)
    assert sorted(seen) == sorted(one.id for one in STIMULI[1:]) and seen == session.order == list(session.given)
    with pytest.raises(ValueError, match="stimulus: all pictures are rated"):
        session.rate(3)
    assert session.undo() == seen[-1] and session.current.id == seen[-1]


def test_who_comes_again_goes_on_even_when_less_is_asked_of_others(session, store):
    session.join("blue-fox", consent=True)
    session.rate(3)
    first = session.order
    later = RatingSession(store, STIMULI, per_rater=4)
    assert later.begun("blue-fox") == (1, COUNT) and later.begun("red-owl") is None
    later.join(" blue-fox ", consent=True)
    assert later.order == first and later.progress == (1, COUNT)
    later.leave()
    later.join("red-owl", consent=True)
    assert later.progress == (0, 4)


def test_other_stimuli_are_another_session(session, store):
    session.join("blue-fox", consent=True)
    other = RatingSession(store, [*STIMULI[:3], Stimulus("9" * 12, "image", picture(99), 0, 9, 80.0)])
    assert other.begun("blue-fox") is None
    other.join("blue-fox", consent=True)
    assert other.progress == (0, 3) and other.session != session.session


def test_in_one_store_numbers_of_ratings_balance(store):
    counts = dict.fromkeys((one.id for one in STIMULI[1:]), 0)
    for number in range(COUNT - 2):
        session = RatingSession(store, STIMULI, per_rater=4)
        session.join(f"rater {number}", consent=True)
        for name in session.order:
            counts[name] += 1
    images = [counts[one.id] for one in STIMULI if one.kind == "image"]
    assert counts["f" * 12] == COUNT - 2 and max(images) - min(images) <= 1  # the outsider is for all


def test_those_who_are_alone_with_a_file_see_different_orders(tmp_path):
    orders = set()
    for number in range(20):
        store = Store(tmp_path / f"{number}.sqlite")
        session = RatingSession(store, STIMULI)
        session.join(f"rater {number}", consent=True)
        orders.add(tuple(session.order))
        store.close()
    assert len(orders) == 20


def test_a_late_second_answer_is_not_for_the_next_picture(session):
    session.join("blue-fox", consent=True)
    first = session.current.id
    assert session.rate(4, first) and not session.rate(4, first) and not session.rate(2, first)
    assert session.given == {first: 4}


def test_withdrawing_deletes_all_and_only_that(session, store, tmp_path):
    session.join("red-owl", consent=True)
    session.rate(2)
    session.join("blue-fox-secret", consent=True)
    session.rate(3)
    session.withdraw()
    assert session.code is None and list(store.sessions()["rater"]) == ["red-owl"] and len(store.ratings()) == 1
    assert b"blue-fox-secret" not in (tmp_path / "ratings.sqlite").read_bytes()  # nor in its free pages


def test_a_copy_of_the_one_file_is_whole_at_any_time(session, store, tmp_path):
    session.join("blue-fox", consent=True)
    for value in range(3):
        session.rate(value)
        copy = Store(shutil.copy(tmp_path / "ratings.sqlite", tmp_path / f"sent-{value}.sqlite"))
        assert len(copy.ratings()) == value + 1
        copy.close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda session: session.current, "session: nobody has joined"),
        (lambda session: session.rate(3), "session: nobody has joined"),
        (lambda session: session.withdraw(), "session: nobody has joined"),
        (lambda session: session.join("", consent=True), "code: got ''; give a pseudonym"),
        (lambda session: session.join("blue-fox", consent=False), "consent: got False"),
        (lambda session: RatingSession(session.store, STIMULI[:1]), "stimuli: got no image to rate"),
        (lambda session: RatingSession(session.store, STIMULI, per_rater=COUNT + 1), "per_rater: got 9; give .* from 4 to 8"),
        (lambda session: RatingSession(session.store, STIMULI, per_rater=True), "per_rater: got True"),
    ],
)
def test_one_clear_error(session, call, message):
    with pytest.raises(ValueError, match=message):
        call(session)


# --- the panel --------------------------------------------------------------------------------------------------------


def test_without_consent_nothing_is_shown_or_kept(panel, store):
    assert panel.state["phase"] == "consent" and panel.picture == b"" and panel.state["code"]
    state = begin(panel, consent=False)
    assert state["phase"] == "consent" and state["error"].startswith("consent: got False")
    assert panel.picture == b"" and store.sessions().empty
    assert begin(panel, code=" ")["error"].startswith("code: got ' '")
    for word in ("alien", "8 pictures", "about a minute", "voluntary", "Withdraw", "ratings.sqlite"):
        assert word in panel.consent


def test_a_rating_is_kept_before_the_next_picture_shows(panel, store):
    begin(panel)
    kept = []
    panel.observe(lambda change: kept.append((change["new"]["done"], len(store.ratings()))), names="state")
    for value in (0, 5, 3):
        rate(panel, value)
    assert kept == [(1, 1), (2, 2), (3, 3)]
    assert store.ratings()["value"].tolist() == [0, 5, 3] and store.ratings()["milliseconds"].tolist() == [900] * 3


def test_what_cannot_be_kept_is_said_and_the_picture_stays(panel, store, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    before = begin(panel)
    other = sqlite3.connect(tmp_path / "ratings.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # a database browser with a change that is not saved
    state = rate(panel, 3)
    assert state["error"].startswith("Not kept: another program holds") and state["error"].endswith("Try again.")
    other.rollback()
    other.close()
    assert state["again"] and {"turn": 0, "error": "", "again": False} | before == state | {
        "turn": 1,
        "error": "",
        "again": False,
    }
    assert panel.picture
    (tmp_path / "ratings.sqlite").rename(tmp_path / "away.sqlite")
    state = rate(panel, 3)
    assert state["error"] == f"Not kept: the file {tmp_path / 'ratings.sqlite'} is no longer there: put it back. Try again."
    assert state["stimulus"] == before["stimulus"] and state["again"] and not (tmp_path / "ratings.sqlite").exists()
    (tmp_path / "away.sqlite").rename(tmp_path / "ratings.sqlite")
    state = rate(panel, 3)
    assert (state["done"], state["error"], state["again"]) == (1, "", False) and store.ratings()["value"].tolist() == [3]


def test_who_types_the_code_otherwise_is_the_same_person(panel):
    begin(panel)
    rate(panel, 4)
    send(panel, do="leave")
    state = begin(panel, code=" Blue Fox")
    assert state["known"] == "blue-fox" and state["note"].startswith("blue-fox has rated 1 of 8 pictures already.")
    assert begin(panel, code="Blue\u2011fox", again="blue-fox")["done"] == 1
    assert "code: got '=1+1'" in begin(panel, code="=1+1")["error"]


def test_the_browser_learns_nothing_but_pixels_and_a_blinded_id(panel):
    begin(panel)
    for _ in range(COUNT - 1):
        sent = json.dumps(panel.state) + panel.consent + json.dumps(panel.meanings)
        for word in ("70.25", "surprise", "repeat", "outsider", "iteration", "seed"):
            assert word not in sent
        image = Image.open(io.BytesIO(panel.picture))
        assert image.size == (PICTURE, 341) and image.info == {}
        rate(panel, 2)
    assert b"surprise" not in panel.picture


def test_picture_and_state_come_together(panel, session):
    begin(panel)
    pairs = []
    panel.observe(lambda change: pairs.append((panel.picture, panel.state["stimulus"])), names="state")
    rate(panel, 2)
    rate(panel, 2)
    for shown, name in pairs:
        pixel = Image.open(io.BytesIO(shown)).getpixel((0, 0))
        assert pixel == session.stimuli[name].image.getpixel((0, 0))


def test_undo_stop_and_the_end(panel):
    first = begin(panel)["stimulus"]
    second = rate(panel, 4)["stimulus"]
    state = send(panel, do="undo")
    assert state["stimulus"] == first and state["done"] == 0 and state["note"] == "Took back the last rating."
    assert send(panel, do="undo")["note"] == "There is nothing to take back."
    assert rate(panel, 1)["stimulus"] == second
    state = send(panel, do="leave")
    assert state["phase"] == "consent" and state["code"] == "blue-fox" and panel.picture == b""
    state = begin(panel)
    assert state["phase"] == "consent" and state["known"] == "blue-fox"
    assert state["note"] == "blue-fox has rated 1 of 8 pictures already. Was it you? If not, choose another code."
    state = begin(panel, again="blue-fox")
    assert state["stimulus"] == second and state["known"] == ""
    while state["phase"] == "rate":
        state = rate(panel, 3)
    assert state["phase"] == "done" and state["done"] == COUNT and panel.picture == b""
    assert send(panel, do="undo")["phase"] == "rate"


def test_withdrawing(panel, store):
    begin(panel)
    rate(panel, 4)
    state = send(panel, do="withdraw")
    assert state["phase"] == "consent" and state["note"] == "Everything of blue-fox is deleted." and store.sessions().empty
    assert state["code"] not in ("", "blue-fox")


def test_after_a_restart_a_known_code_goes_on_at_once(panel, tmp_path):
    begin(panel)
    where = rate(panel, 4)["stimulus"]
    again = Store(tmp_path / "ratings.sqlite")
    panel = RatingPanel(RatingSession(again, STIMULI), "alien", code="blue-fox")
    assert panel.state["phase"] == "rate" and panel.state["stimulus"] == where and panel.state["done"] == 1
    other = RatingPanel(RatingSession(again, STIMULI), "alien", code="red-owl")
    assert other.state["phase"] == "consent" and other.state["code"] == "red-owl"  # only filled in: they have not agreed
    again.close()


def test_a_rater_deleted_elsewhere(panel, store):
    begin(panel)
    store.delete_rater("blue-fox")
    state = rate(panel, 4)
    assert state["phase"] == "consent" and "session" in state["error"] and store.ratings().empty


def test_messages_of_another_page_are_refused(panel):
    begin(panel)
    for message in (
        {"do": "rate", "value": 3},
        {"do": "rate", "stimulus": "x", "value": "3", "milliseconds": 1},
        {"do": "fly"},
    ):
        assert "the page is of another version" in send(panel, **message)["error"]
    assert rate(panel, 9)["error"].startswith("value: got 9")


def test_without_an_anchor_nothing_speaks_of_one(store, panel):
    assert "boring, like the picture that is shown beside, to 5" in panel.consent
    bare = RatingPanel(RatingSession(store, STIMULI[1:]), "alien")
    assert "boring, to 5" in bare.consent and "beside" not in bare.consent and bare.anchor == b""
    assert begin(bare)["phase"] == "rate"


def test_a_static_page_shows_the_panel_and_no_more(panel):
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"] == "RatingPanel: nobody has begun"
    before = Image.open(io.BytesIO(data["image/png"]))
    begin(panel)
    rate(panel, 4)
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"] == "RatingPanel: blue-fox has rated 1 of 8"
    assert ImageChops.difference(before, Image.open(io.BytesIO(data["image/png"]))).getbbox()


def test_words_of_the_scale():
    assert meanings("alien")[:2] == ["no alien", "boring"] and len(meanings("alien")) == 6
