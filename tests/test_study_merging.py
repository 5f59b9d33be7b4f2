"""Stores that come together: who withdrew stays away, nothing is taken in by half, and older files still open."""

import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from creativelib.study import store as store_module
from creativelib.study.schema import SESSIONS, TABLES, WITHDRAWN
from creativelib.study.store import Store

SHA = "0" * 64
NAMES = [f"image-{index}" for index in range(4)]


@pytest.fixture
def make(tmp_path):
    stores = []

    def made(name, *codes):
        stores.append(Store(tmp_path / f"{name}.sqlite"))
        stores[-1].add_stimuli({"id": one, "kind": "image", "sha256": SHA} for one in NAMES)
        for code in codes:
            rate(stores[-1], code)
        return stores[-1]

    yield made
    for store in stores:
        store.close()


def rate(store, code, value=3, count=2):
    session = store.begin(store.rater(code, consent=True, text="You agree."), NAMES)
    for name in NAMES[:count]:
        store.rate(session, name, value)
    return session


def contents(store):
    with store.database.reading() as connection:
        return {table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr) for table in TABLES}


def raters(store):
    return sorted(set(store.ratings()["rater"]))


# --- withdrawn is withdrawn -------------------------------------------------------------------------------------------


def test_who_was_deleted_does_not_come_back_with_the_next_merge(make, tmp_path):
    teacher, pupil = make("teacher", "ann"), make("pupil", "bob")
    teacher.merge(tmp_path / "pupil.sqlite")
    assert raters(teacher) == ["ann", "bob"]
    teacher.delete_rater("bob")
    report = teacher.merge(tmp_path / "pupil.sqlite")
    assert raters(teacher) == ["ann"]
    assert report.left_out == {"raters": 1, "sessions": 1, "ratings": 2} and report.new["raters"] == 0
    assert "left out, for they were withdrawn here: 1 raters, 1 sessions, 2 ratings" in str(report)
    assert raters(pupil) == ["bob"]


def test_who_was_deleted_does_not_come_back_with_an_older_export(make, tmp_path):
    teacher = make("teacher", "ann", "bob")
    folder = teacher.export_csv(tmp_path / "csv")
    teacher.delete_rater("bob")
    teacher.import_csv(folder)
    assert raters(teacher) == ["ann"]
    assert "bob" not in "".join(path.read_text() for path in teacher.export_csv(folder).iterdir())


def test_a_withdrawal_travels(make, tmp_path):
    teacher, pupil, third = make("teacher", "ann"), make("pupil", "bob"), make("third")
    teacher.merge(tmp_path / "pupil.sqlite")
    third.import_csv(teacher.export_csv(tmp_path / "csv"))
    pupil.delete_rater("bob")
    assert teacher.merge(tmp_path / "pupil.sqlite").deleted == 1 and raters(teacher) == ["ann"]
    assert third.import_csv(teacher.export_csv(tmp_path / "csv")).deleted == 1 and raters(third) == ["ann"]
    for name in ("teacher", "pupil", "third"):
        assert b"bob" not in (tmp_path / f"{name}.sqlite").read_bytes()


def test_who_withdrew_may_come_again_under_the_same_code(make, tmp_path):
    teacher, pupil = make("teacher"), make("pupil", "bob")
    teacher.merge(tmp_path / "pupil.sqlite")
    pupil.delete_rater("bob")
    rate(pupil, "bob", value=5)
    assert teacher.merge(tmp_path / "pupil.sqlite").deleted == 1
    assert teacher.ratings()["value"].tolist() == [5, 5]


def test_nothing_of_who_withdrew_stays_but_a_hash(make, tmp_path):
    store = make("teacher", "blue-fox-secret", "ann")
    with store.database.reading() as connection:
        rater = store.known("blue-fox-secret")
        connection.exec_driver_sql("SELECT * FROM raters").fetchall()  # a reader keeps the log beside the file
        connection.rollback()
        store.delete_rater("blue-fox-secret")
    files = b"".join(path.read_bytes() for path in tmp_path.glob("teacher.sqlite*"))
    assert b"blue-fox-secret" not in files and rater.encode() not in files
    assert len(contents(store)["withdrawn"]) == 1


# --- one person, two codes --------------------------------------------------------------------------------------------


def test_two_devices_of_one_person_are_joined_for_good(make, tmp_path):
    teacher = make("teacher", "bob-phone")
    for name, code in (("tablet", "bob-tablet"), ("ann", "ann")):
        make(name, code)
        teacher.merge(tmp_path / f"{name}.sqlite")
    teacher.unite("bob-phone", "Bob tablet")
    assert raters(teacher) == ["ann", "bob-phone"] and len(teacher.ratings()) == 6
    tablet = Store(tmp_path / "tablet.sqlite")
    tablet.rate(tablet.sessions()["session"][0], NAMES[3], 0)
    tablet.close()
    report = teacher.merge(tmp_path / "tablet.sqlite")  # later ratings find their way
    assert report.new["ratings"] == 1 and report.left_out == {} and raters(teacher) == ["ann", "bob-phone"]
    teacher.delete_rater("bob-phone")
    assert teacher.merge(tmp_path / "tablet.sqlite").left_out["raters"] == 1 and raters(teacher) == ["ann"]
    with pytest.raises(ValueError, match="other: 'ann' is the same rater"):
        teacher.unite("ann", "ann")


def test_renaming_and_then_joining_two_of_one_code(make, tmp_path):
    first, second = make("first", "bob"), make("second", "bob")
    with pytest.raises(ValueError, match="the code 'bob' belongs to another rater here; rename one of the two"):
        first.merge(tmp_path / "second.sqlite")
    second.rename("bob", "Bob 2")
    first.merge(tmp_path / "second.sqlite")
    assert raters(first) == ["bob", "bob-2"]
    with pytest.raises(ValueError, match="new: 'bob' is another rater's code"):
        first.rename("bob-2", "bob")
    first.rename("bob-2", "carol")
    first.merge(tmp_path / "second.sqlite")  # the code here stays
    assert raters(first) == ["bob", "carol"]


# --- all or nothing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("UPDATE sessions SET stimuli = '[\"image-0\", '", "sessions: stimuli is .*; give a JSON list of different ids"),
        ("UPDATE sessions SET stimuli = '[\"image-9\"]'", "stimuli names 'image-9', which is not in stimuli"),
        ("UPDATE sessions SET stimuli = '[\"image-3\"]'", "stimulus 'image-0' is not one of its session's"),
        ("UPDATE stimuli SET seed = x'0300000000000000'", "stimuli: seed is b'.*; give a whole number"),
        ("UPDATE ratings SET milliseconds = 'soon'", "milliseconds is 'soon'; give a whole number"),
        ("UPDATE raters SET code = '=1+1'", "code: got '=1\\+1'"),
        ("UPDATE raters SET code = 'Bob'", "code is 'Bob'; give 'bob'"),
    ],
)
def test_a_broken_row_is_refused_before_anything_is_taken_in(make, tmp_path, change, match):
    store = make("teacher", "ann")
    make("pupil", "bob")
    with sqlite3.connect(tmp_path / "pupil.sqlite") as connection:
        connection.execute(change)
    connection.close()
    before = contents(store)
    with pytest.raises(ValueError, match=match):
        store.merge(tmp_path / "pupil.sqlite")
    assert contents(store) == before
    rate(store, "carol")  # and the next who joins can
    assert raters(store) == ["ann", "carol"]


def test_a_merge_only_reads_the_other_file_and_says_what_came(make, tmp_path):
    store = make("teacher", "ann")
    make("pupil", "bob")
    before = (tmp_path / "pupil.sqlite").read_bytes()
    report = store.merge(tmp_path / "pupil.sqlite")
    assert (tmp_path / "pupil.sqlite").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pupil.sqlite", "teacher.sqlite"]
    assert str(report) == "new: 1 raters, 1 sessions, 2 ratings; known already: 4 stimuli"
    assert str(store.merge(tmp_path / "pupil.sqlite")).startswith("new: nothing; known already: 1 raters")


def test_a_file_that_is_cut_off_is_refused(make, tmp_path):
    store = make("teacher", "ann")
    make("pupil", *(f"bob-{number}" for number in range(30)))
    path = tmp_path / "pupil.sqlite"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="other: .*pupil.sqlite cannot be read"):
        store.merge(path)
    assert raters(store) == ["ann"]


def test_what_was_agreed_to_is_kept_and_travels(make, tmp_path):
    store = make("teacher")
    make("pupil", "bob", "ann")
    store.merge(tmp_path / "pupil.sqlite")
    assert [text for _, text in contents(store)["consents"]] == ["You agree."]
    assert {row[3] for row in contents(store)["raters"]} == {contents(store)["consents"][0][0]}


# --- clocks, turns, answers -------------------------------------------------------------------------------------------


def test_the_last_rating_is_the_last_given_whatever_the_clock_says(make, monkeypatch):
    store = make("teacher")
    session = rate(store, "ann", count=1)
    monkeypatch.setattr(store_module, "_now", lambda: "2001-01-01T00:00:00+00:00")  # the clock was set back
    store.rate(session, NAMES[1], 5)
    assert store.undo(session) == NAMES[1]
    store.rate(session, NAMES[2], 1)
    assert store.ratings()["stimulus"].tolist() == [NAMES[0], NAMES[2]] and store.ratings()["number"].tolist() == [1, 4]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_turns_follow_each_other_whoever_joins_at_once(kind, tmp_path, request):
    where = tmp_path / "study.sqlite" if kind == "sqlite" else request.getfixturevalue("postgres")
    store = Store(where)
    store.add_stimuli({"id": one, "kind": "image", "sha256": SHA} for one in NAMES)
    turns, barrier = [], threading.Barrier(16)

    def assign(turn):
        turns.append(turn)
        return "creative", NAMES[turn % 4 :] + NAMES[: turn % 4]

    def join(number):
        rater = store.rater(f"rater-{number}", consent=True)
        barrier.wait()
        store.deal(rater, NAMES, assign)

    threads = [threading.Thread(target=join, args=(number,)) for number in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(turns) == list(range(16))
    assert sorted(order[0] for order in store.sessions()["stimuli"]) == sorted(NAMES * 4)
    gone = store.sessions().query("turn == 5")["rater"].item()
    store.delete_rater(gone)
    store.deal(store.rater("late", consent=True), NAMES, assign)
    assert turns[-1] == 5  # a turn that was withdrawn is dealt again
    store.deal(store.rater("later", consent=True), NAMES, assign)
    assert turns[-1] == 16
    assert store.deal(store.rater("late", consent=True), NAMES, assign) and turns[-1] == 16  # the session that they have
    store.close()


def test_an_answer_that_is_sent_again_counts_once_whatever_followed_it(make):
    store = make("teacher")
    session = rate(store, "ann", count=0)
    assert store.rate(session, NAMES[0], 3, answer="a1") and store.take_back(session, NAMES[0], answer="a2")
    assert store.rate(session, NAMES[0], 5, answer="a3")
    for answer, value in (("a1", 3), ("a3", 5)):
        assert not store.rate(session, NAMES[0], value, answer=answer)
    assert not store.take_back(session, NAMES[0], answer="a2")
    assert store.given(session) == {NAMES[0]: 5}


def test_an_answer_that_changed_nothing_changes_nothing_later_either(make):
    """Two tabs of one person rate the same picture; the slower tab's network sends its answer again after an undo."""
    store = make("teacher")
    session = rate(store, "ann", count=0)
    store.rate(session, NAMES[0], 3, 900, answer="a1", correct=False)
    store.rate(session, NAMES[1], 4, 900, answer="a2", correct=False)
    late = [(NAMES[0], 5, "b1"), (NAMES[0], 3, "b2")]  # another number, the same number
    for name, value, answer in late:
        assert not store.rate(session, name, value, 100, answer=answer, correct=False)
    assert not store.take_back(session, NAMES[2], answer="b3")
    assert store.ratings()[["stimulus", "value", "milliseconds", "number"]].values.tolist() == [
        [NAMES[0], 3, 900, 1],
        [NAMES[1], 4, 900, 2],
    ]
    assert store.undo(session) == NAMES[1]  # the one given last, whatever came late
    assert store.take_back(session, NAMES[0], answer="a3")
    store.rate(session, NAMES[2], 1, answer="a4")
    for name, value, answer in late:
        assert not store.rate(session, name, value, answer=answer, correct=False)
    assert not store.take_back(session, NAMES[2], answer="b3")
    assert store.given(session) == {NAMES[2]: 1}


# --- files of the first format ----------------------------------------------------------------------------------------

OLD = """
CREATE TABLE raters (id VARCHAR(32) NOT NULL, code VARCHAR(80) NOT NULL, consented_at VARCHAR(40) NOT NULL,
  PRIMARY KEY (id), UNIQUE (code));
CREATE TABLE stimuli (id VARCHAR(80) NOT NULL, kind VARCHAR(20) NOT NULL, seed INTEGER, iteration INTEGER, surprise DOUBLE,
  "of" VARCHAR(80), sha256 VARCHAR(64) NOT NULL, PRIMARY KEY (id), FOREIGN KEY("of") REFERENCES stimuli (id));
CREATE TABLE sessions (id VARCHAR(32) NOT NULL, rater VARCHAR(32) NOT NULL, stimuli TEXT NOT NULL,
  started_at VARCHAR(40) NOT NULL, PRIMARY KEY (id), FOREIGN KEY(rater) REFERENCES raters (id) ON DELETE CASCADE);
CREATE TABLE ratings (session VARCHAR(32) NOT NULL, stimulus VARCHAR(80) NOT NULL, revision INTEGER NOT NULL,
  value INTEGER CHECK (value BETWEEN 0 AND 5), milliseconds INTEGER, rated_at VARCHAR(40) NOT NULL,
  PRIMARY KEY (session, stimulus, revision), FOREIGN KEY(session) REFERENCES sessions (id) ON DELETE CASCADE);
CREATE TABLE choices (session VARCHAR(32) NOT NULL, "left" VARCHAR(80) NOT NULL, "right" VARCHAR(80) NOT NULL,
  chosen VARCHAR(5) NOT NULL, chosen_at VARCHAR(40) NOT NULL, PRIMARY KEY (session, "left", "right"));
"""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD)
        for number, code in enumerate(["Blue Fox", "blue-fox", "=1+1"]):
            rater, session = f"{number:032x}", f"{number + 16:032x}"
            connection.execute("INSERT INTO raters VALUES (?, ?, ?)", (rater, code, f"2026-01-0{number + 1}"))
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?)", (session, rater, json.dumps(NAMES), f"2026-01-0{number + 1}")
            )
        connection.executemany("INSERT INTO stimuli VALUES (?, 'image', 1, 2, 3.5, NULL, ?)", [(one, SHA) for one in NAMES])
        for number, name in enumerate(NAMES):
            connection.execute(
                "INSERT INTO ratings VALUES (?, ?, 0, ?, 900, ?)", (f"{16:032x}", name, number, f"2026-01-01T0{9 - number}")
            )
    connection.close()
    return path


def test_a_file_of_the_first_format_opens_and_merges(old, make, tmp_path):
    before = old.read_bytes()
    store = make("teacher", "ann")
    for one in store.database.reading, store.database.writing:
        with one() as connection:
            connection.rollback()
    with store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE stimuli SET seed = 1, iteration = 2, surprise = 3.5")
    assert store.merge(old).new["ratings"] == 4
    assert old.read_bytes() == before
    opened = Store(old)
    assert opened.ratings()["stimulus"].tolist() == NAMES[::-1]  # by the clock, for that is all there was
    codes = sorted(opened.sessions()["rater"])
    assert codes == ["blue-fox", f"blue-fox-{'0' * 12}", f"rater-{'0' * 12}"]
    assert opened.known("BLUE FOX") == f"{1:032x}"
    assert opened.undo(f"{16:032x}") == NAMES[0]
    opened.close()
    again = Store(old)
    assert len(again.ratings()) == 3
    again.close()


def test_tables_are_made_once_by_many_at_once(tmp_path):
    code = "import sys; from creativelib.study.store import Store; Store(sys.argv[1]).rater(sys.argv[2], consent=True)"
    words = [[sys.executable, "-c", code, str(tmp_path / "new.sqlite"), f"rater-{number}"] for number in range(3)]
    started = [subprocess.Popen(line, cwd=Path(__file__).resolve().parents[1]) for line in words]
    assert [process.wait() for process in started] == [0] * 3
    store = Store(tmp_path / "new.sqlite")
    assert len(contents(store)["raters"]) == 3 and not contents(store)["withdrawn"]
    assert {SESSIONS, WITHDRAWN} <= set(TABLES)
    store.close()
