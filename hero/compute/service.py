"""ComputeService as one node answers it."""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from hero.compute.actor import Commit, Report, VmActor, no_commit, no_report
from hero.compute.console_log import read_console
from hero.compute.interfaces import IHypervisor, IImageStore
from hero.compute.model import (
    Image,
    ImagePage,
    NodeStatus,
    SlicePage,
    Vm,
    VmLog,
    VmPage,
    VmState,
    VmStats,
    WantedState,
)
from hero.compute.node import NodeFacts
from hero.compute.record import VmRecord
from hero.compute.store import VmStore
from hero.compute.view import describe_image, describe_slice, describe_vm
from hero.errors import Conflict, NotFound
from hero.operation_log import OperationLog
from hero.operations import Operation, OperationPage
from hero.rpc.declare import Call
from hero.sids import new_sid

#: Seconds between two looks at a console that somebody waits on.
_CONSOLE_POLL = 0.1


class NodeCompute:
    """Answers for the VMs of one node; see `hero.compute.api.ComputeService`.

    *status* makes the node's status, *now* tells the time. ``operations`` is where the framework
    keeps operations.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        now: Callable[[], datetime],
        facts: NodeFacts,
        store: VmStore,
        actor: VmActor,
        hypervisor: IHypervisor,
        images: IImageStore,
        operations: OperationLog,
        status: Callable[[], Awaitable[NodeStatus]],
    ) -> None:
        self.operations = operations
        self._clock = clock
        self._now = now
        self._facts = facts
        self._store = store
        self._actor = actor
        self._hypervisor = hypervisor
        self._images = images
        self._status = status

    async def node_status(self, call: Call, *, node: str | None = None) -> NodeStatus:
        """See `ComputeService.node_status`."""
        self._check_node(node)
        return await self._status()

    async def list_slices(self, call: Call, *, node: str | None = None) -> SlicePage:
        """See `ComputeService.list_slices`."""
        self._check_node(node)
        slices = await self._store.slices()
        return SlicePage(items=[describe_slice(s, self._facts) for s in slices])

    async def deploy_vm(
        self,
        call: Call,
        *,
        name: str,
        image: str = "micro",
        slices: int = 1,
        slice_sid: str | None = None,
        vcpus: int = 1,
        labels: Mapping[str, str] | None = None,
        start: bool = True,
        node: str | None = None,
        vm_sid: str | None = None,
    ) -> Vm:
        """See `ComputeService.deploy_vm`.

        The same *vm_sid* again, with the same name and context, is the same VM.
        """
        self._check_node(node)
        existing = await self._store.get(vm_sid) if vm_sid is not None else None
        if existing is not None and existing.deleted_at is None:
            return await self._deployed_before(call, existing, name)
        if image not in {known.name for known in await self._images.list()}:
            raise NotFound(f"no image {image} on this node", hint="hero image list shows them")
        record = VmRecord(
            sid=vm_sid or new_sid("vm"),
            name=name,
            context=call.context,
            image=image,
            vcpus=vcpus,
            memory=0,
            disk=0,
            state=VmState.REQUESTED,
            wanted=WantedState.RUNNING if start else WantedState.STOPPED,
            created_at=self._now(),
            labels=dict(labels or {}),
        )
        await self._target(call, record.sid)
        deployed = await self._actor.deploy(record, slices, slice_sid, _report(call))
        return self.describe(deployed)

    async def list_vms(
        self,
        call: Call,
        *,
        state: VmState | None = None,
        node: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> VmPage:
        """See `ComputeService.list_vms`."""
        self._check_node(node)
        records, more = await self._store.page(
            call.context, state=state, labels=labels or {}, limit=limit, after=after
        )
        return VmPage(
            items=[self.describe(record) for record in records],
            next=records[-1].name if more else None,
        )

    async def get_vm(self, call: Call, *, vm: str) -> Vm:
        """See `ComputeService.get_vm`."""
        return self.describe(await self._store.find(call.context, vm))

    async def start_vm(self, call: Call, *, vm: str) -> Vm:
        """See `ComputeService.start_vm`."""
        return self.describe(await self._actor.start(await self._find(call, vm)))

    async def stop_vm(self, call: Call, *, vm: str, grace: float = 10.0, force: bool = False) -> Vm:
        """See `ComputeService.stop_vm`."""
        sid = await self._find(call, vm)
        return self.describe(await self._actor.halt(sid, 0.0 if force else grace, _commit(call)))

    async def restart_vm(
        self, call: Call, *, vm: str, grace: float = 10.0, force: bool = False
    ) -> Vm:
        """See `ComputeService.restart_vm`."""
        sid = await self._find(call, vm)
        restarted = await self._actor.restart(sid, 0.0 if force else grace, _commit(call))
        return self.describe(restarted)

    async def pause_vm(self, call: Call, *, vm: str) -> Vm:
        """See `ComputeService.pause_vm`."""
        sid = await self._find(call, vm)
        return self.describe(await self._actor.pause(sid, _commit(call)))

    async def resume_vm(self, call: Call, *, vm: str) -> Vm:
        """See `ComputeService.resume_vm`."""
        sid = await self._find(call, vm)
        return self.describe(await self._actor.resume(sid, _commit(call)))

    async def delete_vm(self, call: Call, *, vm: str, force: bool = False) -> Vm:
        """See `ComputeService.delete_vm`."""
        sid = await self._find(call, vm)
        return self.describe(await self._actor.delete(sid, force=force, commit=_commit(call)))

    async def vm_stats(self, call: Call, *, vm: str) -> VmStats:
        """See `ComputeService.vm_stats`."""
        record = await self._store.find(call.context, vm)
        if record.state in (VmState.REQUESTED, VmState.PROVISIONING):
            return VmStats(
                vm_sid=record.sid,
                state=record.state,
                cpu_seconds=0.0,
                memory_resident=0,
                memory=record.memory,
                disk_used=0,
            )
        stats = await self._hypervisor.stats(record.sid)
        return VmStats(
            vm_sid=record.sid,
            state=record.state,
            cpu_seconds=stats.cpu_seconds,
            memory_resident=stats.memory_resident,
            memory=record.memory,
            disk_used=stats.disk_used,
            uptime=stats.uptime,
        )

    async def vm_logs(
        self,
        call: Call,
        *,
        vm: str,
        offset: int | None = None,
        limit: int = 65536,
        wait: float = 0.0,
    ) -> VmLog:
        """See `ComputeService.vm_logs`."""
        record = await self._store.find(call.context, vm)
        path = self._hypervisor.console_path(record.sid)
        until = self._clock.seconds() + wait
        # Reading at most a megabyte of a file that was written a moment ago does not block.
        piece = read_console(path, offset, limit)
        while not piece.data and self._clock.seconds() < until:
            await deferLater(self._clock, _CONSOLE_POLL)
            piece = read_console(path, piece.offset, limit)
        text, length = _whole_characters(piece.data)
        return VmLog(
            vm_sid=record.sid,
            offset=piece.offset,
            next_offset=piece.offset + length,
            data=text,
        )

    async def list_images(self, call: Call, *, node: str | None = None) -> ImagePage:
        """See `ComputeService.list_images`."""
        self._check_node(node)
        images = await self._images.list()
        return ImagePage(items=[describe_image(image, self._facts) for image in images])

    async def build_image(
        self, call: Call, *, image: str = "micro", node: str | None = None
    ) -> Image:
        """See `ComputeService.build_image`."""
        self._check_node(node)
        await self._target(call, image)
        report = _report(call)

        def progress(part: float, message: str) -> None:
            Deferred.fromCoroutine(report(part, message)).addErrback(lambda _: None)

        return describe_image(await self._images.build(image, progress), self._facts)

    async def list_operations(
        self,
        call: Call,
        *,
        target: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> OperationPage:
        """See `ComputeService.list_operations`."""
        return OperationPage(items=await self.operations.list(call.context, target, state, limit))

    async def get_operation(self, call: Call, *, sid: str, wait: float = 0.0) -> Operation:
        """See `ComputeService.get_operation`."""
        await self._own_operation(call, sid)
        return await self.operations.get(sid, wait)

    async def cancel_operation(self, call: Call, *, sid: str) -> Operation:
        """See `ComputeService.cancel_operation`."""
        await self._own_operation(call, sid)
        return await self.operations.cancel(sid)

    def describe(self, record: VmRecord) -> Vm:
        """The wire value of *record*."""
        return describe_vm(record, self._facts, observed_at=self._now())

    def _check_node(self, node: str | None) -> None:
        if node is not None and node not in (self._facts.sid, self._facts.name):
            raise NotFound(
                f"this is the node {self._facts.name} ({self._facts.sid}), not {node}",
                hint="ask an explorer for other nodes",
            )

    async def _find(self, call: Call, vm: str) -> str:
        record = await self._store.find(call.context, vm)
        await self._target(call, record.sid)
        return record.sid

    async def _deployed_before(self, call: Call, existing: VmRecord, name: str) -> Vm:
        if (existing.name, existing.context) != (name, call.context):
            raise Conflict(f"the sid {existing.sid} belongs to another VM", hint="leave vm_sid out")
        await self._target(call, existing.sid)
        return self.describe(await self._actor.settled(existing.sid))

    async def _own_operation(self, call: Call, sid: str) -> None:
        operation = await self.operations.get(sid)
        if operation.context != call.context:
            raise NotFound(f"no operation {sid} in the context {call.context}")

    async def _target(self, call: Call, target: str) -> None:
        if call.operation is not None:
            await call.operation.update(target=target)


def _whole_characters(data: bytes) -> tuple[str, int]:
    """*data* as text, and how much of it that is: not a character's first bytes, at the end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    begun = len(decoder.getstate()[0])
    if begun == len(data):
        return data.decode("utf-8", "replace"), begun
    return text, len(data) - begun


def _commit(call: Call) -> Commit:
    return no_commit if call.operation is None else call.operation.commit


def _report(call: Call) -> Report:
    operation = call.operation
    if operation is None:
        return no_report

    async def report(progress: float, message: str) -> None:
        await operation.update(progress=progress, message=message)

    return report
