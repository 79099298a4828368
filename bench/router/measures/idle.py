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
CONNECTIONS = min(10_000, OPEN_FILES // 2 - 200)
_ESTABLISHED = "01"


def _take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
    port = proxy.port(tls=True)
    alone = _rate(proxy, seconds)
    before = proxy.session.memory()
    program = proxy.order.lab.program("handshakes")
    with Generator(program, port, request_head(proxy), "hold", CONNECTIONS) as holder:
        holder.ready()
        time.sleep(1.0)
        after = proxy.session.memory()
        beside = _rate(proxy, seconds)
        held = _established(port)
    return {
        "kib": (after - before) / 1024 / CONNECTIONS,
        "alone": alone,
        "beside": beside,
        "share": beside / alone,
        "held": held,
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
        title=f"{CONNECTIONS} idle TLS connections",
        figures=(
            Figure(name="kib", title="KiB for each", form="{:.1f}", ratio=True),
            Figure(name="alone", title="requests per CPU second without them"),
            Figure(name="beside", title="beside them"),
            Figure(name="share", title="beside to without", form="{:.2f}"),
            Figure(name="held", title="still there"),
        ),
        take=_take,
        suits=_suits,
        most_rounds=1,
        targets=(
            Target(figure="kib", bound=40, at_least=False),
            Target(figure="share", bound=0.8),
            Target(figure="held", bound=CONNECTIONS),
        ),
    ),
)
