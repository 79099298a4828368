"""The text format, beside prometheus_client's own."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from twisted.trial.unittest import SynchronousTestCase

from hero.rpc.metrics_text import metrics_text


class Families:
    """A collector of given families."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


class MetricsTextTests(SynchronousTestCase):
    """It is what prometheus_client makes of the same registry."""

    def agree(self, registry: CollectorRegistry) -> None:
        self.assertEqual(metrics_text(registry).decode(), generate_latest(registry).decode())

    def test_every_kind(self) -> None:
        """Those that need more care too, such as counters that say when they were made."""
        registry = CollectorRegistry()
        Counter("calls", "Calls", ["kind"], registry=registry).labels("a").inc(3)
        Gauge("level", "How high\nor \\ low", registry=registry).set(-2.5)
        Histogram("seconds", "Time", ["kind"], registry=registry).labels("b").observe(0.2)
        Info("build", "What it is", registry=registry).info({"version": "1"})
        self.agree(registry)
        registry.register(Families(CounterMetricFamily("plain", "No labels", 7)))  # type: ignore[arg-type]
        self.agree(registry)
        self.assertIn(b"plain_total 7.0\n", metrics_text(registry))

    def test_empty(self) -> None:
        self.assertEqual(metrics_text(CollectorRegistry()), b"")

    @given(st.text(st.characters(codec="utf-8")), st.floats() | st.integers(-(2**60), 2**60))
    def test_every_label_and_value(self, label: str, value: float) -> None:
        family = GaugeMetricFamily("level", "How high", labels=["b", "a"])
        family.add_metric([label, "x"], value)
        registry = CollectorRegistry()
        registry.register(Families(family))  # type: ignore[arg-type]
        self.agree(registry)
