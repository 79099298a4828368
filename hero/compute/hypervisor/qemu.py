"""The hypervisor that runs real guests, with QEMU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from hero.compute.console_log import trim_console
from hero.compute.guest import (
    GuestObservation,
    GuestSpec,
    GuestState,
    GuestStats,
    StopReason,
)
from hero.compute.hypervisor import qemu_command
from hero.compute.hypervisor.errors import DiskFailed, GuestNotStarted
from hero.compute.hypervisor.qemu_guest import QemuGuest, load_guest, program_missing
from hero.compute.hypervisor.run_record import RunRecord, has_record, write_record
from hero.compute.interfaces import GuestObserver, IHypervisor
from hero.compute.model import Accelerator
from hero.compute.programs import ProgramMissing, run_program
from hero.errors import NotFound

_log = Logger()

#: Seconds that making a disk may take; it is a matter of milliseconds on storage that works.
_DISK_LIMIT = 60.0

#: Directories of guests that are being deleted are called this and more.
_REMOVED = ".removed-"


@implementer(IHypervisor)
class QemuHypervisor:
    """Runs each guest in a QEMU process that outlives ours, in a directory below *vms_dir*.

    *accelerator* is what `hero.compute.hypervisor.accelerator` found to work; it may be set anew,
    for guests that start from then on.
    """

    def __init__(self, reactor: Any, vms_dir: Path, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._reactor = reactor
        self._vms_dir = vms_dir
        self._guests: dict[str, QemuGuest] = {}
        self._observers: list[GuestObserver] = []

    async def create_disk(self, spec: GuestSpec) -> None:
        """Make the guest's own disk over its image's, as a qcow2 file."""
        try:
            guest = self._known_or_new(spec)
            async with guest.lock:
                await self._create_disk(spec)
        except OSError as error:
            raise DiskFailed(_trouble(spec, error)) from error

    async def start(self, spec: GuestSpec) -> GuestObservation:
        """Boot the guest, making its disk if need be; one that runs or is paused is left alone."""
        try:
            guest = self._known_or_new(spec)
            async with guest.lock:
                await self._start(guest, spec)
        except OSError as error:
            raise GuestNotStarted(_trouble(spec, error)) from error
        return guest.observation()

    async def stop(self, sid: str, grace: float) -> StopReason:
        """Ask the guest to power off, and after *grace* seconds pull the plug."""
        guest = await self._found(sid)
        async with guest.lock:
            return await guest.stop(grace)

    async def kill(self, sid: str) -> None:
        """Pull the plug."""
        guest = await self._found(sid)
        async with guest.lock:
            await guest.kill()

    async def pause(self, sid: str) -> None:
        """Freeze the guest."""
        guest = await self._found(sid)
        async with guest.lock:
            await guest.pause()

    async def resume(self, sid: str) -> None:
        """Let the guest go on."""
        guest = await self._found(sid)
        async with guest.lock:
            await guest.resume()

    async def observe(self) -> dict[str, GuestObservation]:
        """Every guest below *vms_dir*. A guest that is being commanded is told as last seen."""
        for directory in self._vms_dir.glob("*"):
            if directory.name.startswith(_REMOVED):
                await self._in_thread(shutil.rmtree, directory, ignore_errors=True)
            elif directory.name not in self._guests and has_record(directory):
                self._load(directory)
        guests = dict(self._guests)
        idle = [guest for guest in guests.values() if not guest.lock.locked]
        await gatherResults(
            [Deferred.fromCoroutine(_adopt(guest)) for guest in idle],
            consumeErrors=True,
        )
        for sid in guests:
            try:
                await self._in_thread(trim_console, self.console_path(sid))
            except OSError as error:
                _log.warn("the console of {sid} is not trimmed: {error}", sid=sid, error=error)
        return {sid: guest.observation() for sid, guest in guests.items()}

    async def remove(self, sid: str) -> None:
        """Pull the plug, delete the guest's files and forget it."""
        try:
            guest = await self._found(sid)
        except NotFound:
            # A guest that was not even recorded may have left its directory.
            await self._in_thread(shutil.rmtree, self._vms_dir / sid, ignore_errors=True)
            return
        async with guest.lock:
            await self._remove(guest)

    async def stats(self, sid: str) -> GuestStats:
        """What the guest's process and disk use."""
        guest = await self._found(sid)
        seen = guest.observation()
        cpu_seconds, resident = 0.0, 0
        if seen.pid is not None:
            try:
                process = psutil.Process(seen.pid)
                with process.oneshot():
                    times = process.cpu_times()
                    cpu_seconds = times.user + times.system
                    resident = process.memory_info().rss
            except psutil.NoSuchProcess:
                _log.debug("guest {sid} ended while it was measured", sid=sid)
        uptime = None
        if seen.state is not GuestState.STOPPED and seen.started_at is not None:
            uptime = max(self._reactor.seconds() - seen.started_at.timestamp(), 0.0)
        return GuestStats(
            sid=sid,
            state=seen.state,
            cpu_seconds=cpu_seconds,
            memory_resident=resident,
            disk_used=_room_taken(guest.directory / qemu_command.DISK),
            uptime=uptime,
        )

    def console_path(self, sid: str) -> Path:
        """The file that QEMU copies the guest's first serial port to."""
        return self._vms_dir / sid / qemu_command.CONSOLE_LOG

    def subscribe(self, observer: GuestObserver) -> Callable[[], None]:
        """Call *observer* when a guest changes on its own."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def close(self) -> None:
        """Let go of the guests, which run on."""
        for guest in self._guests.values():
            guest.release()
        self._guests.clear()

    async def _found(self, sid: str) -> QemuGuest:
        """The guest, adopted if this is the first that is heard of it."""
        guest = self._guests.get(sid)
        if guest is None:
            directory = self._vms_dir / sid
            if not has_record(directory):
                raise NotFound(f"there is no guest {sid} on this node")
            guest = self._load(directory)
            await _adopt(guest)
        return guest

    def _known_or_new(self, spec: GuestSpec) -> QemuGuest:
        directory = spec.directory
        if spec.sid not in self._guests and not has_record(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_record(directory, RunRecord(sid=spec.sid))
        return self._guests.get(spec.sid) or self._load(directory)

    def _load(self, directory: Path) -> QemuGuest:
        guest = load_guest(self._reactor, directory, self._tell)
        self._guests[guest.sid] = guest
        return guest

    async def _start(self, guest: QemuGuest, spec: GuestSpec) -> None:
        await guest.adopt()
        if guest.observation().state is GuestState.STOPPED:
            await self._create_disk(spec)
            await guest.start(spec, self.accelerator.name)

    async def _create_disk(self, spec: GuestSpec) -> None:
        directory = spec.directory
        if (directory / qemu_command.DISK).exists():
            return
        unfinished = f"{qemu_command.DISK}.new"
        argv = qemu_command.disk_command(spec.disk, spec.image.disk, unfinished)
        try:
            result = await run_program(
                self._reactor,
                argv,
                directory=directory,
                limit=_DISK_LIMIT,
            )
        except ProgramMissing as missing:
            raise program_missing(str(missing)) from None
        if result.status != 0:
            raise DiskFailed(f"the disk of guest {spec.sid}: {result.last_words}")
        os.replace(directory / unfinished, directory / qemu_command.DISK)

    async def _remove(self, guest: QemuGuest) -> None:
        await guest.kill()
        guest.release()
        self._guests.pop(guest.sid, None)
        retired = self._vms_dir / f"{_REMOVED}{guest.sid}"
        os.replace(guest.directory, retired)
        await self._in_thread(shutil.rmtree, retired, ignore_errors=True)

    def _tell(self, observation: GuestObservation) -> None:
        for observer in tuple(self._observers):
            try:
                observer(observation.sid, observation)
            except Exception:
                _log.failure("an observer of guest {sid} failed", sid=observation.sid)

    def _in_thread(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, work, *args, **kwargs)


async def _adopt(guest: QemuGuest) -> None:
    async with guest.lock:
        await guest.adopt()


def _trouble(spec: GuestSpec, error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"guest {spec.sid}: {error.strerror or error}{where}"


def _room_taken(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
