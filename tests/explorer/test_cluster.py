"""Tests for a whole explorer: one ComputeService for all nodes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from hero.compute.errors import SliceUnavailable
from hero.compute.model import VmState
from hero.errors import Conflict, Forbidden, NameTaken, NotFound, RemoteError
from hero.explorer.errors import NoCapacity, NodeUnreachable
from hero.operations import OperationState
from tests.explorer.builders import a_vm, vm_sid
from tests.explorer.fake_cluster import FakeCluster, eventually


def no_room() -> SliceUnavailable:
    """What a node answers when its slices went to somebody else."""
    return SliceUnavailable("no slice is free")


class ClusterTestCase(TestCase):
    """A cluster with the nodes n1 and n2, of four slices each."""

    async def setUp(self) -> None:
        self.cluster = FakeCluster(self)
        await self.cluster.start()
        self.n1 = await self.cluster.add_node(1)
        self.n2 = await self.cluster.add_node(2)
        self.cloud = self.cluster.cloud()

    async def deploy(self, name: str, **params: Any) -> Any:
        """The VM that was deployed."""
        return (await self.cloud.deploy_vm(name=name, **params)).result

    async def assert_fails(self, kind: type[Exception], call: Any) -> Any:
        """The error with which *call* fails."""
        return await self.assertFailure(Deferred.fromCoroutine(call), kind)


class ReadTests(ClusterTestCase):
    """What is known is answered without asking a node."""

    async def test_list_after_reports(self) -> None:
        """VMs that nodes reported are listed in order of name, with their nodes."""
        self.n1.vms["vm-0000000002"] = a_vm(2)
        self.n2.vms["vm-0000000001"] = a_vm(1)
        await self.cluster.report(self.n1)
        await self.cluster.report(self.n2)
        page = await self.cloud.list_vms()
        self.assertEqual(
            [(vm.name, vm.node_name) for vm in page.items], [("vm1", "n2"), ("vm2", "n1")]
        )
        self.assertEqual(self.n1.calls + self.n2.calls, [])

    async def test_filters_and_pages(self) -> None:
        """By state, node and labels; a page at a time, nothing twice and nothing left out."""
        for number in range(1, 8):
            state = VmState.STOPPED if number % 2 else VmState.RUNNING
            vm = a_vm(number, state=state, labels={"parity": str(number % 2)})
            (self.n1 if number < 5 else self.n2).vms[vm.sid] = vm
        await self.cluster.report(self.n1)
        await self.cluster.report(self.n2)

        async def listed(**query: Any) -> list[str]:
            page = await self.cloud.list_vms(**query)
            return [vm.name for vm in page.items]

        self.assertEqual(await listed(state="running"), ["vm2", "vm4", "vm6"])
        self.assertEqual(await listed(node="n2"), ["vm5", "vm6", "vm7"])
        self.assertEqual(await listed(labels={"parity": "1"}), ["vm1", "vm3", "vm5", "vm7"])
        found, after = [], None
        while True:
            page = await self.cloud.list_vms(limit=3, after=after)
            found += [vm.name for vm in page.items]
            after = page.next
            if after is None:
                break
        self.assertEqual(found, [f"vm{n}" for n in range(1, 8)])

    async def test_contexts_are_apart(self) -> None:
        """A VM of another context is neither listed nor found."""
        self.n1.vms["vm-0000000001"] = a_vm(1, context="other")
        await self.cluster.report(self.n1)
        self.assertEqual((await self.cloud.list_vms()).items, [])
        await self.assert_fails(NotFound, self.cloud.get_vm(vm="vm1"))
        other = self.cluster.cloud(context="other")
        self.assertEqual((await other.get_vm(vm="vm1")).sid, "vm-0000000001")

    async def test_silent_node(self) -> None:
        """VMs of a node that fell silent stay listed, and it is said that this is old news."""
        self.n1.vms["vm-0000000001"] = a_vm(1)
        await self.cluster.report(self.n1)
        self.cluster.pass_time(10)
        await self.cluster.report(self.n2)
        self.cluster.pass_time(5)
        page = await self.cloud.list_vms()
        self.assertEqual(page.unreachable, ["n1"])
        self.assertEqual([vm.reachable for vm in page.items], [False])
        self.assertEqual(page.items[0].state, VmState.RUNNING)
        await self.cluster.report(self.n1)
        page = await self.cloud.list_vms()
        self.assertEqual((page.unreachable, page.items[0].reachable), ([], True))

    async def test_same_name_on_two_nodes(self) -> None:
        """Where nodes were used by themselves a name can be taken twice; the sid tells."""
        self.n1.vms["vm-0000000001"] = a_vm(1, name="web")
        self.n2.vms["vm-0000000002"] = a_vm(2, name="web")
        await self.cluster.report(self.n1)
        await self.cluster.report(self.n2)
        error = await self.assert_fails(Conflict, self.cloud.get_vm(vm="web"))
        self.assertIn("vm-0000000002", error.detail)
        self.assertEqual((await self.cloud.get_vm(vm="vm-0000000002")).node_name, "n2")

    async def test_another_nodes_vm(self) -> None:
        """A node cannot claim a VM that another one has."""
        self.n1.vms["vm-0000000001"] = a_vm(1)
        await self.cluster.report(self.n1)
        self.n2.vms["vm-0000000001"] = a_vm(1, name="stolen")
        await self.cluster.report(self.n2)
        vm = await self.cloud.get_vm(vm="vm-0000000001")
        self.assertEqual((vm.name, vm.node_name), ("vm1", "n1"))

    async def test_survey_names_who_gave_no_answer(self) -> None:
        """The slices of all nodes but the one that is down, which is named."""
        await self.n1.stop()
        page = await self.cloud.list_slices()
        self.assertEqual([s.node_sid for s in page.items], [self.n2.sid])
        self.assertEqual(page.unreachable, ["n1"])
        images = await self.cloud.list_images()
        self.assertEqual(images.unreachable, ["n1"])

    async def test_survey_outlives_an_answer_that_makes_no_sense(self) -> None:
        """A node of another version, say, is named like one that is down."""

        async def nonsense(call: Any, *, node: str | None = None) -> Any:
            return {"items": "none"}

        await self.n1.stop()
        self.n1.list_slices = nonsense  # type: ignore[method-assign]
        self.n1.start()
        page = await self.cloud.list_slices()
        self.assertEqual({s.node_sid for s in page.items}, {self.n2.sid})
        self.assertEqual(page.unreachable, ["n1"])
        error = await self.assert_fails(RemoteError, self.cloud.list_slices(node="n1"))
        self.assertIn("n1", error.detail)

    async def test_node_status(self) -> None:
        """A node's own word; which one has to be said."""
        self.assertEqual((await self.cloud.node_status(node="n2")).node_sid, self.n2.sid)
        error = await self.assert_fails(Conflict, self.cloud.node_status())
        self.assertIn("n1, n2", error.detail)


class DeployTests(ClusterTestCase):
    """Deploying somewhere in the cluster."""

    async def test_deploys_and_lists_at_once(self) -> None:
        """A VM is listed as soon as it is made, before any heartbeat."""
        vm = await self.deploy("web")
        page = await self.cloud.list_vms()
        self.assertEqual([v.sid for v in page.items], [vm["sid"]])
        self.assertEqual(page.items[0].node_name, vm["node_name"])

    async def test_spreads(self) -> None:
        """Two VMs go to two nodes, without a heartbeat in between."""
        for name in ("a", "b", "c", "d"):
            await self.deploy(name)
        self.assertEqual((len(self.n1.vms), len(self.n2.vms)), (2, 2))

    async def test_acts_for_the_user(self) -> None:
        """The node is told for whom the explorer acts."""
        headers = {"X-Hero-User": "user:alice", "X-Hero-Claims": "operator@root"}
        await self.cluster.cloud(headers).deploy_vm(name="web", node="n1")
        _, call = self.n1.calls[0]
        self.assertEqual(call.caller.on_behalf_of, "user:alice")
        self.assertTrue(call.caller.has("explorer"))

    async def test_viewer_may_not(self) -> None:
        """Rights are checked before anything is sent."""
        headers = {"X-Hero-User": "user:bob", "X-Hero-Claims": "viewer@root"}
        viewer = self.cluster.cloud(headers)
        await self.assert_fails(Forbidden, viewer.deploy_vm(name="web"))
        self.assertEqual(self.n1.calls + self.n2.calls, [])

    async def test_name_is_taken_cluster_wide(self) -> None:
        """The same name is refused, whichever node would take it."""
        await self.deploy("web", node="n1")
        await self.assert_fails(NameTaken, self.cloud.deploy_vm(name="web", node="n2"))
        self.assertEqual(self.n2.vms, {})

    async def test_name_is_held_while_deploying(self) -> None:
        """Two at once with the same name: one of them gets it."""
        self.n1.gate = self.n2.gate = Deferred()
        first = await self.cloud.deploy_vm(name="web", wait=False)
        await eventually(lambda: self.n1.calls or self.n2.calls)
        await self.assert_fails(NameTaken, self.cloud.deploy_vm(name="web"))
        self.n1.gate.callback(None)
        done = await self.cloud.get_operation(sid=first.sid, wait=10)
        self.assertEqual(done.state, OperationState.SUCCEEDED)

    async def test_request_id(self) -> None:
        """The same request id again is the same VM."""
        one = await self.cloud.deploy_vm(name="web", request_id="r1")
        two = await self.cloud.deploy_vm(name="web", request_id="r1")
        self.assertEqual(one.result["sid"], two.result["sid"])
        self.assertEqual(len(self.n1.vms) + len(self.n2.vms), 1)

    async def test_vm_sid_means_one_vm(self) -> None:
        """An id that a VM has, or that a failed deployment had, is refused before any node is
        asked: a second VM of that id would hide the first."""
        vm = await self.deploy("web", node="n1")
        asked = self.cloud.deploy_vm(name="other", node="n2", vm_sid=vm["sid"])
        await self.assert_fails(Conflict, asked)
        self.assertEqual(self.n2.vms, {})
        self.n2.fails["deploy_vm"] = Conflict("busy")
        for reason in ("busy", "used for a VM before"):
            asked = self.cloud.deploy_vm(name="other", node="n2", vm_sid=vm_sid(7))
            self.assertIn(reason, (await self.assert_fails(Conflict, asked)).detail)
        self.assertEqual([v.name for v in (await self.cloud.list_vms()).items], ["web"])

    async def test_refusal_moves_on(self) -> None:
        """A node that has no room after all is passed over."""
        self.n1.fails["deploy_vm"] = no_room()
        vm = await self.deploy("web")
        self.assertEqual(vm["node_name"], "n2")

    async def test_no_capacity(self) -> None:
        """When nobody can, it is said why."""
        error = await self.assert_fails(NoCapacity, self.cloud.deploy_vm(name="web", slices=5))
        self.assertEqual([c["name"] for c in error.data["candidates"]], ["n1", "n2"])
        self.assertIn("4 slices", error.detail)
        await self.deploy("web", slices=4)

    async def test_all_refuse(self) -> None:
        """When each node refuses, their reasons are in the answer, and the name is free."""
        self.n1.fails["deploy_vm"] = self.n2.fails["deploy_vm"] = no_room()
        error = await self.assert_fails(NoCapacity, self.cloud.deploy_vm(name="web"))
        self.assertEqual({c["reason"] for c in error.data["candidates"]}, {"no slice is free"})
        self.n1.fails.clear()
        await self.deploy("web")

    async def test_down_node_is_passed_over(self) -> None:
        """A node that cannot be connected to is passed over, unless it was asked for."""
        await self.n1.stop()
        vm = await self.deploy("web")
        self.assertEqual(vm["node_name"], "n2")
        error = await self.assert_fails(
            NodeUnreachable, self.cloud.deploy_vm(name="other", node="n1")
        )
        self.assertIn("n1", error.detail)
        self.assertEqual(error.data["node_sid"], self.n1.sid)

    async def test_silent_node_that_was_asked_for(self) -> None:
        """A node whose lease has run out is not even tried."""
        self.cluster.pass_time(60)
        error = await self.assert_fails(
            NodeUnreachable, self.cloud.deploy_vm(name="web", node="n1")
        )
        self.assertIn("hero node remove", error.hint)
        self.assertEqual(self.n1.calls, [])

    async def test_lost_half_way(self) -> None:
        """A node that is lost while it works: the call fails and names it; its VM is deleted."""
        self.n1.gate = Deferred()
        operation = await self.cloud.deploy_vm(name="web", node="n1", wait=False)
        await eventually(lambda: "get_operation" in self.n1.methods())
        await self.n1.stop()
        done = await self.cloud.get_operation(sid=operation.sid, wait=10)
        self.assertEqual(done.state, OperationState.FAILED)
        self.assertEqual((done.error["kind"], done.error["node"]), ("node_unreachable", "n1"))
        self.assertNotIn("may finish", f"{done.error['detail']} {done.error['hint']}")
        self.assertIn("deploy web again", done.error["hint"])
        self.n1.gate.callback(None)
        await eventually(lambda: self.n1.vms)
        self.n1.start()
        self.assertEqual((await self.cloud.list_vms()).items, [])
        await self.cluster.report(self.n1)
        await eventually(lambda: not self.n1.vms)
        self.assertEqual((await self.cloud.list_vms()).items, [])
        await self.deploy("web")

    async def test_node_removed_half_way(self) -> None:
        """A node that is taken out while it works: no VM of it is listed, and the name is free."""
        self.n1.gate = Deferred()
        operation = await self.cloud.deploy_vm(name="web", node="n1", wait=False)
        await eventually(lambda: "get_operation" in self.n1.methods())
        await self.cluster.explorer().remove_node(node="n1")
        self.n1.gate.callback(None)
        done = await self.cloud.get_operation(sid=operation.sid, wait=10)
        self.assertEqual((done.error or {}).get("kind"), "node_unknown")
        self.assertEqual((await self.cloud.list_vms()).items, [])
        await self.deploy("web")

    async def test_progress_is_passed_on(self) -> None:
        """What the node says of its progress is seen at the explorer."""
        self.n1.gate = Deferred()
        operation = await self.cloud.deploy_vm(name="web", node="n1", wait=False)

        async def message() -> bool:
            now = await self.cloud.get_operation(sid=operation.sid)
            return bool(now.message == "making the disk" and now.progress == 0.5)

        await eventually(message)
        self.n1.gate.callback(None)
        await self.cloud.get_operation(sid=operation.sid, wait=10)

    async def test_cancel(self) -> None:
        """A deployment that is cancelled leaves no VM, even if the node was quicker."""
        self.n1.gate = Deferred()
        operation = await self.cloud.deploy_vm(name="web", node="n1", wait=False)
        await eventually(lambda: "get_operation" in self.n1.methods())
        done = await self.cloud.cancel_operation(sid=operation.sid)
        self.assertEqual(done.state, OperationState.CANCELLED)
        self.n1.gate = None
        await self.cluster.report(self.n1)
        await eventually(lambda: not self.n1.vms)
        await self.deploy("web")


class ChangeTests(ClusterTestCase):
    """Changing VMs where they are."""

    async def setUp(self) -> None:
        await super().setUp()
        self.vm = await self.deploy("web", node="n1")

    async def state(self) -> str:
        """What the explorer knows of the VM now."""
        vm = await self.cloud.get_vm(vm="web")
        return str(vm.state)

    async def test_verbs(self) -> None:
        """Each verb reaches the node, and its result is known at once."""
        for verb, state in (
            ("stop_vm", "stopped"),
            ("start_vm", "running"),
            ("pause_vm", "paused"),
            ("resume_vm", "running"),
            ("restart_vm", "running"),
        ):
            operation = await getattr(self.cloud, verb)(vm="web")
            self.assertEqual(operation.target, self.vm["sid"])
            self.assertEqual(await self.state(), state, verb)
            self.assertIn(verb, self.n1.methods())

    async def test_delete(self) -> None:
        """A running VM needs force; a deleted one is gone at once."""
        await self.assert_fails(Conflict, self.cloud.delete_vm(vm="web"))
        await self.cloud.delete_vm(vm="web", force=True)
        await self.assert_fails(NotFound, self.cloud.get_vm(vm="web"))
        await self.deploy("web")

    async def test_node_down(self) -> None:
        """The error names the node and says what to do."""
        await self.n1.stop()
        error = await self.assert_fails(NodeUnreachable, self.cloud.stop_vm(vm="web"))
        self.assertIn("n1", error.detail)
        self.assertTrue(error.hint)
        self.assertEqual(await self.state(), "running")

    async def test_node_removed_half_way(self) -> None:
        """What a node answers after it was taken out brings none of its VMs back."""
        self.n1.gate = Deferred()
        operation = await self.cloud.stop_vm(vm="web", wait=False)
        await eventually(lambda: "get_operation" in self.n1.methods())
        await self.cluster.explorer().remove_node(node="n1", force=True)
        self.n1.gate.callback(None)
        await self.cloud.get_operation(sid=operation.sid, wait=10)
        self.assertEqual((await self.cloud.list_vms()).items, [])

    async def test_vanished_on_its_node(self) -> None:
        """A VM that its node does not know any more is not listed any more."""
        self.n1.vms.clear()
        await self.assert_fails(NotFound, self.cloud.stop_vm(vm="web"))
        self.assertEqual((await self.cloud.list_vms()).items, [])

    async def test_errors_of_the_node_are_passed_on(self) -> None:
        """The node's own words, with its name."""
        self.n1.fails["stop_vm"] = Conflict("busy with a snapshot", hint="wait")
        error = await self.assert_fails(Conflict, self.cloud.stop_vm(vm="web"))
        self.assertEqual((error.detail, error.hint), ("busy with a snapshot", "wait"))
        self.assertEqual(error.data["node"], "n1")

    async def test_reports_that_were_overtaken(self) -> None:
        """A heartbeat sent before the change does not undo what is known of it."""
        old = self.n1.heartbeat(sent_at=-50)
        await self.cloud.stop_vm(vm="web")
        reply = await self.cluster.beat(self.n1, old)
        self.assertEqual(await self.state(), "stopped")
        self.assertTrue(reply.send_vms)

    async def test_stats_and_logs(self) -> None:
        """What only the node knows is asked of the node."""
        self.assertEqual((await self.cloud.vm_stats(vm="web")).vm_sid, self.vm["sid"])
        self.assertEqual((await self.cloud.vm_logs(vm="web")).data, "hello")

    async def test_events(self) -> None:
        """Changes of VMs are published."""
        events = self.cluster.daemon.events.subscribe()
        await self.cloud.stop_vm(vm="web")
        while (event := await events.__anext__()).type != "vm":
            pass
        self.assertEqual((event.data["name"], event.data["state"]), ("web", "stopped"))
        self.assertEqual(event.data["node_name"], "n1")
