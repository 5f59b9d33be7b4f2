"""The store of ratings: nothing that was confirmed is lost, nothing counts twice, whatever is killed, doubled or malformed."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from creativelib.study.schema import RATINGS, TABLES
from creativelib.study.store import CHANGES, Store

ROOT = Path(__file__).resolve().parents[1]
SHA = "0" * 64


def stimulus(name, **facts):
    return {"id": name, "kind": "image", "sha256": SHA, **facts}


def names(count):
    return [f"image-{index:03d}" for index in range(count)]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "study.sqlite")
    store.add_stimuli(stimulus(name, seed=1, iteration=index, surprise=70.1 + index) for index, name in enumerate(names(6)))
    yield store
    store.close()


@pytest.fixture
def session(store):
    return store.begin(store.rater("blue-fox", consent=True), names(6))


def contents(store):
    with store.database.reading() as connection:
        return {table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr) for table in TABLES}


# --- rating -----------------------------------------------------------------------------------------------------------


def test_a_session_goes_on_where_it_was_left(store, session, tmp_path):
    order = names(6)[::-1]
    rater = store.rater("red-owl", consent=True)
    mine = store.begin(rater, order)
    assert store.next(mine) == order[0]
    assert store.rate(mine, order[0], 3, 1200) and store.rate(mine, order[1], 0)
    store.close()
    again = Store(tmp_path / "study.sqlite")
    assert again.rater("red-owl", consent=True) == rater
    assert again.begin(rater, names(6)) == mine and again.order(mine) == order  # the order that was begun, whatever is asked
    assert again.next(mine) == order[2] and again.given(mine) == {order[0]: 3, order[1]: 0}
    for name in order[2:]:
        again.rate(mine, name, 5)
    assert again.next(mine) is None


def test_the_same_value_again_counts_once_and_another_corrects(store, session):
    assert store.rate(session, "image-001", 2) and not store.rate(session, "image-001", 2)
    assert store.rate(session, "image-001", 4)
    frame = store.ratings()
    assert frame["value"].tolist() == [4] and frame["rater"].tolist() == ["blue-fox"] and frame["surprise"].tolist() == [71.1]
    with store.database.reading() as connection:
        assert connection.execute(sa.select(RATINGS.c.value).order_by(RATINGS.c.revision)).scalars().all() == [2, 4]


def test_who_changes_his_mind_without_end_is_refused_some_day(store, session):
    for number in range(CHANGES * 6):
        assert store.rate(session, "image-000", number % 2, answer=f"{number:032x}")
    for change in (lambda: store.rate(session, "image-001", 3), lambda: store.take_back(session, "image-000")):
        with pytest.raises(ValueError, match="session: it has 120 answers to 6 pictures; no more changes are kept"):
            change()
    assert not store.rate(session, "image-000", 0, answer=f"{0:032x}")  # one that is known still is
    assert store.given(session) == {"image-000": 1}


def test_undo_takes_back_the_last_rating_and_it_can_be_given_again(store, session):
    assert store.undo(session) is None
    store.rate(session, "image-000", 1)
    store.rate(session, "image-001", 2)
    assert store.undo(session) == "image-001" and store.next(session) == "image-001"
    assert store.rate(session, "image-001", 2) and store.given(session) == {"image-000": 1, "image-001": 2}
    assert [store.undo(session), store.undo(session), store.undo(session)] == ["image-001", "image-000", None]
    assert store.ratings().empty


def test_sessions_say_who_has_begun_and_how_far_they_are(store, session):
    store.rater("grey-seal", consent=True)  # agreed, began nothing
    mine = store.begin(store.rater("red-owl", consent=True), names(2))
    store.rate(mine, names(2)[0], 3)
    store.rate(mine, names(2)[0], 4)
    found = store.sessions()
    assert found["rater"].tolist() == ["blue-fox", "red-owl"] and found["session"].tolist() == [session, mine]
    assert found["rated"].tolist() == [0, 1] and found["stimuli"].tolist() == [names(6), names(2)]


def test_the_place_of_a_store_is_said_without_its_password(store, tmp_path):
    assert store.place == str(tmp_path / "study.sqlite")
    with pytest.raises(OSError, match=r"the database postgresql\+psycopg://study:\*\*\*@127.0.0.1:9/class does not answer"):
        Store("postgresql+psycopg://study:secret@127.0.0.1:9/class")


@pytest.mark.parametrize("value", [-1, 6, 2.0, True, "3", None])
def test_values_off_the_scale_are_refused(store, session, value):
    with pytest.raises(ValueError, match="^value: got"):
        store.rate(session, "image-000", value)
    assert store.ratings().empty


def test_bad_input_is_refused_with_the_argument_named(store, session):
    rater = store.rater("blue-fox", consent=True)
    for call, match in [
        (lambda: store.rater(" ", consent=True), "^code: got"),
        (lambda: store.rater("x", consent=False), "^consent: got False"),
        (lambda: store.begin(rater, []), "^stimuli: got 0"),
        (lambda: store.begin(rater, ["image-000", "image-000"]), "^stimuli: got 2, 1 of them"),
        (lambda: store.begin(rater, ["nothing"]), "^stimuli: 'nothing' is not in the store"),
        (lambda: store.rate(session, "nothing", 1), "^stimulus: 'nothing' is not one"),
        (lambda: store.rate("nothing", "image-000", 1), "^session: there is no session"),
        (lambda: store.choose(session, "image-000", "image-000", "left"), "^left, right: got"),
        (lambda: store.choose(session, "image-000", "image-001", "both"), "^chosen: got 'both'"),
        (lambda: store.add_stimuli([stimulus("a", kind="poem")]), "^stimuli: got"),
        (lambda: store.add_stimuli([stimulus("a", colour="x")]), "^stimuli: got the fields"),
        (lambda: store.add_stimuli([stimulus("a", surprise=float("nan"))]), "^stimuli: a has the surprise nan"),
        (lambda: store.add_stimuli([stimulus("image-000", surprise=1.0)]), "says something else"),
        (lambda: store.add_stimuli([stimulus("a", of="nothing")]), "of 'nothing' is not in stimuli"),
        (lambda: store.delete_rater("nobody"), "^code: there is no rater"),
    ]:
        before = contents(store)
        with pytest.raises(ValueError, match=match):
            call()
        assert contents(store) == before


def test_choices_count_once(store, session):
    assert store.choose(session, "image-000", "image-001", "left")
    assert not store.choose(session, "image-000", "image-001", "left")
    assert store.choices()["chosen"].tolist() == ["left"]


def test_deleting_a_rater_deletes_what_is_theirs_and_nothing_else(store, session):
    other = store.begin(store.rater("red-owl", consent=True), names(6))
    for one in (session, other):
        store.rate(one, "image-000", 3)
        store.choose(one, "image-000", "image-001", "right")
    store.delete_rater("blue-fox")
    assert store.ratings()["rater"].tolist() == store.choices()["rater"].tolist() == ["red-owl"]
    assert len(contents(store)["sessions"]) == 1 and len(contents(store)["stimuli"]) == 6


# --- files ------------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
codes = st.text(st.sampled_from("abz09äßλ李\u0301-_. "), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(code=codes, name=texts.filter(bool), surprise=st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_csv_round_trip_without_loss(code, name, surprise):
    with tempfile.TemporaryDirectory() as folder:
        store, other = Store(Path(folder) / "a.sqlite"), Store(Path(folder) / "b.sqlite")
        store.add_stimuli([stimulus(name, surprise=surprise), stimulus(name + "r", kind="repeat", of=name)])
        session = store.begin(store.rater("x" + code, consent=True), [name + "r", name])
        store.rate(session, name, 4, 100)
        store.undo(session)
        store.rate(session, name, 0)
        other.import_csv(store.export_csv(Path(folder) / "csv"))
        assert contents(other) == contents(store)
        other.import_csv(Path(folder) / "csv")  # once more changes nothing
        assert contents(other) == contents(store)
        store.close(), other.close()


def test_two_peoples_files_merge(tmp_path):
    stores = [Store(tmp_path / f"{name}.sqlite") for name in ("a", "b")]
    for store, code in zip(stores, ("blue-fox", "red-owl"), strict=True):
        store.add_stimuli(stimulus(name) for name in names(3))
        store.rate(store.begin(store.rater(code, consent=True), names(3)), "image-000", 3)
    stores[0].merge(tmp_path / "b.sqlite")
    assert sorted(stores[0].ratings()["rater"]) == ["blue-fox", "red-owl"]
    stores[0].merge(tmp_path / "b.sqlite")
    assert len(stores[0].ratings()) == 2
    with pytest.raises(FileNotFoundError, match="^other: there is no file"):
        stores[0].merge(tmp_path / "c.sqlite")
    assert not (tmp_path / "c.sqlite").exists()


def test_one_code_for_two_raters_is_refused_whole(tmp_path):
    stores = [Store(tmp_path / f"{name}.sqlite") for name in ("a", "b")]
    for store in stores:
        store.add_stimuli([stimulus("image-000")])
        store.rate(store.begin(store.rater("blue-fox", consent=True), ["image-000"]), "image-000", 3)
    before = contents(stores[0])
    with pytest.raises(ValueError, match="the code 'blue-fox' belongs to another rater"):
        stores[0].import_csv(stores[1].export_csv(tmp_path / "csv"))
    assert contents(stores[0]) == before


@pytest.mark.parametrize(
    ("file", "line", "old", "new", "match"),
    [
        ("ratings", 1, '"value"', '"score"', "columns"),
        ("ratings", 3, ",3,", ",x,", "value is 'x'; give a whole number"),
        ("ratings", 3, ",3,", ",6,", "value is 6; give 0 to 5"),
        ("ratings", 3, ",3,", ",", "fields"),
        ("ratings", 2, '"image-000"', '"image-999"', "'image-999' is not in stimuli"),
        ("ratings", 2, '"image-000"', "", "stimulus is empty"),
        ("stimuli", 3, '"image"', '"poem"', "kind is 'poem'"),
        ("stimuli", 4, "72.1", "much", "surprise is 'much'; give a number"),
    ],
)
def test_a_malformed_file_is_refused_whole_with_its_line(store, session, tmp_path, file, line, old, new, match):
    for name in names(3):
        store.rate(session, name, 3)
    path = store.export_csv(tmp_path / "csv") / f"{file}.csv"
    lines = path.read_text().splitlines(keepends=True)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("".join(lines))
    other = Store(tmp_path / "other.sqlite")
    with pytest.raises(ValueError, match=f"{file}.csv, line {line}: .*{match}"):
        other.import_csv(tmp_path / "csv")
    assert not any(contents(other).values())


def test_a_file_that_was_cut_off_is_refused(store, session, tmp_path):
    store.rate(session, "image-000", 3)
    path = store.export_csv(tmp_path / "csv") / "ratings.csv"
    path.write_text(path.read_text()[:-3])
    with pytest.raises(ValueError, match="ratings.csv, line 2: the line is not finished"):
        Store(tmp_path / "other.sqlite").import_csv(tmp_path / "csv")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="ratings.csv is missing"):
        Store(tmp_path / "other.sqlite").import_csv(tmp_path / "csv")


# --- crowds and crashes -----------------------------------------------------------------------------------------------

WRITERS, RATINGS_EACH, PROCESSES = 50, 100, 5
WRITE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from creativelib.study.store import Store
store, codes, count = Store(sys.argv[1]), sys.argv[3:], int(sys.argv[2])
names = [f"image-{index:03d}" for index in range(count)]
def write(code):
    session = store.begin(store.rater(code, consent=True), names)
    for index, name in enumerate(names):
        store.rate(session, name, index % 6)
        if index % 50 == 0:
            store.rate(session, name, index % 6)  # a double click
with ThreadPoolExecutor(len(codes)) as pool:
    list(pool.map(write, codes))
"""


def crowd(where):
    """50 writers at once, ten in each of five processes, rate 100 stimuli each."""
    store = Store(where)
    store.add_stimuli(stimulus(name) for name in names(RATINGS_EACH))
    codes = [f"rater-{index}" for index in range(WRITERS)]
    parts = [codes[index::PROCESSES] for index in range(PROCESSES)]
    started = [subprocess.Popen([sys.executable, "-c", WRITE, str(where), str(RATINGS_EACH), *part]) for part in parts]
    assert [process.wait() for process in started] == [0] * PROCESSES
    frame = store.ratings()
    assert len(frame) == WRITERS * RATINGS_EACH and frame.groupby("rater").size().eq(RATINGS_EACH).all()
    assert (frame["value"] == frame["stimulus"].str[-3:].astype(int) % 6).all()
    with store.database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(RATINGS)).scalar() == len(frame)
    store.close()


def test_fifty_writers_at_once_on_sqlite(memory_folder):
    crowd(memory_folder / "study.sqlite")


def test_fifty_writers_at_once_on_postgresql(postgres):
    crowd(postgres)
    store = Store(postgres)
    with tempfile.TemporaryDirectory() as folder:  # and it speaks with SQLite
        other = Store(Path(folder) / "study.sqlite")
        other.import_csv(store.export_csv(Path(folder) / "csv"))
        assert contents(other) == contents(store)
    store.close()


def rate_all(where, count, said):
    """In a process of its own: rate one after the other, and say each that is kept."""
    store = Store(where)
    session = store.begin(store.rater("blue-fox", consent=True), names(count))
    os.write(said, b"ready\n")
    while (name := store.next(session)) is not None:
        store.rate(session, name, int(name[-3:]) % 6)
        os.write(said, f"{name}\n".encode())
    os._exit(0)


def test_killing_a_session_at_any_moment_loses_nothing_confirmed(memory_folder):
    where, count, source = memory_folder / "study.sqlite", 900, random.Random(0)
    store = Store(where)
    store.add_stimuli(stimulus(name) for name in names(count))
    confirmed = []
    for _ in range(50):
        reading, writing = os.pipe()
        process = multiprocessing.get_context("fork").Process(target=rate_all, args=(where, count, writing))
        process.start()
        os.close(writing)
        with open(reading) as said:
            assert said.readline() == "ready\n"
            confirmed += [said.readline().strip() for _ in range(source.randrange(8))]
            time.sleep(source.uniform(0, 0.02))
            process.kill()
            confirmed += [line.strip() for line in said if line.endswith("\n")]
        process.join()
        assert process.exitcode == -signal.SIGKILL
        frame = store.ratings()
        there = frame["stimulus"].tolist()
        assert there == names(len(there)) and set(confirmed) <= set(there)  # in order, none twice
        assert len(set(there) - set(confirmed)) <= 1  # written, and killed before it was said
        confirmed = there
    assert 50 < len(confirmed)
    assert (frame["value"] == frame["stimulus"].str[-3:].astype(int) % 6).all()
    store.close()


def test_two_that_rate_the_same_at_once_count_once(store, session):
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda _: store.rate(session, "image-000", 3), range(40)))
    assert sum(written) == 1 and len(store.ratings()) == 1


def test_the_store_is_light():
    code = "import creativelib.study.store, sys; print(sorted({'torch', 'diffusers', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout == "[]\n"
