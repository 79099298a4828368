"""WebSocket messages of 64 bytes that go to a service and come back."""

from __future__ import annotations

from collections.abc import Mapping

from bench.router.generators.native import Generator
from bench.router.lab import TALK
from bench.router.measures.measure import Figure, Measure, Take, Target
from bench.router.peers.peer import Peer, Proxy

RATE = "per_cpu_second"


def _take(connections: int) -> Take:
    def take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
        program = proxy.order.lab.program("websocket")
        target = f"/{TALK}/echo"
        with Generator(program, proxy.port(tls=False), target, connections, seconds) as generator:
            generator.ready()
            before = proxy.session.usage()
            generator.go()
            found = generator.result()
            used = proxy.session.usage().total_since(before)
        return {
            RATE: found["messages"] / used,
            "per_second": found["messages"] / found["seconds"],
            "failed": found["failed"],
        }

    return take


def _suits(peer: Peer) -> bool:
    return peer.websocket and not peer.variant


def _measure(connections: int, bound: float) -> Measure:
    return Measure(
        name=f"websocket-{connections}",
        title=f"WebSocket echo, plain, {connections} connections",
        figures=(
            Figure(name=RATE, title="messages per CPU second", ratio=True),
            Figure(name="per_second", title="messages per second"),
            Figure(name="failed", title="failed"),
        ),
        take=_take(connections),
        suits=_suits,
        targets=(
            Target(figure=RATE, bound=bound, against="nginx"),
            Target(figure="failed", bound=0, at_least=False),
        ),
    )


MEASURES = (_measure(64, 0.65), _measure(1000, 0.5))
