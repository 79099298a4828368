"""Tests for the explorer's tables."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from twisted.trial.unittest import TestCase

from hero.explorer.schema import metadata
from tests.explorer.builders import a_database


class MigrationTests(TestCase):
    """The migrations and the tables that the code uses are the same."""

    async def test_nothing_left_to_migrate(self) -> None:
        """After all migrations the database is what `hero.explorer.schema` says."""

        def work(connection: Connection) -> list[object]:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))

        self.assertEqual(await a_database(self).run(work), [])
