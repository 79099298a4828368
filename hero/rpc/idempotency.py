"""The same request id again returns the first result instead of acting twice.

This is for mutating methods that are not operations; `hero.operation_log` does it for those.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import sqlalchemy as sa
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from hero.errors import Conflict, RequestIdReused
from hero.rpc.declare import Call
from hero.store import Database

#: Seconds for which an answer is kept.
RETENTION = 7 * 86400.0

_PRUNE_INTERVAL = 3600.0

_Key = tuple[str, str, str]


class RequestLog:
    """Answers that were given, by context, user and request id."""

    def __init__(self, database: Database, clock: IReactorTime, table: sa.Table) -> None:
        self._database = database
        self._clock = clock
        self._table = table
        self._under_way: dict[_Key, list[Deferred[None]]] = {}
        self._next_prune = 0.0

    async def once(
        self, call: Call, digest: str, act: Callable[[], Awaitable[Any]], *, secret: bool = False
    ) -> Any:
        """The wire value of ``act()``, or of the first such call with the request id of *call*.

        A call that raised did nothing, and is made again. A *secret* result is not kept, and to
        ask for it again is a `Conflict`. Raises `RequestIdReused` when *digest* differs.
        """
        assert call.request_id is not None
        key = (call.context, call.caller.responsible, call.request_id)
        while key in self._under_way:
            waiter: Deferred[None] = Deferred()
            self._under_way[key].append(waiter)
            await waiter
        self._under_way[key] = []
        try:
            row = await self._database.run(lambda c: c.execute(self._find(key)).one_or_none())
            if row is not None:
                return _first_answer(row, call.request_id, digest, secret)
            result = msgspec.to_builtins(await act())
            kept = None if secret else msgspec.json.encode(result).decode()
            await self._database.run(lambda c: self._keep(c, key, digest, kept))
            return result
        finally:
            for waiter in self._under_way.pop(key):
                if not waiter.called:
                    waiter.callback(None)

    def _find(self, key: _Key) -> sa.Select[Any]:
        context, user, request_id = key
        columns = self._table.c
        return sa.select(self._table).where(
            columns.context == context,
            columns.user == user,
            columns.request_id == request_id,
        )

    def _keep(self, connection: sa.Connection, key: _Key, digest: str, result: str | None) -> None:
        context, user, request_id = key
        now = self._clock.seconds()
        connection.execute(
            self._table.insert().values(
                context=context,
                user=user,
                request_id=request_id,
                digest=digest,
                result=result,
                created_at=now,
            )
        )
        if now >= self._next_prune:
            self._next_prune = now + _PRUNE_INTERVAL
            connection.execute(
                self._table.delete().where(self._table.c.created_at < now - RETENTION)
            )


def _first_answer(row: Any, request_id: str, digest: str, secret: bool) -> Any:
    if row.digest != digest:
        raise RequestIdReused(
            f"request id {request_id!r} was used for a different call",
            hint="use a new request id for each new call",
        )
    if secret:
        raise Conflict(
            f"the call with request id {request_id!r} was answered before, with a secret that is "
            "not kept",
            hint="if that answer was lost, revoke what it made and call with a new request id",
        )
    return msgspec.json.decode(row.result)
