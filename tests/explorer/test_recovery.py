"""Tests for `hero.explorer.recovery`: restarts of the explorer in the middle of things."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from hero.errors import HeroError
from hero.explorer import recovery
from hero.operations import OperationState
from tests.explorer.fake_cluster import eventually
from tests.explorer.test_cluster import ClusterTestCase


class RecoveryTests(ClusterTestCase):
    """What was under way is settled by asking the node that did it."""

    async def ended(self, sid: str) -> Any:
        """The operation, once it has ended."""

        async def look() -> Any:
            operation = await self.cluster.cloud().get_operation(sid=sid)
            return operation if operation.state.ended else None

        return await eventually(look)

    async def begin(self, method: str, **params: Any) -> str:
        """Start an operation that waits at n1's gate; its sid."""
        self.n1.gate = Deferred()
        operation = await getattr(self.cloud, method)(wait=False, **params)
        await eventually(lambda: method in self.n1.methods())
        return str(operation.sid)

    def open_gate(self) -> None:
        """Let n1 go on."""
        gate, self.n1.gate = self.n1.gate, None
        assert gate is not None
        gate.callback(None)

    async def test_deployment_is_finished(self) -> None:
        """The node goes on meanwhile; the operation ends with the one VM that it made."""
        sid = await self.begin("deploy_vm", name="web", node="n1")
        await self.cluster.restart()
        self.open_gate()
        done = await self.ended(sid)
        self.assertEqual(done.state, OperationState.SUCCEEDED)
        self.assertEqual(done.result["sid"], done.target)
        self.assertEqual(list(self.n1.vms), [done.target])
        page = await self.cluster.cloud().list_vms()
        self.assertEqual([vm.sid for vm in page.items], [done.target])

    async def test_caller_asks_again(self) -> None:
        """The same request id after the restart finds the same deployment."""
        sid = await self.begin("deploy_vm", name="web", node="n1", request_id="mine")
        await self.cluster.restart()
        self.open_gate()
        again = await self.cluster.cloud().deploy_vm(name="web", node="n1", request_id="mine")
        self.assertEqual(again.sid, sid)
        self.assertEqual((await self.ended(sid)).state, OperationState.SUCCEEDED)
        self.assertEqual(len(self.n1.vms), 1)

    async def test_deployment_that_the_node_refuses(self) -> None:
        """The node's refusal is the operation's; the name is free again."""
        sid = await self.begin("deploy_vm", name="web", node="n1")
        await self.cluster.restart()
        gate, self.n1.gate = self.n1.gate, None
        assert gate is not None
        gate.errback(HeroError("the disk is full"))
        done = await self.ended(sid)
        self.assertEqual((done.state, done.error["node"]), (OperationState.FAILED, "n1"))
        await self.cluster.cloud().deploy_vm(name="web")

    async def test_node_is_lost_too(self) -> None:
        """A node that stays away: failed, and says so; what it made is deleted when it is back."""
        self.patch(recovery, "PATIENCE", 0.5)
        sid = await self.begin("deploy_vm", name="web", node="n1")
        await self.n1.stop()
        await self.cluster.restart()
        self.open_gate()
        done = await self.ended(sid)
        self.assertEqual((done.error["kind"], done.error["node"]), ("node_unreachable", "n1"))
        self.assertEqual(len(self.n1.vms), 1)
        self.n1.start()
        await self.cluster.report(self.n1)
        await eventually(lambda: not self.n1.vms)
        await self.cluster.cloud().deploy_vm(name="web")

    async def test_change_is_finished(self) -> None:
        """A verb that was passed on ends as the node says."""
        await self.deploy("web", node="n1")
        sid = await self.begin("stop_vm", vm="web")
        await self.cluster.restart()
        self.open_gate()
        self.assertEqual((await self.ended(sid)).state, OperationState.SUCCEEDED)
        self.assertEqual((await self.cluster.cloud().get_vm(vm="web")).state, "stopped")

    async def test_deletion_that_the_node_reported(self) -> None:
        """A deletion that the explorer missed has succeeded, if a heartbeat says so first too."""
        vm = await self.deploy("web", node="n1")
        self.n1.delete_gate = Deferred()
        operation = await self.cloud.delete_vm(vm="web", force=True, wait=False)
        await eventually(lambda: "delete_vm" in self.n1.methods())
        await self.n1.stop()
        await self.cluster.restart()
        self.n1.delete_gate.callback(None)
        await eventually(lambda: vm["sid"] not in self.n1.vms)
        await self.cluster.report(self.n1)
        self.n1.start()
        done = await self.ended(operation.sid)
        self.assertEqual((done.state, done.error), (OperationState.SUCCEEDED, None))

    async def test_never_sent(self) -> None:
        """An operation that reached no node has failed, and did nothing."""
        await self.deploy("web", node="n1")
        sid = await self.begin("stop_vm", vm="web")
        await self.cluster.stop()
        self.n1.operations.list = _nothing  # type: ignore[method-assign]
        await self.cluster.restart()
        done = await self.ended(sid)
        self.assertEqual(done.error["kind"], "operation_interrupted")
        self.assertIn("new request id", done.error["hint"])
        self.open_gate()

    async def test_image_that_is_being_built(self) -> None:
        """Its node goes on; nobody is told that nothing was done."""
        sid = await self.begin("build_image", node="n1")
        await self.cluster.restart()
        done = await self.ended(sid)
        self.assertEqual(done.error["kind"], "operation_interrupted")
        self.assertIn("goes on", done.error["detail"])
        self.open_gate()


async def _nothing(*_args: Any, **_kwargs: Any) -> list[Any]:
    return []


class MemoryTests(ClusterTestCase):
    """What an explorer knows after a restart."""

    async def test_nodes_and_vms_are_remembered(self) -> None:
        """Everything is listed at once; nobody is called unreachable for the restart."""
        await self.deploy("web", node="n1")
        await self.cluster.restart()
        page = await self.cluster.cloud().list_vms()
        self.assertEqual([(vm.name, vm.reachable) for vm in page.items], [("web", True)])

    async def test_unreachable_stays_unreachable(self) -> None:
        """A restart does not bring back a node that was silent before."""
        self.cluster.pass_time(60)
        await self.cluster.report(self.n2)
        await self.cluster.restart()
        nodes = (await self.cluster.explorer().list_nodes()).items
        self.assertEqual([n.state for n in nodes], ["unreachable", "online"])

    async def test_old_heartbeats_stay_old(self) -> None:
        """What was accepted before the restart is not accepted again."""
        old = self.n1.heartbeat()
        await self.cluster.beat(self.n1, old)
        await self.cluster.restart()
        with self.assertRaises(HeroError) as caught:
            await self.cluster.beat(self.n1, old)
        self.assertEqual(caught.exception.kind, "heartbeat_stale")
