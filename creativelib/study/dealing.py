"""Sessions: who gets which pictures in which order, and whose turn it is. Within a transaction of the store."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from creativelib.study.schema import CHOICES, RATINGS, SESSIONS, STIMULI, latest, order_of

IDLE = timedelta(hours=1)  # who has rated nothing for so long, and not all, has stopped


def now() -> datetime:
    return datetime.now(UTC)


def free_turn(connection: sa.Connection, design: str, first: int) -> int:
    """The lowest turn of a design that nobody has, from the lowest that somebody has; ``first`` where nobody has one."""
    taken, other = SESSIONS.c.turn, SESSIONS.alias()
    following = (other.c.design == design) & (other.c.turn == taken + 1)
    free = sa.select(sa.func.min(taken + 1)).where(SESSIONS.c.design == design, ~sa.exists().where(following))
    turn = connection.execute(free).scalar()
    return first if turn is None else turn


def left_turn(connection: sa.Connection, design: str) -> int | None:
    """The lowest turn of a design whose raters have all stopped before their last picture; ``None`` where there is none."""
    since = (now() - IDLE).isoformat()
    mine = (SESSIONS.c.design == design) & SESSIONS.c.turn.is_not(None)
    old = sa.select(SESSIONS.c.turn).where(mine).group_by(SESSIONS.c.turn).having(sa.func.max(SESSIONS.c.started_at) < since)
    sessions = connection.execute(sa.select(SESSIONS).where(mine, SESSIONS.c.turn.in_(old))).all()
    if not sessions:  # a class that joins at once costs no more than this
        return None
    these = sa.select(SESSIONS.c.id).where(mine)
    last, pairs = latest(RATINGS.c.session.in_(these)).subquery(), CHOICES.c.session.in_(these)
    rated = sa.select(last.c.session, sa.func.count(last.c.value), sa.func.max(last.c.rated_at)).group_by(last.c.session)
    chosen = sa.select(CHOICES.c.session, 2 * sa.func.count(), sa.func.max(CHOICES.c.chosen_at)).where(pairs)
    done: dict[str, list[tuple[int, str]]] = {}  # of each session, how many stimuli were answered and when the last was
    for query in (rated, chosen.group_by(CHOICES.c.session)):
        for session, count, at in connection.execute(query):
            done.setdefault(session, []).append((count, at))
    held = {
        row.turn for row in sessions if any(n >= len(order_of(row.stimuli)) or at >= since for n, at in done.get(row.id, []))
    }
    return min({row.turn for row in sessions} - held, default=None)


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
        "started_at": now().isoformat(),
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
