"""What a node writes down about its VMs."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from twisted.trial.unittest import SynchronousTestCase

import hero.compute
from hero.compute.errors import SliceUnavailable
from hero.compute.model import VmState, WantedState
from hero.compute.schema import metadata
from hero.compute.slices import GIB, Division
from hero.errors import Conflict, NameTaken, NotFound
from hero.store import migrate
from tests.compute.inline import NodeTestCase, record


class StoreTests(NodeTestCase):
    """`VmStore`, a transaction at a time."""

    def test_create_takes_slices(self) -> None:
        """A VM's memory and disk are those of its slices."""
        made = self.successResultOf(self.store.create(record(), 2))
        self.assertEqual((len(made.slices), made.memory, made.disk), (2, 2 * GIB, 20 * GIB))
        self.assertEqual(self.free_slices(), 1)
        self.assertEqual(self.successResultOf(self.store.get(made.sid)), made)

    def test_refused_create_writes_nothing(self) -> None:
        """Neither a record nor a slice is taken."""
        self.failureResultOf(self.store.create(record(), 4), SliceUnavailable)
        self.failureResultOf(self.store.create(record(), 1, "slice-none"), NotFound)
        self.assertEqual(self.successResultOf(self.store.all()), [])
        self.assertEqual(self.free_slices(), 3)

    def test_names_are_unique_within_a_context(self) -> None:
        """Two contexts can have a VM of the same name."""
        first = self.successResultOf(self.store.create(record(name="web"), 1))
        again = record("vm-0000000002", name="web")
        error = self.failureResultOf(self.store.create(again, 1), NameTaken).value
        self.assertEqual(error.data["vm_sid"], first.sid)
        elsewhere = record("vm-0000000002", name="web", context="lab")
        self.successResultOf(self.store.create(elsewhere, 1))
        found = self.successResultOf(self.store.find("lab", "web"))
        self.assertEqual(found.sid, elsewhere.sid)
        self.failureResultOf(self.store.find("lab", first.sid), NotFound)

    def test_removed_vm_gives_everything_back(self) -> None:
        """Its name and slices are free, its sid is not, and it is remembered for a week."""
        made = self.successResultOf(self.store.create(record(name="web"), 3))
        removed = self.successResultOf(self.store.remove(made.sid))
        self.assertEqual(self.successResultOf(self.store.remove(made.sid)), removed)
        self.assertEqual(self.free_slices(), 3)
        self.failureResultOf(self.store.find("root", "web"), NotFound)
        self.failureResultOf(self.store.update(made.sid, wanted=WantedState.RUNNING), NotFound)
        self.failureResultOf(self.store.create(record(name="web"), 1), Conflict)
        self.successResultOf(self.store.create(record("vm-0000000002", name="web"), 1))
        self.clock.advance(timedelta(days=8).total_seconds())
        self.successResultOf(self.store.create(record("vm-0000000003"), 1))
        self.assertIsNone(self.successResultOf(self.store.get(made.sid)))

    def test_update_counts_and_checks(self) -> None:
        """Each write has a new revision; a state that cannot follow is a fault of ours."""
        made = self.successResultOf(self.store.create(record(), 1))
        after = self.successResultOf(self.store.update(made.sid, state=VmState.PROVISIONING))
        self.assertEqual(after.revision, made.revision + 1)
        self.failureResultOf(self.store.update(made.sid, state=VmState.RUNNING), ValueError)

    def test_pages(self) -> None:
        """Pages go by name, and keep to the state and labels asked for."""
        for number in range(3):
            labels = {"tier": "web" if number else "db"}
            made = record(f"vm-000000000{number}", name=f"n{number}", labels=labels)
            self.successResultOf(self.store.create(made, 1))

        def page(limit: int, after: str | None = None, **labels: str) -> tuple[list[str], bool]:
            found, more = self.successResultOf(
                self.store.page("root", state=None, labels=labels, limit=limit, after=after)
            )
            return [vm.name for vm in found], more

        self.assertEqual(page(2), (["n0", "n1"], True))
        self.assertEqual(page(2, "n1"), (["n2"], False))
        self.assertEqual(page(3, tier="web"), (["n1", "n2"], False))

    def test_divide_keeps_what_is_in_use(self) -> None:
        """A machine that shrank says how many slices are too many."""
        self.successResultOf(self.store.create(record(), 3))
        smaller = Division(count=1, memory=GIB, disk=GIB)
        self.assertEqual(self.successResultOf(self.store.divide(smaller)), 2)
        self.successResultOf(self.store.remove("vm-0000000001"))
        self.assertEqual(self.successResultOf(self.store.divide(smaller)), 0)
        self.assertEqual(len(self.successResultOf(self.store.slices())), 1)


class MigrationTests(SynchronousTestCase):
    """The Alembic scripts."""

    def test_scripts_make_the_schema(self) -> None:
        """What the scripts make is what the code expects; running them again changes nothing."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        engine = create_engine(f"sqlite:///{directory / 'test.db'}")
        self.addCleanup(engine.dispose)
        scripts = Path(hero.compute.__file__).with_name("migrations")
        for _ in range(2):
            with engine.begin() as connection:
                migrate(connection, scripts)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection)
            self.assertEqual(compare_metadata(context, metadata), [])
