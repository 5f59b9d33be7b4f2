"""A study's database as a whole: copied to one file, read from another one, taken in from there."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from creativelib.study.database import Database, snapshot
from creativelib.study.merging import Rows, TakenIn, merge_rows
from creativelib.study.schema import TABLES

DEALING = 727275  # the lock under which turns are handed out, and stores merged


def take_in(database: Database, rows: Mapping, changed: Sequence[str] = ()) -> TakenIn:
    """Take in rows of some or all tables in one transaction, of files of which some were ``changed`` since they were written.
    Raises ValueError as ``merge_rows``.
    """
    with database.writing() as connection:
        database.lock(connection, DEALING)
        report = merge_rows(connection, {table: rows.get(table, []) for table in TABLES})
    if report.deleted:
        database.forget()
    report.changed = list(changed)
    return report


def rows_of(database: Database, name: object) -> Rows:
    """Every row of every table, with the place that errors say."""
    with database.reading() as connection:
        return {
            table: [
                (f"{name}: {table.name}", dict(row))
                for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns)).mappings()
            ]
            for table in TABLES
        }


def rows_of_other(other: str | Path) -> Rows:
    """The rows of somebody else's file or database, which is only read. Raises as ``Store.merge``."""
    try:
        if "://" in str(other):
            with closing(Database(other, make=False)) as database:
                return rows_of(database, database.place)
        with snapshot(Path(other).expanduser()) as copy, closing(Database(copy)) as database:  # brought up to date, if older
            return rows_of(database, other)
    except ValueError as error:
        raise ValueError(str(error).replace("where: ", "other: ").replace("copy.sqlite", Path(str(other)).name)) from None


def backup(database: Database, path: Path) -> Path:
    """All of a database in one SQLite file: see ``Store.backup``."""
    path = path.expanduser().absolute()
    if path.exists():
        raise FileExistsError(f"path: {path} is there already; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if database.path is not None:
            with snapshot(database.path) as copy, closing(sqlite3.connect(copy)) as source:
                with closing(sqlite3.connect(partial)) as target:
                    source.backup(target)
        else:
            with closing(Database(partial)) as made:
                take_in(made, rows_of(database, database.place))
        with closing(sqlite3.connect(partial)) as target:
            target.execute("PRAGMA journal_mode=DELETE")  # one file, which opens in a folder that may not be written too
        os.replace(partial, path)
    finally:
        for ending in ("", "-wal", "-shm", "-journal"):
            partial.with_name(partial.name + ending).unlink(missing_ok=True)
    return path
