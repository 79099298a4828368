"""``/metrics`` of a router with workers: one set of metrics, and how the workers are."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request

from hero.router.exposition import SnapshotCollector
from hero.router.workers import Workers
from hero.rpc.tree import Tree

_log = Logger()


def gathered_metrics(registry: CollectorRegistry, workers: Workers) -> IResource:
    """Register the metrics of *workers*; the resource asks them before it shows *registry*."""
    registry.register(SnapshotCollector(workers.known_snapshots))
    registry.register(WorkerCollector(workers))
    return _Gathered(registry, workers)


class WorkerCollector(Collector):
    """How the processes of *workers* are."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        workers = self._workers
        yield CounterMetricFamily(
            "hero_router_worker_restarts", "Workers that died and were replaced", workers.restarts
        )
        yield CounterMetricFamily(
            "hero_router_worker_silences",
            "Questions that a worker did not answer in time",
            workers.silences,
        )
        memory = GaugeMetricFamily(
            "hero_router_worker_memory_bytes", "Resident memory of a worker", labels=["worker"]
        )
        for number, pid in workers.pids.items():
            try:
                memory.add_metric([str(number)], psutil.Process(pid).memory_info().rss)
            except psutil.Error:
                continue  # it has just died
        yield memory


class _Gathered(Tree):
    def __init__(self, registry: CollectorRegistry, workers: Workers) -> None:
        super().__init__()
        self._registry = registry
        self._workers = workers

    def render_GET(self, request: Request) -> int:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        answered = Deferred.fromCoroutine(self._answer(request, gone))
        answered.addErrback(lambda failure: _log.failure("no metrics", failure))
        return NOT_DONE_YET

    async def _answer(self, request: Request, gone: list[object]) -> None:
        await self._workers.snapshots()
        if not gone:
            request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
            request.write(generate_latest(self._registry))
            request.finish()
