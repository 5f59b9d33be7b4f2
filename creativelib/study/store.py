"""Where the ratings of a study are kept: one database file, or any database that SQLAlchemy knows, a transaction a rating."""

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from creativelib.study import csv_files, dealing, reading, transfer
from creativelib.study.codes import canonical
from creativelib.study.database import Database
from creativelib.study.merging import TakenIn, bury, hashed
from creativelib.study.schema import (
    CHOICES,
    CONSENTS,
    CREATIVE,
    RATERS,
    RATINGS,
    SESSIONS,
    STIMULI,
    WITHDRAWN,
    checked_stimulus,
    look,
    order_of,
    rating_value,
)  # fmt: skip

CHANGES = 20  # answers to each picture of a session that are kept, on average: nobody wavers more, and a script would for ever


def _now() -> str:
    return datetime.now(UTC).isoformat()


class Store:
    """Raters, stimuli, sessions, ratings and paired choices of a study.

    A rating is on disk when ``rate`` returns. Several processes may write at once. Raters are pseudonymous: a code, what they
    agreed to and when are all that is kept, and ``delete_rater`` deletes it with everything of theirs.

    Args:
        where: a file (SQLite, made where there is none; ``~`` is one's home), or a database URL such as
            ``postgresql+psycopg://host/name``.

    Raises:
        ValueError: a file or a database of another program. Unavailable (an OSError, from every method): the database cannot
            be reached, or not be written, now; nothing was kept, and the call can be repeated.
    """

    def __init__(self, where: str | Path):
        self.database = Database(where)

    def __repr__(self) -> str:
        return f"Store({self.place!r})"

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    @property
    def place(self) -> str:
        """The file or URL, without a password."""
        return self.database.place

    # --- who and what -------------------------------------------------------------------------------------------------

    def add_stimuli(self, stimuli: Iterable[Mapping]) -> None:
        """Add stimuli: mappings with ``id`` (blinded), ``kind`` (one of ``KINDS``), ``sha256`` of the picture, and, where they
        are known, ``seed``, ``iteration``, ``surprise`` (nats) and ``of`` (what a repeat repeats). Equal ones count once.

        Raises:
            ValueError: an unknown kind or field, a surprise that is not finite, or another stimulus of the same id.
        """
        rows = [checked_stimulus(given) for given in stimuli]
        with self.database.reading() as connection:
            known = {row["id"]: dict(row) for row in connection.execute(sa.select(STIMULI)).mappings()}
        if any(known.get(row["id"]) != row for row in rows):
            transfer.take_in(self.database, {STIMULI: [("stimuli", row) for row in rows]})

    def rater(
        self, code: str, *, consent: bool, text: str | None = None, id: str | None = None, source: dict | None = None
    ) -> str:
        """The id of the rater of this code, who is made on the first call. Codes are pseudonyms: take no names.

        Args:
            consent: they have agreed. text: to what; kept once for all who agreed to it.
            id: 32 hexadecimal digits that a new rater gets; a random one by default. source: what a panel provider sent along.

        Raises:
            ValueError: a code that ``codes.canonical`` does not take, or no consent.
        """
        code = canonical(code)
        if consent is not True:
            raise ValueError(f"consent: got {consent!r}; nobody is rated with who has not agreed (consent=True)")
        with self.database.reading() as connection:
            mine = sa.select(RATERS.c.id).where((RATERS.c.code == code) | (RATERS.c.id == id))
            if found := connection.execute(mine).scalar():
                return found
            if id and connection.execute(sa.select(WITHDRAWN.c.id).where(WITHDRAWN.c.id == hashed(id))).scalar():
                raise ValueError("id: this rater has withdrawn; begin anew under another id")
        row = {"id": id or uuid.uuid4().hex, "code": code, "consented_at": _now(), "consent": None}
        row["source"] = json.dumps(source) if source else None
        if text is not None:
            row["consent"] = hashlib.sha256(text.encode()).hexdigest()
            self._keep_text(row["consent"], text)
        try:
            with self.database.writing() as connection:
                connection.execute(RATERS.insert(), row)
        except sa.exc.IntegrityError:  # another process was quicker
            return self.rater(code, consent=True, id=id)
        return row["id"]

    def known(self, code: str) -> str | None:
        """The id of the rater of this code; ``None`` where there is none. Raises ValueError for what is no code."""
        code = canonical(code)
        with self.database.reading() as connection:
            return connection.execute(sa.select(RATERS.c.id).where(RATERS.c.code == code)).scalar()

    def code(self, rater: str) -> str | None:
        """The code of the rater of this id; ``None`` where there is none."""
        with self.database.reading() as connection:
            return connection.execute(sa.select(RATERS.c.code).where(RATERS.c.id == rater)).scalar()

    def source(self, rater: str) -> dict[str, str]:
        """What a panel provider sent along with the rater of this id."""
        with self.database.reading() as connection:
            return json.loads(connection.execute(sa.select(RATERS.c.source).where(RATERS.c.id == rater)).scalar() or "{}")

    def _keep_text(self, digest: str, text: str) -> None:
        with self.database.reading() as connection:
            if connection.execute(sa.select(CONSENTS.c.id).where(CONSENTS.c.id == digest)).scalar():
                return
        with suppress(sa.exc.IntegrityError), self.database.writing() as connection:  # another process was quicker
            connection.execute(CONSENTS.insert(), {"id": digest, "text": text})

    def delete_rater(self, code: str) -> None:
        """Delete a rater, and with them their sessions, ratings and choices, for good: a merge or an older export does not
        bring them back, for a hash of their (random) id stays. Raises ValueError for an unknown code.
        """
        with self.database.writing() as connection:
            rater = reading.rater(connection, canonical(code))
            bury(connection, rater, None)
        self.database.forget()

    def rename(self, code: str, new: str) -> None:
        """Give a rater another code. Raises ValueError for an unknown code, or a new one that is somebody else's."""
        new = canonical(new)
        try:
            with self.database.writing() as connection:
                rater = reading.rater(connection, canonical(code))
                connection.execute(RATERS.update().where(RATERS.c.id == rater).values(code=new))
        except sa.exc.IntegrityError:
            raise ValueError(f"new: {new!r} is another rater's code; to join two of one person use unite") from None

    def unite(self, code: str, other: str) -> None:
        """One person rated under two codes, for example on two devices: what ``other`` gave is ``code``'s from now on, here and
        after merges. A picture that they rated in both sessions has two ratings.

        Raises:
            ValueError: an unknown code, or one with itself.
        """
        with self.database.writing() as connection:
            keep, gone = (reading.rater(connection, canonical(one)) for one in (code, other))
            if keep == gone:
                raise ValueError(f"other: {other!r} is the same rater as {code!r}; give two")
            connection.execute(SESSIONS.update().where(SESSIONS.c.rater == gone).values(rater=keep))
            bury(connection, gone, keep)
        self.database.forget()

    # --- rating -------------------------------------------------------------------------------------------------------

    def begin(self, rater: str, stimuli: Sequence[str], scale: str = CREATIVE) -> str:
        """The session of a rater with these stimuli, in the order to show them: the one that they left, else a new one.

        Args:
            rater: an id from ``rater``. stimuli: ids, which are kept with the session. scale: what is asked.

        Raises:
            ValueError: no stimuli, one twice, or unknown ones.
        """
        stimuli = list(stimuli)
        if not stimuli or len(set(stimuli)) < len(stimuli):
            raise ValueError(f"stimuli: got {len(stimuli)}, {len(set(stimuli))} of them different; give one or more, each once")
        with self.database.writing() as connection:
            for row in dealing.sessions_of(connection, rater):
                if set(order_of(row.stimuli)) == set(stimuli) and row.scale == scale:
                    return row.id
            return dealing.new_session(connection, rater, stimuli, scale, None, None)

    def find(self, rater: str, among: Collection[str]) -> str | None:
        """The first session of a rater all of whose stimuli are ``among`` these; ``None`` where there is none."""
        with self.database.reading() as connection:
            return dealing.found(connection, rater, set(among))

    def deal(
        self, rater: str, among: Collection[str], assign: Callable[[int], tuple[str, Sequence[str]]], *, first: int = 0
    ) -> str:
        """The session of a rater in the design of these stimuli: the one that they began, else a new one on the next free turn.

        Turns are handed out one after the other, whoever joins at the same time. One that was withdrawn is dealt again, and so
        is one whose rater left pictures unrated and was not seen for ``dealing.IDLE``; who comes back goes on all the same.

        Args:
            among: all stimuli of the design. assign: turn -> scale and order; must return quickly. first: the first turn.
        """
        design = hashlib.sha256("\n".join(sorted(among)).encode()).hexdigest()[:16]
        with self.database.writing() as connection:
            self.database.lock(connection, transfer.DEALING)
            if mine := dealing.found(connection, rater, set(among)):
                return mine
            turn = dealing.left_turn(connection, design)
            turn = dealing.free_turn(connection, design, first) if turn is None else turn
            scale, order = assign(turn)
            return dealing.new_session(connection, rater, order, scale, design, turn)

    def order(self, session: str) -> list[str]:
        """The stimuli of a session in the order to show them. Raises ValueError for an unknown session."""
        with self.database.reading() as connection:
            return dealing.order_in(connection, session)

    def scale(self, session: str) -> str:
        """What the ratings of a session say. Raises ValueError for an unknown session."""
        with self.database.reading() as connection:
            return dealing.row_of(connection, session).scale

    def given(self, session: str) -> dict[str, int]:
        """The current value of every stimulus that is rated, in the order of the session."""
        with self.database.reading() as connection:
            latest = {row.stimulus: row.value for row in connection.execute(reading.latest(RATINGS.c.session == session))}
            return {name: latest[name] for name in dealing.order_in(connection, session) if latest.get(name) is not None}

    def view(self, session: str) -> dict:
        """All of a session at once: rater (id), scale, turn, order, given (current values by stimulus) and chosen (pairs, as
        tuples). Raises ValueError for an unknown session.
        """
        return reading.session(self.database, session)

    def next(self, session: str) -> str | None:
        """The first stimulus that has no rating yet; ``None`` when all have."""
        given = self.given(session)
        return next((stimulus for stimulus in self.order(session) if stimulus not in given), None)

    def rate(
        self,
        session: str,
        stimulus: str,
        value: int,
        milliseconds: int | None = None,
        *,
        answer: str | None = None,
        correct: bool = True,
    ) -> bool:
        """Keep one rating; it is on disk when this returns. The same value again (a double click, a reload) changes nothing;
        another value corrects the first, which stays as an earlier revision.

        Args:
            value: 0 to 5. milliseconds: how long the stimulus was seen; more than an hour is kept as an hour.
            answer: a name for this answer, one of its own in the session: one that comes again is known, whatever followed it,
                and whether or not it changed anything.
            correct: another value corrects; else a stimulus that is rated keeps its first one until it is taken back.

        Returns:
            Whether the rating is another one now.

        Raises:
            ValueError: a value off the scale, a stimulus that is not of this session, or more than ``CHANGES`` answers to each.
        """
        row = {"stimulus": stimulus, "value": rating_value(value), "milliseconds": look(milliseconds), "answer": answer}
        return self._revise(session, row, correct)

    def undo(self, session: str) -> str | None:
        """Take back the rating given last and return its stimulus, or ``None`` where there is none."""
        with self.database.reading() as connection:
            latest = reading.latest(RATINGS.c.session == session).order_by(RATINGS.c.number.desc(), RATINGS.c.rated_at.desc())
            last = next((row.stimulus for row in connection.execute(latest) if row.value is not None), None)
        if last is not None:
            self.take_back(session, last)
        return last

    def take_back(self, session: str, stimulus: str, *, answer: str | None = None) -> bool:
        """Take the rating of one stimulus back; returns whether there was one. ``answer`` and errors: as ``rate``."""
        row = {"stimulus": stimulus, "value": None, "milliseconds": None, "answer": answer}
        return self._revise(session, row, correct=True)

    def _revise(self, session: str, row: dict, correct: bool) -> bool:
        with self.database.writing() as connection:
            if row["stimulus"] not in (order := dealing.order_in(connection, session, lock=True)):
                raise ValueError(f"stimulus: {row['stimulus']!r} is not one of this session's")
            mine = connection.execute(sa.select(RATINGS).where(RATINGS.c.session == session)).all()
            revisions = sorted((one for one in mine if one.stimulus == row["stimulus"]), key=lambda one: one.revision)
            now = revisions[-1].value if revisions else None
            if row["answer"] is not None and any(one.answer == row["answer"] for one in mine):
                return False
            row |= {"revision": len(revisions), "number": max((one.number for one in mine), default=0) + 1, "rated_at": _now()}
            changed = now != row["value"] and (now is None or correct)
            if not changed and row["answer"] is None:
                return False
            if len(mine) >= CHANGES * len(order):
                raise ValueError(f"session: it has {len(mine)} answers to {len(order)} pictures; no more changes are kept")
            if not changed and revisions:  # it says what is so, or came too late: kept under its name, or a copy of it that is
                same = ("value", "milliseconds", "number", "rated_at")  # sent again after an undo would count
                row |= {name: getattr(revisions[-1], name) for name in same}
            connection.execute(RATINGS.insert(), row | {"session": session})
        return changed

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
            with self.database.writing() as connection:
                connection.execute(CHOICES.insert(), row)
        except sa.exc.IntegrityError:
            return False
        return True

    # --- reading ------------------------------------------------------------------------------------------------------

    def ratings(self) -> pd.DataFrame:
        """Current ratings joined with what is known of the stimuli: rater (code), session, stimulus, value, milliseconds,
        rated_at, number (in the session), scale, kind, seed, iteration, surprise (nats), of; session by session, the earliest
        first, and within one in the order they were given in.
        """
        return reading.ratings(self.database)

    def sessions(self) -> pd.DataFrame:
        """Who has begun what: rater (code), consented_at, session, started_at, scale, turn, stimuli (list of ids, in the order
        shown), rated (how many have a rating), last (when the last of them was given); the earliest first. A rater who agreed
        and began nothing is not here.
        """
        return reading.sessions(self.database)

    def withdrawals(self) -> int:
        """How many raters have withdrawn; who comes again, or had two codes, counts each time."""
        with self.database.reading() as connection:
            return connection.execute(sa.select(sa.func.count()).where(WITHDRAWN.c.joined_to.is_(None))).scalar()

    def choices(self) -> pd.DataFrame:
        """Paired choices: rater (code), session, left, right, chosen, chosen_at, scale (which was asked)."""
        return reading.choices(self.database)

    # --- leaving and coming -------------------------------------------------------------------------------------------

    def backup(self, path: str | Path) -> Path:
        """Write everything to one SQLite file, whole at any time, also while people rate; returns its path.

        A copy made by other means can lack what is in the log beside the file: send a backup instead.

        Raises:
            FileExistsError: there is such a file.
        """
        return transfer.backup(self.database, Path(path))

    def export_csv(self, folder: str | Path) -> Path:
        """Write every table to ``folder``, one CSV each, without loss, with a manifest of their rows and digests; all or
        nothing, and an earlier export is replaced. Who withdrew is in none made later; delete the earlier ones.

        Raises:
            FileExistsError: the folder holds something else.
        """
        everything = transfer.rows_of(self.database, self.place)
        rows = {table: [tuple(row.values()) for _, row in lines] for table, lines in everything.items()}
        return csv_files.write_folder(Path(folder).expanduser(), rows)

    def import_csv(self, folder: str | Path) -> TakenIn:
        """Take in what ``export_csv`` wrote, here or in somebody else's store: rows that are there already count once, and
        who withdrew here stays away, who withdrew there goes.

        All or nothing: a file that is malformed or cut off, or disagrees with this store, is refused with its line and changes
        nothing. Files that Excel has saved (a mark at the beginning, semicolons, UTF-16, Windows-1252) are read.

        Returns:
            What came in; its text is a sentence.

        Raises:
            FileNotFoundError: a file is missing. ValueError: malformed, or in conflict with what is here.
        """
        rows, changed = csv_files.read_folder(Path(folder).expanduser())
        return transfer.take_in(self.database, rows, changed)

    def merge(self, other: str | Path) -> TakenIn:
        """Take in another store, for example a classmate's file, which is only read. As ``import_csv``.

        Raises:
            FileNotFoundError: no such file. ValueError: no store of ratings, or in conflict with what is here.
        """
        return transfer.take_in(self.database, transfer.rows_of_other(other))
