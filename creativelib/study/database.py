"""The connection to a study's database: a SQLite file or a server, and one clear sentence where it cannot be used."""

import logging
import random
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from creativelib.study import schema

LOG = logging.getLogger("creativelib.study")
BUSY_SECONDS = 30  # how long a writer waits for the others, and a newcomer for a free connection
POOL = 5  # connections to a server that are kept open while they are used,
IDLE_SECONDS = 2  # and so long after: every notebook of a class has its own
REWRITE_SECONDS = 5  # how long a deletion waits for each table until nobody uses it
FULL = ("too many", "slots are reserved")  # what PostgreSQL says that has no connection left


class Unavailable(OSError):
    """The database cannot be read or written now. Nothing of the call was kept; it can be repeated."""


class Database:
    """Transactions on a SQLite file or on a server, for reading and for writing.

    Args:
        where: a file, made where there is none, or a database URL. make: create or upgrade the tables.

    Raises:
        ValueError: a file or database of another program. Unavailable: it cannot be opened.
    """

    def __init__(self, where: str | Path, *, make: bool = True):
        self._turn = threading.Lock()  # writers of one process stand in line; SQLite would have them poll
        self._timer, self._resting, self._last = None, threading.Lock(), 0.0
        self.path: Path | None = None
        url = _url(str(where)) if "://" in str(where) else None
        if url is not None and url.get_backend_name() != "sqlite":
            # Asked before use whether it still answers; half an hour old, made anew.
            options = {"pool_pre_ping": True, "pool_size": POOL, "max_overflow": 2 * POOL, "pool_recycle": 1800}
            self.engine = sa.create_engine(url, **options)
            sa.event.listen(self.engine, "do_connect", _patiently)
            sa.event.listen(self.engine, "checkin", self._used)
            self.place = self.engine.url.render_as_string(hide_password=True)
        else:
            self.path = Path(where if url is None else url.database).expanduser().absolute()
            self.place = str(self.path)
            _create(self.path)
            # No pool for a file: SQLite then folds its log into it after each use.
            self.engine = sa.create_engine(f"sqlite:///{self.path}", creator=self._connect, poolclass=sa.NullPool)
            sa.event.listen(self.engine, "begin", _begin)
        self._writer = self.engine.execution_options(writes=True)
        try:
            self._open(make)
        except ValueError as error:
            self.close()
            raise ValueError(f"where: {self.place} is no store of ratings: {error}") from None

    def _open(self, make: bool) -> None:
        with self.reading() as connection:
            found = schema.state(connection)
        if found == "current":
            return
        if not make:
            raise ValueError("it has no tables" if found == "new" else "its tables are of an earlier version")
        with self.writing() as connection:
            if self.path is None:  # two that make the tables at once would clash
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(727274)"))
            schema.make(connection)

    def _connect(self) -> sqlite3.Connection:
        """Opened as it is, never made: a file that was moved away must not be replaced by an empty one."""
        uri = f"file:{quote(str(self.path))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:  # a write-ahead log, every commit synced to disk, foreign keys enforced, what is deleted overwritten
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Let go of the database."""
        with self._resting:
            if self._timer is not None:
                self._timer.cancel()
        self.engine.dispose()

    def _used(self, *_) -> None:
        """A connection came back: keep it for a while, then let others have it."""
        self._last = time.monotonic()
        with self._resting:
            if self._timer is None:
                self._look_in(IDLE_SECONDS)

    def _look_in(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._rest)
        self._timer.daemon = True
        self._timer.start()

    def _rest(self) -> None:
        with self._resting:
            self._timer, left = None, self._last + IDLE_SECONDS - time.monotonic()
            if left > 0 or self.engine.pool.checkedout():  # used since, or just now
                return self._look_in(max(left, 0.1))
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A consistent view; takes no lock that a writer would wait for."""
        with self._told(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction: on disk when the block ends, undone where it raises."""
        with self._turn, self._told(), self._writer.begin() as connection:
            yield connection

    def forget(self) -> None:
        """Let deleted rows be gone from the files too: SQLite's log, and a server's tables, keep them for a while."""
        if self.path is None:
            return self._rewrite()
        with self._told(), self.engine.connect() as connection:
            connection.rollback()
            busy = connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            LOG.warning("another program reads %s: what was deleted stays in its files until that ends", self.place)

    def _rewrite(self) -> None:
        """PostgreSQL writes the tables anew, each in a moment in which nobody uses it; where none comes a warning says so."""
        try:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"SET lock_timeout = {round(1000 * REWRITE_SECONDS)}")
                try:
                    for table in schema.OF_RATERS:
                        connection.exec_driver_sql(f"VACUUM FULL {connection.dialect.identifier_preparer.format_table(table)}")
                finally:
                    connection.exec_driver_sql("RESET lock_timeout")
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:  # they are deleted all the same
            LOG.warning("PostgreSQL still has deleted rows in its files (%s): run VACUUM FULL there", self._sentence(error))

    def lock(self, connection: sa.Connection, key: int) -> None:
        """Until the transaction ends nobody else holds ``key``; on SQLite a writer is alone anyway."""
        if self.path is None:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, sqlite3.Error) as error:
            raise Unavailable(self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        reason = str(getattr(error, "orig", None) or error).strip()
        if self.path is None:
            return f"the database {self.place} does not answer as it should ({' '.join(reason.split())[:200]})"
        if not self.path.is_file():
            return f"the file {self.place} is no longer there: put it back"
        for word, sentence in {
            "locked": "another program holds {}, for example a database browser with a change not saved: close it there",
            "full": "the disk is full: {} cannot grow; free some space",
            "readonly": "{} may not be written: check its permissions and those of its folder",
            "unable to open": "{} cannot be opened: check its permissions and those of its folder",
            "not a database": "{} is no SQLite database: put the right file there",
            "no such table": "{} is no longer this study's file: put the right one back",
        }.items():
            if word in reason:
                return sentence.format(self.place)
        return f"{self.place}: {reason}"


def _url(where: str) -> sa.URL:
    """A database URL, with the driver that is installed. Raises ValueError for what is none, or keeps nothing."""
    try:
        url = sa.make_url(where)
        url.get_dialect()
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ValueError(
            f"where: got {where.partition('://')[0]}://...: {error}; give a file, or postgresql+psycopg://host/name"
        ) from None
    if url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:":
        raise ValueError(f"where: got {where!r}, which keeps nothing; give a file")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _patiently(dialect: sa.Dialect, record, arguments: list, options: dict):
    """A connection to a server; where it has none left, the first that becomes free within ``BUSY_SECONDS``."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError as error:
            if time.monotonic() > end or not any(words in str(error) for words in FULL):
                raise
        time.sleep(random.uniform(0.05, 0.25))


def _begin(connection: sa.Connection) -> None:
    """SQLite's lock of the writer is taken at once, and by writers alone."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _create(path: Path) -> None:
    """An empty file where there is none; a look at its first bytes where there is one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
    except PermissionError:
        if not path.is_file():
            raise Unavailable(f"where: {path} cannot be made (permission denied); choose another folder") from None
    except OSError as error:
        raise Unavailable(f"where: {path} cannot be made ({error.strerror}); choose another place") from None
    _require_sqlite(path, "where")


def _require_sqlite(path: Path, argument: str) -> None:
    with open(path, "rb") as file:
        if file.read(16) not in (b"", b"SQLite format 3\0"):
            raise ValueError(f"{argument}: {path} is no SQLite database; choose another file")


@contextmanager
def snapshot(path: Path) -> Iterator[Path]:
    """A copy of somebody's SQLite file as it is now, while others may write it; the file itself is only read.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no SQLite database, or a broken one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"other: there is no file {path}")
    _require_sqlite(path, "other")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.sqlite"
        try:
            try:
                _copied(path, copy, "mode=ro" if _rollback_journal(path) else "mode=rw")
            except sqlite3.OperationalError:  # a log needs a folder that may be written: read it in one that may
                moved = Path(folder) / "moved.sqlite"
                for ending in ("", "-wal"):
                    if Path(f"{path}{ending}").is_file():
                        shutil.copyfile(f"{path}{ending}", f"{moved}{ending}")
                _copied(moved, copy, "mode=rw")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"other: {path} cannot be read ({error}); it may be cut off or still being copied") from None
        yield copy


def _rollback_journal(path: Path) -> bool:
    """Whether a SQLite file keeps no write-ahead log: bytes 18 and 19 of its header are 1."""
    with open(path, "rb") as file:
        return file.read(20)[18:] == b"\1\1"


def _copied(path: Path, copy: Path, mode: str) -> None:
    source = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=BUSY_SECONDS)
    target = sqlite3.connect(copy)
    try:
        source.execute("PRAGMA query_only=ON")
        source.backup(target)
        if (said := target.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(said)
    finally:
        source.close()
        target.close()
