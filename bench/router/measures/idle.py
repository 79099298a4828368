"""Many idle TLS connections: what each costs, and what they cost those who do something."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from bench.router.generators.native import Generator
from bench.router.generators.wrk import ask
from bench.router.measures.handshakes import request_head
from bench.router.measures.measure import Figure, Measure, Target
from bench.router.peers.peer import Peer, Proxy
from bench.router.processes import OPEN_FILES

#: A proxy may need a descriptor to the backend for each client, and some for other things.
_MOST = min(10_000, OPEN_FILES // 2 - 200)
#: In a quick run, where turns are shorter than this.
_FEW, _SHORT = 1000, 2.0
_ESTABLISHED = "01"


def _take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
    connections = _FEW if seconds < _SHORT else _MOST
    port = proxy.port(tls=True)
    alone = _rate(proxy, seconds)
    before = proxy.session.memory()
    program = proxy.order.lab.program("handshakes")
    with Generator(program, port, request_head(proxy), "hold", connections) as holder:
        holder.ready()
        time.sleep(1.0)
        after = proxy.session.memory()
        beside = _rate(proxy, seconds)
        lost = connections - _established(port)
    return {
        "kib": (after - before) / 1024 / connections,
        "alone": alone,
        "beside": beside,
        "share": beside / alone,
        "lost": max(0, lost),
    }


def _rate(proxy: Proxy, seconds: float) -> float:
    before = proxy.session.usage()
    answers = ask(proxy, seconds, tls=True)
    return answers.requests / proxy.session.usage().total_since(before)


def _established(port: int) -> int:
    """Connections that exist on the side that listens on *port*; see proc(5), net/tcp."""
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state = line.split()[:4]
        found += state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port
    return found


def _suits(peer: Peer) -> bool:
    return not peer.variant


MEASURES = (
    Measure(
        name="idle",
        title=f"{_MOST} idle TLS connections",
        figures=(
            Figure(name="kib", title="KiB for each", form="{:.1f}", ratio=True),
            Figure(name="alone", title="requests per CPU second without them"),
            Figure(name="beside", title="beside them"),
            Figure(name="share", title="beside to without", form="{:.2f}"),
            Figure(name="lost", title="closed meanwhile"),
        ),
        take=_take,
        suits=_suits,
        most_rounds=1,
        targets=(
            Target(figure="kib", bound=40, at_least=False),
            Target(figure="share", bound=0.8),
            Target(figure="lost", bound=0, at_least=False),
        ),
    ),
)
