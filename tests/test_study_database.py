"""What happens to a rating when the database is locked, moved, full, read-only, away or another program's."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from creativelib.study import database
from creativelib.study.store import Store

SHA = "0" * 64


@pytest.fixture
def where(tmp_path):
    return tmp_path / "study.sqlite"


def fill(store, code="blue-fox", count=6):
    names = [f"image-{index}" for index in range(count)]
    store.add_stimuli({"id": name, "kind": "image", "sha256": SHA} for name in names)
    return store.begin(store.rater(code, consent=True), names)


@pytest.fixture
def store(where):
    store = Store(where)
    yield store
    store.close()


@pytest.fixture
def busy(where, store, monkeypatch):
    """A database browser with a change that is not saved."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.3)
    session = fill(store)
    store.rate(session, "image-0", 3)
    other = sqlite3.connect(where, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield session
    other.rollback()
    other.close()


def test_reading_waits_for_nobody_and_writing_says_who_holds_the_file(store, busy, where):
    assert len(store.ratings()) == 1 and store.next(busy) == "image-1" and store.known("blue-fox")
    with pytest.raises(OSError, match=f"another program holds {where}, for example a database browser"):
        store.rate(busy, "image-1", 2)
    assert len(store.ratings()) == 1


def test_reads_of_a_study_do_not_wait_for_a_writer(store, busy):
    assert store.rater("blue-fox", consent=True)  # who comes again only reads
    assert store.sessions()["rated"].tolist() == [1] and store.choices().empty
    store.add_stimuli([{"id": "image-0", "kind": "image", "sha256": SHA}])  # known already


def test_a_file_that_was_moved_away_is_not_made_again(store, where):
    session = fill(store)
    where.rename(where.with_name("away.sqlite"))
    for call in (lambda: store.rate(session, "image-0", 3), store.ratings):
        with pytest.raises(OSError, match=f"the file {where} is no longer there: put it back"):
            call()
    assert not where.exists()
    where.with_name("away.sqlite").rename(where)
    assert store.rate(session, "image-0", 3)


def test_a_full_disk_is_said_and_the_rating_can_be_given_again(store, where, monkeypatch):
    session = fill(store)
    pages = sqlite3.connect(where).execute("PRAGMA page_count").fetchone()[0]
    connect = store.database._connect

    def full():
        connection = connect()
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    with monkeypatch.context() as patch:
        engine = sa.create_engine("sqlite://", creator=full, poolclass=sa.NullPool)
        sa.event.listen(engine, "begin", database._begin)
        patch.setattr(store.database, "_writer", engine.execution_options(writes=True))
        with pytest.raises(OSError, match=f"the disk is full: {where} cannot grow; free some space"):
            for number in range(2000):
                store.rate(session, f"image-{number % 6}", number % 5)
    kept = len(store.ratings())
    assert store.rate(session, "image-5", 5) and len(store.ratings()) >= kept


def test_a_file_that_may_not_be_written(tmp_path):
    (tmp_path / "folder").write_text("")
    with pytest.raises(OSError, match="where: .*folder/x.sqlite cannot be made"):
        Store(tmp_path / "folder" / "x.sqlite")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    store = Store("~/ratings.sqlite")
    store.close()
    assert store.place == str(tmp_path / "ratings.sqlite") and not (tmp_path / "~").exists()
    assert store.place in repr(store)


def test_a_file_may_be_given_as_a_url(where, store):
    store.rate(fill(store), "image-0", 3)
    again = Store(f"sqlite:///{where}")
    assert again.place == str(where) and len(again.ratings()) == 1
    again.close()


@pytest.mark.parametrize(
    ("where", "match"),
    [
        ("sqlite://", "where: got 'sqlite://', which keeps nothing; give a file"),
        ("sqlite:///:memory:", "which keeps nothing"),
        ("oracles://host/name", "where: got oracles://...: .*; give a file, or postgresql"),
        ("://", "where: got ://...: .*; give a file"),
    ],
)
def test_what_is_no_place_for_ratings_is_refused(where, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=match):
        Store(where)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"only text, for a long while", b"\x89PNG" + b"\0" * 100])
def test_another_kind_of_file_is_refused_as_it_is(tmp_path, store, content):
    path = tmp_path / "other.sqlite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="where: .*other.sqlite is no SQLite database"):
        Store(path)
    with pytest.raises(ValueError, match="other: .*other.sqlite is no SQLite database"):
        store.merge(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_another_programs_database_stays_as_it_is(tmp_path, store, journal):
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA journal_mode={journal}")
    other.execute("CREATE TABLE sessions (id, token)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="where: .* is no store of ratings: it holds another program's tables"):
        Store(path)
    with pytest.raises(ValueError, match="other: .*other.sqlite is no store of ratings"):
        store.merge(path)
    assert path.read_bytes()[100:] == before[100:]
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("sessions",)]


def test_tables_of_a_later_version_are_refused(store, where):
    with store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE about SET value = '99'")
    with pytest.raises(ValueError, match="it has the format 99, this version of creativelib knows 2; install a later one"):
        Store(where)


READ_ONLY = """
import os, sys
from creativelib.study.store import Store
os.setgid(65534), os.setuid(65534)
store = Store(sys.argv[2])
print(store.merge(sys.argv[1]).new["ratings"])
try:
    Store(sys.argv[1])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="root gives up its rights here")
def test_merging_reads_a_file_in_a_folder_that_may_not_be_written(store, where, memory_folder):
    store.rate(fill(store), "image-0", 3)
    for name in ("idle", "used"):
        (memory_folder / name).mkdir()
        (memory_folder / name / "class.sqlite").write_bytes(where.read_bytes())
    live = sqlite3.connect(memory_folder / "used" / "class.sqlite")
    live.execute("UPDATE ratings SET value = 4")
    live.commit()  # in the log beside the file, which is still open
    (memory_folder / "own").mkdir()
    os.chown(memory_folder / "own", 65534, 65534)
    for path in (memory_folder, *memory_folder.iterdir()):
        path.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    for name in ("idle", "used"):
        words = [str(memory_folder / name / "class.sqlite"), str(memory_folder / "own" / f"{name}.sqlite")]
        done = subprocess.run([sys.executable, "-c", READ_ONLY, *words], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert said[0] == "1"
        if name == "idle":  # and who would write there is told, with the file's name
            assert said[1] == f"{words[0]} may not be written: check its permissions and those of its folder"
    live.close()
    own = Store(memory_folder / "own" / "used.sqlite")
    assert own.ratings()["value"].tolist() == [4]
    own.close()


def test_a_backup_is_whole_while_the_file_is_open(store, where, tmp_path):
    session = fill(store)
    with store.database.reading() as open_all_the_time:
        open_all_the_time.exec_driver_sql("SELECT * FROM raters").fetchall()
        for number in range(6):
            store.rate(session, f"image-{number}", number)
        path = store.backup(tmp_path / "sent" / "backup.sqlite")
    assert os.listdir(path.parent) == ["backup.sqlite"]
    copy = Store(path)
    assert copy.ratings()["value"].tolist() == [0, 1, 2, 3, 4, 5]
    copy.close()
    with pytest.raises(FileExistsError, match="backup.sqlite is there already"):
        store.backup(path)


# --- numbers of other libraries -----------------------------------------------------------------------------------------


def test_numbers_of_other_libraries_are_numbers(store):
    store.add_stimuli(
        [
            {
                "id": "a",
                "kind": "image",
                "sha256": SHA,
                "seed": np.int64(3),
                "iteration": np.int32(40),
                "surprise": np.float32(2.5),
            }
        ]
    )
    store.add_stimuli([{"id": "a", "kind": "image", "sha256": SHA, "seed": 3, "iteration": 40, "surprise": 2.5}])  # the same
    session = store.begin(store.rater("blue-fox", consent=True), ["a"])
    assert store.rate(session, "a", np.int64(4), np.int64(1200))
    row = store.ratings().iloc[0]
    assert (row["seed"], row["iteration"], row["surprise"], row["value"], row["milliseconds"]) == (3, 40, 2.5, 4, 1200)


@pytest.mark.parametrize("number", [2**63, 1.5, "3", True, b"3"])
def test_what_is_no_number_is_refused_by_name(store, number):
    with pytest.raises(ValueError, match="stimuli: a: seed: got .*; give a whole number of at most 64 bits"):
        store.add_stimuli([{"id": "a", "kind": "image", "sha256": SHA, "seed": number}])
    assert store.begin is not None


@pytest.mark.parametrize(("given", "kept"), [(0, 0), (3_600_001, 3_600_000), (2**40, 3_600_000), (None, None)])
def test_a_look_is_at_most_an_hour(store, given, kept):
    session = fill(store)
    store.rate(session, "image-0", 3, given)
    found = store.ratings()["milliseconds"].tolist()
    assert found == [kept] or found != found and kept is None or (kept is None and str(found[0]) in ("None", "nan"))


@pytest.mark.parametrize("given", [-1, "soon", 1.5, True])
def test_a_look_is_a_number_of_milliseconds(store, given):
    session = fill(store)
    with pytest.raises(ValueError, match="milliseconds: got"):
        store.rate(session, "image-0", 3, given)
    assert store.ratings().empty


def test_who_withdraws_while_another_program_reads_is_gone_when_that_ends(store, where, monkeypatch, caplog):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    store.rate(fill(store, "somebody-7k3m"), "image-0", 3)
    named = lambda: [path for path in where.parent.iterdir() if b"somebody-7k3m" in path.read_bytes()]  # noqa: E731
    reader = sqlite3.connect(where, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT * FROM raters").fetchall()
    store.delete_rater("somebody-7k3m")
    assert store.ratings().empty and named()  # the reader still sees them
    assert f"another program reads {where}" in caplog.text
    reader.rollback(), reader.close()
    assert store.ratings().empty and not named()


# --- a server that goes away --------------------------------------------------------------------------------------------


def test_a_connection_that_the_server_ended_is_replaced(postgres):
    store = Store(postgres)
    session = fill(store)
    store.rate(session, "image-0", 3)
    other = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"  # noqa: E501
        assert connection.exec_driver_sql(ended).all()
    assert store.rate(session, "image-1", 4)  # at the first press
    assert store.ratings()["value"].tolist() == [3, 4]
    store.close(), other.dispose()


def test_a_server_that_is_away_is_said_and_comes_back(postgres, postgres_server):
    store = Store(postgres)
    session = fill(store)
    postgres_server.stop()
    try:
        for call in (lambda: store.rate(session, "image-0", 3), store.ratings):
            with pytest.raises(OSError, match="the database .* does not answer as it should"):
                call()
    finally:
        postgres_server.start()
    assert store.rate(session, "image-0", 3)
    store.close()


def test_large_numbers_fit_on_postgresql_too(postgres):
    store = Store(postgres)
    store.add_stimuli([{"id": "a", "kind": "image", "sha256": SHA, "seed": 2**40}])
    session = store.begin(store.rater("blue-fox", consent=True), ["a"])
    assert store.rate(session, "a", 3, 2**33)
    assert store.ratings()["milliseconds"].tolist() == [3_600_000]
    store.close()


def test_who_withdraws_is_gone_from_the_files_of_a_server(postgres, postgres_server):
    """Its tables keep deleted rows until they are written anew."""
    store = Store(postgres)
    secret = "somebody-7k3m"
    store.rate(fill(store), "image-0", 3)
    store.rater(secret, consent=True, source={"PROLIFIC_PID": "pid-5d2f"})
    store.rate(fill(store, secret), "image-0", 4)
    files = lambda: [path for path in Path(postgres_server.data, "base").rglob("*") if path.is_file()]  # noqa: E731
    admin = sa.create_engine(postgres, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def found():
        with admin.connect() as connection:
            connection.exec_driver_sql("CHECKPOINT")
        return [path for path in files() if any(word in path.read_bytes() for word in (secret.encode(), b"pid-5d2f"))]

    assert found()
    store.delete_rater(secret)
    assert not found() and store.ratings()["rater"].tolist() == ["blue-fox"]
    store.close()


def test_a_deletion_does_not_wait_for_who_reads_a_server_all_the_time(postgres, monkeypatch, caplog):
    monkeypatch.setattr("creativelib.study.database.REWRITE_SECONDS", 0.1)
    store = Store(postgres)
    store.rate(fill(store), "image-0", 3)
    other = sa.create_engine(postgres)
    with other.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM raters").all()
        store.delete_rater("blue-fox")
        assert store.ratings().empty and "run VACUUM FULL there" in caplog.text
    with store.database.reading() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"  # of the connection that goes on
    store.close(), other.dispose()


def test_a_backup_of_a_server_is_a_file(postgres, tmp_path):
    store = Store(postgres)
    store.rate(fill(store), "image-0", 3)
    store.delete_rater("blue-fox")
    store.rate(fill(store, "red-owl"), "image-0", 4)
    copy = Store(store.backup(tmp_path / "backup.sqlite"))
    assert copy.ratings()["rater"].tolist() == ["red-owl"]
    store.merge(tmp_path / "backup.sqlite"), copy.merge(postgres)
    assert len(store.ratings()) == len(copy.ratings()) == 1
    store.close(), copy.close()
