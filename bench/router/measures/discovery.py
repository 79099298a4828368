"""Services that come and go, and those who ask for one that stays."""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench.router import generators
from bench.router.generators.native import Generator, GeneratorFailed
from bench.router.generators.wrk import ask
from bench.router.measures.measure import Figure, Measure, Target
from bench.router.peers.hero import Hero
from bench.router.peers.peer import Peer, Proxy

_PRESENT = 1000
_RATE = 100
_PROGRAM = Path(generators.__file__).parent / "programs" / "churn.py"


def _take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
    assert isinstance(proxy.peer, Hero)
    calm = ask(proxy, seconds)
    sockets = proxy.peer.sockets(proxy.order)
    with Generator(Path(sys.executable), _PROGRAM, sockets, _PRESENT, _RATE) as services:
        services.ready()
        time.sleep(2.0)  # their manifests are read
        services.go()
        busy = ask(proxy, seconds)
        services.go()
        found = services.result()
        late = _seconds_until_routed(proxy, f"{found['newest']}/web")
    return {
        "calm": calm.p99 * 1e3,
        "busy": busy.p99 * 1e3,
        "times": busy.p99 / calm.p99,
        "rate": found["changes"] / found["seconds"],
        "late": late * 1e3,
        "failed": calm.failed + busy.failed,
    }


def _seconds_until_routed(proxy: Proxy, route: str) -> float:
    """How long the service that came last is not reached, from now on. Raises after a while."""
    start = time.monotonic()
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port(tls=False), timeout=5)
        connection.request("GET", f"/{route}/", headers={"Connection": "close"})
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return time.monotonic() - start
        if time.monotonic() > start + 10:
            raise GeneratorFailed(f"{route} still answers {status}")
        time.sleep(0.01)


def _suits(peer: Peer) -> bool:
    return isinstance(peer, Hero) and not peer.variant


MEASURES = (
    Measure(
        name="discovery",
        title=f"{_PRESENT} services, {_RATE} a second coming and as many going; a stable route",
        figures=(
            Figure(name="times", title="p99 with to without", form="{:.2f}"),
            Figure(name="calm", title="p99 ms without", form="{:.1f}"),
            Figure(name="busy", title="p99 ms with", form="{:.1f}"),
            Figure(name="rate", title="coming per second"),
            Figure(name="late", title="ms until the last is reached", form="{:.0f}"),
            Figure(name="failed", title="failed"),
        ),
        take=_take,
        suits=_suits,
        targets=(
            Target(figure="failed", bound=0, at_least=False),
            Target(figure="times", bound=2.0, at_least=False),
            Target(figure="late", bound=100, at_least=False),
        ),
    ),
)
