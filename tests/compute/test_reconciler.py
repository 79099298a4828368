"""What the reconciler decides."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.compute.guest import GuestObservation, GuestState, StopReason
from hero.compute.lifecycle import TRANSITIONS
from hero.compute.model import VmState, WantedState
from hero.compute.reconciler import (
    GONE,
    Action,
    Observe,
    Pause,
    Provision,
    Remove,
    Resume,
    Start,
    Stop,
    plan,
    unknown_guests,
)
from hero.compute.record import VmRecord
from tests.compute.inline import START, record

SID = "vm-0000000001"


def seen(state: GuestState, reason: StopReason | None = None) -> GuestObservation:
    return GuestObservation(sid=SID, state=state, reason=reason)


def planned(
    state: VmState, wanted: WantedState, guest: GuestObservation | None, **changes: Any
) -> list[Action]:
    here = record(SID, state=state, wanted=wanted, **changes)
    return plan([here], {SID: guest} if guest is not None else {})


class PlanTests(SynchronousTestCase):
    """`plan` for each way in which records and guests disagree."""

    def test_agreement(self) -> None:
        """Where everything is as wanted there is nothing to do."""
        running = seen(GuestState.RUNNING)
        self.assertEqual(planned(VmState.RUNNING, WantedState.RUNNING, running), [])

    def test_guest_that_ended_by_itself_stays_stopped(self) -> None:
        """It is written down with the reason, and then left to its owner."""
        ended = seen(GuestState.STOPPED, StopReason.GUEST_SHUTDOWN)
        self.assertEqual(
            planned(VmState.RUNNING, WantedState.RUNNING, ended),
            [Observe(SID, VmState.STOPPED, "guest-shutdown")],
        )
        self.assertEqual(
            planned(VmState.STOPPED, WantedState.RUNNING, ended, reason="guest-shutdown"), []
        )

    def test_machine_that_was_restarted(self) -> None:
        """Its guests did not choose to stop: they are started again."""
        ended = seen(GuestState.STOPPED, StopReason.HOST_REBOOT)
        self.assertEqual(
            planned(VmState.RUNNING, WantedState.RUNNING, ended),
            [Observe(SID, VmState.STOPPED), Start(SID)],
        )
        self.assertEqual(
            planned(VmState.PAUSED, WantedState.PAUSED, ended),
            [Observe(SID, VmState.STOPPED, "host-reboot")],
        )

    def test_start_that_was_interrupted(self) -> None:
        """Written down as wanted, never begun."""
        guest = seen(GuestState.STOPPED, StopReason.GUEST_SHUTDOWN)
        self.assertEqual(planned(VmState.STOPPED, WantedState.RUNNING, guest), [Start(SID)])

    def test_start_whose_end_was_not_written(self) -> None:
        """A live guest is taken over, never started a second time."""
        guest = seen(GuestState.RUNNING)
        self.assertEqual(
            planned(VmState.STOPPED, WantedState.RUNNING, guest), [Observe(SID, VmState.RUNNING)]
        )

    def test_stop_that_was_interrupted(self) -> None:
        """Before and after the guest went."""
        self.assertEqual(
            planned(VmState.RUNNING, WantedState.STOPPED, seen(GuestState.RUNNING)), [Stop(SID)]
        )
        self.assertEqual(
            planned(
                VmState.RUNNING,
                WantedState.STOPPED,
                seen(GuestState.STOPPED, StopReason.GUEST_SHUTDOWN),
            ),
            [Observe(SID, VmState.STOPPED)],
        )

    def test_pause_and_resume_that_were_interrupted(self) -> None:
        """Each goes on in its direction."""
        self.assertEqual(
            planned(VmState.RUNNING, WantedState.PAUSED, seen(GuestState.RUNNING)), [Pause(SID)]
        )
        self.assertEqual(
            planned(VmState.PAUSED, WantedState.RUNNING, seen(GuestState.PAUSED)), [Resume(SID)]
        )

    def test_guest_that_was_frozen_by_something_else(self) -> None:
        """A full disk freezes a guest; letting it go on at once would not help."""
        (action,) = planned(VmState.RUNNING, WantedState.RUNNING, seen(GuestState.PAUSED))
        assert isinstance(action, Observe)
        self.assertEqual(action.state, VmState.PAUSED)
        self.assertIsNotNone(action.reason)

    def test_deploy_and_delete_that_were_interrupted(self) -> None:
        """They go on whatever is seen."""
        for guest in (None, seen(GuestState.RUNNING)):
            for state in (VmState.REQUESTED, VmState.PROVISIONING):
                self.assertEqual(planned(state, WantedState.RUNNING, guest), [Provision(SID)])
            self.assertEqual(planned(VmState.DELETING, WantedState.DELETED, guest), [Remove(SID)])

    def test_guest_whose_files_are_gone(self) -> None:
        """Starting it would make a new, empty disk: that is for its owner to decide."""
        self.assertEqual(
            planned(VmState.RUNNING, WantedState.RUNNING, None),
            [Observe(SID, VmState.FAILED, GONE)],
        )

    def test_guest_without_a_record(self) -> None:
        """It is reported and left alone."""
        guests = {SID: seen(GuestState.RUNNING)}
        self.assertEqual(plan([], guests), [])
        self.assertEqual(unknown_guests([], guests), [SID])
        deleted = record(SID, deleted_at=START)
        self.assertEqual(unknown_guests([deleted], guests), [SID])


records = st.builds(
    lambda state, wanted, reason: record(SID, state=state, wanted=wanted, reason=reason),
    st.sampled_from(sorted(VmState)),
    st.sampled_from(sorted(WantedState)),
    st.none() | st.just("guest-shutdown"),
)
guests = st.none() | st.builds(seen, st.just(GuestState.RUNNING) | st.just(GuestState.PAUSED))
guests |= st.builds(seen, st.just(GuestState.STOPPED), st.sampled_from(sorted(StopReason)))


def carried_out(
    here: VmRecord, guest: GuestObservation | None, action: Action
) -> tuple[VmRecord | None, GuestObservation | None]:
    """What is true after *action*: the record, None once it is deleted, and the guest."""
    match action:
        case Observe():
            return record(SID, state=action.state, wanted=here.wanted, reason=action.reason), guest
        case Remove():
            return None, None
        case Start() | Resume():
            after, guest_after = VmState.RUNNING, GuestState.RUNNING
        case Pause():
            after, guest_after = VmState.PAUSED, GuestState.PAUSED
        case Stop():
            after, guest_after = VmState.STOPPED, GuestState.STOPPED
        case Provision() if here.wanted is WantedState.RUNNING:
            after, guest_after = VmState.RUNNING, GuestState.RUNNING
        case _:
            after, guest_after = VmState.STOPPED, GuestState.STOPPED
    reason = StopReason.STOPPED if guest_after is GuestState.STOPPED else None
    return record(SID, state=after, wanted=here.wanted), seen(guest_after, reason)


class PlanProperties(SynchronousTestCase):
    """What holds for every plan."""

    @settings(deadline=None)
    @given(records, guests)
    def test_comes_to_rest(self, here: VmRecord, guest: GuestObservation | None) -> None:
        """After its plan is carried out, there is nothing more to do."""
        current: VmRecord | None = here
        for _ in range(2):
            actions = plan([current] if current else [], {SID: guest} if guest else {})
            self.assertLessEqual(len(actions), 2)
            for action in actions:
                assert current is not None
                current, guest = carried_out(current, guest, action)
        self.assertEqual(plan([current] if current else [], {SID: guest} if guest else {}), [])

    @settings(deadline=None)
    @given(records, guests)
    def test_never_starts_a_live_guest(
        self, here: VmRecord, guest: GuestObservation | None
    ) -> None:
        """A VM cannot run twice."""
        if guest is not None and guest.state is not GuestState.STOPPED:
            actions = plan([here], {SID: guest})
            self.assertFalse([a for a in actions if isinstance(a, Start)])

    @settings(deadline=None)
    @given(records, guests)
    def test_observes_only_what_can_follow(
        self, here: VmRecord, guest: GuestObservation | None
    ) -> None:
        """What is written down is a transition that the lifecycle knows."""
        for action in plan([here], {SID: guest} if guest else {}):
            if isinstance(action, Observe) and action.state is not here.state:
                self.assertIn(action.state, TRANSITIONS[here.state])

    @settings(deadline=None)
    @given(records, guests)
    def test_deletes_only_what_is_to_be_deleted(
        self, here: VmRecord, guest: GuestObservation | None
    ) -> None:
        """Nothing else ever leads to the loss of a VM."""
        removed = any(isinstance(a, Remove) for a in plan([here], {SID: guest} if guest else {}))
        self.assertEqual(
            removed, here.wanted is WantedState.DELETED or here.state is VmState.DELETING
        )
