"""One guest that QEMU runs: its process, the line to it, and the record of its run.

The record is written before what it says is done, so that whoever comes later can tell how far
things got. A guest's run ends in one place, `QemuGuest._ended`, when its process is gone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger

from hero.compute.guest import GuestObservation, GuestSpec, GuestState, StopReason
from hero.compute.hypervisor import qemu_command
from hero.compute.hypervisor.errors import (
    GuestControlFailed,
    GuestNotStarted,
    HypervisorMissing,
)
from hero.compute.hypervisor.process import (
    DetachedChild,
    HeldProcess,
    command_line,
    process_with,
    start_detached,
    start_ticks,
)
from hero.compute.hypervisor.qmp import QmpClient, QmpError, QmpLost, connect_qmp
from hero.compute.hypervisor.run_record import RunRecord, read_record, this_boot, write_record
from hero.compute.programs import ProgramMissing
from hero.errors import Conflict

_log = Logger()

#: Seconds that QEMU may take to answer, from being started and once it runs.
_START_LIMIT = 15.0
_ANSWER_LIMIT = 5.0
#: Seconds between looks for a socket that QEMU is about to make.
_START_PAUSE = 0.02
#: Seconds between presses of a guest's power button.
_BUTTON_PAUSE = 1.0
#: Seconds for a process to be gone after SIGKILL; more means that the kernel holds it.
_KILL_LIMIT = 10.0

#: QEMU's run states in which the guest's processors run, and those in which its run is over.
_RUNNING = {"running", "suspended"}
_OVER = {
    "shutdown": StopReason.GUEST_SHUTDOWN,
    "guest-panicked": StopReason.GUEST_PANIC,
    "internal-error": StopReason.CRASHED,
}


class QemuGuest:
    """A guest whose files are in *directory*. *changed* is called when it changes on its own.

    Callers hold `lock` while they command it.
    """

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        record: RunRecord,
        changed: Callable[[GuestObservation], None],
    ) -> None:
        self.lock = DeferredLock()
        self.directory = directory
        self._reactor = reactor
        self._record = record
        self._changed = changed
        self._state = GuestState.RUNNING
        self._process: HeldProcess | None = None
        self._qmp: QmpClient | None = None
        self._gone: list[Deferred[None]] = []
        self._commanded = False

    def observation(self) -> GuestObservation:
        """The guest as last seen."""
        return self._record.observation(self._state)

    async def adopt(self) -> None:
        """Find the run that the record speaks of, and see what became of it."""
        if self._record.over:
            return
        if self._process is None and not self._find():
            return
        try:
            await self._line()
        except QmpError as error:
            _log.warn("guest {sid} runs and does not answer: {error}", sid=self.sid, error=error)

    def _find(self) -> bool:
        """Whether the process of the run is still there; if it is, take hold of it."""
        if self._record.boot_id != this_boot():
            self._note(over=True, reason=self._record.reason or StopReason.HOST_REBOOT)
            return False
        process = HeldProcess.hold(
            self._reactor, self._recorded_pid(), self._is_the_run, self._ended
        )
        if process is None:
            self._note(over=True, reason=self._record.reason or StopReason.CRASHED)
            return False
        self._process = process
        # A reason recorded in advance was that of a stop which did not come to its end.
        self._note(pid=process.pid, start_ticks=start_ticks(process.pid), reason=None)
        return True

    async def start(self, spec: GuestSpec, accelerator: str) -> None:
        """Boot the guest. Raises `GuestNotStarted` or `HypervisorMissing`."""
        run = str(uuid.uuid4())
        self._state = GuestState.RUNNING
        self._write(
            uuid=run,
            boot_id=this_boot(),
            pid=None,
            start_ticks=None,
            started=time.time(),
            reason=None,
            over=False,
        )
        argv = qemu_command.guest_command(spec, run, accelerator)
        self._remove_sockets()
        try:
            child = start_detached(
                self._reactor, argv, self.directory, self.directory / qemu_command.MESSAGES
            )
        except ProgramMissing as missing:
            self._write(over=True, reason=StopReason.CRASHED)
            raise program_missing(str(missing)) from None
        self._note(pid=child.pid, start_ticks=start_ticks(child.pid))
        self._process = HeldProcess.hold(
            self._reactor, child.pid, lambda pid: start_ticks(pid) is not None, self._ended
        )
        with self._commanding():
            await self._wait_until_up(child)

    async def stop(self, grace: float) -> StopReason:
        """Ask the guest to power off, and pull the plug after *grace* seconds."""
        if not self._record.over and self._state is GuestState.RUNNING and grace > 0:
            with self._commanding():
                self._note(reason=StopReason.STOPPED)
                try:
                    await self._ask_to_power_off(grace)
                except QmpError as error:
                    _log.warn("guest {sid} cannot be asked: {error}", sid=self.sid, error=error)
        if not self._record.over:
            await self.kill()
        assert self._record.reason is not None, "what is over has a reason"
        return self._record.reason

    async def kill(self) -> None:
        """Pull the plug."""
        if self._record.over or (self._process is None and not self._find()):
            return
        with self._commanding():
            self._note(reason=StopReason.KILLED)
            if self._process is not None:
                self._process.kill()
            if not await self._wait_until_gone(_KILL_LIMIT):
                raise GuestControlFailed(
                    f"the process {self._record.pid} of guest {self.sid} cannot be killed",
                    hint="its disk may be on storage that does not answer",
                )

    async def pause(self) -> None:
        """Freeze the guest."""
        self._must_be_alive("paused")
        await self._command("stop")
        self._must_be_alive("paused")
        self._state = GuestState.PAUSED

    async def resume(self) -> None:
        """Let the guest go on."""
        self._must_be_alive("resumed")
        await self._command("cont")
        self._must_be_alive("resumed")
        self._state = GuestState.RUNNING

    def release(self) -> None:
        """Let go of the guest, which runs on."""
        if self._process is not None:
            self._process.release()
            self._process = None
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None

    @property
    def sid(self) -> str:
        """The guest's id."""
        return self._record.sid

    @contextmanager
    def _commanding(self) -> Iterator[None]:
        """While in here, what the guest turns into is its caller's doing, not its own."""
        before, self._commanded = self._commanded, True
        try:
            yield
        finally:
            self._commanded = before

    def _must_be_alive(self, verb: str) -> None:
        if self._record.over:
            raise Conflict(f"guest {self.sid} is stopped and cannot be {verb}")

    async def _ask_to_power_off(self, grace: float) -> None:
        """Press the power button, now and then, as a guest that still boots does not notice."""
        deadline = self._reactor.seconds() + grace
        while not self._record.over and (left := deadline - self._reactor.seconds()) > 0:
            line = await self._line()
            await line.execute("system_powerdown", limit=_ANSWER_LIMIT)
            await self._wait_until_gone(min(left, _BUTTON_PAUSE))

    async def _command(self, command: str) -> None:
        with self._commanding():
            try:
                line = await self._line()
                await line.execute(command, limit=_ANSWER_LIMIT)
            except QmpError as error:
                raise GuestControlFailed(f"guest {self.sid}: {error}") from error

    def _recorded_pid(self) -> int:
        """The process of the run, which may have been started and not yet been recorded."""
        if self._record.pid is not None:
            return self._record.pid
        try:
            return int((self.directory / qemu_command.PID_FILE).read_text())
        except (FileNotFoundError, ValueError):
            # QEMU may be too young to have written it.
            return process_with("-uuid", self._record.uuid)

    def _is_the_run(self, pid: int) -> bool:
        """Whether process *pid*, which cannot be replaced by another now, is that of the run."""
        started = start_ticks(pid)
        if self._record.start_ticks is None:
            # It may be on its way from setsid to QEMU; both have the run's id as an argument.
            return started is not None and self._record.uuid in command_line(pid)
        return started == self._record.start_ticks

    async def _wait_until_up(self, child: DetachedChild) -> None:
        """Wait for QEMU to answer. If it ends instead, say why."""
        deadline = self._reactor.seconds() + _START_LIMIT
        while True:
            if child.ended.called or self._record.over:
                status = await child.ended
                self._note(over=True, reason=StopReason.CRASHED)
                raise GuestNotStarted(
                    f"QEMU ended with status {status}: {child.last_words() or 'no message'}"
                )
            try:
                await self._line()
                return
            except QmpError as error:
                if self._reactor.seconds() > deadline:
                    await self.kill()
                    raise GuestNotStarted(
                        f"QEMU did not answer within {_START_LIMIT:g} s: {error}"
                    ) from error
            await deferLater(self._reactor, _START_PAUSE)

    async def _line(self) -> QmpClient:
        """The line to QEMU, made if need be. Raises a `QmpError`."""
        if self._qmp is not None:
            return self._qmp
        try:
            line = await self._connect(qemu_command.QMP_SOCKET)
        except QmpError as error:
            if isinstance(error, QmpLost):
                raise
            # Somebody else holds the one line that is served.
            line = await self._connect(qemu_command.SPARE_QMP_SOCKET)
        self._qmp = line
        line.lost.addCallback(lambda _: self._line_lost(line))
        try:
            answer = await line.execute("query-uuid", limit=_ANSWER_LIMIT)
            if answer["UUID"] != self._record.uuid:
                raise QmpLost(f"another guest answers at {self.directory}")
            self._see((await line.execute("query-status", limit=_ANSWER_LIMIT))["status"])
        except QmpError:
            line.close()
            raise
        except (LookupError, TypeError) as error:
            line.close()
            raise QmpLost(f"what answers at {self.directory} is not QEMU") from error
        return line

    async def _connect(self, socket: str) -> QmpClient:
        return await connect_qmp(self._reactor, self.directory / socket, self._event, _ANSWER_LIMIT)

    def _line_lost(self, line: QmpClient) -> None:
        if self._qmp is line:
            self._qmp = None

    def _event(self, name: str, data: dict[str, Any]) -> None:
        """What QEMU says of its own accord."""
        if name == "SHUTDOWN" and data.get("guest"):
            self._see("shutdown")
        elif name == "GUEST_PANICKED":
            self._see("guest-panicked")
        elif name in ("STOP", "RESUME") and self._record.reason is None:
            self._see("paused" if name == "STOP" else "running")

    def _see(self, status: str) -> None:
        """Note QEMU's run state."""
        reason = _OVER.get(status)
        if reason is not None:
            self._note(reason=self._record.reason or reason)
            Deferred.fromCoroutine(self._quit())
            return
        state = GuestState.RUNNING if status in _RUNNING else GuestState.PAUSED
        if state is not self._state:
            self._state = state
            if not self._commanded:
                self._changed(self.observation())

    async def _quit(self) -> None:
        """End the process of a guest that is done. Raises nothing."""
        line, process = self._qmp, self._process
        if process is None:
            return
        try:
            if line is not None:
                await line.execute("quit", limit=_ANSWER_LIMIT)
        except QmpError as error:
            _log.debug("guest {sid} did not confirm: {error}", sid=self.sid, error=error)
        if not await self._wait_until_gone(_ANSWER_LIMIT) and self._process is process:
            process.kill()

    def _ended(self) -> None:
        """The process is gone."""
        self._process = None
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        self._note(over=True, reason=self._record.reason or StopReason.CRASHED)
        self._remove_sockets()
        gone, self._gone = self._gone, []
        for waiting in gone:
            if not waiting.called:
                waiting.callback(None)
        if not self._commanded:
            self._changed(self.observation())

    async def _wait_until_gone(self, limit: float) -> bool:
        """Whether the process was gone within *limit* seconds."""
        if self._record.over:
            return True
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        gone.addTimeout(limit, self._reactor)
        try:
            await gone
        except DeferredTimeout:
            return False
        return True

    def _write(self, **changes: Any) -> None:
        """Record what is about to be done. Raises `OSError`."""
        self._record = attrs.evolve(self._record, **changes)
        write_record(self.directory, self._record)

    def _note(self, **changes: Any) -> None:
        """Record what has happened anyway; a full disk must not keep us from going on."""
        try:
            self._write(**changes)
        except OSError as error:
            _log.error("guest {sid} is not recorded: {error}", sid=self.sid, error=error)

    def _remove_sockets(self) -> None:
        for name in (
            qemu_command.QMP_SOCKET,
            qemu_command.SPARE_QMP_SOCKET,
            qemu_command.CONSOLE_SOCKET,
            qemu_command.PID_FILE,
        ):
            (self.directory / name).unlink(missing_ok=True)


def load_guest(
    reactor: Any, directory: Path, changed: Callable[[GuestObservation], None]
) -> QemuGuest:
    """The guest that *directory* has the record of."""
    return QemuGuest(reactor, directory, read_record(directory), changed)


def program_missing(program: str) -> HypervisorMissing:
    """What to say where *program* is not installed."""
    package = qemu_command.PACKAGES.get(program, "util-linux")
    return HypervisorMissing(
        f"{program} is not installed on this node",
        hint=f"install it: sudo apt-get install {package}",
    )
