"""Small answers on keep-alive connections, plain and over TLS, with short and with long heads."""

from __future__ import annotations

from collections.abc import Mapping

from bench.router.generators.wrk import ask
from bench.router.measures.measure import Figure, Measure, Take, Target
from bench.router.peers.peer import Proxy

RATE = "per_cpu_second"

_FIGURES = (
    Figure(name=RATE, title="requests per CPU second", ratio=True),
    Figure(name="per_second", title="requests per second"),
    Figure(name="p99", title="p99 ms", form="{:.1f}", ratio=True),
    Figure(name="failed", title="failed"),
)


def _take(*, tls: bool, different_heads: bool) -> Take:
    def take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
        before = proxy.session.usage()
        answers = ask(proxy, seconds, tls=tls, different_heads=different_heads)
        used = proxy.session.usage().total_since(before)
        return {
            RATE: answers.requests / used,
            "per_second": answers.requests / answers.seconds,
            "p99": answers.p99 * 1e3,
            "failed": answers.failed,
        }

    return take


_NO_FAILURES = Target(figure="failed", bound=0, at_least=False)

MEASURES = (
    Measure(
        name="keepalive",
        title="Small answers, plain, 64 connections",
        figures=_FIGURES,
        take=_take(tls=False, different_heads=False),
        targets=(
            Target(figure=RATE, bound=0.5, against="nginx"),
            Target(figure=RATE, bound=1.5, against="envoy"),
            Target(figure=RATE, bound=3.5, against="caddy"),
            Target(figure=RATE, bound=5.0, against="aiohttp"),
            Target(figure=RATE, bound=8.0, against="twisted"),
            Target(figure="p99", bound=2.0, against="nginx", at_least=False),
            _NO_FAILURES,
        ),
    ),
    Measure(
        name="heads",
        title="Small answers, plain, heads of 600 bytes, each one different",
        figures=_FIGURES,
        take=_take(tls=False, different_heads=True),
        targets=(Target(figure=RATE, bound=0.45, against="nginx"), _NO_FAILURES),
    ),
    Measure(
        name="tls",
        title="Small answers over TLS 1.3, 64 connections",
        figures=_FIGURES,
        take=_take(tls=True, different_heads=False),
        targets=(
            Target(figure=RATE, bound=0.5, against="nginx"),
            Target(figure=RATE, bound=1.3, against="envoy"),
            Target(figure=RATE, bound=2.5, against="caddy"),
            _NO_FAILURES,
        ),
    ),
    Measure(
        name="tls-heads",
        title="Small answers over TLS 1.3, heads of 600 bytes, each one different",
        figures=_FIGURES,
        take=_take(tls=True, different_heads=True),
        targets=(_NO_FAILURES,),
    ),
)
