"""Deciding what to do so that VMs are where their owners want them. A pure function.

``discover → plan → act``: the records and what the hypervisor sees go in, actions come out;
`hero.compute.actor` carries them out. Three rules:

- A guest that stopped on its own is written down as stopped, with the reason, and stays so until
  its owner starts it. One that a restart of the machine stopped is started again.
- A guest that no record knows is never touched; it is reported.
- Deleting goes on until it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import attrs

from hero.compute.guest import GuestObservation, GuestState, StopReason
from hero.compute.model import VmState, WantedState
from hero.compute.record import VmRecord

GONE = "the guest's files are gone"
FROZEN = "the guest was frozen by its hypervisor"

#: Why a guest stopped where that was its own doing. Every other stop was ours, or was the
#: machine's, and the owner's wish for it to run stands.
_OF_ITS_OWN = frozenset({StopReason.GUEST_SHUTDOWN, StopReason.GUEST_PANIC, StopReason.CRASHED})


@attrs.frozen
class Action:
    """Something to do about the VM *sid*."""

    sid: str


@attrs.frozen
class Provision(Action):
    """Go on with a deploy that was interrupted."""


@attrs.frozen
class Observe(Action):
    """Write down what is seen."""

    state: VmState
    reason: str | None = None
    started_at: datetime | None = None


@attrs.frozen
class Start(Action):
    """Start the guest."""


@attrs.frozen
class Stop(Action):
    """Stop the guest."""


@attrs.frozen
class Pause(Action):
    """Freeze the guest."""


@attrs.frozen
class Resume(Action):
    """Let the guest go on."""


@attrs.frozen
class Remove(Action):
    """Go on with a delete that was interrupted."""


_UNMADE = (VmState.REQUESTED, VmState.PROVISIONING)
_MOVES: Mapping[tuple[VmState, WantedState], type[Action]] = {
    (VmState.STOPPED, WantedState.RUNNING): Start,
    (VmState.RUNNING, WantedState.STOPPED): Stop,
    (VmState.PAUSED, WantedState.STOPPED): Stop,
    (VmState.RUNNING, WantedState.PAUSED): Pause,
    (VmState.PAUSED, WantedState.RUNNING): Resume,
}


def plan(records: Iterable[VmRecord], observations: Mapping[str, GuestObservation]) -> list[Action]:
    """The actions that bring *records* and *observations* together, at most two for each VM."""
    actions: list[Action] = []
    for record in records:
        if record.deleted_at is None:
            actions += _plan_one(record, observations.get(record.sid))
    return actions


def unknown_guests(
    records: Iterable[VmRecord], observations: Mapping[str, GuestObservation]
) -> list[str]:
    """Guests that are here and that no record knows, in order."""
    return sorted(set(observations) - {r.sid for r in records if r.deleted_at is None})


def _plan_one(record: VmRecord, seen: GuestObservation | None) -> list[Action]:
    sid = record.sid
    if record.wanted is WantedState.DELETED or record.state is VmState.DELETING:
        return [Remove(sid)]
    if record.state in _UNMADE:
        return [Provision(sid)]
    actions: list[Action] = []
    state, reason = _seen_state(record, seen)
    if (state, reason) != (record.state, record.reason):
        actions.append(Observe(sid, state, reason, seen.started_at if seen else None))
    if reason is None:
        move = _MOVES.get((state, record.wanted))
        if move is not None:
            actions.append(move(sid))
    return actions


def _seen_state(record: VmRecord, seen: GuestObservation | None) -> tuple[VmState, str | None]:
    """Where the VM is now, and why where nobody asked for that."""
    if seen is not None and seen.state is GuestState.RUNNING:
        return VmState.RUNNING, None
    if seen is not None and seen.state is GuestState.PAUSED:
        if record.state is VmState.PAUSED:
            return VmState.PAUSED, record.reason
        unasked = record.state is VmState.RUNNING and record.wanted is WantedState.RUNNING
        return VmState.PAUSED, FROZEN if unasked else None
    if record.state in (VmState.STOPPED, VmState.FAILED):
        return record.state, record.reason
    if seen is None:
        return VmState.FAILED, GONE
    if record.wanted is not WantedState.STOPPED and seen.reason in _OF_ITS_OWN:
        return VmState.STOPPED, seen.reason.value
    if record.wanted is WantedState.PAUSED and seen.reason is StopReason.HOST_REBOOT:
        return VmState.STOPPED, seen.reason.value
    return VmState.STOPPED, None
