"""wrk: keep-alive connections that ask again as soon as they have an answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import attrs

from bench.router.generators.native import GeneratorFailed
from bench.router.peers.peer import Proxy
from bench.router.processes import LOAD_CORE, pinned

_HERE = Path(__file__).parent


@attrs.frozen(kw_only=True)
class Answers:
    """What a run of wrk saw; times are in seconds, ``failed`` is errors and non-2xx together."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int


@attrs.frozen
class Asking:
    """wrk while it runs."""

    _process: subprocess.Popen[str]
    _proxy: Proxy

    def end(self) -> Answers:
        """What it saw, once it is done."""
        output, _ = self._process.communicate()
        for line in output.splitlines():
            if line.startswith("RESULT "):
                return Answers(**json.loads(line.removeprefix("RESULT ")))
        raise GeneratorFailed(f"{self._proxy.name}: {output}\n{self._proxy.log_tail()}")


def begin(
    proxy: Proxy,
    seconds: float,
    *,
    tls: bool = False,
    connections: int = 64,
    different_heads: bool = False,
    cores: str = str(LOAD_CORE),
) -> Asking:
    """Ask *proxy* for the small answer for *seconds*. *different_heads*: like a browser."""
    script = _HERE / ("heads.lua" if different_heads else "report.lua")
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
    if not different_heads:
        for line in proxy.headers:
            argv += ["-H", line]
    argv += ["--timeout", "10s", proxy.url("small.json", tls=tls)]
    if different_heads:
        argv += ["--", *proxy.headers]
    return Asking(subprocess.Popen(pinned(argv, cores), stdout=subprocess.PIPE, text=True), proxy)


def ask(proxy: Proxy, seconds: float, **how: Any) -> Answers:
    """`begin`, and wait for the end."""
    return begin(proxy, seconds, **how).end()
