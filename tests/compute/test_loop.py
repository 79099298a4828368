"""The reconciler at work on guests that change on their own."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from hero.compute.loop import INTERVAL
from hero.compute.model import VmState, WantedState
from hero.compute.reconciler import Remove
from hero.errors import Unavailable
from tests.compute.inline import NodeTestCase, record

SID = "vm-0000000001"


class LoopTests(NodeTestCase):
    """`ReconcileLoop` with a hypervisor in memory."""

    def state(self, sid: str = SID) -> Any:
        here = self.successResultOf(self.store.get(sid))
        return here.state, here.reason

    def test_guest_that_powers_off(self) -> None:
        """It is seen at once, with the reason, and stays stopped."""
        self.deploy()
        loop = self.make_loop()
        loop.start()
        self.hypervisor.power_off(SID)
        self.assertEqual(self.state(), (VmState.STOPPED, "guest-shutdown"))
        self.clock.advance(INTERVAL)
        self.assertEqual(self.state(), (VmState.STOPPED, "guest-shutdown"))
        loop.stop()

    def test_guest_that_nobody_watched(self) -> None:
        """A change that was not told is found by looking."""
        self.deploy()
        loop = self.make_loop()
        self.hypervisor.crash(SID)
        loop.start()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.state(), (VmState.STOPPED, "crashed"))
        loop.stop()

    def test_adopts_live_guests(self) -> None:
        """A guest that runs is taken over as it is, whatever the record says."""
        self.deploy(wanted=WantedState.STOPPED)
        self.successResultOf(self.store.update(SID, wanted=WantedState.RUNNING))
        (spec,) = [self.get(self.actor._spec(self.successResultOf(self.store.get(SID))))]
        self.get(self.hypervisor.start(spec))
        self.patch(self.hypervisor, "start", self.fail)
        self.get(self.make_loop().begin())
        self.assertEqual(self.state(), (VmState.RUNNING, None))

    def test_finishes_what_was_begun(self) -> None:
        """A deploy and a delete that were interrupted are carried to their end."""
        self.successResultOf(self.store.create(record(), 1))
        self.deploy("vm-0000000002")
        self.successResultOf(
            self.store.update("vm-0000000002", state=VmState.DELETING, wanted=WantedState.DELETED)
        )
        self.get(self.make_loop().begin())
        self.assertEqual(self.state(), (VmState.RUNNING, None))
        self.assertEqual([r.sid for r in self.successResultOf(self.store.all())], [SID])
        self.assertEqual(self.free_slices(), 2)

    def test_leaves_alone_what_a_command_is_about(self) -> None:
        """A VM that is being stopped is not looked at as one that stopped by itself."""
        self.deploy()
        stopped: Deferred[Any] = Deferred()
        self.patch(self.hypervisor, "stop", lambda sid, grace: stopped)
        halting = Deferred.fromCoroutine(self.actor.halt(SID, 60.0))
        self.hypervisor.power_off(SID)
        self.get(self.make_loop().begin())
        stopped.callback(None)
        self.assertIsNone(self.successResultOf(halting).reason)

    def test_changes_between_plan_and_action(self) -> None:
        """An action that was planned for a VM which has changed since is dropped."""
        planned_for = self.deploy()
        self.get(self.actor.halt(SID, 0.0))
        before = self.successResultOf(self.store.get(SID))
        self.get(self.actor.perform(planned_for, [Remove(SID)]))
        self.assertEqual(self.successResultOf(self.store.get(SID)), before)

    def test_unknown_guest(self) -> None:
        """It is named and left alone."""
        self.deploy()
        self.successResultOf(self.store.remove(SID))
        loop = self.make_loop()
        self.get(loop.begin())
        self.assertEqual(loop.unknown_guests, [SID])
        self.assertIn(SID, self.get(self.hypervisor.observe()))

    def test_hypervisor_that_cannot_be_asked(self) -> None:
        """Silence is not a reason to act; the problem is told until it is over."""
        self.deploy()
        loop = self.make_loop()

        async def fail() -> None:
            raise Unavailable("no answer")

        broken = self.patch(self.hypervisor, "observe", fail)
        loop.start()
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(Unavailable)), 1)
        self.assertIn("no answer", loop.problem or "")
        self.assertEqual(self.state(), (VmState.RUNNING, None))
        broken.restore()
        self.clock.advance(INTERVAL)
        self.assertIsNone(loop.problem)
        loop.stop()
