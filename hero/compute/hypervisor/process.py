"""Processes that outlive ours: starting one, and holding on to one that was found again.

A process id alone may since have been given to another process. It is taken for the same one only
if it started in the same clock tick of the same boot, and then held by a pidfd (pidfd_open(2)),
which never refers to another process.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.compute.programs import ProgramMissing, program_environment

#: How much of a process's first messages is read back, in bytes.
_MESSAGES_KEPT = 4096


def start_ticks(pid: int) -> int | None:
    """When process *pid* started, in clock ticks since boot (proc(5)); None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = stat.rpartition(")")[2].split()
    state, started = after_name[0], int(after_name[19])
    return None if state in "ZX" else started


def command_line(pid: int) -> list[str]:
    """The arguments of process *pid*; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def process_with(option: str, value: str) -> int:
    """A process that has *option* with *value* among its arguments; 0 if there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        if (option, value) in pairwise(command_line(int(entry.name))):
            return int(entry.name)
    return 0


@implementer(IReadDescriptor)
class HeldProcess:
    """A process, not necessarily a child of ours. *ended* is called once, when it is gone."""

    def __init__(
        self, reactor: IReactorFDSet, pid: int, descriptor: int, ended: Callable[[], None]
    ) -> None:
        self.pid = pid
        self._reactor = reactor
        self._descriptor = descriptor
        self._ended = ended
        reactor.addReader(self)

    @classmethod
    def hold(
        cls,
        reactor: IReactorFDSet,
        pid: int,
        still_it: Callable[[int], bool],
        ended: Callable[[], None],
    ) -> HeldProcess | None:
        """Process *pid*, if it exists and ``still_it(pid)`` is true of it."""
        if pid <= 0:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        if not still_it(pid):
            os.close(descriptor)
            return None
        return cls(reactor, pid, descriptor, ended)

    def kill(self) -> None:
        """End the process at once."""
        if self._descriptor >= 0:
            try:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
            except ProcessLookupError:
                return

    def release(self) -> None:
        """Let go of the process, which runs on."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self.release()
        self._ended()

    def connectionLost(self, reason: Failure) -> None:
        self.release()

    def logPrefix(self) -> str:
        return "process"


class DetachedChild(ProcessProtocol):
    """A child in a session of its own, so that it neither dies nor is signalled with us.

    `ended` fires with its exit status, or minus the signal, if it ends while we are there.
    """

    def __init__(self, messages: Path) -> None:
        self.ended: Deferred[int] = Deferred()
        self.pid = 0
        self._messages = messages

    def processExited(self, reason: Failure) -> None:
        if reason.check(ProcessDone):
            self.ended.callback(0)
            return
        status: Any = reason.value
        self.ended.callback(-status.signal if status.signal else status.exitCode or 0)

    def last_words(self) -> str:
        """What it wrote, on one line."""
        with self._messages.open("rb") as messages:
            text = messages.read(_MESSAGES_KEPT).decode(errors="replace")
        return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def start_detached(
    reactor: Any, argv: Sequence[str], directory: Path, messages: Path
) -> DetachedChild:
    """Start *argv* in *directory* with its output in the file *messages*.

    Raises `ProgramMissing`.
    """
    environment = program_environment()
    executable = shutil.which(argv[0], path=environment["PATH"])
    if executable is None:
        raise ProgramMissing(argv[0])
    setsid = shutil.which("setsid", path=environment["PATH"])
    if setsid is None:
        raise ProgramMissing("setsid")
    child = DetachedChild(messages)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    output = os.open(
        messages, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    try:
        # setsid(1) turns into the program; the process id stays.
        transport = reactor.spawnProcess(
            child,
            setsid,
            ["setsid", executable, *argv[1:]],
            env=environment,
            path=str(directory),
            childFDs={0: nothing, 1: output, 2: output},
        )
    finally:
        os.close(nothing)
        os.close(output)
    child.pid = transport.pid
    return child
