"""New TLS 1.3 connections, each with one small answer, then closed."""

from __future__ import annotations

from collections.abc import Mapping

from bench.router.generators.native import Generator
from bench.router.measures.measure import Figure, Measure, Take, Target
from bench.router.peers.peer import Peer, Proxy

RATE = "per_cpu_second"


def request_head(proxy: Proxy) -> str:
    """The head of a request for the small answer."""
    lines = [f"GET /{proxy.peer.route}/small.json HTTP/1.1", "Host: 127.0.0.1", *proxy.headers]
    return "\r\n".join(lines) + "\r\n\r\n"


def _take(kind: str) -> Take:
    def take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
        program = proxy.order.lab.program("handshakes")
        before = proxy.session.usage()
        with Generator(
            program, proxy.port(tls=True), request_head(proxy), kind, seconds
        ) as generator:
            found = generator.result()
        used = proxy.session.usage().total_since(before)
        return {
            RATE: found["connections"] / used,
            "per_second": found["connections"] / found["seconds"],
            "resumed": 100 * found["resumed"] / found["connections"],
            "failed": found["failed"],
        }

    return take


def _suits(peer: Peer) -> bool:
    return not peer.variant


_FIGURES = (
    Figure(name=RATE, title="connections per CPU second", ratio=True),
    Figure(name="per_second", title="connections per second"),
    Figure(name="resumed", title="resumed %"),
    Figure(name="failed", title="failed"),
)
_NO_FAILURES = Target(figure="failed", bound=0, at_least=False)

MEASURES = (
    Measure(
        name="handshakes",
        title="New TLS connections, full handshakes",
        figures=_FIGURES,
        take=_take("full"),
        suits=_suits,
        targets=(Target(figure=RATE, bound=0.65, against="nginx"), _NO_FAILURES),
    ),
    Measure(
        name="handshakes-resumed",
        title="New TLS connections, resumed",
        figures=_FIGURES,
        take=_take("resumed"),
        suits=_suits,
        targets=(
            Target(figure=RATE, bound=0.75, against="nginx"),
            Target(figure="resumed", bound=95),
            _NO_FAILURES,
        ),
    ),
)
