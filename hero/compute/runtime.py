"""A compute service put together: in which order its parts start and stop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from hero.compute.actor import VmActor
from hero.compute.api import ComputeService
from hero.compute.backends import Backend
from hero.compute.loop import INTERVAL, ReconcileLoop
from hero.compute.metrics import NodeMetrics
from hero.compute.model import NodeStatus, Vm
from hero.compute.node import NodeFacts, load
from hero.compute.record import VmRecord
from hero.compute.recovery import close_interrupted
from hero.compute.service import NodeCompute
from hero.compute.store import VmStore
from hero.compute.view import describe_node, describe_vm
from hero.errors import HeroError
from hero.events import EventLog
from hero.operation_log import OperationLog
from hero.paths import HeroPaths
from hero.rpc.site import UnixService, service_site
from hero.store import Database

#: The image that is made ready at start, so that the first deploy need not wait for it.
_FIRST_IMAGE = "micro"


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class ComputeRuntime(MultiService):
    """The compute service of one node.

    Its children start once the node is ready to answer: add there what needs it, such as the
    sender of heartbeats. *failed* is called with what kept it from becoming ready.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        paths: HeroPaths,
        facts: NodeFacts,
        backend: Backend,
        database: Database,
        failed: Callable[[str], None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.facts = facts
        #: Called after a VM's record was written.
        self.on_change: Callable[[], None] = lambda: None
        #: Each tells of something that is wrong with the node, or None.
        self.complaints: list[Callable[[], str | None]] = [backend.problem]
        self._clock = reactor
        self._backend = backend
        self._database = database
        self._failed = failed
        self._starting: Deferred[None] | None = None
        self._ready = False
        self._excess_slices = 0
        self._events = EventLog(reactor)
        self._store = VmStore(database, utc_now)
        self._operations = OperationLog(database, reactor, self._events, node_sid=facts.sid)
        self._actor = VmActor(
            store=self._store,
            hypervisor=backend.hypervisor,
            images=backend.images,
            vms_dir=paths.vms,
            now=utc_now,
            changed=self._changed,
        )
        self._loop = ReconcileLoop(
            clock=reactor, store=self._store, hypervisor=backend.hypervisor, actor=self._actor
        )
        self.api = NodeCompute(
            clock=reactor,
            now=utc_now,
            facts=facts,
            store=self._store,
            actor=self._actor,
            hypervisor=backend.hypervisor,
            images=backend.images,
            operations=self._operations,
            status=self.status,
        )
        registry = CollectorRegistry()
        self._metrics = NodeMetrics(registry)
        site = service_site(
            reactor=reactor,
            name="hero_compute",
            description=f"Virtual machines of the node {facts.name}",
            access="cluster",
            rpc={"cloud": {ComputeService: self.api}},
            registry=registry,
            events=self._events,
            health=self._health,
        )
        self.addService(UnixService(reactor, paths.compute_socket, site))  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Open the database, look at the guests, then answer."""
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    def stopService(self) -> Deferred[None]:
        """Answer no more; leave guests running and unfinished work for the next start."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._ready = False
        if self._starting is not None:
            self._starting.cancel()
        self._actor.stop()
        self._loop.stop()
        if self.running:
            await super().stopService()  # type: ignore[no-untyped-call]
        self._operations.stop()
        self._backend.hypervisor.close()
        self._database.close()

    async def status(self) -> NodeStatus:
        """The node as it is now."""
        slices = await self._store.slices()
        records = await self._store.all()
        status = describe_node(
            self.facts,
            slices=slices,
            records=records,
            load=load(),
            accelerator=self._backend.accelerator(),
            problems=self._problems(),
        )
        self._metrics.update(status)
        return status

    async def vms(self) -> list[Vm]:
        """Every VM of the node, of all contexts."""
        now = utc_now()
        return [describe_vm(r, self.facts, observed_at=now) for r in await self._store.all()]

    async def _start(self) -> None:
        self._database.open()
        self._excess_slices = await self._store.divide(self.facts.division)
        interrupted = await self._operations.interrupted()
        under_way = await self._look()
        super().startService()  # type: ignore[no-untyped-call]
        self._ready = True
        self._loop.start()
        self._log.info(
            "node {name} ({node}): {slices} slices, hypervisor {hypervisor}",
            name=self.facts.name,
            node=self.facts.sid,
            slices=self.facts.division.count,
            hypervisor=self.facts.hypervisor,
        )
        while under_way is None:
            await deferLater(self._clock, INTERVAL)
            under_way = await self._look()
        await under_way
        await close_interrupted(
            interrupted,
            store=self._store,
            log=self._operations,
            database=self._database,
            describe=self.api.describe,
        )
        await self._prepare_image()

    async def _look(self) -> Deferred[list[tuple[bool, None]]] | None:
        """Begin what is to be done about the guests; None where they cannot be looked at now."""
        try:
            return await self._loop.begin()
        except Exception:
            self._log.failure("the guests could not be looked at")
            return None

    def _start_failed(self, failure: Any) -> None:
        if failure.check(CancelledError):
            return
        if self._ready:
            self._log.failure("interrupted operations could not be closed", failure)
            return
        error = failure.value
        if not isinstance(error, HeroError):
            self._log.failure("the node did not get ready", failure)
            self._failed(str(error))
        else:
            self._failed("\n".join(filter(None, (error.detail, error.hint))))

    async def _prepare_image(self) -> None:
        try:
            await self._backend.images.get(_FIRST_IMAGE)
        except HeroError as error:
            self._log.warn("image {image}: {error}", image=_FIRST_IMAGE, error=error.detail)

    async def _health(self) -> dict[str, Any]:
        problems = self._problems()
        await self._store.slices()
        return {"status": "ok" if self._ready else "starting", "problems": problems}

    def _problems(self) -> list[str]:
        found = [complaint() for complaint in self.complaints]
        found.append(self._loop.problem)
        if self._excess_slices:
            found.append(f"{self._excess_slices} slices are in use beyond what the machine has now")
        if self._loop.unknown_guests:
            found.append(f"guests without a record: {', '.join(self._loop.unknown_guests)}")
        if self.facts.division.count == 0:
            found.append(
                "the machine has too little memory for one slice: set HERO_SLICE_MEMORY to less"
            )
        elif self.facts.division.disk == 0:
            found.append("the file system of the VMs is full: new ones get no disk")
        return [problem for problem in found if problem is not None]

    def _changed(self, record: VmRecord) -> None:
        vm = self.api.describe(record)
        data = msgspec.to_builtins(vm)
        self._events.publish("vm", {**data, "deleted": record.deleted_at is not None})
        self.on_change()
