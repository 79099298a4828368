"""`hero.store`: transactions off the reactor's thread, in a database that survives."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

import sqlalchemy as sa
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from hero import store
from hero.errors import Unavailable
from hero.store import Database
from tests.rpc.pets import MIGRATIONS


class DatabaseTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.database = self.open()

    def open(self) -> Database:
        database = Database(reactor, f"sqlite:///{self.directory}/x.db", MIGRATIONS)
        database.open()
        self.addCleanup(database.close)
        return database

    async def count(self) -> int:
        query = sa.text("select count(*) from requests")
        return await self.database.run(lambda c: c.execute(query).scalar_one())

    @staticmethod
    def insert(connection: sa.Connection) -> None:
        connection.execute(
            sa.text("insert into requests values ('root', 'user:x', 'r1', '', null, 0)")
        )

    async def test_work_runs_in_another_thread_and_its_result_comes_back(self) -> None:
        name = await self.database.run(lambda c: threading.current_thread().name)
        self.assertNotEqual(name, threading.current_thread().name)

    async def test_finished_transaction_survives(self) -> None:
        await self.database.run(self.insert)
        self.database.close()
        self.database = self.open()
        self.assertEqual(await self.count(), 1)

    async def test_exception_rolls_back(self) -> None:
        def work(connection: sa.Connection) -> None:
            self.insert(connection)
            raise KeyError("no")

        with self.assertRaises(KeyError):
            await self.database.run(work)
        self.assertEqual(await self.count(), 0)

    async def test_full_disk(self) -> None:
        """It is told as what it is, and the next transaction may find room again."""

        def fill(connection: sa.Connection) -> None:
            connection.execute(sa.text("pragma max_page_count = 1"))
            connection.execute(sa.text("create table filling as select zeroblob(100000)"))

        with self.assertRaises(Unavailable) as caught:
            await self.database.run(fill)
        self.assertIn("x.db", caught.exception.detail)
        await self.database.run(lambda c: c.execute(sa.text("pragma max_page_count = 1000000")))
        await self.database.run(self.insert)
        self.assertEqual(await self.count(), 1)

    async def test_database_that_cannot_be_used(self) -> None:
        """A file that is something else, and one that a newer version wrote, are named."""
        write_version = "update alembic_version set version_num = '9999'"
        await self.database.run(lambda c: c.execute(sa.text(write_version)))
        self.database.close()
        for reason in ("9999", "not a database"):
            with self.assertRaises(Unavailable) as caught:
                self.open()
            self.assertIn("x.db", caught.exception.detail)
            self.assertIn(reason, caught.exception.detail)
            (self.directory / "x.db").write_bytes(b"something else" * 1000)

    async def test_transaction_under_way_is_not_cancelled(self) -> None:
        running = self.database.run(self.insert)
        running.cancel()
        await running
        self.assertEqual(await self.count(), 1)

    async def test_coroutine_that_waits_for_a_transaction_learns_how_it_ended(self) -> None:
        async def work() -> str:
            await self.database.run(self.insert)
            return "written"

        running = Deferred.fromCoroutine(work())
        running.cancel()
        self.assertEqual(await running, "written")

    async def test_migration_that_was_cut_short_is_made_again(self) -> None:
        """A service that dies while it makes its tables can still start."""
        url = f"sqlite:///{self.directory}/y.db"
        upgrade = store.command.upgrade

        def die(config: object, revision: str) -> None:
            upgrade(config, revision)
            raise KeyboardInterrupt

        database = Database(reactor, url, MIGRATIONS)
        self.addCleanup(database.close)
        with self.assertRaises(KeyboardInterrupt):
            self.patch(store.command, "upgrade", die)
            database.open()
        self.patch(store.command, "upgrade", upgrade)
        database.open()

    async def test_transactions_run_in_order(self) -> None:
        order: list[int] = []
        running = [self.database.run(lambda c, n=n: order.append(n)) for n in range(20)]
        for one in running:
            await one
        self.assertEqual(order, list(range(20)))

    async def test_what_was_written_survives_the_loss_of_power(self) -> None:
        def settings(connection: sa.Connection) -> list[object]:
            names = ("journal_mode", "synchronous", "foreign_keys")
            return [connection.execute(sa.text(f"PRAGMA {n}")).scalar_one() for n in names]

        self.assertEqual(await self.database.run(settings), ["wal", 2, 1])
