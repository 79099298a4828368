"""The processes of a node under one parent, on Twisted's `ProcessMonitor`.

A process that dies is started again with back-off. Output goes to ``var/log/<name>.log``, which
is rotated by size. While the node starts, a process that keeps dying ends the attempt with the
last lines of its log; once all were ready, it is tried again for ever.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.runner.procmon import LoggingProtocol, ProcessMonitor

from hero.errors import HeroError

_LOG_SIZE = 8 * 1024 * 1024
_LOG_FILES = 3
_TAIL_LINES = 15
_QUICK_DEATHS = 3


class ProcessKeepsDying(HeroError):
    """A process of the node ends as soon as it starts; its log says why."""

    kind = "process_keeps_dying"


@attrs.define(kw_only=True)
class ProcessRecord:
    """One process, for those who ask how the node is."""

    name: str
    log: str
    pid: int | None = None
    started_at: float | None = None
    starts: int = 0
    last_exit: str | None = None


class _Output(LoggingProtocol):
    """Copies what a process prints to its log, and keeps the last lines."""

    service: Supervisor
    #: Another process has its name now.
    retired = False

    def connectionMade(self) -> None:
        self._log = self.service.log_of(self.name)
        self.service.process_started(self.name, self.transport.pid)  # type: ignore[union-attr]

    def outReceived(self, data: bytes) -> None:
        self._log.write(data)
        self.service.tails[self.name].extend(data.decode("utf-8", "replace").splitlines())

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        if self.retired:
            self.service.retired_ended(self, reason)
        else:
            self.service.process_ended(self.name, reason)


class Supervisor(ProcessMonitor):
    """Runs the processes that it is given. *changed* is called whenever a record changes; *say*
    gets a line for people. `failed` fails with `ProcessKeepsDying`."""

    threshold = 10
    killTime = 20
    minRestartDelay = 0.5  # type: ignore[assignment]
    maxRestartDelay = 30

    def __init__(
        self,
        reactor: Any,
        *,
        log_directory: Path,
        changed: Callable[[], None],
        say: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(reactor)
        self.records: dict[str, ProcessRecord] = {}
        self.tails: dict[str, deque[str]] = {}
        self.failed: Deferred[None] = Deferred()
        self.settled = False
        self._directory = log_directory
        self._logs: dict[str, LogFile] = {}
        self._quick_deaths: dict[str, int] = {}
        self._ending: dict[str, list[Deferred[None]]] = {}
        self._retired: dict[_Output, Deferred[None]] = {}
        self._changed = changed
        self._say = say
        self._now = now

    def add(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Supervise the process *name*, with the command line *arguments*."""
        self.records[name] = ProcessRecord(name=name, log=str(self._directory / f"{name}.log"))
        self.tails[name] = deque(maxlen=_TAIL_LINES)
        self.addProcess(name, list(arguments), env=dict(environment))

    def startProcess(self, name: str) -> None:
        """Start the process *name* unless it runs."""
        if name in self.protocols:
            return
        process = self._processes[name]
        protocol = _Output()
        protocol.service = self
        protocol.name = name
        self.protocols[name] = protocol
        self.timeStarted[name] = self._clock.seconds()
        self._reactor.spawnProcess(protocol, process.args[0], process.args, env=process.env)

    def log_of(self, name: str) -> LogFile:
        """The open log of the process *name*."""
        if name not in self._logs:
            self._logs[name] = LogFile(
                f"{name}.log",
                str(self._directory),
                rotateLength=_LOG_SIZE,
                defaultMode=0o600,
                maxRotatedFiles=_LOG_FILES,
            )
        return self._logs[name]

    def process_started(self, name: str, pid: int) -> None:
        """The process *name* runs now."""
        record = self.records[name]
        record.pid, record.started_at, record.starts = pid, self._now(), record.starts + 1
        self._changed()

    def process_ended(self, name: str, reason: Failure) -> None:
        """The process *name* has ended, and its output is complete."""
        record = self.records[name]
        record.pid, record.started_at = None, None
        record.last_exit = _describe_exit(reason)
        lived = self._clock.seconds() - self.timeStarted[name]
        quick = self._quick_deaths.get(name, 0) + 1 if lived < self.threshold else 1
        self._quick_deaths[name] = quick
        if self.running:
            self._say(f"{name} ended ({record.last_exit}); starting it again")
        self._monitoredProcessExited(name, reason)
        for waiting in self._ending.pop(name, []):
            waiting.callback(None)
        self._changed()
        if quick >= _QUICK_DEATHS and self.running and not self.settled and not self.failed.called:
            self.failed.errback(self._keeps_dying(record))

    def replace(self, name: str) -> None:
        """Start the process *name* once more, beside the one that runs.

        The new one has to take over from the old one, which is expected to end then. If it ends
        instead, it is started again as any other.
        """
        before: Any = self.protocols.get(name)
        if before is None or not self.running:
            return
        self._say(f"starting a successor of {name}")
        del self.protocols[name]
        before.retired = True
        self._retired[before] = Deferred()
        self.startProcess(name)

    def retired_ended(self, output: _Output, reason: Failure) -> None:
        """A process that was replaced has ended."""
        self._say(f"the {output.name} before has ended ({_describe_exit(reason)})")
        self._retired.pop(output).callback(None)

    def _retired_of(self, name: str) -> list[_Output]:
        return [output for output in self._retired if output.name == name]

    def settle(self) -> None:
        """All were ready: from now on, keep trying, whatever dies."""
        self.settled = True

    async def stop_in_order(self, names: Sequence[str]) -> None:
        """Stop the processes, each when the one before it has ended; kill what takes too long."""
        self.running = 0
        for restart in self.restart.values():
            if restart.active():
                restart.cancel()
        for name in names:
            for output in self._retired_of(name):
                await self._stop_retired(output)
            if name in self.protocols:
                ended: Deferred[None] = Deferred()
                self._ending.setdefault(name, []).append(ended)
                self.stopProcess(name)
                await ended
        for log in self._logs.values():
            log.close()
        self._logs.clear()

    async def _stop_retired(self, output: _Output) -> None:
        transport: Any = output.transport
        transport.signalProcess("TERM")
        killing = self._clock.callLater(self.killTime, transport.signalProcess, "KILL")
        await self._retired[output]
        if killing.active():
            killing.cancel()

    def _keeps_dying(self, record: ProcessRecord) -> ProcessKeepsDying:
        last = [line for line in self.tails[record.name] if line.strip()]
        said = "\n".join(f"    {line}" for line in last)
        return ProcessKeepsDying(
            f"{record.name} does not start ({record.last_exit}); the end of its log:\n{said}",
            hint=f"the whole log is {record.log}; hero doctor looks for the usual causes",
            data={"process": record.name, "log": record.log, "last_lines": last},
        )


def command_line(supervisor_pid: int, arguments: Sequence[str]) -> list[str]:
    """The command that runs a ``twistd`` plugin as a child of the process *supervisor_pid*."""
    return [sys.executable, "-P", "-m", "hero.cli.child", str(supervisor_pid), *arguments]


def _describe_exit(reason: Failure) -> str:
    if reason.check(ProcessDone):
        return "exit code 0"
    signal = getattr(reason.value, "signal", None)
    if signal is not None:
        return f"signal {signal}"
    return f"exit code {getattr(reason.value, 'exitCode', 'unknown')}"
