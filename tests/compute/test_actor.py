"""What is done to VMs, and what is left when it fails."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from hero.compute.errors import SliceUnavailable
from hero.compute.guest import GuestState
from hero.compute.hypervisor.errors import (
    DiskFailed,
    GuestControlFailed,
    GuestFilesGone,
    GuestNotStarted,
)
from hero.compute.model import VmState, WantedState
from hero.errors import Conflict, NotFound
from tests.compute.inline import NodeTestCase, record

SID = "vm-0000000001"


class ActorTests(NodeTestCase):
    """`VmActor` with a hypervisor in memory."""

    def guest(self, sid: str = SID) -> Any:
        return self.get(self.hypervisor.observe()).get(sid)

    def assertNothingLeft(self) -> None:
        self.assertEqual(self.successResultOf(self.store.all()), [])
        self.assertEqual(self.free_slices(), 3)
        self.assertIsNone(self.guest())

    def test_life_of_a_vm(self) -> None:
        """Each command leaves record and guest in the same state."""
        self.assertEqual(self.deploy().state, VmState.RUNNING)
        for command, state in (
            (lambda: self.actor.pause(SID), VmState.PAUSED),
            (lambda: self.actor.resume(SID), VmState.RUNNING),
            (lambda: self.actor.restart(SID, 1.0), VmState.RUNNING),
            (lambda: self.actor.halt(SID, 1.0), VmState.STOPPED),
            (lambda: self.actor.restart(SID, 0.0), VmState.RUNNING),
            (lambda: self.actor.halt(SID, 0.0), VmState.STOPPED),
            (lambda: self.actor.start(SID), VmState.RUNNING),
        ):
            after = self.get(command())
            self.assertEqual(after.state, state)
            self.assertEqual(after.wanted.value, state.value)
            self.assertEqual(self.guest().state.value, state.value)
        self.get(self.actor.delete(SID, force=True))
        self.assertNothingLeft()

    def test_every_state_of_a_deploy_is_written_and_told(self) -> None:
        """State is written before it is acted on."""
        self.deploy()
        self.assertEqual(
            [r.state.value for r in self.written],
            ["requested", "provisioning", "stopped", "running"],
        )

    def test_deploy_without_start(self) -> None:
        """It can be left stopped."""
        self.assertEqual(self.deploy(wanted=WantedState.STOPPED).state, VmState.STOPPED)
        self.assertEqual(self.guest().state, GuestState.STOPPED)

    def test_refused_deploy(self) -> None:
        """A node that is full says so, and nothing changes."""
        self.fails(self.actor.deploy(record(), 4), SliceUnavailable)
        self.assertNothingLeft()

    def test_failed_deploy_leaves_nothing(self) -> None:
        """Whichever step fails, the steps before it are undone."""
        for number, (step, error) in enumerate(
            (("create_disk", DiskFailed("full")), ("start", GuestNotStarted("no")))
        ):
            sid = f"vm-000000001{number}"
            broken = self.patch(self.hypervisor, step, _raiser(error))
            self.assertIs(self.fails(self.actor.deploy(record(sid), 2), type(error)), error)
            self.assertNothingLeft()
            remembered = self.successResultOf(self.store.get(sid))
            self.assertEqual(remembered.reason, error.detail)
            broken.restore()

    def test_cancelled_deploy_leaves_nothing(self) -> None:
        """Cancelling undoes what was done."""
        self.patch(self.hypervisor, "create_disk", lambda spec: Deferred())
        deploying = Deferred.fromCoroutine(self.actor.deploy(record(), 1))
        self.assertNoResult(deploying)
        deploying.cancel()
        self.failureResultOf(deploying, CancelledError)
        self.assertNothingLeft()

    def test_deploy_is_left_for_the_next_start_when_the_service_stops(self) -> None:
        """Stopping the service is no reason to undo what an owner asked for."""
        self.patch(self.hypervisor, "create_disk", lambda spec: Deferred())
        deploying = Deferred.fromCoroutine(self.actor.deploy(record(), 1))
        self.actor.stop()
        deploying.cancel()
        self.failureResultOf(deploying, CancelledError)
        (left,) = self.successResultOf(self.store.all())
        self.assertEqual(left.state, VmState.PROVISIONING)
        self.fails(self.actor.start(SID), CancelledError)

    def test_undo_that_fails_is_tried_again(self) -> None:
        """The first error is told, and the reconciler goes on with the delete."""
        self.patch(self.hypervisor, "start", _raiser(GuestNotStarted("no")))
        undo = self.patch(self.hypervisor, "remove", _raiser(DiskFailed("busy")))
        self.fails(self.actor.deploy(record(), 1), GuestNotStarted)
        self.assertEqual(len(self.flushLoggedErrors(DiskFailed)), 1)
        undo.restore()
        self.get(self.make_loop().begin())
        self.assertNothingLeft()

    def test_failed_start(self) -> None:
        """The VM says why, is not started again by itself, and can be started by its owner."""
        self.deploy(wanted=WantedState.STOPPED)
        broken = self.patch(self.hypervisor, "start", _raiser(GuestNotStarted("no memory")))
        self.fails(self.actor.start(SID), GuestNotStarted)
        failed = self.successResultOf(self.store.get(SID))
        self.assertEqual((failed.state, failed.reason), (VmState.FAILED, "no memory"))
        self.get(self.make_loop().begin())
        self.assertEqual(self.successResultOf(self.store.get(SID)), failed)
        broken.restore()
        self.assertIsNone(self.get(self.actor.start(SID)).reason)

    def test_start_without_files(self) -> None:
        """A VM whose files are gone is not given an empty disk instead."""
        self.deploy(wanted=WantedState.STOPPED)
        directory = self.directory / SID
        directory.rename(self.directory / "elsewhere")
        self.fails(self.actor.start(SID), GuestFilesGone)
        self.assertFalse(directory.exists())
        (self.directory / "elsewhere").rename(directory)
        self.assertEqual(self.get(self.actor.start(SID)).state, VmState.RUNNING)

    def test_pause_or_resume_that_fails(self) -> None:
        """Who was told that it failed does not find it done later."""
        self.deploy()
        for name, before in (("pause", VmState.RUNNING), ("resume", VmState.PAUSED)):
            broken = self.patch(self.hypervisor, name, _raiser(GuestControlFailed("silent")))
            self.fails(getattr(self.actor, name)(SID), GuestControlFailed)
            broken.restore()
            self.get(self.make_loop().begin())
            now = self.successResultOf(self.store.get(SID))
            self.assertEqual((now.state, now.wanted.value), (before, before.value))
            self.get(self.actor.pause(SID))

    def test_commands_that_do_not_fit(self) -> None:
        """They are refused in words, and change nothing."""
        self.deploy()
        self.fails(self.actor.delete(SID, force=False), Conflict)
        self.fails(self.actor.resume("vm-none"), NotFound)
        self.get(self.actor.pause(SID))
        self.assertIn("resume", self.fails(self.actor.start(SID), Conflict).hint)
        self.get(self.actor.halt(SID, 0.0))
        self.fails(self.actor.pause(SID), Conflict)
        self.get(self.actor.delete(SID, force=False))
        self.fails(self.actor.delete(SID, force=False), NotFound)

    def test_force_does_not_wait_for_a_guest_that_is_asked(self) -> None:
        """Who has waited long enough for a guest to power off can pull the plug."""
        for number, force in enumerate(
            (lambda sid: self.actor.halt(sid, 0.0), lambda sid: self.actor.delete(sid, force=True))
        ):
            sid = f"vm-000000001{number}"
            self.deploy(sid)
            deaf = self.patch(self.hypervisor, "stop", lambda sid, grace: _wait_for(Deferred()))
            halting = Deferred.fromCoroutine(self.actor.halt(sid, 3600.0))
            self.assertNoResult(halting)
            self.get(force(sid))
            deaf.restore()
            self.assertEqual(self.successResultOf(halting).state, VmState.STOPPED)

    def test_one_at_a_time(self) -> None:
        """A command waits for the one before it on the same VM, not on another."""
        self.deploy()
        stopped: Deferred[Any] = Deferred()
        self.patch(self.hypervisor, "stop", lambda sid, grace: _wait_for(stopped))
        halting = Deferred.fromCoroutine(self.actor.halt(SID, 60.0))
        pausing = Deferred.fromCoroutine(self.actor.pause(SID))
        self.deploy("vm-0000000002")
        self.assertNoResult(pausing)
        stopped.callback(None)
        self.successResultOf(halting)
        self.failureResultOf(pausing, Conflict)
        self.assertFalse(self.actor.busy(SID))


def _raiser(error: Exception) -> Any:
    async def fail(*arguments: Any) -> None:
        raise error

    return fail


async def _wait_for(event: Deferred[Any]) -> None:
    await event
