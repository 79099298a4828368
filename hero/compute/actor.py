"""Doing things to VMs: one at a time for each VM, each step written down before it is taken.

Every step is logged with its name in ``step`` as it is about to be taken; being killed between
any two of them leaves what the reconciler can finish.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredLock,
    DeferredSemaphore,
    ensureDeferred,
)
from twisted.logger import Logger

from hero.compute.guest import GuestSpec, StopReason
from hero.compute.hypervisor.errors import GuestFilesGone
from hero.compute.interfaces import IHypervisor, IImageStore
from hero.compute.lifecycle import Command, check_command
from hero.compute.model import VmState, WantedState
from hero.compute.reconciler import (
    Action,
    Observe,
    Pause,
    Provision,
    Remove,
    Resume,
    Start,
    Stop,
)
from hero.compute.record import VmRecord
from hero.compute.store import VmStore
from hero.errors import HeroError, InternalError, NotFound

#: Guests that are made, booted or stopped at once.
CONCURRENCY = 8
#: Seconds that a guest gets to power off where the reconciler stops it.
DEFAULT_GRACE = 10.0

Report = Callable[[float, str], Coroutine[Any, Any, None]]

#: Called where a command begins that the reconciler finishes in any case.
Commit = Callable[[], None]


async def no_report(progress: float, message: str) -> None:
    """For work that nobody follows."""


def no_commit() -> None:
    """For work that nobody can cancel."""


class VmActor:
    """Carries out commands of owners and actions of the reconciler.

    *now* tells the time. *changed* is called with each record as it is written.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        store: VmStore,
        hypervisor: IHypervisor,
        images: IImageStore,
        vms_dir: Path,
        now: Callable[[], datetime],
        changed: Callable[[VmRecord], None],
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._store = store
        self._hypervisor = hypervisor
        self._images = images
        self._vms_dir = vms_dir
        self._now = now
        self._changed = changed
        self._slots = DeferredSemaphore(concurrency)
        self._locks: dict[str, tuple[DeferredLock, int]] = {}
        self._asked: dict[str, Deferred[StopReason]] = {}
        self._stopping = False

    def stop(self) -> None:
        """Undo nothing from here on: what is under way is taken up after the next start."""
        self._stopping = True

    def busy(self, sid: str) -> bool:
        """Whether something is being done to the VM *sid*."""
        return sid in self._locks

    async def deploy(
        self,
        record: VmRecord,
        slice_count: int,
        slice_sid: str | None = None,
        report: Report = no_report,
    ) -> VmRecord:
        """Make the VM *record* and bring it to its wanted state, or leave nothing of it."""
        async with self._exclusive(record.sid):
            self._step("deploy.record", record.sid)
            record = await self._store.create(record, slice_count, slice_sid)
            self._changed(record)
            return await self._provision(record, report)

    async def settled(self, sid: str) -> VmRecord:
        """The VM *sid* once nothing is being done to it. Raises `NotFound`."""
        async with self._exclusive(sid):
            return await self._existing(sid)

    async def start(self, sid: str) -> VmRecord:
        """Start the VM *sid*."""
        async with self._exclusive(sid):
            record = await self._accept(Command.START, sid)
            if record.state is VmState.RUNNING:
                return record
            return await self._start(record)

    async def halt(self, sid: str, grace: float, commit: Commit = no_commit) -> VmRecord:
        """Stop the VM *sid*, by force after *grace* seconds.

        Without *grace*, one that is being stopped already gets no more of it either.
        """
        if grace <= 0:
            self._hurry(sid)
        async with self._exclusive(sid):
            record = await self._accept(Command.STOP, sid)
            commit()
            if record.state in (VmState.STOPPED, VmState.FAILED):
                return await self._write(sid, wanted=WantedState.STOPPED)
            self._step("stop.record", sid)
            await self._write(sid, wanted=WantedState.STOPPED)
            return await self._halt(sid, grace)

    async def restart(self, sid: str, grace: float, commit: Commit = no_commit) -> VmRecord:
        """Stop and start the VM *sid*."""
        async with self._exclusive(sid):
            record = await self._accept(Command.RESTART, sid)
            commit()
            if record.state in (VmState.RUNNING, VmState.PAUSED):
                self._step("restart.record", sid)
                await self._write(sid, wanted=WantedState.RUNNING, reason=None)
                record = await self._halt(sid, grace)
            return await self._start(record)

    async def pause(self, sid: str, commit: Commit = no_commit) -> VmRecord:
        """Freeze the VM *sid*."""
        async with self._exclusive(sid):
            record = await self._accept(Command.PAUSE, sid)
            commit()
            self._step("pause.record", sid)
            await self._write(sid, wanted=WantedState.PAUSED)
            async with self._or_as_before(record):
                return await self._pause(sid)

    async def resume(self, sid: str, commit: Commit = no_commit) -> VmRecord:
        """Let the VM *sid* go on."""
        async with self._exclusive(sid):
            record = await self._accept(Command.RESUME, sid)
            commit()
            self._step("resume.record", sid)
            await self._write(sid, wanted=WantedState.RUNNING, reason=None)
            async with self._or_as_before(record):
                return await self._resume(sid)

    async def delete(self, sid: str, *, force: bool, commit: Commit = no_commit) -> VmRecord:
        """Delete the VM *sid* and everything of it."""
        if force:
            self._hurry(sid)
        async with self._exclusive(sid):
            command = Command.DELETE_BY_FORCE if force else Command.DELETE
            await self._accept(command, sid)
            commit()
            return await self._delete(sid)

    async def perform(self, record: VmRecord, actions: Iterable[Action]) -> None:
        """Carry out *actions*, which were planned for *record*, unless it has changed since."""
        async with self._exclusive(record.sid):
            current = await self._store.get(record.sid)
            if current is None or current.revision != record.revision:
                return
            for action in actions:
                await self._perform(current, action)

    async def _perform(self, record: VmRecord, action: Action) -> None:
        match action:
            case Observe():
                await self._observe(record, action)
            case Provision():
                await self._provision(record, no_report)
            case Start():
                await self._start(record)
            case Stop():
                await self._halt(record.sid, DEFAULT_GRACE)
            case Pause():
                await self._pause(record.sid)
            case Resume():
                await self._resume(record.sid)
            case Remove():
                await self._delete(record.sid, record.reason)

    async def _provision(self, record: VmRecord, report: Report) -> VmRecord:
        try:
            return await self._slots.run(self._make, record, report)
        except Exception as error:
            if self._stopping:
                raise
            self._log.info(
                "deploy of {vm} is undone: {error}", vm=record.sid, error=str(error) or repr(error)
            )
            try:
                await self._delete(record.sid, _reason(error))
            except Exception:
                self._log.failure("{vm} is still to be deleted", vm=record.sid)
            raise

    async def _make(self, record: VmRecord, report: Report) -> VmRecord:
        self._step("deploy.provisioning", record.sid)
        record = await self._write(record.sid, state=VmState.PROVISIONING)
        await report(0.1, f"image {record.image}")
        spec = await self._spec(record)
        await report(0.5, "disk")
        self._step("deploy.disk", record.sid)
        await self._hypervisor.create_disk(spec)
        self._step("deploy.made", record.sid)
        record = await self._write(record.sid, state=VmState.STOPPED)
        if record.wanted is WantedState.RUNNING:
            await report(0.7, "start")
            record = await self._boot(record, spec)
        return record

    async def _start(self, record: VmRecord) -> VmRecord:
        self._step("start.record", record.sid)
        record = await self._write(record.sid, wanted=WantedState.RUNNING, reason=None)
        try:
            return await self._slots.run(self._boot_record, record)
        except Exception as error:
            if not self._stopping:
                await self._give_up_start(record.sid, error)
            raise

    async def _give_up_start(self, sid: str, error: Exception) -> None:
        if isinstance(error, CancelledError):
            await self._hypervisor.kill(sid)
            await self._write(sid, state=VmState.STOPPED, wanted=WantedState.STOPPED)
        else:
            await self._write(
                sid, state=VmState.FAILED, wanted=WantedState.STOPPED, reason=_reason(error)
            )

    async def _boot_record(self, record: VmRecord) -> VmRecord:
        spec = await self._spec(record)
        if not spec.directory.is_dir():
            raise GuestFilesGone(
                f"the files of VM {record.name} are not at {spec.directory}",
                hint="bring them back (is their file system mounted?), or delete the VM",
            )
        return await self._boot(record, spec)

    async def _boot(self, record: VmRecord, spec: GuestSpec) -> VmRecord:
        self._step("start.guest", record.sid)
        seen = await self._hypervisor.start(spec)
        self._step("start.seen", record.sid)
        return await self._write(
            record.sid,
            state=VmState(seen.state.value),
            reason=seen.reason.value if seen.reason is not None else None,
            started_at=seen.started_at or self._now(),
        )

    async def _halt(self, sid: str, grace: float) -> VmRecord:
        self._step("stop.guest", sid)
        if grace > 0:
            await self._power_off(sid, grace)
        else:
            await self._hypervisor.kill(sid)
        self._step("stop.seen", sid)
        return await self._write(sid, state=VmState.STOPPED, reason=None)

    async def _power_off(self, sid: str, grace: float) -> None:
        asked = self._asked[sid] = ensureDeferred(self._hypervisor.stop(sid, grace))
        try:
            await asked
        except CancelledError:
            if sid in self._asked:
                raise
            await self._hypervisor.kill(sid)
        finally:
            self._asked.pop(sid, None)

    def _hurry(self, sid: str) -> None:
        """Wait no more for the guest *sid* to power off, where that is being waited for."""
        asked = self._asked.pop(sid, None)
        if asked is not None:
            asked.cancel()

    async def _pause(self, sid: str) -> VmRecord:
        self._step("pause.guest", sid)
        await self._hypervisor.pause(sid)
        return await self._write(sid, state=VmState.PAUSED)

    async def _resume(self, sid: str) -> VmRecord:
        self._step("resume.guest", sid)
        await self._hypervisor.resume(sid)
        return await self._write(sid, state=VmState.RUNNING, reason=None)

    @asynccontextmanager
    async def _or_as_before(self, record: VmRecord) -> AsyncIterator[None]:
        """What fails in here is over: the reconciler does not try it again behind the owner."""
        try:
            yield
        except HeroError:
            await self._write(record.sid, wanted=record.wanted, reason=record.reason)
            raise

    async def _delete(self, sid: str, reason: str | None = None) -> VmRecord:
        self._step("delete.record", sid)
        await self._write(sid, state=VmState.DELETING, wanted=WantedState.DELETED, reason=reason)
        self._step("delete.guest", sid)
        await self._hypervisor.remove(sid)
        self._step("delete.slices", sid)
        record = await self._store.remove(sid, reason)
        assert record is not None, "a VM that is being deleted has a record"
        self._step("delete.done", sid)
        self._changed(record)
        return record

    async def _observe(self, record: VmRecord, seen: Observe) -> None:
        self._log.info(
            "{vm} ({name}) is {state}, was {before}: {reason}",
            vm=record.sid,
            name=record.name,
            state=seen.state.value,
            before=record.state.value,
            reason=seen.reason,
        )
        changes: dict[str, Any] = {"state": seen.state, "reason": seen.reason}
        if seen.state is VmState.RUNNING:
            changes["started_at"] = seen.started_at or self._now()
        await self._write(record.sid, **changes)

    async def _accept(self, command: Command, sid: str) -> VmRecord:
        record = await self._existing(sid)
        check_command(command, record.name, record.state)
        return record

    async def _existing(self, sid: str) -> VmRecord:
        record = await self._store.get(sid)
        if record is None or record.deleted_at is not None:
            raise NotFound(f"no VM {sid}", hint=record.reason if record is not None else None)
        return record

    async def _spec(self, record: VmRecord) -> GuestSpec:
        return GuestSpec(
            sid=record.sid,
            name=record.name,
            vcpus=record.vcpus,
            memory=record.memory,
            disk=record.disk,
            image=await self._images.get(record.image),
            directory=self._vms_dir / record.sid,
        )

    async def _write(self, sid: str, **changes: Any) -> VmRecord:
        record = await self._store.update(sid, **changes)
        self._changed(record)
        return record

    def _step(self, step: str, sid: str) -> None:
        self._log.debug("{step} of {vm}", step=step, vm=sid)

    @asynccontextmanager
    async def _exclusive(self, sid: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(sid, (DeferredLock(), 0))
        self._locks[sid] = (lock, users + 1)
        try:
            await lock.acquire()
            try:
                if self._stopping:
                    raise CancelledError()
                yield
            finally:
                lock.release()
        finally:
            users = self._locks[sid][1] - 1
            if users:
                self._locks[sid] = (lock, users)
            else:
                del self._locks[sid]


def _reason(error: Exception) -> str:
    """What is told of *error* to whoever looks at the VM."""
    match error:
        case HeroError():
            return error.detail
        case CancelledError():
            return "the operation was cancelled"
        case _:
            return InternalError.__doc__ or "internal error"
