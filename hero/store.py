"""A database of ours: SQLAlchemy Core in one worker thread, migrated by Alembic.

SQLite runs with a write-ahead log and ``synchronous=FULL``: what a finished transaction wrote
survives the loss of power.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from hero.errors import Unavailable

_T = TypeVar("_T")


class _Uncancellable(Deferred[_T]):
    def cancel(self) -> None:
        """Go on: the worker thread cannot be stopped half-way."""


class Database:
    """Transactions, one at a time, off the reactor's thread.

    *url* is SQLAlchemy's (``sqlite:////path/to/file.db``). *migrations* is the directory of the
    Alembic scripts that define the schema.
    """

    def __init__(self, reactor: IReactorThreads, url: str, migrations: Path) -> None:
        self._reactor = reactor
        self._url = url
        self._migrations = migrations
        self._pool = ThreadPool(1, 1, name="database")
        self._engine: Engine | None = None

    def open(self) -> None:
        """Bring the schema up to date and start the worker thread. Blocks; call before serving.

        Raises `Unavailable` where the file is not a database, or one of a newer version.
        """
        self._engine = _engine(self._url)
        try:
            with self._engine.begin() as connection:
                migrate(connection, self._migrations)
        except (SQLAlchemyError, CommandError) as error:
            raise Unavailable(
                f"the database {self._engine.url} cannot be used: {getattr(error, 'orig', error)}",
                hint="restore it from a backup, or use the version of Hero that it was made by",
            ) from error
        self._pool.start()

    def run(self, work: Callable[[Connection], _T]) -> Deferred[_T]:
        """Run ``work(connection)`` in a transaction; the result is what it returns.

        An exception from *work* rolls the transaction back and is the Deferred's failure. A
        transaction cannot be cancelled: whoever waits for it learns how it ended.
        """
        outcome: _Uncancellable[_T] = _Uncancellable()
        deferToThreadPool(self._reactor, self._pool, self._transact, work).chainDeferred(outcome)
        return outcome

    def close(self) -> None:
        """Finish the transactions under way and let go of the file. Blocks for that long."""
        if self._pool.started:
            self._pool.stop()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _transact(self, work: Callable[[Connection], _T]) -> _T:
        assert self._engine is not None, "the database is not open"
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise Unavailable(
                    f"the disk is full on which {self._engine.url.database} is",
                    hint="make room on it, and call again",
                ) from error
            raise


def migrate(connection: Connection, migrations: Path) -> None:
    """Bring the schema behind *connection* to the newest revision in *migrations*."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if make_url(url).get_backend_name() == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    # Python's module would begin no transaction before a change of the schema, which would leave
    # the tables of a migration that was killed in the way of the next try.
    connection.isolation_level = None


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
