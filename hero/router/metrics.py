"""What the router counts. It is on the path of each request: plain numbers, nothing else.

Prometheus and `RouterService.stats` look at a `snapshot` of them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry

from hero.router.access_log import Record
from hero.router.exposition import SnapshotCollector
from hero.router.model import PoolStats, RouteState
from hero.router.snapshot import (
    BOUNDS,
    Handshakes,
    Latency,
    RouteCounts,
    RouterSnapshot,
    add_pools,
)

#: Routes that are told apart. Each is some 40 lines of ``/metrics``, and they take their time.
MAX_ROUTES = 200
#: Statuses that are told apart for one route: a service can make up any three digits.
_MAX_STATUSES = 40
#: Reasons that are told apart.
_MAX_REASONS = 200
#: For which the counts of a route that has gone are still shown, in seconds.
KEPT_AFTER_GONE = 600.0
#: Between two looks for routes that have gone, where there are too many, in seconds.
_LOOK_PERIOD = 1.0
#: The protocol of a connection that was not told of any other.
HTTP_1 = "HTTP/1.1"
#: Stands for the routes and reasons beyond those that are told apart.
OTHER = "other"


class WatchedRoute(Protocol):
    """A route, as far as it is looked at."""

    active: int

    @property
    def prefix(self) -> str: ...
    @property
    def pool(self) -> WatchedPool: ...


class WatchedPool(Protocol):
    """The connections to a service, as far as they are looked at."""

    def stats(self) -> PoolStats: ...


class WatchedRoutes(Protocol):
    """The route table, as far as it is looked at."""

    def __iter__(self) -> Iterator[WatchedRoute]: ...
    def count(self, state: RouteState) -> int: ...


class _Counts:
    """The counts of one route; plain slots are the cheapest to change."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "first_byte",
        "first_byte_seconds",
        "gone_since",
        "responses",
        "total",
        "total_seconds",
    )

    def __init__(self) -> None:
        self.responses: dict[int, int] = {}
        self.total = [0] * (len(BOUNDS) + 1)
        self.total_seconds = 0.0
        self.first_byte = [0] * (len(BOUNDS) + 1)
        self.first_byte_seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.gone_since: float | None = None

    def answered(self, status: int) -> None:
        """Count *status*, which may be the first of its kind."""
        if status not in self.responses and len(self.responses) >= _MAX_STATUSES:
            status = status // 100 * 100
        self.responses[status] = self.responses.get(status, 0) + 1

    def add(self, other: _Counts) -> None:
        """Count what *other* counted."""
        for status, count in other.responses.items():
            self.responses[status] = self.responses.get(status, 0) + count
        self.total = [a + b for a, b in zip(self.total, other.total, strict=True)]
        self.total_seconds += other.total_seconds
        self.first_byte = [a + b for a, b in zip(self.first_byte, other.first_byte, strict=True)]
        self.first_byte_seconds += other.first_byte_seconds
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out

    def snapshot(self) -> RouteCounts:
        """A copy."""
        return RouteCounts(
            responses=dict(self.responses),
            total=Latency(counts=list(self.total), seconds=self.total_seconds),
            first_byte=Latency(counts=list(self.first_byte), seconds=self.first_byte_seconds),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )


class RouterMetrics:
    """Counts since the router started. A *registry* shows them at ``/metrics``."""

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._routes: dict[str, _Counts] = {}
        self._other = _Counts()
        self._looked = -_LOOK_PERIOD
        self._gone = _Counts()
        #: By reason.
        self.rejections: Tally[str] = Tally()
        self._connections: Tally[str] = Tally({HTTP_1: 0})
        self._accepted: Tally[str] = Tally({HTTP_1: 0})
        self._streams = 0
        self._streams_opened = 0
        self._handshakes = Handshakes()
        self._count_lost: Callable[[], int] = int
        self._watched: WatchedRoutes | None = None
        if registry is not None:
            registry.register(SnapshotCollector(lambda: [self.snapshot()]))

    # What there is to look at, whenever somebody asks.

    def watch_routes(self, routes: WatchedRoutes) -> None:
        """*routes* are those that there are. The counts of others are dropped after a while."""
        self._watched = routes

    def watch_log(self, lost: Callable[[], int]) -> None:
        """*lost* tells how many lines of the access log were not written."""
        self._count_lost = lost

    # What happens.

    def connected(self, protocol: str = HTTP_1) -> None:
        """A client's connection was accepted, and speaks *protocol*."""
        self._connections[protocol] += 1
        self._accepted[protocol] += 1

    def disconnected(self, protocol: str = HTTP_1) -> None:
        """A connection of which `connected` told has ended."""
        self._connections[protocol] -= 1

    def stream_opened(self) -> None:
        """A client began a stream of HTTP/2."""
        self._streams += 1
        self._streams_opened += 1

    def stream_closed(self) -> None:
        """A stream of HTTP/2 has ended."""
        self._streams -= 1

    def handshake_started(self) -> None:
        """A TLS handshake began; one of the two below tells of its end."""
        self._handshakes.in_flight += 1

    def handshake_completed(self, *, resumed: bool) -> None:
        """A handshake succeeded; *resumed*: with the session of an earlier one."""
        self._handshakes.in_flight -= 1
        if resumed:
            self._handshakes.resumed += 1
        else:
            self._handshakes.completed += 1

    def handshake_failed(self, reason: str) -> None:
        """A handshake did not succeed, for *reason*, a short word."""
        self._handshakes.in_flight -= 1
        _count(self._handshakes.failed, reason)

    def rejected(self, reason: str) -> None:
        """Something was not served for *reason*."""
        _count(self.rejections, reason)

    def finished(self, record: Record, seconds: float) -> None:
        """*record* is complete; it took *seconds*."""
        try:
            counts = self._routes[record.route]
        except KeyError:
            counts = self._begin(record.route)
        try:
            counts.responses[record.status] += 1
        except KeyError:
            counts.answered(record.status)
        counts.bytes_in += record.bytes_in
        counts.bytes_out += record.bytes_out
        if not record.tunnel:
            counts.total[bisect_left(BOUNDS, seconds)] += 1
            counts.total_seconds += seconds
            first_byte = record.upstream_seconds
            if first_byte is not None:
                counts.first_byte[bisect_left(BOUNDS, first_byte)] += 1
                counts.first_byte_seconds += first_byte
        if record.reason is not None:
            _count(self.rejections, record.reason)

    # What came of it.

    def snapshot(self) -> RouterSnapshot:
        """All counts, at this moment."""
        self._drop_gone(KEPT_AFTER_GONE)
        watched = self._watched
        return RouterSnapshot(
            routes=self._snapshot_routes(),
            gone=self._gone.snapshot(),
            rejections=dict(self.rejections),
            connections=dict(self._connections),
            accepted=dict(self._accepted),
            streams=self._streams,
            streams_opened=self._streams_opened,
            handshakes=Handshakes(
                in_flight=self._handshakes.in_flight,
                completed=self._handshakes.completed,
                resumed=self._handshakes.resumed,
                failed=dict(self._handshakes.failed),
            ),
            states={state.value: watched.count(state) for state in RouteState if watched},
            lines_lost=self._count_lost(),
        )

    def _snapshot_routes(self) -> dict[str, RouteCounts]:
        """Routes that were used, with their connections."""
        pools: dict[str, list[PoolStats]] = {}
        active: Tally[str] = Tally()
        for route in self._watched or ():
            stats, prefix = route.pool.stats(), route.prefix
            if route.active or stats.connected or stats.refused or prefix in self._routes:
                counts = self._routes.get(prefix) or self._begin(prefix)
                label = OTHER if counts is self._other else prefix
                pools.setdefault(label, []).append(stats)
                active[label] += route.active
        routes = {
            prefix: counts.snapshot()
            for prefix, counts in self._routes.items()
            if counts is not self._other
        }
        if len(routes) < len(self._routes):
            routes[OTHER] = self._other.snapshot()
        for label, stats_of in pools.items():
            routes[label].active = active[label]
            routes[label].pool = add_pools(stats_of)
        return routes

    def _begin(self, prefix: str) -> _Counts:
        """Count for *prefix* from now on: on its own, while there are not too many."""
        if len(self._routes) >= MAX_ROUTES and self._clock() >= self._looked + _LOOK_PERIOD:
            self._looked = self._clock()
            self._drop_gone(0.0)
        counts = _Counts() if len(self._routes) < MAX_ROUTES else self._other
        self._routes[prefix] = counts
        return counts

    def _drop_gone(self, kept: float) -> None:
        """Drop the counts of routes that have not been there for *kept* seconds.

        They are not added to another route's, where they would look like requests just now.
        """
        if self._watched is None:
            return
        live, now = {route.prefix for route in self._watched}, self._clock()
        for prefix, counts in list(self._routes.items()):
            if prefix in live or prefix == "-":
                counts.gone_since = None
            elif counts is self._other:
                del self._routes[prefix]
            else:
                if counts.gone_since is None:
                    counts.gone_since = now
                if now - counts.gone_since >= kept:
                    self._gone.add(counts)
                    del self._routes[prefix]


def _count(tally: dict[str, int], reason: str) -> None:
    """Count *reason* without ever telling too many of them apart."""
    if reason not in tally and len(tally) >= _MAX_REASONS:
        reason = OTHER
    tally[reason] = tally.get(reason, 0) + 1
