"""Sessions: who gets which pictures in which order, and whose turn it is. Within a transaction of the store."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from creativelib.study.schema import SESSIONS, STIMULI, order_of


def free_turn(connection: sa.Connection, design: str, first: int) -> int:
    """The lowest turn of a design that nobody has, from the lowest that somebody has; ``first`` where nobody has one."""
    taken, other = SESSIONS.c.turn, SESSIONS.alias()
    following = (other.c.design == design) & (other.c.turn == taken + 1)
    free = sa.select(sa.func.min(taken + 1)).where(SESSIONS.c.design == design, ~sa.exists().where(following))
    turn = connection.execute(free).scalar()
    return first if turn is None else turn


def sessions_of(connection: sa.Connection, rater: str) -> Sequence[sa.Row]:
    query = sa.select(SESSIONS).where(SESSIONS.c.rater == rater)
    return connection.execute(query.order_by(SESSIONS.c.started_at, SESSIONS.c.id)).all()


def found(connection: sa.Connection, rater: str, among: set[str]) -> str | None:
    return next((row.id for row in sessions_of(connection, rater) if set(order_of(row.stimuli)) <= among), None)


def new_session(
    connection: sa.Connection, rater: str, stimuli: Sequence[str], scale: str, design: str | None, turn: int | None
) -> str:
    known = set(connection.execute(sa.select(STIMULI.c.id)).scalars())
    if missing := [stimulus for stimulus in stimuli if stimulus not in known]:
        raise ValueError(f"stimuli: {missing[0]!r} is not in the store; add it with add_stimuli first")
    row = {
        "id": uuid.uuid4().hex,
        "rater": rater,
        "stimuli": json.dumps(list(stimuli)),
        "started_at": datetime.now(UTC).isoformat(),
    }
    try:
        connection.execute(SESSIONS.insert(), row | {"scale": scale, "design": design, "turn": turn})
    except sa.exc.IntegrityError:
        raise ValueError(f"rater: there is no rater with the id {rater!r}; they may have withdrawn") from None
    return row["id"]


def row_of(connection: sa.Connection, session: str, lock: bool = False) -> sa.Row:
    query = sa.select(SESSIONS).where(SESSIONS.c.id == session)  # where a lock is asked for, one writer at a time
    found = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise ValueError(f"session: there is no session {session!r}; begin one")
    return found


def order_in(connection: sa.Connection, session: str, lock: bool = False) -> list[str]:
    return order_of(row_of(connection, session, lock).stimuli)
