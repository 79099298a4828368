"""Bodies of a gigabyte, down and up."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping

from bench.router.generators.native import GeneratorFailed
from bench.router.lab import LARGE_FILE, TALK
from bench.router.measures.measure import Figure, Measure, Take, Target
from bench.router.peers.peer import Peer, Proxy
from bench.router.processes import LOAD_CORE, pinned

RATE = "per_cpu_second"


def _curl(proxy: Proxy, *arguments: str) -> None:
    argv = ["curl", "--silent", "--insecure", "--http1.1", "--fail", "--output", "/dev/null"]
    done = subprocess.run(pinned([*argv, *arguments], str(LOAD_CORE)), check=False)
    if done.returncode != 0:
        raise GeneratorFailed(f"{proxy.name}: curl ended with {done.returncode}")


def _take(*, up: bool, tls: bool) -> Take:
    def take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
        lab = proxy.order.lab
        file = lab.files / LARGE_FILE
        before, start = proxy.session.usage(), time.monotonic()
        if up:
            url = proxy.url("upload", tls=tls, route=TALK)
            _curl(proxy, "--header", "Expect:", "--upload-file", str(file), url)
        else:
            _curl(proxy, proxy.url(LARGE_FILE, tls=tls))
        elapsed = time.monotonic() - start
        used = proxy.session.usage().total_since(before)
        gigabytes = file.stat().st_size / 1e9
        return {
            RATE: gigabytes / used,
            "per_second": gigabytes / elapsed,
            "busy": 100 * used / elapsed,
        }

    return take


def _suits_down(peer: Peer) -> bool:
    return not peer.variant


def _suits_up(peer: Peer) -> bool:
    # Twisted's own proxy holds a body in memory, several times over.
    return not peer.variant and peer.streams


def _measure(*, up: bool, tls: bool, bound: float) -> Measure:
    return Measure(
        name=("upload" if up else "download") + ("-tls" if tls else ""),
        title=f"A body of 1 GB {'up' if up else 'down'}, {'TLS' if tls else 'plain'}",
        figures=(
            Figure(name=RATE, title="GB per CPU second", form="{:.2f}", ratio=True),
            Figure(name="per_second", title="GB per second", form="{:.2f}"),
            Figure(name="busy", title="proxy busy %"),
        ),
        take=_take(up=up, tls=tls),
        suits=_suits_up if up else _suits_down,
        targets=(Target(figure=RATE, bound=bound, against="nginx"),),
    )


MEASURES = (
    _measure(up=False, tls=False, bound=1.2),
    _measure(up=True, tls=False, bound=1.2),
    _measure(up=False, tls=True, bound=1.0),
    _measure(up=True, tls=True, bound=1.0),
)
