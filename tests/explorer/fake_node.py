"""A node for tests: ComputeService, on a UNIX socket, with VMs that are only written down.

It is served by the real RPC layer from the real declaration, with a real operation log; so it
cannot answer what a node could not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred

from hero.compute.api import ComputeService
from hero.compute.model import (
    Accelerator,
    Image,
    ImagePage,
    NodeStatus,
    Slice,
    SlicePage,
    Vm,
    VmLog,
    VmPage,
    VmState,
    VmStats,
    WantedState,
)
from hero.compute.view import digest_vms
from hero.errors import Conflict, HeroError, NameTaken, NotFound
from hero.explorer.model import Heartbeat
from hero.operation_log import OperationLog
from hero.operations import Operation, OperationPage
from hero.rpc.declare import Call
from hero.rpc.site import UnixService, service_site
from hero.store import Database
from tests.explorer.builders import NOON, a_heartbeat, a_vm, capacity, later, node_sid


class FakeNode:
    """A node with the number *number*, whose socket is in *directory*.

    ``fails`` maps methods to the errors that they raise. ``gate``, where set, is waited for
    before a VM is made or changed or an image made, ``delete_gate`` before one is deleted.
    """

    def __init__(self, number: int, directory: Path, database: Database, slices: int = 4) -> None:
        self.number = number
        self.sid = node_sid(number)
        self.slices = slices
        self.socket = directory / f"n{number}.sock"
        self.operations = OperationLog(database, reactor)  # type: ignore[arg-type]
        self.vms: dict[str, Vm] = {}
        self.calls: list[tuple[str, Call]] = []
        self.fails: dict[str, HeroError] = {}
        self.gate: Deferred[None] | None = None
        self.delete_gate: Deferred[None] | None = None
        self.seq = 0
        self.boot = "boot-one"
        self._server: UnixService | None = None

    def start(self) -> None:
        """Answer."""
        site = service_site(
            reactor=reactor,
            name="compute",
            description="a node for tests",
            access="cluster",
            rpc={"cloud": {ComputeService: self}},
        )
        self._server = UnixService(reactor, self.socket, site)  # type: ignore[arg-type]
        self._server.startService()

    async def stop(self) -> None:
        """Answer no more."""
        server, self._server = self._server, None
        if server is not None:
            await maybeDeferred(server.stopService)

    @property
    def free(self) -> int:
        """How many slices are free."""
        return self.slices - sum(len(vm.slices) for vm in self.vms.values())

    def heartbeat(self, *, records: bool = True, sent_at: float | None = None) -> Heartbeat:
        """The next heartbeat; with *records* it carries those of the VMs."""
        self.seq += 1
        vms = list(self.vms.values())
        return a_heartbeat(
            self.number,
            self.seq,
            boot_id=self.boot,
            advertise_address="",
            sent_at=later(self.seq if sent_at is None else sent_at),
            capacity=capacity(self.slices, self.free),
            vms_digest=digest_vms(vms),
            vms=vms if records else None,
        )

    async def node_status(self, call: Call, *, node: str | None = None) -> NodeStatus:
        self._note("node_status", call)
        return NodeStatus(
            node_sid=self.sid,
            name=f"n{self.number}",
            version="0.1.0",
            boot_id=self.boot,
            hypervisor="fake",
            accelerator=Accelerator(name="none", proved=True, detail=""),
            capacity=capacity(self.slices, self.free),
            load=0.0,
            vms=len(self.vms),
            vms_running=len(self.vms),
            started_at=NOON,
        )

    async def list_slices(self, call: Call, *, node: str | None = None) -> SlicePage:
        self._note("list_slices", call)
        return SlicePage(items=[Slice(sid="slice-1", index=0, memory=1, disk=1, state="free")])

    async def deploy_vm(self, call: Call, **asked: Any) -> Vm:
        self._note("deploy_vm", call)
        sid = asked["vm_sid"]
        if sid in self.vms:
            return self.vms[sid]
        if any((v.name, v.context) == (asked["name"], call.context) for v in self.vms.values()):
            raise NameTaken(f"the name {asked['name']} is taken")
        assert call.operation is not None
        await call.operation.update(progress=0.5, message="making the disk")
        if self.gate is not None:
            await self.gate
        vm = a_vm(
            sid=sid,
            name=asked["name"],
            context=call.context,
            slices=[f"slice-{n}" for n in range(asked["slices"])],
            labels=asked["labels"] or {},
        )
        self.vms[sid] = vm
        return vm

    async def list_vms(self, call: Call, **asked: Any) -> VmPage:
        self._note("list_vms", call)
        return VmPage(items=list(self.vms.values()))

    async def get_vm(self, call: Call, *, vm: str) -> Vm:
        self._note("get_vm", call)
        return self._find(vm)

    async def start_vm(self, call: Call, *, vm: str) -> Vm:
        return await self._set("start_vm", call, vm, VmState.RUNNING, WantedState.RUNNING)

    async def stop_vm(self, call: Call, *, vm: str, grace: float = 10.0, force: bool = False) -> Vm:
        return await self._set("stop_vm", call, vm, VmState.STOPPED, WantedState.STOPPED)

    async def restart_vm(
        self, call: Call, *, vm: str, grace: float = 10.0, force: bool = False
    ) -> Vm:
        return await self._set("restart_vm", call, vm, VmState.RUNNING, WantedState.RUNNING)

    async def pause_vm(self, call: Call, *, vm: str) -> Vm:
        return await self._set("pause_vm", call, vm, VmState.PAUSED, WantedState.PAUSED)

    async def resume_vm(self, call: Call, *, vm: str) -> Vm:
        return await self._set("resume_vm", call, vm, VmState.RUNNING, WantedState.RUNNING)

    async def delete_vm(self, call: Call, *, vm: str, force: bool = False) -> Vm:
        self._note("delete_vm", call)
        found = self._find(vm)
        if found.state is VmState.RUNNING and not force:
            raise Conflict(f"{found.name} is running")
        if self.delete_gate is not None:
            await self.delete_gate
        del self.vms[found.sid]
        return attrs.evolve(found, state=VmState.DELETING, wanted_state=WantedState.DELETED)

    async def vm_stats(self, call: Call, *, vm: str) -> VmStats:
        self._note("vm_stats", call)
        found = self._find(vm)
        return VmStats(
            vm_sid=found.sid,
            state=found.state,
            cpu_seconds=1.0,
            memory_resident=1,
            memory=found.memory,
            disk_used=1,
        )

    async def vm_logs(self, call: Call, *, vm: str, **asked: Any) -> VmLog:
        self._note("vm_logs", call)
        return VmLog(vm_sid=self._find(vm).sid, offset=0, next_offset=5, data="hello")

    async def list_images(self, call: Call, *, node: str | None = None) -> ImagePage:
        self._note("list_images", call)
        return ImagePage(items=[Image(name="micro", state="ready", description="small")])

    async def build_image(
        self, call: Call, *, image: str = "micro", node: str | None = None
    ) -> Image:
        self._note("build_image", call)
        if self.gate is not None:
            await self.gate
        return Image(name=image, state="ready", description="small")

    async def list_operations(
        self, call: Call, *, target: str | None = None, state: str | None = None, limit: int = 100
    ) -> OperationPage:
        return OperationPage(items=await self.operations.list(call.context, target, state, limit))

    async def get_operation(self, call: Call, *, sid: str, wait: float = 0.0) -> Operation:
        self._note("get_operation", call)
        return await self.operations.get(sid, wait)

    async def cancel_operation(self, call: Call, *, sid: str) -> Operation:
        self._note("cancel_operation", call)
        return await self.operations.cancel(sid)

    def methods(self) -> list[str]:
        """The methods that were called, in order."""
        return [method for method, _ in self.calls]

    def _note(self, method: str, call: Call) -> None:
        self.calls.append((method, call))
        if method in self.fails:
            raise self.fails[method]

    def _find(self, ref: str) -> Vm:
        for vm in self.vms.values():
            if ref in (vm.sid, vm.name):
                return vm
        raise NotFound(f"there is no VM {ref}")

    async def _set(
        self, method: str, call: Call, ref: str, state: VmState, wanted: WantedState
    ) -> Vm:
        self._note(method, call)
        if self.gate is not None:
            await self.gate
        vm = attrs.evolve(self._find(ref), state=state, wanted_state=wanted)
        self.vms[vm.sid] = vm
        return vm
