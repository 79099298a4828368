"""Deploying a VM somewhere in the cluster.

The intent and each node that is about to be asked are written down before anything is sent. So
whatever gets lost, at most one VM is wanted, and any other that appears is known to be unwanted
and is deleted as soon as its node reports it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from hero.compute.errors import ImageUnavailable, SliceUnavailable
from hero.compute.model import Vm
from hero.errors import HeroError, LimitExceeded, NameTaken, NotFound
from hero.explorer.errors import NoCapacity, NodeUnreachable
from hero.explorer.intents import Attempt, Intent, IntentStore
from hero.explorer.model import Candidate, PlacementExplanation
from hero.explorer.node_proxy import NodeProxy, Progress, unreachable
from hero.explorer.nodes import NodeRecord
from hero.explorer.placement import Option, Wanted, explain
from hero.explorer.registry import Registry
from hero.identity.claims import Caller
from hero.rpc.declare import Call
from hero.sids import new_sid

#: A node that answers so has no room after all, or cannot make the image; another may.
_TRY_ANOTHER = (SliceUnavailable, ImageUnavailable, LimitExceeded)

#: Candidates that an error lists.
_LISTED = 20


class Deployer:
    """Places VMs. *publish* gets each VM that was made."""

    _log = Logger()

    def __init__(
        self,
        registry: Registry,
        proxy: NodeProxy,
        intents: IntentStore,
        publish: Callable[[Vm, bool], None],
    ) -> None:
        self._registry = registry
        self._proxy = proxy
        self._intents = intents
        self._publish = publish
        self._promised: Counter[str] = Counter()
        self._cleaning: set[str] = set()

    def explain(self, wanted: Wanted) -> PlacementExplanation:
        """Where a VM would go now."""
        options = [Option(node=n, promised=self._promised[n.sid]) for n in self._registry.nodes()]
        return explain(options, wanted)

    async def deploy(
        self, call: Call, request: dict[str, Any], *, node: str | None, vm_sid: str | None
    ) -> Vm:
        """Make a VM on some node, or on *node*. *request* is what `deploy_vm` of a node takes."""
        assert call.operation is not None
        if node is not None:
            self._must_answer(self._registry.get(node))
        sid = vm_sid or new_sid("vm")
        await call.operation.update(target=sid, message="choosing a node")
        intent = Intent(
            operation_sid=call.operation.sid,
            context=call.context,
            name=request["name"],
            user=call.caller.responsible,
            request=request,
        )
        await self._intents.reserve(intent, sid)
        try:
            return await self._place(call, intent, Wanted(slices=request["slices"], node=node), sid)
        except CancelledError:
            if call.operation.cancel_requested:
                await self._intents.fail(intent.operation_sid)
            raise
        except Exception:
            await self._intents.fail(intent.operation_sid)
            raise

    async def resume(self, intent: Intent, attempt: Attempt) -> Vm:
        """Go on with an attempt that a restart of the explorer interrupted.

        The node knows the request again, so it makes no second VM.
        """
        record = self._registry.known(attempt.node_sid)
        if record is None or record.removed_at is not None:
            await self.give_up(intent, attempt)
            raise NotFound(f"the node {attempt.node_sid}, which was to make the VM, is gone")
        try:
            return await self._ask(call_for(intent), intent, attempt, record, None)
        except NodeUnreachable:
            raise
        except HeroError:
            await self.give_up(intent, attempt)
            raise

    async def give_up(self, intent: Intent, attempt: Attempt | None) -> None:
        """End a deployment without a VM; should the VM appear, it is deleted."""
        if attempt is not None:
            await self._intents.abandon(attempt)
        await self._intents.fail(intent.operation_sid)

    def clean(self, record: NodeRecord, unwanted: list[Vm]) -> None:
        """Delete VMs that abandoned deployments left on the node. Does not wait for that."""
        for vm in unwanted:
            if vm.sid not in self._cleaning:
                self._cleaning.add(vm.sid)
                Deferred.fromCoroutine(self._clean(record, vm))

    async def _place(self, call: Call, intent: Intent, wanted: Wanted, vm_sid: str) -> Vm:
        assert call.operation is not None
        refused: dict[str, HeroError] = {}
        while True:
            explanation = self.explain(wanted)
            left = [c for c in explanation.candidates if c.fits and c.node_sid not in refused]
            if not left:
                raise _nowhere(explanation, refused, wanted)
            record = self._registry.get(left[0].node_sid)
            await call.operation.update(message=f"asking the node {record.name}")
            attempt = await self._intents.attempt(intent, vm_sid, record.sid)
            try:
                return await self._ask(call, intent, attempt, record, call.operation)
            except CancelledError:
                if call.operation.cancel_requested:
                    await self._intents.abandon(attempt)
                raise
            except HeroError as error:
                await self._intents.abandon(attempt)
                if not await self._may_try_another(error, intent, record):
                    if "node_operation" in error.data:
                        error.hint = (
                            f"deploy {intent.name} again; should {record.name} have made it after "
                            "all, that VM is deleted as soon as the node reports"
                        )
                    raise
                refused[record.sid] = error
                vm_sid = new_sid("vm")
                await call.operation.update(target=vm_sid)

    async def _ask(
        self,
        call: Call,
        intent: Intent,
        attempt: Attempt,
        record: NodeRecord,
        progress: Progress | None,
    ) -> Vm:
        slices = intent.request["slices"]
        self._promised[record.sid] += slices
        try:
            vm: Vm = await self._proxy.perform(
                record,
                call,
                "deploy_vm",
                {**intent.request, "vm_sid": attempt.vm_sid},
                request_id=attempt.request_id,
                progress=progress,
            )
        finally:
            self._promised[record.sid] -= slices
        await self._intents.place(attempt, vm)
        self._registry.count(record.sid, slices_free=-slices, vms=1)
        vm = attrs.evolve(vm, node_sid=record.sid)
        self._publish(vm, False)
        return vm

    async def _may_try_another(self, error: HeroError, intent: Intent, record: NodeRecord) -> bool:
        if isinstance(error, _TRY_ANOTHER):
            return True
        if isinstance(error, NodeUnreachable):
            # Asked for nothing yet, as far as can be known, when it cannot even be connected to.
            return "node_operation" not in error.data
        if isinstance(error, NotFound):
            return intent.request.get("slice_sid") is not None
        if isinstance(error, NameTaken):
            return await self._intents.left_behind(record.sid, intent.context, intent.name)
        return False

    async def _clean(self, record: NodeRecord, vm: Vm) -> None:
        caller = Caller(user="explorer", context=vm.context)
        try:
            await self._proxy.perform(
                record,
                Call(caller=caller),
                "delete_vm",
                {"vm": vm.sid, "force": True},
                request_id=new_sid("clean"),
            )
            self._log.info(
                "deleted {vm} on {node}, which an abandoned deployment left behind",
                vm=vm.sid,
                node=record.sid,
            )
        except HeroError as error:
            self._log.warn(
                "could not delete {vm} on {node} yet: {why}",
                vm=vm.sid,
                node=record.sid,
                why=error.detail,
            )
        finally:
            self._cleaning.discard(vm.sid)

    def _must_answer(self, record: NodeRecord) -> None:
        if not self._registry.reachable(record.sid):
            raise unreachable(record, "it has stopped sending heartbeats")


def call_for(intent: Intent) -> Call:
    """A call by the user who asked for *intent*."""
    return Call(caller=Caller(user=intent.user, context=intent.context))


def _nowhere(
    explanation: PlacementExplanation, refused: dict[str, HeroError], wanted: Wanted
) -> HeroError:
    """Why no node is left to ask."""
    if len(refused) == 1 and (wanted.node is not None or len(explanation.candidates) == 1):
        return next(iter(refused.values()))
    candidates = explanation.candidates
    if wanted.node is not None:
        candidates = [c for c in candidates if wanted.node in (c.node_sid, c.name)]
    whys = [(c, _why(c, refused)) for c in candidates]
    if not whys:
        detail = "the cluster has no node yet"
    elif len(whys) == 1:
        detail = f"the node {whys[0][0].name} cannot take the VM: {whys[0][1]}"
    else:
        detail = f"none of {len(whys)} nodes can take the VM; {whys[0][0].name}: {whys[0][1]}"
    return NoCapacity(
        detail,
        hint="delete a VM, or add a machine with `hero token create` and `hero join`",
        retry_after=10.0,
        data={
            "candidates": [
                {"node_sid": c.node_sid, "name": c.name, "reason": why} for c, why in whys[:_LISTED]
            ]
        },
    )


def _why(candidate: Candidate, refused: dict[str, HeroError]) -> str:
    error = refused.get(candidate.node_sid)
    return error.detail if error is not None else "; ".join(candidate.reasons)
