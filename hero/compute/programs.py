"""Running a program of the system to its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from hero.errors import Timeout

#: How much of a program's output and of its complaints is kept, in bytes.
_KEPT = 1024 * 1024


def program_environment() -> dict[str, str]:
    """What a program needs to know of our own environment, which may hold secrets: the PATH."""
    return {"PATH": os.environ.get("PATH") or os.defpath, "LC_ALL": "C.UTF-8"}


class ProgramMissing(Exception):
    """The program is not installed. Its only argument is the program's name."""


@attrs.frozen
class ProgramResult:
    """How a program ended: its exit status, or minus the signal that ended it."""

    status: int
    output: str
    complaints: str

    @property
    def last_words(self) -> str:
        """What it complained about, on one line."""
        lines = [line.strip() for line in self.complaints.splitlines() if line.strip()]
        return "; ".join(lines[-3:]) or f"it ended with status {self.status} and no message"


async def run_program(
    reactor: Any,
    argv: Sequence[str],
    *,
    directory: Path,
    limit: float,
    environment: Mapping[str, str] | None = None,
) -> ProgramResult:
    """Run *argv* in *directory*, with its input empty, and wait for it to end.

    *environment* is added to `program_environment`. *reactor* provides `IReactorProcess` and
    `IReactorTime`. Raises `ProgramMissing`; and `hero.errors.Timeout` after *limit* seconds,
    having killed the program. It is killed as well when this process dies.
    """
    environ = {**program_environment(), **(environment or {})}
    executable = shutil.which(argv[0], path=environ["PATH"])
    if executable is None:
        raise ProgramMissing(argv[0])
    protocol = _Collector()
    processes: IReactorProcess = reactor
    clock: IReactorTime = reactor
    command = [*_mortal(environ["PATH"]), executable, *argv[1:]]
    transport: Any = processes.spawnProcess(
        protocol, command[0], command, env=environ, path=str(directory)
    )
    transport.closeStdin()
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        protocol.kill()

    timer = clock.callLater(limit, give_up)
    try:
        result = await protocol.ended
    finally:
        if timer.active():
            timer.cancel()
    if late:
        raise Timeout(f"{argv[0]} did not finish within {limit:g} s and was killed")
    return result


def _mortal(path: str) -> list[str]:
    """What to start a program with so that it does not outlive us (prctl(2), PR_SET_PDEATHSIG)."""
    setpriv = shutil.which("setpriv", path=path)
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL"]


class _Collector(ProcessProtocol):
    """Keeps what a program writes, up to a bound, and fires `ended`."""

    def __init__(self) -> None:
        self.ended: Deferred[ProgramResult] = Deferred(self._abandon)
        self._output = bytearray()
        self._complaints = bytearray()

    def outReceived(self, data: bytes) -> None:
        self._output += data[: _KEPT - len(self._output)]

    def errReceived(self, data: bytes) -> None:
        self._complaints += data
        del self._complaints[:-_KEPT]

    def processEnded(self, reason: Failure) -> None:
        if self.ended.called:
            return
        status: Any = reason.value
        number = -status.signal if getattr(status, "signal", None) else status.exitCode or 0
        self.ended.callback(
            ProgramResult(
                number,
                self._output.decode(errors="replace"),
                self._complaints.decode(errors="replace"),
            )
        )

    def kill(self) -> None:
        """End the program. What it may have started itself is not waited for."""
        transport: Any = self.transport
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess(signal.SIGKILL)
        transport.loseConnection()

    def _abandon(self, _deferred: Deferred[ProgramResult]) -> None:
        self.kill()
