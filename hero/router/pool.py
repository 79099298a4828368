"""The connections to one service: kept open between requests, bounded, and waited for in order."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from hero.router.heads import Heads
from hero.router.limits import Limits
from hero.router.model import PoolStats
from hero.router.upstream import UpstreamConnection

#: Between attempts to connect to a service whose backlog is full.
_BUSY = backoffPolicy(initialDelay=0.01, maxDelay=0.2, factor=2.0)


class UpstreamPool:
    """At most ``limits.upstreams`` connections; who asks for more waits, but not for long.

    Connections that became tunnels do not count. An exchange asks by `acquire`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        limits: Limits,
        heads: Heads,
    ) -> None:
        self.limits = limits
        self.heads = heads
        self.clock = clock
        self._endpoint = endpoint
        self._factory = Factory.forProtocol(lambda: UpstreamConnection(self))
        self._factory.noisy = False
        #: In the order in which they came free.
        self._idle: dict[UpstreamConnection, None] = {}
        self._open: set[UpstreamConnection] = set()
        self._tunnels: set[UpstreamConnection] = set()
        self._connecting: dict[Any, Deferred[UpstreamConnection]] = {}
        #: Who waits, by arrival, and until when.
        self._waiting: dict[Any, float] = {}
        self._closed = False
        self._connected = self._refused = self._reused = 0
        self.retried = 0

    @property
    def tunnels(self) -> int:
        """Connections that became tunnels; and those that are about to, where all do."""
        return len(self._tunnels) + len(self._connecting) + len(self._waiting)

    def acquire(self, user: Any, *, fresh: bool = False) -> None:
        """Give *user*, an `IUpstreamUser`, a connection, at once or later.

        *fresh*: one that was not used before, because such a one just failed.
        """
        if not fresh and self._idle:
            self._reused += 1
            user.connected(self._idle.popitem()[0])
            return
        if self._idle and self._full():
            self._close_oldest()
        if not self._full():
            self._connect_for(user)
        elif len(self._waiting) >= self.limits.waiting:
            user.crowded(f"{self.limits.upstreams} requests to this service are under way already")
        else:
            self._waiting[user] = self.clock.seconds() + self.limits.wait_time

    def cancel(self, user: Any) -> None:
        """*user* no longer wants what it asked for."""
        self._waiting.pop(user, None)
        connecting = self._connecting.pop(user, None)
        if connecting is not None:
            connecting.cancel()

    def connect(self) -> Deferred[UpstreamConnection]:
        """A new connection, beyond the bound. A service too busy to accept is given some time."""
        return Deferred.fromCoroutine(self._connect())

    def release(self, connection: UpstreamConnection) -> None:
        """*connection* can carry another request."""
        self._open.add(connection)
        if self._waiting and not self._closed:
            user = next(iter(self._waiting))
            del self._waiting[user]
            self._reused += 1
            # The one who releases it has not finished yet.
            self.clock.callLater(0, self._hand_over, connection, user)
        elif self._closed or len(self._idle) >= self.limits.idle_upstreams:
            self.forget(connection)
            connection.close()
        else:
            connection.idle_since = self.clock.seconds()
            self._idle[connection] = None

    def forget(self, connection: UpstreamConnection) -> None:
        """*connection* is gone, or must not be used again."""
        if connection in self._open:
            self._open.discard(connection)
            self._idle.pop(connection, None)
            self._serve_next()
        else:
            self._tunnels.discard(connection)

    def detach(self, connection: UpstreamConnection) -> None:
        """*connection* became a tunnel."""
        self._open.discard(connection)
        self._tunnels.add(connection)
        self._serve_next()

    def tend(self) -> None:
        """Close what was idle for too long; send away who waited for too long."""
        now = self.clock.seconds()
        limit = now - self.limits.idle_upstream_time
        while self._idle and next(iter(self._idle)).idle_since <= limit:
            self._close_oldest()
        for user, until in list(self._waiting.items()):
            if until > now:
                break
            del self._waiting[user]
            user.crowded(f"no connection to this service came free in {self.limits.wait_time:g} s")

    def close(self) -> None:
        """Close what is idle, and from now on what becomes so."""
        self._closed = True
        while self._idle:
            self._close_oldest()

    def stats(self) -> PoolStats:
        """Figures for metrics."""
        return PoolStats(
            idle=len(self._idle),
            busy=len(self._open) - len(self._idle),
            waiting=len(self._waiting),
            tunnels=len(self._tunnels),
            connected=self._connected,
            refused=self._refused,
            reused=self._reused,
            retried=self.retried,
        )

    def _close_oldest(self) -> None:
        connection = next(iter(self._idle))
        del self._idle[connection]
        self._open.discard(connection)
        connection.close()

    def _full(self) -> bool:
        return len(self._open) + len(self._connecting) >= self.limits.upstreams

    def _hand_over(self, connection: UpstreamConnection, user: Any) -> None:
        """Give *connection* to *user*, unless it died meanwhile."""
        if connection in self._open:
            user.connected(connection)
        else:
            self._connect_for(user)

    def _serve_next(self) -> None:
        """There may be room now for one who waits."""
        if self._waiting and not self._full():
            user = next(iter(self._waiting))
            del self._waiting[user]
            self._connect_for(user)

    def _connect_for(self, user: Any) -> None:
        # It may fire, or fail, before it is returned.
        connecting = self._connecting[user] = self.connect()
        connecting.addCallbacks(
            self._made, self._not_made, callbackArgs=(user,), errbackArgs=(user,)
        )

    def _made(self, connection: UpstreamConnection, user: Any) -> None:
        self._connecting.pop(user, None)
        self._connected += 1
        self._open.add(connection)
        user.connected(connection)

    def _not_made(self, failure: Failure, user: Any) -> None:
        if self._connecting.pop(user, None) is not None:
            self._refused += 1
            known = failure.check(ConnectError) is not None
            why = failure.getErrorMessage() if known else type(failure.value).__name__
            user.not_connected(why)
        self._serve_next()

    async def _connect(self) -> UpstreamConnection:
        deadline = self.clock.seconds() + self.limits.connect_time
        for attempt in itertools.count():
            try:
                return await self._endpoint.connect(self._factory)  # type: ignore[return-value]
            except ConnectError as error:
                # A UNIX socket whose backlog is full gives no error number (connect(2), EAGAIN).
                busy = type(error) is ConnectError and error.osError is None
                if not busy or self.clock.seconds() >= deadline:
                    raise
            await deferLater(self.clock, _BUSY(attempt))
        raise AssertionError("unreachable")
