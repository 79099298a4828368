"""ComputeService as one node answers it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred

from hero.compute.api import ComputeService
from hero.compute.hypervisor.errors import GuestNotStarted
from hero.compute.model import Vm, VmState
from hero.compute.recovery import close_interrupted, outcome
from hero.errors import Conflict, NameTaken, NotFound
from hero.identity.claims import Caller
from hero.operations import Operation, OperationInterrupted, OperationState
from hero.rpc.declare import Call, methods_of
from tests.compute.inline import FACTS, NodeTestCase, record

SID = "vm-0000000001"


def call(context: str = "root", request_id: str | None = None) -> Call:
    return Call(caller=Caller.local_administrator(context), request_id=request_id)


class ServiceTests(NodeTestCase):
    """`NodeCompute` with a hypervisor in memory."""

    def test_every_method_is_there(self) -> None:
        """The declaration is implemented, parameter by parameter."""
        for name in methods_of(ComputeService):
            self.assertTrue(callable(getattr(self.service, name)), name)

    def test_deploy(self) -> None:
        """The answer is the VM, with its node."""
        vm = self.get(self.service.deploy_vm(call(), name="web", slices=2, labels={"a": "b"}))
        self.assertEqual((vm.state, vm.node_sid), (VmState.RUNNING, FACTS.sid))
        self.assertEqual((len(vm.slices), vm.labels), (2, {"a": "b"}))
        self.assertEqual(self.get(self.service.get_vm(call(), vm="web")), vm)
        self.assertEqual(self.get(self.service.get_vm(call(), vm=vm.sid)), vm)

    def test_deploy_that_is_refused(self) -> None:
        """A name that is taken, an image or a node that is unknown."""
        self.get(self.service.deploy_vm(call(), name="web"))
        self.fails(self.service.deploy_vm(call(), name="web"), NameTaken)
        self.fails(self.service.deploy_vm(call(), name="b", image="windows-95"), NotFound)
        self.fails(self.service.deploy_vm(call(), name="b", node="beta"), NotFound)
        self.get(self.service.deploy_vm(call(), name="b", node="alpha"))

    def test_deploy_with_a_sid_twice(self) -> None:
        """An explorer that lost the answer can ask again, and gets the same VM."""
        first = self.get(self.service.deploy_vm(call(), name="web", vm_sid=SID))
        again = self.get(self.service.deploy_vm(call(), name="web", vm_sid=SID))
        self.assertEqual(first, again)
        self.fails(self.service.deploy_vm(call(), name="db", vm_sid=SID), Conflict)
        self.fails(self.service.deploy_vm(call("lab"), name="web", vm_sid=SID), Conflict)

    def test_deploy_with_the_sid_of_one_that_was_undone(self) -> None:
        """It is a new attempt; the sid of a VM that was deleted stays used."""
        broken = self.patch(self.hypervisor, "start", self._fail_to_start)
        self.fails(self.service.deploy_vm(call(), name="web", vm_sid=SID), GuestNotStarted)
        broken.restore()
        vm = self.get(self.service.deploy_vm(call(), name="web", vm_sid=SID))
        self.assertEqual(vm.state, VmState.RUNNING)
        self.get(self.service.delete_vm(call(), vm=SID, force=True))
        self.fails(self.service.deploy_vm(call(), name="web", vm_sid=SID), Conflict)

    async def _fail_to_start(self, spec: Any) -> None:
        raise GuestNotStarted("no memory")

    def test_contexts_do_not_see_each_other(self) -> None:
        """A VM is known by its own context only."""
        self.get(self.service.deploy_vm(call("lab"), name="web", vm_sid=SID))
        self.assertEqual(self.get(self.service.list_vms(call())).items, [])
        for method in ("get_vm", "start_vm", "delete_vm", "vm_stats", "vm_logs"):
            self.fails(getattr(self.service, method)(call(), vm=SID), NotFound)

    def test_list_in_pages(self) -> None:
        """``next`` leads to the rest."""
        for name in ("b", "a", "c"):
            self.get(self.service.deploy_vm(call(), name=name))
        first = self.get(self.service.list_vms(call(), limit=2))
        self.assertEqual(([vm.name for vm in first.items], first.next), (["a", "b"], "b"))
        rest = self.get(self.service.list_vms(call(), limit=2, after=first.next))
        self.assertEqual(([vm.name for vm in rest.items], rest.next), (["c"], None))

    def test_stats_and_console(self) -> None:
        """What the guest uses, and what it printed, from wherever one asks."""
        self.get(self.service.deploy_vm(call(), name="web", vm_sid=SID))
        stats = self.get(self.service.vm_stats(call(), vm="web"))
        self.assertEqual((stats.vm_sid, stats.state), (SID, VmState.RUNNING))
        log = self.get(self.service.vm_logs(call(), vm="web"))
        self.assertIn("web ready", log.data)
        waiting = self.service.vm_logs(call(), vm="web", offset=log.next_offset, wait=1.0)
        answer = Deferred.fromCoroutine(waiting)
        self.assertNoResult(answer)
        self.hypervisor.print_on_console(SID, b"more \xff")
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(answer).data, "more \ufffd")

    def test_console_cut_in_a_character(self) -> None:
        """Who reads on gets every character whole; a beginning alone is not waited for."""
        self.get(self.service.deploy_vm(call(), name="web", vm_sid=SID))
        start = self.get(self.service.vm_logs(call(), vm="web")).next_offset
        self.hypervisor.print_on_console(SID, "a\u2500b\u2500".encode()[:-1])
        read, offset = [], start
        for _ in range(3):
            log = self.get(self.service.vm_logs(call(), vm="web", offset=offset, limit=3))
            read.append(log.data)
            offset = log.next_offset
        self.assertEqual(read, ["a", "\u2500", "b"])
        self.assertEqual(
            self.get(self.service.vm_logs(call(), vm="web", offset=offset)).data, "\ufffd"
        )

    def test_console_that_stays_silent(self) -> None:
        """The wait has an end."""
        self.get(self.service.deploy_vm(call(), name="web", vm_sid=SID))
        end = self.get(self.service.vm_logs(call(), vm="web")).next_offset
        answer = Deferred.fromCoroutine(
            self.service.vm_logs(call(), vm="web", offset=end, wait=0.3)
        )
        self.clock.pump([0.1] * 4)
        log = self.successResultOf(answer)
        self.assertEqual((log.data, log.offset, log.next_offset), ("", end, end))

    def test_images(self) -> None:
        """They are listed and built, with their node."""
        (image,) = self.get(self.service.list_images(call())).items
        self.assertEqual((image.name, image.node_sid), ("micro", FACTS.sid))

    def test_slices(self) -> None:
        """They say who uses them."""
        vm = self.get(self.service.deploy_vm(call(), name="web"))
        slices = self.get(self.service.list_slices(call())).items
        self.assertEqual([s.vm_sid for s in slices], [vm.sid, None, None])

    def test_operations_of_another_context(self) -> None:
        """They do not exist for the caller."""
        method = methods_of(ComputeService)["start_vm"]

        async def work(handle: Any) -> None:
            return None

        operation = self.get(self.operations.run(call("lab"), method, {}, work))
        self.assertEqual(self.get(self.service.list_operations(call())).items, [])
        self.fails(self.service.get_operation(call(), sid=operation.sid), NotFound)
        self.fails(self.service.cancel_operation(call(), sid=operation.sid), NotFound)
        found = self.get(self.service.get_operation(call("lab"), sid=operation.sid))
        self.assertEqual(found.state, OperationState.SUCCEEDED)

    def test_cancel(self) -> None:
        """A command that goes on whatever happens cannot be cancelled, one that waits can."""
        self.get(self.service.deploy_vm(call(), name="web", vm_sid=SID))
        removed: Deferred[None] = Deferred()
        self.patch(self.hypervisor, "remove", lambda sid: removed)
        deleting = self.begin("delete_vm", force=True)
        stopping = self.begin("stop_vm")
        self.fails(self.service.cancel_operation(call(), sid=deleting.sid), Conflict)
        cancelling = Deferred.fromCoroutine(self.service.cancel_operation(call(), sid=stopping.sid))
        self.clock.advance(60.0)
        self.assertEqual(self.successResultOf(cancelling).state, OperationState.CANCELLED)
        removed.callback(None)
        deleted = self.get(self.service.get_operation(call(), sid=deleting.sid))
        self.assertEqual(deleted.state, OperationState.SUCCEEDED)

    def begin(self, name: str, **params: Any) -> Operation:
        """The operation of a call about the VM web, under way."""

        async def work(handle: Any) -> Any:
            asked = attrs.evolve(call(), operation=handle)
            return await getattr(self.service, name)(asked, vm="web", **params)

        method = methods_of(ComputeService)[name]
        begun: Operation = self.get(self.operations.run(call(), method, {}, work, wait=False))
        return begun


class RecoveryTests(NodeTestCase):
    """How operations end that a crash interrupted."""

    def operation(self, kind: str) -> Operation:
        return Operation(
            sid="op-0000000001",
            kind=kind,
            context="root",
            user="local",
            state=OperationState.RUNNING,
            created_at=self.now(),
            updated_at=self.now(),
            target=SID,
        )

    def test_outcomes(self) -> None:
        """What is true now decides."""
        at = record(SID, created_at=self.now(), started_at=self.now() + timedelta(seconds=1))
        running = attrs.evolve(at, state=VmState.RUNNING)
        stopped = attrs.evolve(at, state=VmState.STOPPED)
        gone = attrs.evolve(at, state=VmState.DELETING, deleted_at=self.now())
        earlier = attrs.evolve(running, started_at=self.now() - timedelta(seconds=1))
        for kind, here, succeeded in (
            ("deploy_vm", running, True),
            ("deploy_vm", None, False),
            ("deploy_vm", gone, False),
            ("delete_vm", gone, True),
            ("delete_vm", running, False),
            ("start_vm", running, True),
            ("start_vm", stopped, False),
            ("stop_vm", stopped, True),
            ("stop_vm", running, False),
            ("restart_vm", running, True),
            ("restart_vm", earlier, False),
            ("restart_vm", stopped, False),
            ("build_image", None, False),
        ):
            error = outcome(self.operation(kind), here)
            self.assertEqual(error is None, succeeded, (kind, here))

    def interrupted(self, request_id: str) -> Operation:
        """A deploy that an earlier process began, in the database."""
        method = methods_of(ComputeService)["deploy_vm"]

        async def work(handle: Any) -> None:
            await handle.update(target=SID)
            await Deferred()

        begun = self.get(
            self.operations.run(call(request_id=request_id), method, {}, work, wait=False)
        )
        self.operations.stop()
        (left,) = self.get(self.operations.interrupted())
        self.assertEqual(left.sid, begun.sid)
        return attrs.evolve(left, target=SID)

    def close(self, operation: Operation) -> Operation:
        self.get(
            close_interrupted(
                [operation],
                store=self.store,
                log=self.operations,
                database=self.database,  # type: ignore[arg-type]
                describe=self.service.describe,
            )
        )
        return self.get(self.operations.get(operation.sid))  # type: ignore[no-any-return]

    def test_deploy_that_was_finished(self) -> None:
        """It ends with the VM as its result, and keeps its request id."""
        operation = self.interrupted("r1")
        self.deploy()
        ended = self.close(operation)
        self.assertEqual((ended.state, ended.request_id), (OperationState.SUCCEEDED, "r1"))
        self.assertEqual(msgspec.convert(ended.result, Vm).sid, SID)

    def test_deploy_that_was_undone(self) -> None:
        """It ends with the reason, and its request id can be used for another attempt."""
        ended = self.close(self.interrupted("r1"))
        self.assertEqual((ended.state, ended.request_id), (OperationState.FAILED, None))
        assert ended.error is not None
        self.assertEqual(ended.error["kind"], OperationInterrupted.kind)
