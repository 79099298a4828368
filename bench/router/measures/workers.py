"""Two worker processes on two cores, against one.

The generator and the backend need the same two cores, so requests per second by the clock cannot
double. What can be told is whether a request costs more with two workers, and whether both work:
two cores do twice the work of one, times the ratio of requests per processor second.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.router.generators.wrk import ask
from bench.router.lab import Lab
from bench.router.measures.measure import Figure, Measure, Target
from bench.router.peers.peer import Peer, Proxy

_CORES = "0-1"
_CONNECTIONS = 128


def _take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
    single = proxy.peer.start(proxy.order.lab, cores=_CORES)
    try:
        one, by_clock, _ = _rates(single, seconds)
    finally:
        single.session.stop()
    two, by_clock_of_two, share = _rates(proxy, seconds)
    return {
        "one": one,
        "two": two,
        "scale": 2 * two / one,
        "share": 100 * share,
        "clock": by_clock_of_two / by_clock,
    }


def _rates(proxy: Proxy, seconds: float) -> tuple[float, float, float]:
    """Requests per processor second and per second; what the second busiest process has done."""
    before = proxy.session.usage()
    answers = ask(proxy, seconds, connections=_CONNECTIONS, cores=_CORES)
    used = sorted(proxy.session.usage().since(before).values(), reverse=True)
    total = sum(used)
    share = used[1] / total if len(used) > 1 else 0.0
    return answers.requests / total, answers.requests / answers.seconds, share


def _start(peer: Peer, lab: Lab) -> Proxy:
    return peer.start(lab, workers=2, cores=_CORES)


def _suits(peer: Peer) -> bool:
    return peer.worker_processes and not peer.variant


MEASURES = (
    Measure(
        name="workers",
        title="Two workers on two cores, small answers, plain, 128 connections",
        figures=(
            Figure(name="scale", title="two cores to one", form="{:.2f}"),
            Figure(name="one", title="requests per CPU second, one worker"),
            Figure(name="two", title="two workers"),
            Figure(name="share", title="share of the second worker %"),
            Figure(name="clock", title="by the clock", form="{:.2f}"),
        ),
        take=_take,
        start=_start,
        suits=_suits,
        shares_the_load_core=True,
        targets=(
            Target(figure="scale", bound=1.8),
            Target(figure="share", bound=25),
        ),
    ),
)
