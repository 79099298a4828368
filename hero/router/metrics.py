"""What the router counts, for Prometheus and for `RouterService.stats`."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hero.router.access_log import Record
from hero.router.model import RouteState


class RouterMetrics:
    """Counts since the router started. *registry* is what ``/metrics`` shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = 0
        self.connections_total = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.responses: Tally[str] = Tally()
        self.rejections: Tally[str] = Tally()
        self._requests = Counter(
            "hero_router_requests", "Requests by route and status", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self._rejections = Counter(
            "hero_router_rejections", "Answers of the router's own, by reason", ["reason"],
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "hero_router_request_seconds", "From a request's head to the end of its answer",
            ["route"], registry=registry,
        )  # fmt: skip
        self._bytes = Counter(
            "hero_router_bytes", "Bytes from and to clients", ["direction"], registry=registry
        )
        self._connections = Gauge(
            "hero_router_connections", "Connections of clients", registry=registry
        )
        self._connections_total = Counter(
            "hero_router_connections_accepted", "Connections of clients so far", registry=registry
        )
        self._routes = Gauge("hero_router_routes", "Routes by state", ["state"], registry=registry)

    def connected(self) -> None:
        self.connections_total += 1
        self._connections.inc()
        self._connections_total.inc()

    def disconnected(self) -> None:
        self._connections.dec()

    def rejected(self, reason: str) -> None:
        """Something was not served for *reason*."""
        self.rejections[reason] += 1
        self._rejections.labels(reason).inc()

    def watch_routes(self, count: Callable[[RouteState], int]) -> None:
        """Ask *count* for the number of routes in a state, whenever somebody looks."""
        for state in RouteState:
            self._routes.labels(state.value).set_function(partial(count, state))

    def finished(self, record: Record, seconds: float) -> None:
        """*record* is complete; it took *seconds*."""
        status = str(record.status)
        self.requests += 1
        self.responses[status] += 1
        self._requests.labels(record.route, status).inc()
        if not record.tunnel:
            self._seconds.labels(record.route).observe(seconds)
        if record.reason is not None:
            self.rejected(record.reason)
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out
        self._bytes.labels("in").inc(record.bytes_in)
        self._bytes.labels("out").inc(record.bytes_out)
