"""What is counted, what Prometheus is shown of it, and that it stays bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from hero.router.access_log import Record
from hero.router.exposition import SnapshotCollector
from hero.router.metrics import KEPT_AFTER_GONE, MAX_ROUTES, OTHER, RouterMetrics
from hero.router.model import PoolStats, RouteState
from hero.router.snapshot import (
    BOUNDS,
    Latency,
    RouteCounts,
    RouterSnapshot,
    merge,
)
from hero.router.worker_metrics import WorkerCollector

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def done(route: str = "/demo/web", status: int = 200, **more: object) -> Record:
    """The record of a request that is done."""
    return Record(0.0, "id", "10.0.0.1", route=route, status=status, **more)  # type: ignore[arg-type]


class Routes:
    """A route table, with routes that have a pool and are used as they were told."""

    def __init__(self, *prefixes: str, up: int = 0) -> None:
        self.up = up
        self.there: dict[str, Routes.Route] = {}
        self.hold(*prefixes)

    @attrs.define
    class Route:
        prefix: str
        active: int = 0
        figures: PoolStats = attrs.field(factory=PoolStats)

        @property
        def pool(self) -> Routes.Route:
            return self

        def stats(self) -> PoolStats:
            return self.figures

    def hold(self, *prefixes: str) -> None:
        """Let *prefixes* be the routes that there are."""
        self.there = {prefix: self.Route(prefix) for prefix in prefixes}

    def __iter__(self) -> Iterator[Routes.Route]:
        return iter(self.there.values())

    def count(self, state: RouteState) -> int:
        return self.up if state is RouteState.UP else 0


class MetricsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.now = 0.0
        self.metrics = RouterMetrics(self.registry, clock=lambda: self.now)

    def sample(self, name: str, **labels: str) -> float | None:
        """The value of a sample, as a scrape shows it."""
        text = generate_latest(self.registry).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None


class ExpositionTests(MetricsCase):
    """Each count is where it belongs."""

    def test_requests_by_route_and_status(self) -> None:
        for status in (200, 200, 404):
            self.metrics.finished(done(status=status, bytes_in=3, bytes_out=5), 0.1)
        name = "hero_router_requests_total"
        self.assertEqual(self.sample(name, route="/demo/web", status="200"), 2)
        self.assertEqual(self.sample(name, route="/demo/web", status="404"), 1)
        self.assertEqual(
            self.sample("hero_router_bytes_total", route="/demo/web", direction="in"), 9
        )
        self.assertEqual(
            self.sample("hero_router_bytes_total", route="/demo/web", direction="out"), 15
        )

    def test_latencies_are_cumulative(self) -> None:
        """A value that is a bound belongs to its bucket, as ``le`` says."""
        for seconds in (0.001, 0.002, 100.0):
            self.metrics.finished(done(upstream_seconds=seconds / 2), seconds)
        name = "hero_router_request_seconds"
        for bound, expected in (("0.0005", 0), ("0.001", 1), ("0.0025", 2), ("+Inf", 3)):
            self.assertEqual(
                self.sample(f"{name}_bucket", route="/demo/web", le=bound), expected, bound
            )
        self.assertEqual(self.sample(f"{name}_count", route="/demo/web"), 3)
        self.assertAlmostEqual(self.sample(f"{name}_sum", route="/demo/web"), 100.003)
        name = "hero_router_upstream_seconds"
        self.assertEqual(self.sample(f"{name}_bucket", route="/demo/web", le="0.0005"), 1)
        self.assertAlmostEqual(self.sample(f"{name}_sum", route="/demo/web"), 50.0015)

    def test_tunnels_have_no_latency(self) -> None:
        self.metrics.finished(done(status=101, tunnel=True, upstream_seconds=0.1), 3600.0)
        self.assertEqual(
            self.sample("hero_router_requests_total", route="/demo/web", status="101"), 1
        )
        self.assertIsNone(self.sample("hero_router_request_seconds_count", route="/demo/web"))

    def test_rejections_by_reason(self) -> None:
        self.metrics.rejected("too_many_connections")
        self.metrics.finished(done("-", 404, reason="no_route"), 0.1)
        name = "hero_router_rejections_total"
        self.assertEqual(self.sample(name, reason="too_many_connections"), 1)
        self.assertEqual(self.sample(name, reason="no_route"), 1)

    def test_connections_and_streams(self) -> None:
        self.assertEqual(self.sample("hero_router_connections", protocol="HTTP/1.1"), 0)
        self.metrics.connected()
        self.metrics.connected("HTTP/2")
        self.metrics.disconnected()
        self.metrics.stream_opened()
        self.metrics.stream_opened()
        self.metrics.stream_closed()
        self.assertEqual(self.sample("hero_router_connections", protocol="HTTP/1.1"), 0)
        self.assertEqual(self.sample("hero_router_connections", protocol="HTTP/2"), 1)
        name = "hero_router_connections_accepted_total"
        self.assertEqual(self.sample(name, protocol="HTTP/1.1"), 1)
        self.assertEqual(self.sample("hero_router_http2_streams"), 1)
        self.assertEqual(self.sample("hero_router_http2_streams_opened_total"), 2)

    def test_handshakes(self) -> None:
        for _ in range(4):
            self.metrics.handshake_started()
        self.metrics.handshake_completed(resumed=False)
        self.metrics.handshake_completed(resumed=True)
        self.metrics.handshake_failed("no_shared_cipher")
        self.assertEqual(self.sample("hero_router_tls_handshakes_total", kind="full"), 1)
        self.assertEqual(self.sample("hero_router_tls_handshakes_total", kind="resumed"), 1)
        name = "hero_router_tls_handshake_failures_total"
        self.assertEqual(self.sample(name, reason="no_shared_cipher"), 1)
        self.assertEqual(self.sample("hero_router_tls_handshakes_in_flight"), 1)

    def test_routes_by_state_and_lost_lines(self) -> None:
        self.metrics.watch_routes(Routes(up=2))
        self.metrics.watch_log(lambda: 7)
        self.assertEqual(self.sample("hero_router_routes", state="up"), 2)
        self.assertEqual(self.sample("hero_router_routes", state="down"), 0)
        self.assertEqual(self.sample("hero_router_access_log_lines_lost_total"), 7)
        self.assertEqual(self.sample("hero_router_workers"), 1)

    def test_connections_to_services(self) -> None:
        route = "/demo/web"
        routes = Routes(route, "/demo/unused")
        figures = PoolStats(
            idle=1, busy=2, waiting=3, tunnels=4, connected=5, refused=6, reused=7, retried=8
        )
        routes.there[route] = Routes.Route(route, 9, figures)
        self.metrics.watch_routes(routes)
        connections = "hero_router_upstream_connections"
        self.assertEqual(self.sample(connections, route=route, state="idle"), 1)
        self.assertEqual(self.sample(connections, route=route, state="busy"), 2)
        self.assertEqual(self.sample(connections, route=route, state="tunnel"), 4)
        for name, value in (
            ("waiting", 3),
            ("connects_total", 5),
            ("connect_failures_total", 6),
            ("reuses_total", 7),
            ("retries_total", 8),
        ):
            self.assertEqual(self.sample(f"hero_router_upstream_{name}", route=route), value, name)
        self.assertEqual(self.sample("hero_router_requests_active", route=route), 9)
        self.assertIsNone(self.sample("hero_router_requests_active", route="/demo/unused"))


class BoundsTests(MetricsCase):
    """Nobody makes the metrics grow without end."""

    def test_route_that_has_gone_is_dropped_after_a_while(self) -> None:
        """The totals keep its requests."""
        self.metrics.watch_routes(Routes("/demo/web"))
        for route in ("/demo/web", "/old/web", "-"):
            self.metrics.finished(done(route), 0.1)
        self.assertIn("/old/web", self.metrics.snapshot().routes)
        self.now = KEPT_AFTER_GONE - 1
        self.assertIn("/old/web", self.metrics.snapshot().routes)
        self.now = KEPT_AFTER_GONE
        snapshot = self.metrics.snapshot()
        self.assertEqual(set(snapshot.routes), {"/demo/web", "-"})
        self.assertEqual(snapshot.everything.requests, 3)
        self.assertEqual(sum(snapshot.everything.total.counts), 3)

    def test_route_that_came_back_is_kept(self) -> None:
        routes = Routes("/demo/web")
        self.metrics.watch_routes(routes)
        self.metrics.finished(done(), 0.1)
        for self.now, there in ((1.0, False), (2.0, True), (KEPT_AFTER_GONE + 1.5, False)):
            routes.hold(*(["/demo/web"] if there else []))
            self.assertIn("/demo/web", self.metrics.snapshot().routes)

    def test_routes_beyond_a_number_are_counted_together(self) -> None:
        live = [f"/s{n}/web" for n in range(MAX_ROUTES + 50)]
        routes = Routes(*live)
        for prefix in live:
            routes.there[prefix] = Routes.Route(prefix, 1, PoolStats(connected=1))
        self.metrics.watch_routes(routes)
        for route in live:
            for _ in range(2):
                self.metrics.finished(done(route), 0.1)
        snapshot = self.metrics.snapshot()
        self.assertEqual(len(snapshot.routes), MAX_ROUTES + 1)
        self.assertEqual(snapshot.routes[OTHER].requests, 100)
        self.assertEqual(snapshot.routes[OTHER].active, 50)
        self.assertEqual(snapshot.routes[OTHER].pool, PoolStats(connected=50))
        self.assertEqual(snapshot.everything.requests, 2 * len(live))

    def test_new_routes_take_the_place_of_those_that_have_gone(self) -> None:
        """Also where nobody ever looks at the metrics."""
        routes = Routes()
        self.metrics.watch_routes(routes)
        for number in range(3 * MAX_ROUTES):
            self.now += 1.0
            routes.hold(f"/s{number}/web")
            self.metrics.finished(done(f"/s{number}/web"), 0.1)
        snapshot = self.metrics.snapshot()
        self.assertLessEqual(len(snapshot.routes), MAX_ROUTES)
        self.assertIn(f"/s{3 * MAX_ROUTES - 1}/web", snapshot.routes)
        self.assertEqual(snapshot.everything.requests, 3 * MAX_ROUTES)

    def test_made_up_statuses_are_counted_by_class(self) -> None:
        for status in range(200, 600):
            self.metrics.finished(done(status=status), 0.1)
        responses = self.metrics.snapshot().routes["/demo/web"].responses
        self.assertLess(len(responses), 50)
        self.assertEqual(sum(responses.values()), 400)

    def test_reasons_are_bounded(self) -> None:
        for number in range(1000):
            self.metrics.rejected(f"reason-{number}")
        rejections = self.metrics.snapshot().rejections
        self.assertEqual(sum(rejections.values()), 1000)
        self.assertLess(len(rejections), 300)


class SnapshotTests(MetricsCase):
    """Counts of several processes as those of one router."""

    def test_snapshot_does_not_change_afterwards(self) -> None:
        self.metrics.finished(done(), 0.1)
        self.metrics.rejected("no_route")
        before = self.metrics.snapshot()
        copy = msgspec.json.encode(before)
        self.metrics.finished(done(reason="gone"), 0.1)
        self.metrics.connected()
        self.metrics.handshake_started()
        self.metrics.handshake_failed("rubbish")
        self.assertEqual(msgspec.json.encode(before), copy)

    def test_snapshot_travels_as_json(self) -> None:
        self.metrics.finished(done(upstream_seconds=0.1), 0.2)
        snapshot = self.metrics.snapshot()
        decoded = msgspec.json.decode(msgspec.json.encode(snapshot), type=RouterSnapshot)
        self.assertEqual(decoded, snapshot)

    def test_merging_adds_up(self) -> None:
        """All but the routes by state, which each process finds for itself."""
        other = RouterMetrics()
        self.metrics.finished(done(bytes_in=1, upstream_seconds=0.1), 0.1)
        other.finished(done(bytes_in=2, upstream_seconds=0.1), 0.2)
        other.finished(done("/demo/new", 500, reason="bad"), 0.2)
        for metrics in (self.metrics, other):
            metrics.connected()
            metrics.watch_routes(Routes(up=2))
        both = [self.metrics.snapshot(), other.snapshot()]
        untouched = msgspec.json.encode(both)
        merged = merge(both)
        self.assertEqual(merged.routes["/demo/web"].responses, {200: 2})
        self.assertEqual(merged.routes["/demo/web"].bytes_in, 3)
        self.assertEqual(sum(merged.routes["/demo/web"].first_byte.counts), 2)
        self.assertAlmostEqual(merged.routes["/demo/web"].total.seconds, 0.3)
        self.assertEqual(merged.routes["/demo/new"].errors, 1)
        self.assertEqual(merged.rejections, {"bad": 1})
        self.assertEqual(merged.connections, {"HTTP/1.1": 2})
        self.assertEqual(merged.states, {"up": 2, "down": 0, "refused": 0})
        self.assertEqual(merged.workers, 2)
        self.assertEqual(msgspec.json.encode(both), untouched)

    def test_pools_are_added_up_where_there_are_any(self) -> None:
        pool = PoolStats(idle=1, connected=2)
        parts = [RouteCounts(pool=pool), RouteCounts(pool=pool), RouteCounts()]
        merged = merge([RouterSnapshot(routes={"/demo/web": counts}) for counts in parts])
        self.assertEqual(merged.routes["/demo/web"].pool, PoolStats(idle=2, connected=4))

    def test_no_process_has_no_counts(self) -> None:
        self.assertEqual(merge([]).workers, 0)

    def test_several_processes_are_one_set_of_metrics(self) -> None:
        registry = self.registry = CollectorRegistry()
        workers = [RouterMetrics(), RouterMetrics(), RouterMetrics()]
        registry.register(SnapshotCollector(lambda: [w.snapshot() for w in workers]))
        for worker in workers:
            worker.finished(done(), 0.1)
        name = "hero_router_requests_total"
        self.assertEqual(self.sample(name, route="/demo/web", status="200"), 3)
        self.assertEqual(self.sample("hero_router_workers"), 3)


class QuantileTests(SynchronousTestCase):
    """Latencies from buckets."""

    def test_within_a_bucket(self) -> None:
        counts = [0] * (len(BOUNDS) + 1)
        counts[1] = 10
        latency = Latency(counts=counts)
        self.assertAlmostEqual(latency.quantile(0.5), 0.00075)
        self.assertAlmostEqual(latency.quantile(1.0), 0.001)

    def test_over_empty_buckets(self) -> None:
        counts = [0] * (len(BOUNDS) + 1)
        counts[0], counts[5] = 99, 1
        latency = Latency(counts=counts)
        self.assertAlmostEqual(latency.quantile(0.99), BOUNDS[0])
        self.assertGreater(latency.quantile(0.995), BOUNDS[4])

    def test_beyond_the_last_bound(self) -> None:
        counts = [0] * (len(BOUNDS) + 1)
        counts[-1] = 1
        self.assertEqual(Latency(counts=counts).quantile(0.5), BOUNDS[-1])


class DocumentationTests(SynchronousTestCase):
    """The page about metrics."""

    def test_every_metric_is_explained(self) -> None:
        """And nothing that there is not."""
        workers: Any = SimpleNamespace(restarts=0, silences=0, pids={})
        families = [
            *SnapshotCollector(lambda: [RouterSnapshot()]).collect(),
            *WorkerCollector(workers).collect(),
        ]
        there = {f.name + ("_total" if f.type == "counter" else "") for f in families}
        page = Path(__file__).parents[2] / "docs/reference/metrics.md"
        explained = set(re.findall(r"^\| `(hero_router_\w+)`", page.read_text(), re.MULTILINE))
        self.assertEqual(explained, there)
