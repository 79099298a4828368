"""The life of a VM. Everything that decides which state may follow which is in this file.

::

    requested → provisioning → stopped ⇄ running ⇄ paused
                                  ↕         ↓
                               failed     failed          any of them → deleting

``failed`` is a VM that the hypervisor could not start; its disk is intact.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from hero.compute.model import VmState
from hero.errors import Conflict

#: Which states can follow each. A guest can stop by itself at any time, hence paused → stopped.
TRANSITIONS: Mapping[VmState, frozenset[VmState]] = {
    VmState.REQUESTED: frozenset({VmState.PROVISIONING, VmState.DELETING}),
    VmState.PROVISIONING: frozenset({VmState.STOPPED, VmState.DELETING}),
    VmState.STOPPED: frozenset({VmState.RUNNING, VmState.PAUSED, VmState.FAILED, VmState.DELETING}),
    VmState.RUNNING: frozenset({VmState.STOPPED, VmState.PAUSED, VmState.FAILED, VmState.DELETING}),
    VmState.PAUSED: frozenset({VmState.RUNNING, VmState.STOPPED, VmState.FAILED, VmState.DELETING}),
    VmState.FAILED: frozenset({VmState.RUNNING, VmState.PAUSED, VmState.STOPPED, VmState.DELETING}),
    VmState.DELETING: frozenset(),
}


class Command(enum.StrEnum):
    """What an owner can ask of a VM that exists."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    DELETE_BY_FORCE = "delete by force"


_AT_REST = frozenset({VmState.STOPPED, VmState.FAILED})
_LIVE = frozenset({VmState.RUNNING, VmState.PAUSED})

#: The states in which each command is accepted. Where the VM already is what the command asks
#: for, the command is accepted and changes nothing.
ACCEPTED: Mapping[Command, frozenset[VmState]] = {
    Command.START: _AT_REST | {VmState.RUNNING},
    Command.STOP: _AT_REST | _LIVE,
    Command.RESTART: _AT_REST | _LIVE,
    Command.PAUSE: _LIVE,
    Command.RESUME: _LIVE,
    Command.DELETE: _AT_REST | {VmState.REQUESTED, VmState.PROVISIONING, VmState.DELETING},
    Command.DELETE_BY_FORCE: frozenset(VmState),
}

_HINTS: Mapping[tuple[Command, VmState], str] = {
    (Command.START, VmState.PAUSED): "resume it instead",
    (Command.PAUSE, VmState.STOPPED): "start it first",
    (Command.RESUME, VmState.STOPPED): "start it instead",
    (Command.DELETE, VmState.RUNNING): "stop it first, or use force",
    (Command.DELETE, VmState.PAUSED): "stop it first, or use force",
}


def check_command(command: Command, name: str, state: VmState) -> None:
    """Raise `Conflict` unless *command* is accepted for the VM *name* in *state*."""
    if state not in ACCEPTED[command]:
        raise Conflict(
            f"VM {name} is {state.value}: cannot {command.value} it",
            hint=_HINTS.get((command, state)),
            data={"state": state.value},
        )


def check_transition(before: VmState, after: VmState) -> None:
    """Raise ValueError where *after* cannot follow *before*: a fault of ours, not of a caller."""
    if after != before and after not in TRANSITIONS[before]:
        raise ValueError(f"a VM cannot go from {before.value} to {after.value}")
