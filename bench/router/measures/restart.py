"""A restart while it is asked without a pause: nobody may notice."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench.router.generators.wrk import begin
from bench.router.measures.measure import Figure, Measure, Take, Target
from bench.router.peers.peer import Peer, Proxy

_RESTARTS = 2


def _take(tls: bool) -> Take:
    def take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
        pause = max(seconds, 3.0)
        first = set(proxy.session.usage().by_process)
        seen: set[int] = set()
        asking = begin(proxy, pause * (_RESTARTS + 1), tls=tls)
        for _ in range(_RESTARTS):
            time.sleep(pause)
            seen |= set(proxy.session.usage().by_process)
            proxy.peer.restart(proxy)
        seen |= set(proxy.session.usage().by_process)
        answers = asking.end()
        return {
            "requests": answers.requests,
            "p99": answers.p99 * 1e3,
            "new": len(seen - first),
            "failed": answers.failed,
        }

    return take


def _suits(peer: Peer) -> bool:
    return peer.restarts and not peer.variant


def _measure(*, tls: bool) -> Measure:
    return Measure(
        name="restart" + ("-tls" if tls else ""),
        title=f"Restarted twice under load of 64 connections, {'TLS' if tls else 'plain'}",
        figures=(
            Figure(name="failed", title="failed"),
            Figure(name="requests", title="requests"),
            Figure(name="p99", title="p99 ms", form="{:.1f}"),
            Figure(name="new", title="new processes"),
        ),
        take=_take(tls),
        suits=_suits,
        targets=(
            Target(figure="failed", bound=0, at_least=False),
            Target(figure="new", bound=_RESTARTS),
        ),
    )


MEASURES = (_measure(tls=False), _measure(tls=True))
