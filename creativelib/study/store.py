"""Where the ratings of a study are kept: one database file, or any database that SQLAlchemy knows, a transaction a rating."""

import csv
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from creativelib.study import HIGHEST, LOWEST

KINDS = ("image", "anchor", "repeat", "outsider")  # rated; the default image; shown again; an obvious non-member
BUSY_SECONDS = 60  # how long a writer waits for the others
META = sa.MetaData()

RATERS = sa.Table(
    "raters",
    META,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("code", sa.String(80), nullable=False, unique=True),
    sa.Column("consented_at", sa.String(40), nullable=False),
)
STIMULI = sa.Table(
    "stimuli",
    META,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("seed", sa.Integer),
    sa.Column("iteration", sa.Integer),
    sa.Column("surprise", sa.Double),
    sa.Column("of", sa.String(80), sa.ForeignKey("stimuli.id")),
    sa.Column("sha256", sa.String(64), nullable=False),
)
SESSIONS = sa.Table(
    "sessions",
    META,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("rater", sa.String(32), sa.ForeignKey("raters.id", ondelete="CASCADE"), nullable=False),
    sa.Column("stimuli", sa.Text, nullable=False),
    sa.Column("started_at", sa.String(40), nullable=False),
)
# Append-only: a correction or an undo is one more revision, so nothing that was confirmed is ever overwritten.
RATINGS = sa.Table(
    "ratings",
    META,
    sa.Column("session", sa.String(32), sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("stimulus", sa.String(80), sa.ForeignKey("stimuli.id"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("value", sa.Integer, sa.CheckConstraint(f"value BETWEEN {LOWEST} AND {HIGHEST}")),
    sa.Column("milliseconds", sa.Integer),
    sa.Column("rated_at", sa.String(40), nullable=False),
)
CHOICES = sa.Table(
    "choices",
    META,
    sa.Column("session", sa.String(32), sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("left", sa.String(80), sa.ForeignKey("stimuli.id"), primary_key=True),
    sa.Column("right", sa.String(80), sa.ForeignKey("stimuli.id"), primary_key=True),
    sa.Column("chosen", sa.String(5), sa.CheckConstraint("chosen IN ('left', 'right')"), nullable=False),
    sa.Column("chosen_at", sa.String(40), nullable=False),
)
TABLES = (RATERS, STIMULI, SESSIONS, RATINGS, CHOICES)  # each refers to earlier ones only


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _row(table: sa.Table, row: Mapping) -> tuple:
    return tuple(row[column.name] for column in table.columns)


class Store:
    """Raters, stimuli, sessions, ratings and paired choices of a study.

    A rating is on disk when ``rate`` returns. Several processes may write at once. Raters are pseudonymous: a code and the
    time of their consent are all that is kept, and ``delete_rater`` deletes it with everything of theirs.

    Args:
        where: a file (SQLite, made where there is none), or a database URL such as ``postgresql+psycopg://host/name``.
    """

    def __init__(self, where: str | Path):
        url = str(where) if "://" in str(where) else f"sqlite:///{Path(where).absolute()}"
        # No pool for a file: SQLite then folds its log into it after each use, so that a copy of the one file is whole.
        options = {"poolclass": sa.NullPool, "connect_args": {"timeout": BUSY_SECONDS}} if url.startswith("sqlite") else {}
        self.engine = sa.create_engine(url, **options)
        if self.engine.dialect.name == "sqlite":
            Path(self.engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":  # two that make the tables at once would clash
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(727274)"))
            META.create_all(connection)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    @property
    def place(self) -> str:
        """The file or URL, without a password."""
        url = self.engine.url
        return url.database if self.engine.dialect.name == "sqlite" else url.render_as_string(hide_password=True)

    # --- who and what -------------------------------------------------------------------------------------------------

    def add_stimuli(self, stimuli: Iterable[Mapping]) -> None:
        """Add stimuli: mappings with ``id`` (blinded), ``kind`` (one of ``KINDS``), ``sha256`` of the picture, and, where they
        are known, ``seed``, ``iteration``, ``surprise`` (nats) and ``of`` (what a repeat repeats). Equal ones count once.

        Raises:
            ValueError: an unknown kind or field, a surprise that is not finite, or another stimulus of the same id.
        """
        rows = []
        for given in stimuli:
            row = {column.name: given.get(column.name) for column in STIMULI.columns}
            if unknown := set(given) - set(row):
                raise ValueError(f"stimuli: got the fields {sorted(unknown)}; allowed are {list(row)}")
            if not row["id"] or not row["sha256"] or row["kind"] not in KINDS:
                raise ValueError(f"stimuli: got {row}; give an id, the sha256 of the picture and a kind of {', '.join(KINDS)}")
            if row["surprise"] is not None and not math.isfinite(row["surprise"]):
                raise ValueError(f"stimuli: {row['id']} has the surprise {row['surprise']}; give nats, or None")
            rows.append(row)
        with self.engine.begin() as connection:
            _merge(connection, STIMULI, rows, "stimuli")

    def rater(self, code: str, *, consent: bool) -> str:
        """The id of the rater of this code, who is made on the first call. Codes are pseudonyms: take no names.

        Raises:
            ValueError: an empty code, or no consent.
        """
        code = code.strip()
        if not code:
            raise ValueError(f"code: got {code!r}; give a pseudonym, for example 'blue-fox'")
        if consent is not True:
            raise ValueError(f"consent: got {consent!r}; nobody is rated with who has not agreed (consent=True)")
        row = {"id": uuid.uuid4().hex, "code": code, "consented_at": _now()}
        try:
            with self.engine.begin() as connection:
                connection.execute(RATERS.insert(), row)
        except sa.exc.IntegrityError:  # the code is known
            return self._rater(code)
        return row["id"]

    def _rater(self, code: str) -> str:
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(RATERS.c.id).where(RATERS.c.code == code)).scalar()
        if found is None:
            raise ValueError(f"code: there is no rater {code!r}")
        return found

    def delete_rater(self, code: str) -> None:
        """Delete a rater, and with them their sessions, ratings and choices. Raises ValueError for an unknown code."""
        with self.engine.begin() as connection:
            if not connection.execute(RATERS.delete().where(RATERS.c.code == code.strip())).rowcount:
                raise ValueError(f"code: there is no rater {code!r}")

    # --- rating -------------------------------------------------------------------------------------------------------

    def begin(self, rater: str, stimuli: Sequence[str]) -> str:
        """The session of a rater with these stimuli, in the order to show them: the one that they left, else a new one.

        Args:
            rater: an id from ``rater``. stimuli: ids, which are kept with the session.

        Raises:
            ValueError: no stimuli, one twice, or unknown ones.
        """
        stimuli = list(stimuli)
        if not stimuli or len(set(stimuli)) < len(stimuli):
            raise ValueError(f"stimuli: got {len(stimuli)}, {len(set(stimuli))} of them different; give one or more, each once")
        with self.engine.begin() as connection:
            known = set(connection.execute(sa.select(STIMULI.c.id)).scalars())
            if missing := [stimulus for stimulus in stimuli if stimulus not in known]:
                raise ValueError(f"stimuli: {missing[0]!r} is not in the store; add it with add_stimuli first")
            earlier = sa.select(SESSIONS.c.id, SESSIONS.c.stimuli).where(SESSIONS.c.rater == rater)
            for session, order in connection.execute(earlier.order_by(SESSIONS.c.started_at)):
                if set(json.loads(order)) == set(stimuli):
                    return session
            row = {"id": uuid.uuid4().hex, "rater": rater, "stimuli": json.dumps(stimuli), "started_at": _now()}
            connection.execute(SESSIONS.insert(), row)
            return row["id"]

    def order(self, session: str) -> list[str]:
        """The stimuli of a session in the order to show them. Raises ValueError for an unknown session."""
        with self.engine.connect() as connection:
            return self._order(connection, session)

    @staticmethod
    def _order(connection: sa.Connection, session: str) -> list[str]:
        found = connection.execute(sa.select(SESSIONS.c.stimuli).where(SESSIONS.c.id == session)).scalar()
        if found is None:
            raise ValueError(f"session: there is no session {session!r}; begin one")
        return json.loads(found)

    def given(self, session: str) -> dict[str, int]:
        """The current value of every stimulus that is rated, in the order of the session."""
        with self.engine.connect() as connection:
            latest = {row.stimulus: row.value for row in connection.execute(_latest().where(RATINGS.c.session == session))}
            return {name: latest[name] for name in self._order(connection, session) if latest.get(name) is not None}

    def next(self, session: str) -> str | None:
        """The first stimulus that has no rating yet; ``None`` when all have."""
        given = self.given(session)
        return next((stimulus for stimulus in self.order(session) if stimulus not in given), None)

    def rate(self, session: str, stimulus: str, value: int, milliseconds: int | None = None) -> bool:
        """Keep one rating; it is on disk when this returns. The same value again (a double click, a reload) changes nothing;
        another value corrects the first, which stays as an earlier revision.

        Args:
            value: 0 to 5. milliseconds: how long the stimulus was seen.

        Returns:
            Whether anything was written.

        Raises:
            ValueError: a value off the scale, or a stimulus that is not of this session.
        """
        if isinstance(value, bool) or not isinstance(value, int) or not LOWEST <= value <= HIGHEST:
            raise ValueError(f"value: got {value!r}; give a whole number from {LOWEST} (out of domain) to {HIGHEST}")
        return self._revise(session, stimulus, value, milliseconds)

    def undo(self, session: str) -> str | None:
        """Take back the rating given last and return its stimulus, or ``None`` where there is none."""
        with self.engine.connect() as connection:
            latest = _latest().where(RATINGS.c.session == session).order_by(RATINGS.c.rated_at.desc())
            last = next((row.stimulus for row in connection.execute(latest) if row.value is not None), None)
        if last is not None:
            self._revise(session, last, None, None)
        return last

    def _revise(self, session: str, stimulus: str, value: int | None, milliseconds: int | None) -> bool:
        while True:
            try:
                with self.engine.begin() as connection:
                    if stimulus not in self._order(connection, session):
                        raise ValueError(f"stimulus: {stimulus!r} is not one of this session's")
                    mine = (RATINGS.c.session == session) & (RATINGS.c.stimulus == stimulus)
                    rows = connection.execute(sa.select(RATINGS).where(mine).order_by(RATINGS.c.revision)).all()
                    if (rows[-1].value if rows else None) == value:
                        return False
                    row = {"session": session, "stimulus": stimulus, "revision": len(rows), "value": value}
                    connection.execute(RATINGS.insert(), row | {"milliseconds": milliseconds, "rated_at": _now()})
                return True
            except sa.exc.IntegrityError:
                continue  # another writer had the same revision number: look again

    def choose(self, session: str, left: str, right: str, chosen: str) -> bool:
        """Keep a paired choice, ``chosen`` "left" or "right"; each pair counts once a session. Returns whether it was new.

        Raises:
            ValueError: other words, or the same or unknown stimuli.
        """
        if chosen not in ("left", "right"):
            raise ValueError(f"chosen: got {chosen!r}; give 'left' or 'right'")
        order = self.order(session)
        if left == right or left not in order or right not in order:
            raise ValueError(f"left, right: got {left!r} and {right!r}; give two different stimuli of this session")
        row = {"session": session, "left": left, "right": right, "chosen": chosen, "chosen_at": _now()}
        try:
            with self.engine.begin() as connection:
                connection.execute(CHOICES.insert(), row)
        except sa.exc.IntegrityError:
            return False
        return True

    # --- reading ------------------------------------------------------------------------------------------------------

    def ratings(self) -> pd.DataFrame:
        """Current ratings joined with what is known of the stimuli: rater (code), session, stimulus, value, milliseconds,
        rated_at, kind, seed, iteration, surprise (nats), of; in the order they were given in.
        """
        latest = _latest().subquery()
        query = (
            sa.select(
                RATERS.c.code.label("rater"), latest.c.session, latest.c.stimulus, latest.c.value, latest.c.milliseconds,
                latest.c.rated_at, STIMULI.c.kind, STIMULI.c.seed, STIMULI.c.iteration, STIMULI.c.surprise, STIMULI.c.of,
            )
            .join(SESSIONS, SESSIONS.c.id == latest.c.session)
            .join(RATERS, RATERS.c.id == SESSIONS.c.rater)
            .join(STIMULI, STIMULI.c.id == latest.c.stimulus)
            .where(latest.c.value.is_not(None))
            .order_by(latest.c.rated_at, latest.c.session, latest.c.stimulus)
        )  # fmt: skip
        return self._frame(query)

    def sessions(self) -> pd.DataFrame:
        """Who has begun what: rater (code), consented_at, session, started_at, stimuli (list of ids, in the order shown),
        rated (how many have a rating); the earliest first. A rater who agreed and began nothing is not here.
        """
        query = sa.select(
            RATERS.c.code.label("rater"), RATERS.c.consented_at, SESSIONS.c.id.label("session"), SESSIONS.c.started_at,
            SESSIONS.c.stimuli,
        )  # fmt: skip
        query = query.join(SESSIONS, SESSIONS.c.rater == RATERS.c.id).order_by(SESSIONS.c.started_at, SESSIONS.c.id)
        frame, rated = self._frame(query), self.ratings()["session"].value_counts()
        return frame.assign(
            stimuli=[json.loads(order) for order in frame["stimuli"]],
            rated=[int(rated.get(session, 0)) for session in frame["session"]],
        )

    def choices(self) -> pd.DataFrame:
        """Paired choices: rater (code), session, left, right, chosen, chosen_at."""
        query = sa.select(RATERS.c.code.label("rater"), CHOICES).join(SESSIONS, SESSIONS.c.id == CHOICES.c.session)
        return self._frame(query.join(RATERS, RATERS.c.id == SESSIONS.c.rater).order_by(CHOICES.c.chosen_at))

    def _frame(self, query: sa.Select) -> pd.DataFrame:
        with self.engine.connect() as connection:
            result = connection.execute(query)
            return pd.DataFrame(result.all(), columns=list(result.keys()))

    # --- leaving and coming -------------------------------------------------------------------------------------------

    def export_csv(self, folder: str | Path) -> Path:
        """Write every table to ``folder``, one CSV each, without loss: texts quoted, NULL bare, floats by ``repr``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with self.engine.connect() as connection:
            for table in TABLES:
                rows = connection.execute(sa.select(table).order_by(*table.primary_key.columns)).all()
                with open(folder / f"{table.name}.csv", "w", newline="", encoding="utf-8") as file:
                    for row in [[column.name for column in table.columns], *rows]:
                        file.write(",".join(map(_field, row)) + "\n")
        return folder

    def import_csv(self, folder: str | Path) -> None:
        """Take in what ``export_csv`` wrote, here or in somebody else's store: rows that are there already count once.

        All or nothing: a file that is malformed, or disagrees with this store, is refused with its line and changes nothing.

        Raises:
            FileNotFoundError: a table's file is missing. ValueError: malformed, or in conflict with what is here.
        """
        folder = Path(folder)
        rows = {table: _read_csv(table, folder / f"{table.name}.csv") for table in TABLES}
        with self.engine.begin() as connection:
            for table in TABLES:
                _merge(connection, table, [row for _, row in rows[table]], str(folder), [line for line, _ in rows[table]])

    def merge(self, other: str | Path) -> None:
        """Take in another store, for example a classmate's file. All or nothing; raises as ``import_csv``."""
        if "://" not in str(other) and not Path(other).is_file():
            raise FileNotFoundError(f"other: there is no file {other}")
        store = Store(other)
        try:
            with store.engine.connect() as connection:
                rows = {table: connection.execute(sa.select(table)).mappings().all() for table in TABLES}
        finally:
            store.close()
        with self.engine.begin() as connection:
            for table in TABLES:
                _merge(connection, table, [dict(row) for row in rows[table]], str(other))


def _prepare_sqlite(connection, _record) -> None:
    """Write-ahead log, every commit synced to disk, foreign keys enforced; SQLAlchemy begins the transactions itself."""
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        f"busy_timeout={BUSY_SECONDS * 1000}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _latest() -> sa.Select:
    """The last revision of every rating; its value is NULL where it was taken back."""
    later = RATINGS.alias()
    newer = (later.c.session == RATINGS.c.session) & (later.c.stimulus == RATINGS.c.stimulus)
    newer &= later.c.revision > RATINGS.c.revision
    return sa.select(RATINGS).where(~sa.exists(sa.select(later.c.revision).where(newer)))


def _merge(connection: sa.Connection, table: sa.Table, rows: list[dict], source: str, lines: list[int] | None = None) -> None:
    """Insert what is new, leave alone what is there, refuse what disagrees."""
    keys = [column.name for column in table.primary_key.columns]
    places = [f"{source}: {table.name}" + (f".csv, line {line}" if lines else "") for line in lines or range(len(rows))]
    before = {tuple(row[key] for key in keys): _row(table, row) for row in connection.execute(sa.select(table)).mappings()}
    foreign = {column: key.column for column in table.columns for key in column.foreign_keys}
    known = {column: set(connection.execute(sa.select(target)).scalars()) for column, target in foreign.items()}
    for column, target in foreign.items():
        if target.table is table:  # a repeat comes with what it repeats
            known[column].update(row[target.name] for row in rows)
    there, new = dict(before), []
    for row, place in zip(rows, places, strict=True):
        key = tuple(row[name] for name in keys)
        if there.setdefault(key, _row(table, row)) != _row(table, row):
            raise ValueError(
                f"{place}: {', '.join(map(str, key))} is here already and says something else; nothing was taken in"
            )
        for column, target in foreign.items():
            if row[column.name] is not None and row[column.name] not in known[column]:
                raise ValueError(
                    f"{place}: {column.name} {row[column.name]!r} is not in {target.table.name}; nothing was taken in"
                )
        if key not in before:
            before[key] = there[key]
            new.append((row, place))
    for row, place in sorted(new, key=lambda pair: pair[0].get("of") is not None):  # what is repeated first
        try:
            connection.execute(table.insert(), row)
        except sa.exc.IntegrityError as error:
            raise ValueError(f"{place}: {_reason(table, row)}; nothing was taken in") from error


def _reason(table: sa.Table, row: dict) -> str:
    if table is RATERS:
        return f"the code {row['code']!r} belongs to another rater here; one of the two must rate under another code"
    return f"{row} breaks a rule of the table"


def _read_csv(table: sa.Table, path: Path) -> list[tuple[int, dict]]:
    """Line number and row of every line of an exported table. Raises ValueError with the line of the first that is wrong."""
    if not path.is_file():
        raise FileNotFoundError(f"folder: {path} is missing; give a folder that export_csv wrote")
    columns = list(table.columns)
    result, lines = [], 1
    for text in _records(path):
        begin, lines = lines, lines + text.count("\n")
        place = f"{path}, line {begin}"
        if not text.endswith("\n"):
            raise ValueError(f"{place}: the line is not finished; the file was cut off")
        fields = next(csv.reader([text], strict=True))
        bare = _bare(text)
        if begin == 1:
            if fields != [column.name for column in columns]:
                raise ValueError(f"{place}: got the columns {fields}; give {[column.name for column in columns]}")
            continue
        if len(fields) != len(columns):
            raise ValueError(f"{place}: got {len(fields)} fields; give {len(columns)}")
        row = {}
        for column, field, is_bare in zip(columns, fields, bare, strict=True):
            row[column.name] = None if is_bare and not field else _value(column, field, place)
            if row[column.name] is None and not column.nullable:
                raise ValueError(f"{place}: {column.name} is empty; give a value")
        if table is RATINGS and row["value"] is not None and not LOWEST <= row["value"] <= HIGHEST:
            raise ValueError(f"{place}: value is {row['value']}; give {LOWEST} to {HIGHEST}")
        if table is CHOICES and row["chosen"] not in ("left", "right"):
            raise ValueError(f"{place}: chosen is {row['chosen']!r}; give left or right")
        if table is STIMULI and row["kind"] not in KINDS:
            raise ValueError(f"{place}: kind is {row['kind']!r}; give one of {', '.join(KINDS)}")
        result.append((begin, row))
    return result


def _field(value: object) -> str:
    """A value as it stands in a file: NULL is nothing, an empty text is two quotes."""
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return repr(value)


def _records(path: Path) -> Iterable[str]:
    """The records of a CSV file as text; a quoted field may hold line ends."""
    record = ""
    with open(path, newline="", encoding="utf-8") as file:
        for line in file:
            record += line
            if record.count('"') % 2 == 0:
                yield record
                record = ""
    if record:
        yield record


def _bare(record: str) -> list[bool]:
    """Which fields of a record stand without quotes: only those can be NULL."""
    bare, quoted, start = [], False, True
    for letter in record.rstrip("\n") + ",":
        if start:
            bare.append(letter != '"')
            start = False
        quoted ^= letter == '"'
        if letter == "," and not quoted:
            start = True
    return bare


def _value(column: sa.Column, field: str, place: str):
    kind = column.type.python_type
    try:
        return kind(field)
    except ValueError:
        words = {int: "a whole number", float: "a number"}.get(kind, "text")
        raise ValueError(f"{place}: {column.name} is {field!r}; give {words}") from None
