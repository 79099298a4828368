"""The operations of a service: written down before they act, kept for a week after they end.

A row is in the database before the work starts, so that an operation can be found by its sid or by
its caller's request id from another connection, or after a crash: `OperationLog.interrupted` lists
what was under way when the service was killed, for its recovery to take up and `finish`.
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
import sqlalchemy as sa
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from hero.errors import Conflict, HeroError, InternalError, NotFound, RequestIdReused, Unavailable
from hero.events import EventLog
from hero.operation_tables import create_tables, define_tables, from_row, to_row
from hero.operations import Operation, OperationCancelled, OperationState
from hero.rpc.declare import Call, Method
from hero.rpc.idempotency import RequestLog
from hero.sids import new_sid
from hero.store import Database

__all__ = [
    "OperationHandle",
    "OperationLog",
    "call_digest",
    "create_tables",
    "define_tables",
]

#: Seconds for which an ended operation, and the answer to a request id, is kept.
RETENTION = 7 * 86400.0

#: Operations that are under way at once, at most.
MAX_RUNNING = 256

_PRUNE_INTERVAL = 3600.0
_CANCEL_PATIENCE = 10.0

Work = Callable[["OperationHandle"], Awaitable[Any]]


_TABLES = define_tables(sa.MetaData())
_operations = _TABLES.operations


class OperationHandle:
    """An operation under way, as its own work sees it."""

    def __init__(self, log: OperationLog, operation: Operation) -> None:
        self._log = log
        self._operation = operation
        self.cancel_requested = False
        self.committed = False

    @property
    def sid(self) -> str:
        return self._operation.sid

    @property
    def operation(self) -> Operation:
        """The operation as it stands."""
        return self._operation

    async def update(
        self,
        *,
        progress: float | None = None,
        message: str | None = None,
        target: str | None = None,
    ) -> None:
        """Say how far the work is, and what it acts on once that is known.

        A new *target* is in the database when this returns. Raises `CancelledError` when somebody
        has asked to cancel.
        """
        if self.cancel_requested:
            raise CancelledError()
        changes = {"progress": progress, "message": message, "target": target}
        changes = {name: value for name, value in changes.items() if value is not None}
        await self._log._update(self, changes)

    def commit(self) -> None:
        """From here on the operation cannot be cancelled."""
        if self.cancel_requested:
            raise CancelledError()
        self.committed = True


@attrs.define
class _Running:
    """An operation whose work runs in this process."""

    handle: OperationHandle
    task: Deferred[None] | None = None


class OperationLog:
    """Runs operations and remembers them.

    *database* holds the tables of `create_tables`. *clock* tells the time. *events*, where given,
    gets an ``operation`` event for each change. *node_sid* is set on every operation.
    ``requests`` answers repeated request ids of methods that are not operations.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        events: EventLog | None = None,
        *,
        node_sid: str | None = None,
        max_running: int = MAX_RUNNING,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._node_sid = node_sid
        self._max_running = max_running
        self._running: dict[str, _Running] = {}
        self._waiters: dict[str, list[Deferred[None]]] = {}
        #: Operations that are being written down, for their work to start.
        self._starting = 0
        #: Operations that ended while the database could not be written; the next one takes them
        #: along.
        self._unwritten: dict[str, Operation] = {}
        self._next_prune = 0.0
        self._stopped = False
        self.requests = RequestLog(database, clock, _TABLES.requests)

    async def run(
        self,
        call: Call,
        method: Method,
        params: dict[str, Any],
        work: Work,
        *,
        target: str | None = None,
        wait: bool = True,
        timeout: float = 60.0,
    ) -> Operation:
        """Start ``work(handle)`` as an operation, or find the one that *call* started before.

        *params* are JSON values. With *wait*, come back when the operation has ended or *timeout*
        seconds have passed, whichever is first; one that failed raises its error, whose data names
        it as ``operation``. Raises `RequestIdReused`, `Unavailable`.
        """
        if self._stopped:
            raise _stopping()
        if len(self._running) + self._starting >= self._max_running:
            raise Unavailable("too many operations are under way", retry_after=5)
        operation = self._new(call, method, target)
        known = await self._write_down(operation, call_digest(method, params))
        if known is not None:
            operation = known
        elif self._stopped:
            # It is in the database, for `interrupted`.
            raise _stopping()
        else:
            self._start(operation, work)
        if not wait:
            return self._current(operation)
        return _outcome(await self.get(operation.sid, timeout))

    async def get(self, sid: str, wait: float = 0.0) -> Operation:
        """The operation *sid*; with *wait*, after up to that many seconds for it to end.

        Raises `NotFound`.
        """
        operation = await self._read(sid)
        if wait <= 0 or operation.state.ended:
            return operation
        await self._ended(sid, wait)
        return await self._read(sid)

    async def list(
        self,
        context: str | None = None,
        target: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> list[Operation]:
        """The newest operations, newest first: of *context*, on *target*, in *state*."""
        query = sa.select(_operations).order_by(_operations.c.number.desc()).limit(limit)
        for column, value in (
            (_operations.c.context, context),
            (_operations.c.target, target),
            (_operations.c.state, state),
        ):
            if value is not None:
                query = query.where(column == value)
        rows = await self._database.run(lambda c: c.execute(query).all())
        return [self._current(from_row(row)) for row in rows]

    async def cancel(self, sid: str) -> Operation:
        """Ask the work of *sid* to stop and undo, and wait a while for that.

        Raises `NotFound`, and `Conflict` where it has ended or cannot be undone any more.
        """
        operation = await self._read(sid)
        if operation.state.ended:
            raise Conflict(f"operation {sid} has {operation.state.value} already")
        running = self._running.get(sid)
        if running is None or running.handle.committed:
            raise Conflict(f"operation {sid} cannot be undone any more")
        running.handle.cancel_requested = True
        if running.task is not None:
            running.task.cancel()
        await self._ended(sid, _CANCEL_PATIENCE)
        return await self._read(sid)

    async def interrupted(self) -> builtins.list[Operation]:
        """The operations that were under way when an earlier process was killed, oldest first."""
        query = (
            sa.select(_operations)
            .where(_operations.c.state.in_([OperationState.PENDING, OperationState.RUNNING]))
            .order_by(_operations.c.number)
        )
        rows = await self._database.run(lambda c: c.execute(query).all())
        known = self._running.keys() | self._unwritten.keys()
        return [from_row(row) for row in rows if row.sid not in known]

    async def finish(
        self, sid: str, *, result: Any = None, error: HeroError | None = None
    ) -> Operation:
        """End an interrupted operation, with *error* or with *result* (any wire value)."""
        return await self._end(await self._read(sid), result, error)

    def stop(self) -> None:
        """Stop the work under way. It stays ``running`` in the database, for `interrupted`."""
        self._stopped = True
        for running in list(self._running.values()):
            if running.task is not None:
                running.task.cancel()

    def _new(self, call: Call, method: Method, target: str | None) -> Operation:
        now = self._now()
        return Operation(
            sid=new_sid("op"),
            kind=method.name,
            context=call.context,
            user=call.caller.responsible,
            state=OperationState.RUNNING,
            created_at=now,
            updated_at=now,
            target=target,
            request_id=call.request_id,
            node_sid=self._node_sid,
        )

    async def _write_down(self, operation: Operation, digest: str) -> Operation | None:
        """Write *operation* down; or return the one that has its request id."""
        unwritten = list(self._unwritten.values())

        def work(connection: sa.Connection) -> Operation | None:
            for ended in unwritten:
                connection.execute(_update_row(ended))
            return self._insert(connection, operation, digest)

        self._starting += 1
        try:
            known = await self._database.run(work)
        finally:
            self._starting -= 1
        for ended in unwritten:
            self._unwritten.pop(ended.sid, None)
        return known

    def _insert(
        self, connection: sa.Connection, operation: Operation, digest: str
    ) -> Operation | None:
        if operation.request_id is not None:
            row = connection.execute(
                sa.select(_operations).where(
                    _operations.c.context == operation.context,
                    _operations.c.user == operation.user,
                    _operations.c.request_id == operation.request_id,
                )
            ).one_or_none()
            if row is not None:
                if row.digest != digest:
                    raise RequestIdReused(
                        f"request id {operation.request_id!r} was used for a different call",
                        hint="use a new request id for each new call",
                        data={"operation": row.sid},
                    )
                return from_row(row)
        connection.execute(_operations.insert().values(digest=digest, **to_row(operation)))
        self._prune(connection)
        return None

    def _prune(self, connection: sa.Connection) -> None:
        now = self._clock.seconds()
        if now < self._next_prune:
            return
        self._next_prune = now + _PRUNE_INTERVAL
        connection.execute(
            _operations.delete().where(
                _operations.c.updated_at < now - RETENTION,
                _operations.c.state.not_in([OperationState.PENDING, OperationState.RUNNING]),
            )
        )

    def _start(self, operation: Operation, work: Work) -> None:
        handle = OperationHandle(self, operation)
        running = self._running[operation.sid] = _Running(handle)
        self._publish(operation)
        running.task = Deferred.fromCoroutine(self._perform(handle, work))
        running.task.addErrback(
            lambda f: self._log.failure("operation {sid} was lost", f, sid=operation.sid)
        )

    async def _perform(self, handle: OperationHandle, work: Work) -> None:
        result: Any = None
        error: HeroError | None = None
        try:
            result = msgspec.to_builtins(await work(handle))
        except CancelledError:
            if self._stopped:
                self._running.pop(handle.sid, None)
                return
            error = OperationCancelled(f"operation {handle.sid} was cancelled")
        except HeroError as failure:
            error = failure
        except Exception:
            self._log.failure(
                "operation {sid} ({kind}) failed", sid=handle.sid, kind=handle.operation.kind
            )
            error = InternalError(
                "the operation failed for a reason that is the service's own",
                hint=f"its log has the cause, by the operation's sid {handle.sid}",
            )
        await self._end(handle.operation, result, error)

    async def _end(self, operation: Operation, result: Any, error: HeroError | None) -> Operation:
        if error is None:
            state, progress = OperationState.SUCCEEDED, 1.0
        elif isinstance(error, OperationCancelled):
            state, progress = OperationState.CANCELLED, operation.progress
        else:
            state, progress = OperationState.FAILED, operation.progress
        ended = attrs.evolve(
            operation,
            state=state,
            progress=progress,
            result=None if error else msgspec.to_builtins(result),
            error=error.to_data() if error else None,
            updated_at=self._now(),
        )
        try:
            await self._write(ended)
        except (Unavailable, sa.exc.DBAPIError):
            self._log.failure("the end of operation {sid} is not written down yet", sid=ended.sid)
            self._unwritten[ended.sid] = ended
        finally:
            self._running.pop(ended.sid, None)
            for waiter in tuple(self._waiters.pop(ended.sid, ())):
                waiter.callback(None)
        self._publish(ended)
        return ended

    async def _update(self, handle: OperationHandle, changes: dict[str, Any]) -> None:
        before = handle._operation
        after = attrs.evolve(before, updated_at=self._now(), **changes)
        handle._operation = after
        if after.target != before.target:
            await self._write(after)
        self._publish(after)

    async def _write(self, operation: Operation) -> None:
        await self._database.run(lambda c: c.execute(_update_row(operation)))

    async def _read(self, sid: str) -> Operation:
        query = sa.select(_operations).where(_operations.c.sid == sid)
        row = await self._database.run(lambda c: c.execute(query).one_or_none())
        if row is None:
            raise NotFound(f"no operation {sid}")
        return self._current(from_row(row))

    async def _ended(self, sid: str, timeout: float) -> None:
        """Come back when *sid* ends, or after *timeout* seconds."""
        waiter: Deferred[None] = Deferred()
        waiters = self._waiters.setdefault(sid, [])
        waiters.append(waiter)
        waiter.addTimeout(timeout, self._clock)
        try:
            await waiter
        except DeferredTimeout:
            pass
        finally:
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters and self._waiters.get(sid) is waiters:
                del self._waiters[sid]

    def _current(self, stored: Operation) -> Operation:
        """What is known in memory, which is newer than *stored* while the work runs."""
        running = self._running.get(stored.sid)
        if running is not None:
            return running.handle.operation
        return self._unwritten.get(stored.sid, stored)

    def _publish(self, operation: Operation) -> None:
        if self._events is not None:
            self._events.publish("operation", msgspec.to_builtins(operation))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.seconds(), UTC)


def call_digest(method: Method, params: dict[str, Any]) -> str:
    """What tells two calls apart that carry the same request id. *params* are JSON values."""
    value = msgspec.json.encode([method.qualified_name, params], order="sorted")
    return hashlib.sha256(value).hexdigest()


def _update_row(operation: Operation) -> sa.Update:
    columns = _operations.c
    return _operations.update().where(columns.sid == operation.sid).values(**to_row(operation))


def _stopping() -> Unavailable:
    return Unavailable("the service is stopping", retry_after=5)


def _outcome(operation: Operation) -> Operation:
    if operation.state in (OperationState.FAILED, OperationState.CANCELLED):
        data = {**(operation.error or {}), "operation": operation.sid}
        raise HeroError.from_data(data)
    return operation
