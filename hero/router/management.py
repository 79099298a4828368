"""RouterService on the router's management socket: what the router sees and does, for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from hero.errors import NotFound
from hero.router.gateway import Gateway
from hero.router.model import (
    Connection,
    ConnectionPage,
    Durations,
    Route,
    RoutePage,
    RouterStats,
    RouteState,
    RouteStats,
)
from hero.router.snapshot import Latency, RouteCounts, RouterSnapshot, merge
from hero.rpc.declare import Call


class RouterView(Protocol):
    """What is known of a router, be it one process or several."""

    async def routes(self) -> list[Route]:
        """Every entry of the socket directory, in order of prefix."""

    async def connections(self) -> list[Connection]:
        """The clients that are connected, oldest first."""

    async def snapshots(self) -> Sequence[RouterSnapshot]:
        """The counts of each process."""


class Listening(Protocol):
    """Who knows where the router listens."""

    urls: list[str]


class GatewayView:
    """The view of a router that is this process alone; implements `RouterView`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def routes(self) -> list[Route]:
        """See `RouterView`."""
        return self._gateway.routes.describe()

    async def connections(self) -> list[Connection]:
        """See `RouterView`."""
        now = self._gateway.clock.seconds()
        return [connection.describe(now) for connection in self._gateway.connections]

    async def snapshots(self) -> Sequence[RouterSnapshot]:
        """See `RouterView`."""
        return [self._gateway.metrics.snapshot()]


class RouterApi:
    """Implements `hero.router.api.RouterService`."""

    def __init__(self, view: RouterView, listening: Listening) -> None:
        self._view = view
        self._listening = listening
        self._started_at = datetime.now(UTC)

    async def list_services(self, call: Call) -> RoutePage:
        return RoutePage(items=await self._view.routes())

    async def get_service(self, call: Call, *, service: str, socket: str) -> Route:
        for route in await self._view.routes():
            if (route.service, route.socket) == (service, socket):
                return route
        raise NotFound(
            f"there is no socket {service}/{socket}.sock", hint="hero route list shows them all"
        )

    async def list_connections(self, call: Call) -> ConnectionPage:
        return ConnectionPage(items=await self._view.connections())

    async def stats(self, call: Call) -> RouterStats:
        snapshot = merge(await self._view.snapshots())
        return describe_stats(snapshot, self._started_at, datetime.now(UTC), self._listening.urls)


def describe_stats(
    snapshot: RouterSnapshot, started_at: datetime, now: datetime, listening: Sequence[str]
) -> RouterStats:
    """What *snapshot*, of a router that runs since *started_at*, comes to."""
    everything = snapshot.everything
    return RouterStats(
        started_at=started_at,
        uptime=(now - started_at).total_seconds(),
        workers=snapshot.workers,
        listening=list(listening),
        connections=sum(snapshot.connections.values()),
        connections_total=sum(snapshot.accepted.values()),
        requests=everything.requests,
        responses=_responses(everything),
        rejections=snapshot.rejections,
        bytes_in=everything.bytes_in,
        bytes_out=everything.bytes_out,
        routes=sum(n for state, n in snapshot.states.items() if state != RouteState.REFUSED),
        total=_durations(everything.total),
        access_log_lines_lost=snapshot.lines_lost,
        per_route=[_describe_route(*item) for item in sorted(snapshot.routes.items())],
    )


def _describe_route(prefix: str, counts: RouteCounts) -> RouteStats:
    return RouteStats(
        prefix=prefix,
        requests=counts.requests,
        errors=counts.errors,
        responses=_responses(counts),
        bytes_in=counts.bytes_in,
        bytes_out=counts.bytes_out,
        active=counts.active,
        total=_durations(counts.total),
        first_byte=_durations(counts.first_byte),
    )


def _responses(counts: RouteCounts) -> dict[str, int]:
    return {str(status): count for status, count in sorted(counts.responses.items())}


def _durations(latency: Latency) -> Durations | None:
    if not any(latency.counts):
        return None
    return Durations(
        p50=latency.quantile(0.5), p90=latency.quantile(0.9), p99=latency.quantile(0.99)
    )
