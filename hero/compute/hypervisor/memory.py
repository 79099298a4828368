"""A hypervisor without guests: it only keeps books, as `qemu` would.

It is a verified fake for tests and for trying Hero where no virtual machine can run. Its guests
outlive the process as real ones do, being a file each.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import attrs
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from hero.compute.guest import (
    GuestObservation,
    GuestSpec,
    GuestState,
    GuestStats,
    StopReason,
)
from hero.compute.interfaces import GuestObserver, IHypervisor
from hero.errors import Conflict, NotFound

_FILE = "memory-guest.json"


@attrs.frozen
class _Guest:
    """A guest's books. Times are the clock's seconds."""

    sid: str
    state: GuestState
    reason: StopReason | None
    memory: int
    started: float | None = None

    def observation(self) -> GuestObservation:
        return GuestObservation(
            sid=self.sid,
            state=self.state,
            reason=self.reason,
            started_at=(
                None if self.started is None else datetime.fromtimestamp(self.started, tz=UTC)
            ),
        )


@implementer(IHypervisor)
class MemoryHypervisor:
    """Keeps guests as files in the directories of *vms_dir*, and never runs anything.

    `obedient` is whether guests power off when they are asked to; `power_off` and `crash` are for
    what guests do on their own.
    """

    def __init__(self, clock: IReactorTime, vms_dir: Path) -> None:
        self.obedient = True
        self._clock = clock
        self._vms_dir = vms_dir
        self._observers: list[GuestObserver] = []

    async def create_disk(self, spec: GuestSpec) -> None:
        """Start the guest's books."""
        if not self._path(spec.sid).exists():
            self._write(_Guest(spec.sid, GuestState.STOPPED, StopReason.NEVER_STARTED, spec.memory))

    async def start(self, spec: GuestSpec) -> GuestObservation:
        """Note the guest as running, and let it say so on its console."""
        await self.create_disk(spec)
        guest = self._read(spec.sid)
        if guest.state is GuestState.STOPPED:
            guest = _Guest(spec.sid, GuestState.RUNNING, None, spec.memory, self._clock.seconds())
            self._write(guest)
            self.print_on_console(spec.sid, f"hero micro: {spec.name} ready\r\n".encode())
        return guest.observation()

    async def stop(self, sid: str, grace: float) -> StopReason:
        """Note the guest as stopped."""
        guest = self._read(sid)
        if guest.state is GuestState.STOPPED:
            assert guest.reason is not None, "a stopped guest has a reason"
            return guest.reason
        polite = self.obedient and guest.state is GuestState.RUNNING and grace > 0
        reason = StopReason.STOPPED if polite else StopReason.KILLED
        self._change(guest, GuestState.STOPPED, reason)
        return reason

    async def kill(self, sid: str) -> None:
        """Note the guest as killed."""
        guest = self._read(sid)
        if guest.state is not GuestState.STOPPED:
            self._change(guest, GuestState.STOPPED, StopReason.KILLED)

    async def pause(self, sid: str) -> None:
        """Note the guest as paused."""
        self._change(self._alive(sid, "paused"), GuestState.PAUSED, None)

    async def resume(self, sid: str) -> None:
        """Note the guest as running."""
        self._change(self._alive(sid, "resumed"), GuestState.RUNNING, None)

    async def observe(self) -> dict[str, GuestObservation]:
        """What the books say."""
        guests = (self._read(path.parent.name) for path in self._vms_dir.glob(f"*/{_FILE}"))
        return {guest.sid: guest.observation() for guest in guests}

    async def remove(self, sid: str) -> None:
        """Delete the guest's directory."""
        shutil.rmtree(self._vms_dir / sid, ignore_errors=True)

    async def stats(self, sid: str) -> GuestStats:
        """Made up: a guest uses 5% of a processor and an eighth of its memory."""
        guest = self._read(sid)
        alive = guest.state is not GuestState.STOPPED and guest.started is not None
        uptime = self._clock.seconds() - (guest.started or 0.0) if alive else None
        return GuestStats(
            sid=sid,
            state=guest.state,
            cpu_seconds=(uptime or 0.0) * 0.05,
            memory_resident=guest.memory // 8 if alive else 0,
            disk_used=self._path(sid).stat().st_size,
            uptime=uptime,
        )

    def console_path(self, sid: str) -> Path:
        """The file with what `print_on_console` printed."""
        return self._vms_dir / sid / "console.log"

    def subscribe(self, observer: GuestObserver) -> Callable[[], None]:
        """Call *observer* after `power_off` and `crash`."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def close(self) -> None:
        """Nothing is held."""

    def print_on_console(self, sid: str, data: bytes) -> None:
        """What the guest prints."""
        with self.console_path(sid).open("ab") as console:
            console.write(data)

    def power_off(self, sid: str) -> None:
        """The guest powers itself off."""
        self._end(sid, StopReason.GUEST_SHUTDOWN)

    def crash(self, sid: str) -> None:
        """The guest's process dies."""
        self._end(sid, StopReason.CRASHED)

    def _end(self, sid: str, reason: StopReason) -> None:
        guest = self._change(self._alive(sid, reason.value), GuestState.STOPPED, reason)
        for observer in tuple(self._observers):
            observer(sid, guest.observation())

    def _alive(self, sid: str, verb: str) -> _Guest:
        guest = self._read(sid)
        if guest.state is GuestState.STOPPED:
            raise Conflict(f"guest {sid} is stopped and cannot be {verb}")
        return guest

    def _change(self, guest: _Guest, state: GuestState, reason: StopReason | None) -> _Guest:
        changed = attrs.evolve(guest, state=state, reason=reason)
        self._write(changed)
        return changed

    def _path(self, sid: str) -> Path:
        return self._vms_dir / sid / _FILE

    def _read(self, sid: str) -> _Guest:
        try:
            books = json.loads(self._path(sid).read_bytes())
        except FileNotFoundError:
            raise NotFound(f"there is no guest {sid} on this node") from None
        reason = books["reason"]
        return _Guest(
            sid=sid,
            state=GuestState(books["state"]),
            reason=None if reason is None else StopReason(reason),
            memory=books["memory"],
            started=books["started"],
        )

    def _write(self, guest: _Guest) -> None:
        path = self._path(guest.sid)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(attrs.asdict(guest)))
        os.replace(unfinished, path)
