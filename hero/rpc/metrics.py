"""Counts of JSON-RPC calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram
from twisted.internet.defer import CancelledError

from hero.errors import HeroError
from hero.rpc.declare import Method


class RpcMetrics:
    """``hero_rpc_calls_total`` by method and outcome, and durations.

    The outcome is ``ok``, ``cancelled`` where the caller has gone, or an error kind.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "hero_rpc_calls", "JSON-RPC calls answered", ["method", "outcome"], registry=registry
        )
        self._seconds = Histogram(
            "hero_rpc_call_seconds", "Time to answer", ["method"], registry=registry
        )

    @contextmanager
    def call(self, method: Method) -> Iterator[None]:
        """Count what happens inside."""
        outcome = "internal"
        try:
            with self._seconds.labels(method.qualified_name).time():
                yield
            outcome = "ok"
        except HeroError as error:
            outcome = error.kind
            raise
        except CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._calls.labels(method.qualified_name, outcome).inc()
