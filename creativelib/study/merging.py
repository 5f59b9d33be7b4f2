"""Taking rows of another store into this one: all of them looked at first, then all or nothing, and nobody who withdrew."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa

from creativelib.study.schema import (
    CHOICES,
    CONSENTS,
    RATERS,
    RATINGS,
    SESSIONS,
    STIMULI,
    TABLES,
    WITHDRAWN,
    check_row,
    order_of,
)  # fmt: skip

Rows = Mapping[sa.Table, list[tuple[str, dict]]]  # of each table: where a row stands, and the row
NOTHING = "nothing was taken in"


@dataclass
class TakenIn:
    """What came in with a merge or an import: rows of each table that are new, that were known, that were left out because
    their rater withdrew; how many raters were deleted here because they withdrew there; files that were changed since export.
    """

    new: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    deleted: int = 0
    changed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        names = ("raters", "sessions", "ratings", "choices", "stimuli")
        new = ", ".join(f"{self.new[name]} {name}" for name in names if self.new.get(name)) or "nothing"
        text = f"new: {new}"
        if known := ", ".join(f"{self.known[name]} {name}" for name in names if self.known.get(name)):
            text += f"; known already: {known}"
        if out := ", ".join(f"{self.left_out[name]} {name}" for name in names if self.left_out.get(name)):
            text += f"; left out, for they were withdrawn here: {out}"
        if self.deleted:
            text += f"; deleted here, for they withdrew there: {self.deleted} raters"
        if self.changed:
            text += f"; changed since the export: {', '.join(self.changed)}"
        return text


def hashed(rater: str) -> str:
    """What stays of a rater who is gone."""
    return hashlib.sha256(rater.encode()).hexdigest()


def bury(connection: sa.Connection, rater: str, joined_to: str | None) -> None:
    """Delete a rater and remember a hash of their id, and whose they are now."""
    connection.execute(WITHDRAWN.update().where(WITHDRAWN.c.joined_to == rater).values(joined_to=joined_to))
    connection.execute(WITHDRAWN.insert(), {"id": hashed(rater), "at": datetime.now(UTC).isoformat(), "joined_to": joined_to})
    connection.execute(RATERS.delete().where(RATERS.c.id == rater))


def key_of(table: sa.Table, row: Mapping) -> tuple:
    """The values of the primary key."""
    return tuple(row[column.name] for column in table.primary_key.columns)


def check(rows: Rows) -> None:
    """Refuse rows that no store could have written, each by itself. Raises ValueError naming the place of the first."""
    for table in TABLES:
        for place, row in rows[table]:
            try:
                check_row(table, row)
            except ValueError as error:
                raise ValueError(f"{place}: {error}; {NOTHING}") from None


class _Merge:
    """One merge: what is here, what comes, what follows from both."""

    def __init__(self, connection: sa.Connection, rows: Rows):
        self.connection, self.rows, self.report = connection, rows, TakenIn()
        self.here = {table: _by_key(table, connection.execute(sa.select(table)).mappings()) for table in TABLES}
        self.new: dict[sa.Table, list[dict]] = {table: [] for table in TABLES}
        raters = [row["id"] for row in self.here[RATERS].values()] + [row["id"] for _, row in rows[RATERS]]
        self.ids = {hashed(rater): rater for rater in raters}
        self.gone = self._gone()

    def _gone(self) -> dict[str, str | None]:
        """Hash of a rater who is gone -> the rater they were joined to, ``None`` for those who withdrew."""
        gone = {row["id"]: row["joined_to"] for row in self.here[WITHDRAWN].values()}
        for _, row in self.rows[WITHDRAWN]:
            there = gone.get(row["id"], row["joined_to"])
            gone[row["id"]] = there if row["joined_to"] is not None else None
        return gone

    def living(self, rater: str) -> str | None:
        """Who stands for this rater now; ``None`` for one who withdrew."""
        seen = set()
        while rater is not None and hashed(rater) in self.gone and rater not in seen:
            seen.add(rater)
            rater = self.gone[hashed(rater)]
        return None if rater in seen else rater

    def take(self) -> TakenIn:
        """Look at everything, then write."""
        self._people()
        for table in (CONSENTS, STIMULI):
            self._rows(table, self.rows[table])
        living = {row["id"]: self.living(row["id"]) for _, row in self.rows[RATERS]}
        living |= {key[0]: self.living(key[0]) for key in self.here[RATERS]}
        sessions = []
        for place, row in self.rows[SESSIONS]:
            if row["rater"] not in living:
                raise ValueError(f"{place}: rater {row['rater']!r} is not in raters; {NOTHING}")
            sessions.append((place, row | {"rater": living[row["rater"]]}))
        out = {row["id"] for _, row in sessions if row["rater"] is None}
        self._left_out(SESSIONS, len(out))
        self._rows(SESSIONS, [(place, row) for place, row in sessions if row["rater"] is not None])
        self._of_their_stimuli(sessions)
        for table in (RATINGS, CHOICES):
            kept = [(place, row) for place, row in self.rows[table] if row["session"] not in out]
            self._left_out(table, len(self.rows[table]) - len(kept))
            self._rows(table, kept)
        self._write()
        return self.report

    def _left_out(self, table: sa.Table, count: int) -> None:
        if count:
            self.report.left_out[table.name] = count

    def _people(self) -> None:
        """New raters, and codes that two would share. A rater who is here keeps the code that they have here."""
        codes = {row["code"]: row["id"] for row in self.here[RATERS].values() if self.living(row["id"]) == row["id"]}
        known = out = 0
        for place, row in self.rows[RATERS]:
            living = self.living(row["id"])
            if living is None:
                out += 1
            elif (row["id"],) in self.here[RATERS] or living != row["id"]:
                known += 1
            elif codes.setdefault(row["code"], row["id"]) != row["id"]:
                raise ValueError(
                    f"{place}: the code {row['code']!r} belongs to another rater here; rename one of the two (rename), and, if "
                    f"they are one person, join them afterwards (unite); {NOTHING}"
                )
            else:
                self.new[RATERS].append(row)
        self.report.known[RATERS.name], self.report.new[RATERS.name] = known, len(self.new[RATERS])
        self._left_out(RATERS, out)

    def _rows(self, table: sa.Table, rows: list[tuple[str, dict]]) -> None:
        """What is new of a table; refuses what disagrees with what is here, or refers to nothing."""
        there, known = dict(self.here[table]), 0
        if table is SESSIONS:  # they may have been joined to another rater here
            there = {key: row | {"rater": self.living(row["rater"])} for key, row in there.items()}
        foreign = {column.name: key.column for column in table.columns for key in column.foreign_keys}
        present = {name: self._present(target, table, rows) for name, target in foreign.items()}
        for place, row in rows:
            key = key_of(table, row)
            if key in there:
                if there[key] != row:
                    text = ", ".join(map(str, key))
                    raise ValueError(f"{place}: {text} is here already and says something else; {NOTHING}")
                known += 1
                continue
            for name, target in foreign.items():
                if row[name] is not None and row[name] not in present[name]:
                    raise ValueError(f"{place}: {name} {row[name]!r} is not in {target.table.name}; {NOTHING}")
            there[key] = row
            self.new[table].append(row)
        self.report.known[table.name], self.report.new[table.name] = known, len(self.new[table])

    def _present(self, target: sa.Column, table: sa.Table, rows: list[tuple[str, dict]]) -> set:
        if target.table is table:  # a repeat comes with what it repeats
            return {key[0] for key in self.here[table]} | {row[target.name] for _, row in rows}
        return {key[0] for key in self.here[target.table]} | {row[target.name] for row in self.new[target.table]}

    def _of_their_stimuli(self, sessions: list[tuple[str, dict]]) -> None:
        """Sessions list stimuli that there are; ratings and choices are of their session's."""
        stimuli = {key[0] for key in self.here[STIMULI]} | {row["id"] for row in self.new[STIMULI]}
        orders = {}
        for place, row in sessions:
            orders[row["id"]] = set(order_of(row["stimuli"]))
            if missing := orders[row["id"]] - stimuli:
                raise ValueError(f"{place}: stimuli names {min(missing)!r}, which is not in stimuli; {NOTHING}")
        for table, names in ((RATINGS, ("stimulus",)), (CHOICES, ("left", "right"))):
            for place, row in self.rows[table]:
                if row["session"] not in orders:
                    raise ValueError(f"{place}: session {row['session']!r} is not in sessions; {NOTHING}")
                for name in names:
                    if row[name] in stimuli and row[name] not in orders[row["session"]]:
                        raise ValueError(f"{place}: {name} {row[name]!r} is not one of its session's; {NOTHING}")

    def _write(self) -> None:
        run = self.connection.execute
        going = {rater: self.living(rater) for (rater,) in self.here[RATERS] if self.living(rater) != rater}
        for rater in going:  # who went away there goes away here, and somebody new may have their code
            run(RATERS.update().where(RATERS.c.id == rater).values(code=rater))
        for table in (CONSENTS, RATERS, STIMULI):
            for row in sorted(self.new[table], key=lambda row: row.get("of") is not None):  # what is repeated first
                run(table.insert(), row)
        for rater, now in going.items():
            if now is not None:
                run(SESSIONS.update().where(SESSIONS.c.rater == rater).values(rater=now))
            run(RATERS.delete().where(RATERS.c.id == rater))
            self.report.deleted += now is None
        for table in (SESSIONS, RATINGS, CHOICES):
            if self.new[table]:
                run(table.insert(), self.new[table])
        at = {row["id"]: row["at"] for _, row in self.rows[WITHDRAWN]} | {
            key[0]: row["at"] for key, row in self.here[WITHDRAWN].items()
        }
        for gone, joined in self.gone.items():
            joined = joined and self.living(joined)
            if (gone,) in self.here[WITHDRAWN]:
                run(WITHDRAWN.update().where(WITHDRAWN.c.id == gone).values(joined_to=joined))
            else:
                run(WITHDRAWN.insert(), {"id": gone, "at": at[gone], "joined_to": joined})


def _by_key(table: sa.Table, rows) -> dict[tuple, dict]:
    return {key_of(table, row): dict(row) for row in rows}


def merge_rows(connection: sa.Connection, rows: Rows) -> TakenIn:
    """Take in ``rows`` (of all ``TABLES``) within the transaction of ``connection``.

    Raises:
        ValueError: a row in conflict with what is here, or that refers to nothing; nothing is written then.
    """
    check(rows)
    return _Merge(connection, rows).take()
