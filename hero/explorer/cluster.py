"""ComputeService for the whole cluster.

What is known already (`list_vms`, `get_vm`) is answered from the index. Whatever else concerns
one VM or one node is passed on to that node. Questions to all nodes are asked of those that
report, all at once and with a short time limit, and name the nodes that gave no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, gatherResults

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
)
from hero.errors import Conflict, HeroError, NotFound
from hero.explorer.deployment import Deployer
from hero.explorer.index import VmIndex, as_deleted
from hero.explorer.node_proxy import NodeProxy
from hero.explorer.nodes import NodeRecord
from hero.explorer.registry import Registry
from hero.operation_log import OperationLog
from hero.operations import Operation, OperationPage
from hero.rpc.declare import Call

#: Seconds for one node's answer where many are asked.
_SURVEY = 5.0


class ClusterCompute:
    """Implements `hero.compute.api.ComputeService`."""

    def __init__(
        self,
        registry: Registry,
        index: VmIndex,
        proxy: NodeProxy,
        deployer: Deployer,
        operations: OperationLog,
    ) -> None:
        self.operations = operations
        self._registry = registry
        self._index = index
        self._proxy = proxy
        self._deployer = deployer

    async def node_status(self, call: Call, *, node: str | None = None) -> NodeStatus:
        """See `ComputeService.node_status`."""
        answer: NodeStatus = await self._proxy.read(self._one(node), call, "node_status", {})
        return answer

    async def list_slices(self, call: Call, *, node: str | None = None) -> SlicePage:
        """See `ComputeService.list_slices`."""
        answers, silent = await self._survey(call, "list_slices", node)
        slices = [
            attrs.evolve(s, node_sid=record.sid) for record, page in answers for s in page.items
        ]
        return SlicePage(items=slices, unreachable=silent)

    async def list_images(self, call: Call, *, node: str | None = None) -> ImagePage:
        """See `ComputeService.list_images`."""
        answers, silent = await self._survey(call, "list_images", node)
        images = [
            attrs.evolve(i, node_sid=record.sid) for record, page in answers for i in page.items
        ]
        return ImagePage(items=images, unreachable=silent)

    async def deploy_vm(
        self,
        call: Call,
        *,
        name: str,
        image: str = "micro",
        slices: int = 1,
        slice_sid: str | None = None,
        vcpus: int = 1,
        labels: dict[str, str] | None = None,
        start: bool = True,
        node: str | None = None,
        vm_sid: str | None = None,
    ) -> Vm:
        """See `ComputeService.deploy_vm`."""
        request: dict[str, Any] = {
            "name": name,
            "image": image,
            "slices": slices,
            "slice_sid": slice_sid,
            "vcpus": vcpus,
            "labels": labels,
            "start": start,
        }
        return self._registry.dress(
            await self._deployer.deploy(call, request, node=node, vm_sid=vm_sid)
        )

    async def list_vms(
        self,
        call: Call,
        *,
        state: VmState | None = None,
        node: str | None = None,
        labels: dict[str, str] | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> VmPage:
        """See `ComputeService.list_vms`."""
        node_sid = None if node is None else self._registry.get(node).sid
        found, cursor = await self._index.page(
            call.context, state=state, node_sid=node_sid, labels=labels, limit=limit, after=after
        )
        silent = self._registry.unreachable()
        if node_sid is not None:
            silent = [name for name in silent if name == self._registry.get(node_sid).name]
        return VmPage(
            items=[self._registry.dress(vm) for vm in found], next=cursor, unreachable=silent
        )

    async def get_vm(self, call: Call, *, vm: str) -> Vm:
        """See `ComputeService.get_vm`."""
        return self._registry.dress(await self._index.find(call.context, vm))

    async def start_vm(self, call: Call, *, vm: str) -> Vm:
        """See `ComputeService.start_vm`."""
        return await self._change(call, "start_vm", vm, {})

    async def stop_vm(self, call: Call, *, vm: str, grace: float = 10.0, force: bool = False) -> Vm:
        """See `ComputeService.stop_vm`."""
        return await self._change(call, "stop_vm", vm, {"grace": grace, "force": force})

    async def restart_vm(
        self, call: Call, *, vm: str, grace: float = 10.0, force: bool = False
    ) -> Vm:
        """See `ComputeService.restart_vm`."""
        return await self._change(call, "restart_vm", vm, {"grace": grace, "force": force})

    async def pause_vm(self, call: Call, *, vm: str) -> Vm:
        """See `ComputeService.pause_vm`."""
        return await self._change(call, "pause_vm", vm, {})

    async def resume_vm(self, call: Call, *, vm: str) -> Vm:
        """See `ComputeService.resume_vm`."""
        return await self._change(call, "resume_vm", vm, {})

    async def delete_vm(self, call: Call, *, vm: str, force: bool = False) -> Vm:
        """See `ComputeService.delete_vm`."""
        return await self._change(call, "delete_vm", vm, {"force": force})

    async def vm_stats(self, call: Call, *, vm: str) -> VmStats:
        """See `ComputeService.vm_stats`."""
        answer: VmStats = await self._ask(call, "vm_stats", vm, {})
        return answer

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
        params = {"offset": offset, "limit": limit, "wait": wait}
        timeout = self._proxy.patience.answer + wait
        answer: VmLog = await self._ask(call, "vm_logs", vm, params, timeout=timeout)
        return answer

    async def build_image(
        self, call: Call, *, image: str = "micro", node: str | None = None
    ) -> Image:
        """See `ComputeService.build_image`."""
        assert call.operation is not None
        record = self._one(node)
        await call.operation.update(message=f"asking the node {record.name}")
        call.operation.commit()
        built: Image = await self._proxy.perform(
            record,
            call,
            "build_image",
            {"image": image},
            request_id=call.operation.sid,
            progress=call.operation,
        )
        return attrs.evolve(built, node_sid=record.sid)

    async def list_operations(
        self,
        call: Call,
        *,
        target: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> OperationPage:
        """See `ComputeService.list_operations`."""
        found = await self.operations.list(call.context, target, state, limit)
        return OperationPage(items=found)

    async def get_operation(self, call: Call, *, sid: str, wait: float = 0.0) -> Operation:
        """See `ComputeService.get_operation`."""
        await self._operation(call, sid)
        return await self.operations.get(sid, wait)

    async def cancel_operation(self, call: Call, *, sid: str) -> Operation:
        """See `ComputeService.cancel_operation`."""
        await self._operation(call, sid)
        return await self.operations.cancel(sid)

    async def follow(self, call: Call, operation: Operation) -> Vm | None:
        """The result of an operation on a VM that was passed on before a restart.

        None for a deletion after which the node has told already that the VM is gone.

        Raises `NotFound` where the node never got it, `NodeUnreachable`, or what went wrong.
        """
        assert operation.target is not None
        try:
            vm = await self._index.find(call.context, operation.target)
        except NotFound:
            if operation.kind == "delete_vm":
                return None
            raise
        record = self._home(vm)
        page: OperationPage = await self._proxy.read(
            record, call, "list_operations", {"limit": 1000}
        )
        passed_on = [o for o in page.items if o.request_id == operation.sid]
        if not passed_on:
            raise NotFound(f"the node {record.name} knows nothing of {operation.sid}")
        remote = passed_on[0]
        while not remote.state.ended:
            remote = await self._proxy.read(
                record, call, "get_operation", {"sid": remote.sid, "wait": 5.0}, timeout=15.0
            )
        if remote.error is not None:
            raise HeroError.from_data({**remote.error, "node": record.name})
        return await self._take(operation.kind, vm, record, msgspec.convert(remote.result, Vm))

    async def _change(self, call: Call, method: str, ref: str, params: Mapping[str, Any]) -> Vm:
        assert call.operation is not None
        vm = await self._index.find(call.context, ref)
        record = self._home(vm)
        await call.operation.update(target=vm.sid)
        call.operation.commit()
        try:
            result: Vm = await self._proxy.perform(
                record,
                call,
                method,
                {"vm": vm.sid, **params},
                request_id=call.operation.sid,
                progress=call.operation,
            )
        except NotFound:
            await self._index.remove(vm, record.sid)
            raise
        return await self._take(method, vm, record, result)

    async def _take(self, method: str, before: Vm, record: NodeRecord, result: Vm) -> Vm:
        """Bring the index up to date with the *result* of *method* on *record*."""
        if method == "delete_vm":
            await self._index.remove(result, record.sid)
            self._registry.count(record.sid, slices_free=len(before.slices), vms=-1)
            return self._registry.dress(attrs.evolve(as_deleted(result), node_sid=record.sid))
        await self._index.put(result, record.sid)
        return self._registry.dress(attrs.evolve(result, node_sid=record.sid))

    async def _ask(
        self,
        call: Call,
        method: str,
        ref: str,
        params: Mapping[str, Any],
        *,
        timeout: float | None = None,
    ) -> Any:
        vm = await self._index.find(call.context, ref)
        return await self._proxy.read(
            self._home(vm), call, method, {"vm": vm.sid, **params}, timeout=timeout
        )

    async def _survey(
        self, call: Call, method: str, node: str | None
    ) -> tuple[list[tuple[NodeRecord, Any]], list[str]]:
        """The answers of every node, or of *node*, and the names of those that gave none."""
        if node is not None:
            record = self._registry.get(node)
            return [(record, await self._proxy.read(record, call, method, {}))], []
        silent = self._registry.unreachable()
        records = [
            self._registry.get(n.sid)
            for n in self._registry.nodes()
            if self._registry.reachable(n.sid)
        ]

        async def ask(record: NodeRecord) -> Any:
            try:
                return await self._proxy.read(record, call, method, {}, timeout=_SURVEY)
            except HeroError:
                silent.append(record.name)
                return None

        answers = await gatherResults([Deferred.fromCoroutine(ask(r)) for r in records])
        pairs = [(r, a) for r, a in zip(records, answers, strict=True) if a is not None]
        return pairs, sorted(silent)

    def _one(self, node: str | None) -> NodeRecord:
        """The node *node*, or the only one there is."""
        if node is not None:
            return self._registry.get(node)
        nodes = self._registry.nodes()
        if not nodes:
            raise NotFound("the cluster has no node yet", hint="start compute, or join a machine")
        if len(nodes) > 1:
            names = ", ".join(n.name for n in nodes[:10])
            raise Conflict(f"the cluster has {len(nodes)} nodes: {names}", hint="name one of them")
        return self._registry.get(nodes[0].sid)

    def _home(self, vm: Vm) -> NodeRecord:
        assert vm.node_sid is not None
        return self._registry.get(vm.node_sid)

    async def _operation(self, call: Call, sid: str) -> Operation:
        operation = await self.operations.get(sid)
        if operation.context != call.context:
            raise NotFound(f"there is no operation {sid!r} in the context {call.context}")
        return operation
