"""Two methods side by side: who sees which pair on which side, what is kept, and what the people's choices come to."""

from collections import Counter

import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest

from creativelib.study.choices import bradley_terry
from creativelib.study.paired_panel import PairedPanel
from creativelib.study.pairing import GAP, TILE, PairedSession, picture_set, simulate
from creativelib.study.preference import preference_figure, preferences
from creativelib.study.store import Store

METHODS = ("creative", "conceptlab")
SUBJECTS = ("vehicle", "chair", "pet", "fruit")
TRIALS = 2


def shade(number):
    return Image.new("RGB", (64, 64), (10 + 5 * number, 60, 200))


SETS = [
    picture_set([shade(3 * number + shown) for shown in range(3)], method, subject, trial)
    for number, (method, subject, trial) in enumerate(
        (method, subject, trial) for method in METHODS for subject in SUBJECTS for trial in range(TRIALS)
    )
]
FELT = {one.stimulus.id: 3.0 if one.method == "creative" else 1.0 for one in SETS}


@pytest.fixture
def store(memory_folder):
    store = Store(memory_folder / "choices.sqlite")
    yield store
    store.close()


@pytest.fixture
def session(store):
    return PairedSession(store, SETS, METHODS)


def choose_all(session, code, side="left", count=None):
    session.join(code, consent=True)
    while session.current is not None and count != session.progress[0]:
        assert session.choose(side)


def test_a_set_is_three_pictures_side_by_side():
    one = picture_set([Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")], "a", "pet", 4)
    image = one.stimulus.image
    assert image.size == (3 * TILE + 2 * GAP, TILE) and one.stimulus.seed == 4
    colours = [image.getpixel((TILE // 2 + number * (TILE + GAP), TILE // 2)) for number in range(3)]
    assert colours == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert "pet" not in one.stimulus.id and len(one.stimulus.id) == 12
    with pytest.raises(ValueError, match="^pictures: got 2 of 'a' for 'pet'; give 3"):
        picture_set([image] * 2, "a", "pet", 0)


def test_sides_are_balanced_within_a_person_and_from_one_to_the_next(session):
    shown = Counter()
    for turn in range(2 * TRIALS):
        pairs = session.order(turn)
        sets = [tuple(session.sets[name] for name in pair) for pair in pairs]
        assert sorted(left.subject for left, _ in sets) == sorted(SUBJECTS)  # one of each subject
        assert all((left.subject, left.trial) == (right.subject, right.trial) for left, right in sets)
        assert sum(left.method == "creative" for left, _ in sets) == len(SUBJECTS) / 2
        shown.update(pairs)
        assert pairs == session.order(turn)
    assert set(shown.values()) == {1} and len(shown) == 2 * TRIALS * len(SUBJECTS)  # every pair, either way round
    assert all(pair[::-1] in shown for pair in shown)
    orders = {tuple(session.sets[left].subject for left, _ in session.order(turn)) for turn in range(8)}
    assert len(orders) > 3


def test_an_odd_number_of_subjects_is_balanced_but_for_one(store):
    session = PairedSession(store, [one for one in SETS if one.subject != "fruit"], METHODS)
    for turn in range(6):
        left = sum(session.sets[pair[0]].method == "creative" for pair in session.order(turn))
        assert left in (1, 2)


def test_who_comes_again_goes_on_where_they_were(session, store):
    choose_all(session, "blue-fox", count=2)
    assert session.progress == (2, 4) and session.begun("Blue-Fox") == (2, 4) and session.begun("red-owl") is None
    seen = session.current
    again = PairedSession(store, SETS, METHODS)  # after a restart
    again.join("blue-fox", consent=True)
    assert again.current == seen and not again.choose("left", left="something else")
    assert again.choose("right", left=seen[0].stimulus.id) and again.progress == (3, 4)
    choose_all(again, "blue-fox")
    assert again.current is None
    with pytest.raises(ValueError, match="^side: all pairs are done"):
        again.choose("left")
    rows = again.choices()
    assert len(rows) == 4 and set(rows["left"]) | set(rows["right"]) == set(METHODS)
    assert sorted(rows["subject"]) == sorted(SUBJECTS) and (rows["chosen"] == "right").sum() == 1
    again.withdraw()
    assert again.choices().empty
    with pytest.raises(ValueError, match="^session: nobody has joined"):
        again.choose("left")


def test_what_cannot_be_paired_is_refused(store):
    with pytest.raises(ValueError, match="^methods: got"):
        PairedSession(store, SETS, ("creative", "creative"))
    with pytest.raises(ValueError, match="^sets: 1 trials lack one of .*'vehicle', trial 0"):
        PairedSession(store, SETS[1:], METHODS)
    with pytest.raises(ValueError, match="^sets: all trials lack"):
        PairedSession(store, [], METHODS)
    with pytest.raises(ValueError, match="^sets: two of them show the same pictures"):
        PairedSession(store, [*SETS, SETS[0]], METHODS)


def test_simulated_people_choose_through_the_same_session(session):
    simulate(session, FELT, 10, seed=0)
    rows = session.choices()
    assert len(rows) == 40 and rows["rater"].str.startswith("simulated").all() and rows["rater"].nunique() == 10
    won = (rows["left"] == "creative") == (rows["chosen"] == "left")
    assert won.mean() > 0.9
    simulate(session, FELT, 10, seed=1)  # they have chosen already
    assert session.choices().equals(rows) and session.session is None
    for felt, options, message in ((FELT, {"noise": 0}, "^noise: got 0"), ({}, {}, "^felt: lacks 16 sets")):
        with pytest.raises(ValueError, match=message):
            simulate(session, felt, 1, **options)


def test_the_share_is_of_people_with_its_exact_interval():
    rows = [
        {"rater": f"r{rater}", "subject": subject, "left": "a", "right": "b", "chosen": "left" if wins else "right"}
        for rater in range(10)
        for subject, wins in (("pet", rater < 7), ("chair", rater < 3), ("fruit", rater < 9))
    ]
    found = preferences(pd.DataFrame(rows), "a", "b").set_index("subject")
    assert list(found.index) == ["pet", "chair", "fruit", "all"]
    exact = binomtest(7, 10).proportion_ci(method="exact")
    assert found.loc["pet", ["chosen", "people", "share"]].tolist() == [7, 10, 0.7]
    assert found.loc["pet", ["low", "high"]].tolist() == pytest.approx([exact.low, exact.high])
    assert found.loc["all", "chosen"] == 7  # raters 0 to 6 prefer a in two or three subjects of three
    mirrored = preferences(pd.DataFrame(rows), "b", "a").set_index("subject")
    assert mirrored.loc["pet", "share"] == pytest.approx(0.3)
    even = pd.DataFrame(rows)[lambda frame: frame["subject"] != "fruit"]
    assert preferences(even, "a", "b").set_index("subject").loc["all", "people"] == 6  # four have one of each: no majority
    with pytest.raises(ValueError, match="^of, versus: got 'a' and 'c'"):
        preferences(pd.DataFrame(rows), "a", "c")


def test_the_figure_says_who_chose_and_strengths_agree(session, tmp_path):
    simulate(session, FELT, 8, seed=2)
    rows = session.choices()
    found = preferences(rows, *METHODS)
    figure = preference_figure(rows, found, *METHODS)
    (axis,) = figure.axes
    assert axis.get_title() == "8 simulated raters"
    assert [label.get_text() for label in axis.get_yticklabels()] == found["subject"].tolist()
    assert sorted(bar.get_width() for bar in axis.patches) == sorted(found["share"])
    figure.savefig(tmp_path / "figure.png")
    assert bradley_terry(rows, resamples=20)["item"].iloc[0] == "creative"


# --- the panel --------------------------------------------------------------------------------------------------------


def send(panel, **message):
    panel._handle_custom_msg(message, [])
    return panel.state


def test_the_panel_asks_first_and_shows_nothing_of_the_methods(session):
    panel = PairedPanel(session)
    assert panel.state["phase"] == "consent" and not panel.left and "4 times" in panel.consent
    assert "consent" in send(panel, do="begin", code="blue-fox", consent=False, again="")["error"]
    state = send(panel, do="begin", code="Blue-Fox", consent=True, again="")
    assert state["phase"] == "choose" and (state["done"], state["of"], state["code"]) == (0, 4, "blue-fox")
    left, right = session.current
    assert (panel.left, panel.right) == (left.stimulus.png, right.stimulus.png) and state["subject"] == left.subject
    assert not any(method in str(panel.state) for method in METHODS)
    assert send(panel, do="choose", side="left", left=left.stimulus.id)["done"] == 1
    assert send(panel, do="choose", side="left", left=left.stimulus.id)["done"] == 1  # pressed twice
    assert "message: got" in send(panel, do="choose", side="up", left=panel.state["left"])["error"]
    assert send(panel, do="leave")["phase"] == "consent"
    state = send(panel, do="begin", code="blue-fox", consent=True, again="")
    assert state["known"] == "blue-fox" and "has done 1 of 4 pairs" in state["note"]
    assert send(panel, do="begin", code="blue-fox", consent=True, again="blue-fox")["done"] == 1
    while panel.state["phase"] == "choose":
        send(panel, do="choose", side="right", left=panel.state["left"])
    assert panel.state["phase"] == "done" and len(session.choices()) == 4
    assert "is deleted" in send(panel, do="withdraw")["note"] and session.choices().empty


def test_the_panel_goes_on_and_is_a_picture_where_no_kernel_runs(session):
    choose_all(session, "blue-fox", count=1)
    session.leave()
    panel = PairedPanel(session, code="blue-fox")
    assert panel.state["done"] == 1
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"] == "PairedPanel: blue-fox has done 1 of 4 pairs" and data["image/png"].startswith(b"\x89PNG")
    page = panel.page()
    assert page.getpixel((24 + TILE // 2, 68 + TILE // 2)) == session.current[0].stimulus.image.getpixel((8 + TILE // 2, 64))


def test_what_cannot_be_kept_is_said(session, store, monkeypatch):
    from creativelib.study.database import Unavailable

    panel = PairedPanel(session)
    send(panel, do="begin", code="blue-fox", consent=True, again="")

    def fails(*arguments):
        raise Unavailable("the disk is full")

    monkeypatch.setattr(store, "choose", fails)
    state = send(panel, do="choose", side="left", left=panel.state["left"])
    assert state["again"] and state["error"] == "Not kept: the disk is full. Try again." and state["done"] == 0
