"""The compute service's own parts, with what is slow or random taken out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hero.compute.actor import VmActor
from hero.compute.guest import ImageFiles
from hero.compute.hypervisor.memory import MemoryHypervisor
from hero.compute.images.store import ImageStore, Recipe
from hero.compute.loop import ReconcileLoop
from hero.compute.model import NodeStatus, VmState, WantedState
from hero.compute.node import NodeFacts
from hero.compute.record import VmRecord
from hero.compute.schema import metadata
from hero.compute.service import NodeCompute
from hero.compute.slices import GIB, Division
from hero.compute.store import VmStore
from hero.operation_log import OperationLog

_T = TypeVar("_T")

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
FACTS = NodeFacts(
    sid="node-0000000000",
    name="alpha",
    version="1",
    boot_id="boot-0001",
    hypervisor="memory",
    started_at=START,
    vcpus=2,
    division=Division(count=3, memory=GIB, disk=10 * GIB),
)


class InlineDatabase:
    """`hero.store.Database` in memory, whose transactions are over at once."""

    def __init__(self) -> None:
        self.engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        metadata.create_all(self.engine)

    def run(self, work: Callable[[Connection], _T]) -> Deferred[_T]:
        return execute(self._transact, work)

    def close(self) -> None:
        self.engine.dispose()

    def _transact(self, work: Callable[[Connection], _T]) -> _T:
        with self.engine.begin() as connection:
            return work(connection)


def record(sid: str = "vm-0000000001", **changes: Any) -> VmRecord:
    """A VM that was just asked for."""
    plain = VmRecord(
        sid=sid,
        name=f"name-{sid[-1]}",
        context="root",
        image="micro",
        vcpus=1,
        memory=0,
        disk=0,
        state=VmState.REQUESTED,
        wanted=WantedState.RUNNING,
        created_at=START,
    )
    return attrs.evolve(plain, **changes)


class NodeTestCase(SynchronousTestCase):
    """A node with three slices of 1 GiB, and guests in memory."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        (self.directory / "images/micro").mkdir(parents=True)
        self.clock = Clock()
        self.clock.advance(START.timestamp())
        self.database = InlineDatabase()
        self.addCleanup(self.database.close)
        self.store = VmStore(self.database, self.now)  # type: ignore[arg-type]
        self.successResultOf(self.store.divide(FACTS.division))
        self.hypervisor = MemoryHypervisor(self.clock, self.directory)
        self.images = ImageStore(self.clock, self.directory / "images", (_recipe(),))
        self.written: list[VmRecord] = []
        self.actor = self.make_actor()
        self.operations = OperationLog(
            self.database,  # type: ignore[arg-type]
            self.clock,
            node_sid=FACTS.sid,
        )
        self.service = NodeCompute(
            clock=self.clock,
            now=self.now,
            facts=FACTS,
            store=self.store,
            actor=self.actor,
            hypervisor=self.hypervisor,
            images=self.images,
            operations=self.operations,
            status=self._no_status,
        )

    def make_actor(self) -> VmActor:
        return VmActor(
            store=self.store,
            hypervisor=self.hypervisor,
            images=self.images,
            vms_dir=self.directory,
            now=self.now,
            changed=self.written.append,
        )

    def make_loop(self) -> ReconcileLoop:
        return ReconcileLoop(
            clock=self.clock, store=self.store, hypervisor=self.hypervisor, actor=self.actor
        )

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.seconds(), UTC)

    def get(self, coroutine: Any) -> Any:
        """The result of *coroutine*, which has one already."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fails(self, coroutine: Any, *kinds: type[Exception]) -> Any:
        """The exception, one of *kinds*, that *coroutine* has ended with."""
        return self.failureResultOf(Deferred.fromCoroutine(coroutine), *kinds).value

    def deploy(self, sid: str = "vm-0000000001", **changes: Any) -> VmRecord:
        deployed: VmRecord = self.get(self.actor.deploy(record(sid, **changes), 1))
        return deployed

    def free_slices(self) -> int:
        return sum(s.state == "free" for s in self.successResultOf(self.store.slices()))

    async def _no_status(self) -> NodeStatus:
        raise NotImplementedError


def _recipe() -> Recipe:
    files = ImageFiles(name="micro")

    async def build(reactor: Any, directory: Path, progress: Any) -> ImageFiles:
        return files

    return Recipe("micro", "Nothing", lambda directory: files, build)
