"""What a study's database says, as data frames."""

import pandas as pd
import sqlalchemy as sa

from creativelib.study import dealing
from creativelib.study.database import Database
from creativelib.study.schema import CHOICES, RATERS, RATINGS, SESSIONS, STIMULI, latest, order_of


def session(database: Database, session: str) -> dict:
    """All of a session: see ``Store.view``."""
    with database.reading() as connection:
        row = dealing.row_of(connection, session)
        given = connection.execute(latest(RATINGS.c.session == session)).all()
        pairs = sa.select(CHOICES.c.left, CHOICES.c.right).where(CHOICES.c.session == session)
        chosen = [tuple(pair) for pair in connection.execute(pairs)]
    values = {one.stimulus: one.value for one in given if one.value is not None}
    return {
        "rater": row.rater,
        "scale": row.scale,
        "turn": row.turn,
        "order": order_of(row.stimuli),
        "given": values,
        "chosen": chosen,
    }


def ratings(database: Database) -> pd.DataFrame:
    """Current ratings: see ``Store.ratings``."""
    last = latest().subquery()
    query = (
        sa.select(
            RATERS.c.code.label("rater"), last.c.session, last.c.stimulus, last.c.value, last.c.milliseconds, last.c.rated_at,
            last.c.number, SESSIONS.c.scale, STIMULI.c.kind, STIMULI.c.seed, STIMULI.c.iteration, STIMULI.c.surprise,
            STIMULI.c.of,
        )
        .join(SESSIONS, SESSIONS.c.id == last.c.session)
        .join(RATERS, RATERS.c.id == SESSIONS.c.rater)
        .join(STIMULI, STIMULI.c.id == last.c.stimulus)
        .where(last.c.value.is_not(None))
        .order_by(SESSIONS.c.started_at, SESSIONS.c.id, last.c.number, last.c.rated_at, last.c.stimulus)
    )  # fmt: skip
    return _frame(database, query)


def sessions(database: Database) -> pd.DataFrame:
    """Who has begun what: see ``Store.sessions``."""
    last = latest().subquery()
    counts = (
        sa.select(last.c.session, sa.func.count().label("rated"), sa.func.max(last.c.rated_at).label("last"))
        .where(last.c.value.is_not(None))
        .group_by(last.c.session)
        .subquery()
    )
    query = (
        sa.select(
            RATERS.c.code.label("rater"), RATERS.c.consented_at, SESSIONS.c.id.label("session"), SESSIONS.c.started_at,
            SESSIONS.c.scale, SESSIONS.c.turn, SESSIONS.c.stimuli, sa.func.coalesce(counts.c.rated, 0).label("rated"),
            counts.c.last,
        )
        .join(SESSIONS, SESSIONS.c.rater == RATERS.c.id)
        .outerjoin(counts, counts.c.session == SESSIONS.c.id)
        .order_by(SESSIONS.c.started_at, SESSIONS.c.id)
    )  # fmt: skip
    frame = _frame(database, query)
    return frame.assign(stimuli=[order_of(order) for order in frame["stimuli"]])


def choices(database: Database) -> pd.DataFrame:
    """Paired choices: see ``Store.choices``."""
    query = sa.select(RATERS.c.code.label("rater"), CHOICES, SESSIONS.c.scale)
    query = query.join(SESSIONS, SESSIONS.c.id == CHOICES.c.session)
    query = query.join(RATERS, RATERS.c.id == SESSIONS.c.rater)
    return _frame(database, query.order_by(SESSIONS.c.started_at, SESSIONS.c.id, CHOICES.c.chosen_at))


def _frame(database: Database, query: sa.Select) -> pd.DataFrame:
    with database.reading() as connection:
        result = connection.execute(query)
        return pd.DataFrame(result.all(), columns=list(result.keys()))


def rater(connection: sa.Connection, code: str) -> str:
    """The id of the rater with this code.

    Raises:
        ValueError: there is none.
    """
    found = connection.execute(sa.select(RATERS.c.id).where(RATERS.c.code == code)).scalar()
    if found is None:
        raise ValueError(f"code: there is no rater {code!r}")
    return found
