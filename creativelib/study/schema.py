"""The tables of a study, what a row of each may say, and how tables of an earlier version become those of this one."""

import json
import math
import operator
from collections.abc import Mapping

import sqlalchemy as sa

from creativelib.study import HIGHEST, LOWEST
from creativelib.study.codes import canonical

FORMAT = 2
KINDS = ("image", "anchor", "repeat", "outsider")  # rated; the default image; shown again; an obvious non-member
CREATIVE = "creative"  # the scale of footnote 3; a study may have others
LARGEST = 2**63 - 1
LONGEST_LOOK = 3_600_000  # ms that are kept of one look at a picture: who takes longer has left
META = sa.MetaData()

ABOUT = sa.Table("about", META, sa.Column("name", sa.String(20), primary_key=True), sa.Column("value", sa.String(80)))
CONSENTS = sa.Table(
    "consents",
    META,
    sa.Column("id", sa.String(64), primary_key=True),  # SHA-256 of the text
    sa.Column("text", sa.Text, nullable=False),
)
RATERS = sa.Table(
    "raters",
    META,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("code", sa.String(80), nullable=False, unique=True),
    sa.Column("consented_at", sa.String(40), nullable=False),
    sa.Column("consent", sa.String(64), sa.ForeignKey("consents.id")),
    sa.Column("source", sa.Text),  # JSON: what a panel provider sent along
)
STIMULI = sa.Table(
    "stimuli",
    META,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("seed", sa.BigInteger),
    sa.Column("iteration", sa.BigInteger),
    sa.Column("surprise", sa.Double),
    sa.Column("of", sa.String(80), sa.ForeignKey("stimuli.id")),
    sa.Column("sha256", sa.String(64), nullable=False),
)
SESSIONS = sa.Table(
    "sessions",
    META,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("rater", sa.String(32), sa.ForeignKey("raters.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("stimuli", sa.Text, nullable=False),  # JSON: ids in the order shown
    sa.Column("started_at", sa.String(40), nullable=False),
    sa.Column("scale", sa.String(20), nullable=False, server_default=CREATIVE),
    sa.Column("design", sa.String(16)),  # what the turns are counted in
    sa.Column("turn", sa.BigInteger),
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
    sa.Column("number", sa.Integer, nullable=False, server_default="0"),  # order within the session: clocks are set back
    sa.Column("answer", sa.String(64)),  # the browser's name for it: one that is sent again is known
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
# Of who withdrew a hash of a random id stays, so that they do not come back with an older copy; of who was joined to another
# rater also that one's id, so that what comes later finds its way.
WITHDRAWN = sa.Table(
    "withdrawn",
    META,
    sa.Column("id", sa.String(64), primary_key=True),  # SHA-256 of the rater's id
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("joined_to", sa.String(32), sa.ForeignKey("raters.id", ondelete="SET NULL")),
)
TABLES = (CONSENTS, RATERS, STIMULI, SESSIONS, RATINGS, CHOICES, WITHDRAWN)  # each refers to earlier ones only
OF_RATERS = (RATERS, SESSIONS, RATINGS, CHOICES)  # what somebody who withdraws stands in
SINCE_2 = {CONSENTS, WITHDRAWN, ABOUT}


def latest(*where) -> sa.Select:
    """The last revision of every rating; its value is NULL where it was taken back."""
    later = RATINGS.alias()
    newer = (later.c.session == RATINGS.c.session) & (later.c.stimulus == RATINGS.c.stimulus)
    newer &= later.c.revision > RATINGS.c.revision
    return sa.select(RATINGS).where(~sa.exists(sa.select(later.c.revision).where(newer)), *where)


def whole(name: str, value: object, least: int = -LARGEST, most: int = LARGEST) -> int:
    """``value`` as a plain int, of whatever library it is. Raises ValueError naming it."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        allowed = f"from {least} to {most}" if least > -LARGEST else "of at most 64 bits"
        raise ValueError(f"{name}: got {value!r}; give a whole number {allowed}")
    return number


def rating_value(value: object) -> int:
    """A value of the scale as a plain int. Raises ValueError for any other."""
    try:
        return whole("value", value, LOWEST, HIGHEST)
    except ValueError:
        raise ValueError(f"value: got {value!r}; give a whole number from {LOWEST} (out of domain) to {HIGHEST}") from None


def look(milliseconds: object) -> int | None:
    """How long a picture was seen, at most ``LONGEST_LOOK``."""
    return None if milliseconds is None else min(whole("milliseconds", milliseconds, 0), LONGEST_LOOK)


def checked_stimulus(given: Mapping) -> dict:
    """A row of ``STIMULI`` of plain Python values. Raises ValueError naming what is wrong."""
    row = {column.name: given.get(column.name) for column in STIMULI.columns}
    if unknown := set(given) - set(row):
        raise ValueError(f"stimuli: got the fields {sorted(unknown)}; allowed are {list(row)}")
    if not row["id"] or not row["sha256"] or row["kind"] not in KINDS:
        raise ValueError(f"stimuli: got {row}; give an id, the sha256 of the picture and a kind of {', '.join(KINDS)}")
    for name in ("seed", "iteration"):
        if row[name] is not None:
            row[name] = whole(f"stimuli: {row['id']}: {name}", row[name])
    if row["surprise"] is not None:
        try:
            nats = float(row["surprise"])
        except (TypeError, ValueError):
            nats = math.nan
        if not math.isfinite(nats):
            raise ValueError(f"stimuli: {row['id']} has the surprise {row['surprise']}; give nats, or None")
        row["surprise"] = nats
    return row


def order_of(text: str) -> list[str]:
    """The ids of a session's column ``stimuli``. Raises ValueError where it holds anything else."""
    try:
        order = json.loads(text)
    except ValueError:
        order = None
    if (
        not isinstance(order, list)
        or not order
        or not all(isinstance(one, str) for one in order)
        or len(set(order)) < len(order)
    ):
        raise ValueError(f"stimuli is {text[:60]!r}; give a JSON list of different ids")
    return order


def check_row(table: sa.Table, row: dict) -> None:
    """Refuse a row of another store that no store of ours could have written. Raises ValueError."""
    for column in table.columns:
        value, kind = row[column.name], column.type.python_type
        if value is None:
            if not column.nullable:
                raise ValueError(f"{column.name} is empty; give a value")
        elif not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{column.name} is {value!r}; give {_words(kind)}")
        elif kind is int:
            most = LARGEST if isinstance(column.type, sa.BigInteger) else 2**31 - 1
            if abs(value) > most:
                raise ValueError(f"{column.name} is {value}; give a number of at most {most}")
        elif kind is float and not math.isfinite(value):
            raise ValueError(f"{column.name} is {value}; give a finite number")
        elif kind is str and column.type.length and len(value) > column.type.length:
            raise ValueError(f"{column.name} has {len(value)} characters; give at most {column.type.length}")
    if table is RATINGS and row["value"] is not None and not LOWEST <= row["value"] <= HIGHEST:
        raise ValueError(f"value is {row['value']}; give {LOWEST} to {HIGHEST}")
    if table is CHOICES and row["chosen"] not in ("left", "right"):
        raise ValueError(f"chosen is {row['chosen']!r}; give left or right")
    if table is STIMULI and row["kind"] not in KINDS:
        raise ValueError(f"kind is {row['kind']!r}; give one of {', '.join(KINDS)}")
    if table is SESSIONS:
        order_of(row["stimuli"])
    if table is RATERS and row["code"] != canonical(row["code"]):
        raise ValueError(f"code is {row['code']!r}; give {canonical(row['code'])!r}, the form in which codes are kept")


def _words(kind: type) -> str:
    return {int: "a whole number", float: "a number"}.get(kind, "text")


def state(connection: sa.Connection) -> str:
    """What a database holds: "new" (nothing of ours), "older" tables, "current" ones, or a ValueError: another program's."""
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    columns = {name: {column["name"] for column in inspector.get_columns(name)} for name in there}
    first = [table for table in TABLES if table not in SINCE_2]
    if not there or connection.dialect.name != "sqlite" and not there & {table.name for table in TABLES}:
        return "new"
    added = {"consent", "source", "scale", "design", "turn", "number", "answer"}
    for table in first:
        if missing := {column.name for column in table.columns} - added - columns.get(table.name, set()):
            raise ValueError(f"it holds another program's tables (no column {table.name}.{min(missing)})")
    if ABOUT.name not in there:
        return "older"
    found = connection.execute(sa.select(ABOUT.c.value).where(ABOUT.c.name == "format")).scalar()
    if found != str(FORMAT):
        raise ValueError(f"it has the format {found}, this version of creativelib knows {FORMAT}; install a later one")
    return "current"


def make(connection: sa.Connection) -> None:
    """Bring a "new" or "older" database to this version, in the transaction of ``connection``."""
    if state(connection) == "older":
        _upgrade(connection)
    META.create_all(connection)
    if connection.execute(sa.select(ABOUT.c.value)).scalar() is None:
        connection.execute(ABOUT.insert(), {"name": "format", "value": str(FORMAT)})


def _upgrade(connection: sa.Connection) -> None:
    """From the first format: columns added, the order of ratings counted, codes in their canonical form."""
    inspector = sa.inspect(connection)
    CONSENTS.create(connection, checkfirst=True)
    prepare = connection.dialect.identifier_preparer
    for table in (RATERS, SESSIONS, RATINGS):
        there = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                text = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {prepare.quote(table.name)} ADD COLUMN {text}")
    if connection.dialect.name == "postgresql":
        for name in ("seed", "iteration"):
            connection.exec_driver_sql(f"ALTER TABLE stimuli ALTER COLUMN {name} TYPE BIGINT")
    rows = connection.execute(sa.select(RATINGS).order_by(RATINGS.c.session, RATINGS.c.rated_at, RATINGS.c.revision)).all()
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.session] = counts.get(row.session, 0) + 1
        mine = (RATINGS.c.session == row.session) & (RATINGS.c.stimulus == row.stimulus) & (RATINGS.c.revision == row.revision)
        connection.execute(RATINGS.update().where(mine).values(number=counts[row.session]))
    raters = connection.execute(sa.select(RATERS.c.id, RATERS.c.code).order_by(RATERS.c.consented_at, RATERS.c.id)).all()
    taken = {row.code for row in raters}
    for row in raters:
        try:
            code = canonical(row.code)
        except ValueError:
            code = f"rater-{row.id[:12]}"
        if code != row.code:
            if code in taken:  # two that differed in their case alone: a teacher may join them
                code = f"{code[:27]}-{row.id[:12]}"
            taken.add(code)
            connection.execute(RATERS.update().where(RATERS.c.id == row.id).values(code=code))
