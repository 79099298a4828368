"""Snapshots as Prometheus sees them: the families are built when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from hero.router.snapshot import BOUNDS, Latency, RouterSnapshot, merge

_BUCKETS = [*map(floatToGoString, BOUNDS), "+Inf"]


class SnapshotCollector(Collector):
    """Shows the snapshots that *get_snapshots* returns, of one process each, as one router."""

    def __init__(self, get_snapshots: Callable[[], Sequence[RouterSnapshot]]) -> None:
        self._get_snapshots = get_snapshots

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        snapshot = merge(self._get_snapshots())
        yield from _routes(snapshot)
        yield from _pools(snapshot)
        yield from _connections(snapshot)
        yield from _handshakes(snapshot)
        yield from _process(snapshot)


def _routes(snapshot: RouterSnapshot) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "hero_router_requests", "Requests that are done", labels=["route", "status"]
    )
    traffic = CounterMetricFamily(
        "hero_router_bytes",
        "Bytes from and to clients, of requests that are done",
        labels=["route", "direction"],
    )
    total = HistogramMetricFamily(
        "hero_router_request_seconds",
        "From a request's head to the end of its answer; without tunnels",
        labels=["route"],
    )
    first_byte = HistogramMetricFamily(
        "hero_router_upstream_seconds",
        "From sending a request to the service to the first byte of its answer",
        labels=["route"],
    )
    for prefix, counts in snapshot.routes.items():
        for status, count in counts.responses.items():
            requests.add_metric([prefix, str(status)], count)
        traffic.add_metric([prefix, "in"], counts.bytes_in)
        traffic.add_metric([prefix, "out"], counts.bytes_out)
        _add_latency(total, prefix, counts.total)
        _add_latency(first_byte, prefix, counts.first_byte)
    yield from (requests, traffic, total, first_byte)


def _add_latency(family: HistogramMetricFamily, prefix: str, latency: Latency) -> None:
    """As ``family.add_metric``, in a third of the time: these are most of all samples."""
    counts = list(accumulate(latency.counts))
    if not counts[-1]:
        return
    name, labels = family.name, {"route": prefix}
    family.samples += [
        Sample(f"{name}_bucket", {"route": prefix, "le": bound}, count)
        for bound, count in zip(_BUCKETS, counts, strict=True)
    ]
    family.samples.append(Sample(f"{name}_count", labels, counts[-1]))
    family.samples.append(Sample(f"{name}_sum", labels, latency.seconds))


def _pools(snapshot: RouterSnapshot) -> Iterator[Metric]:
    active = GaugeMetricFamily(
        "hero_router_requests_active", "Requests under way", labels=["route"]
    )
    open_now = GaugeMetricFamily(
        "hero_router_upstream_connections",
        "Connections to services: in use (busy), kept (idle), or a tunnel",
        labels=["route", "state"],
    )
    waiting = GaugeMetricFamily(
        "hero_router_upstream_waiting",
        "Requests that wait for a connection to their service",
        labels=["route"],
    )
    connected = CounterMetricFamily(
        "hero_router_upstream_connects", "Connections made to services", labels=["route"]
    )
    refused = CounterMetricFamily(
        "hero_router_upstream_connect_failures",
        "Connections to services that could not be made",
        labels=["route"],
    )
    reused = CounterMetricFamily(
        "hero_router_upstream_reuses",
        "Requests that were sent on a connection that was kept",
        labels=["route"],
    )
    retried = CounterMetricFamily(
        "hero_router_upstream_retries",
        "Requests that were sent again, as the connection that was kept had just died",
        labels=["route"],
    )
    for prefix, counts in snapshot.routes.items():
        pool = counts.pool
        if pool is None:
            continue
        active.add_metric([prefix], counts.active)
        open_now.add_metric([prefix, "idle"], pool.idle)
        open_now.add_metric([prefix, "busy"], pool.busy)
        open_now.add_metric([prefix, "tunnel"], pool.tunnels)
        waiting.add_metric([prefix], pool.waiting)
        connected.add_metric([prefix], pool.connected)
        refused.add_metric([prefix], pool.refused)
        reused.add_metric([prefix], pool.reused)
        retried.add_metric([prefix], pool.retried)
    yield from (active, open_now, waiting, connected, refused, reused, retried)


def _connections(snapshot: RouterSnapshot) -> Iterator[Metric]:
    now = GaugeMetricFamily(
        "hero_router_connections", "Connections of clients", labels=["protocol"]
    )
    accepted = CounterMetricFamily(
        "hero_router_connections_accepted", "Connections of clients so far", labels=["protocol"]
    )
    for protocol, count in snapshot.connections.items():
        now.add_metric([protocol], count)
    for protocol, count in snapshot.accepted.items():
        accepted.add_metric([protocol], count)
    yield from (now, accepted)
    yield GaugeMetricFamily(
        "hero_router_http2_streams", "Streams of HTTP/2 that are open", snapshot.streams
    )
    yield CounterMetricFamily(
        "hero_router_http2_streams_opened", "Streams of HTTP/2 so far", snapshot.streams_opened
    )


def _handshakes(snapshot: RouterSnapshot) -> Iterator[Metric]:
    handshakes = snapshot.handshakes
    done = CounterMetricFamily(
        "hero_router_tls_handshakes", "TLS handshakes that succeeded", labels=["kind"]
    )
    done.add_metric(["full"], handshakes.completed)
    done.add_metric(["resumed"], handshakes.resumed)
    failed = CounterMetricFamily(
        "hero_router_tls_handshake_failures", "TLS handshakes that failed", labels=["reason"]
    )
    for reason, count in handshakes.failed.items():
        failed.add_metric([reason], count)
    yield from (done, failed)
    yield GaugeMetricFamily(
        "hero_router_tls_handshakes_in_flight", "TLS handshakes under way", handshakes.in_flight
    )


def _process(snapshot: RouterSnapshot) -> Iterator[Metric]:
    rejections = CounterMetricFamily(
        "hero_router_rejections", "Answers of the router's own, by reason", labels=["reason"]
    )
    for reason, count in snapshot.rejections.items():
        rejections.add_metric([reason], count)
    routes = GaugeMetricFamily("hero_router_routes", "Routes by state", labels=["state"])
    for state, count in snapshot.states.items():
        routes.add_metric([state], count)
    yield from (rejections, routes)
    yield CounterMetricFamily(
        "hero_router_access_log_lines_lost",
        "Lines of the access log that could not be written",
        snapshot.lines_lost,
    )
    yield GaugeMetricFamily(
        "hero_router_workers", "Processes that these metrics are of", snapshot.workers
    )
