"""Hero's router as users run it: ``twistd hero-router``, and everything it does switched on.

That is discovery, identity checks, headers, metrics, and the access log in its file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

from bench.router.lab import CLOSED, OPEN, TALK, Lab
from bench.router.peers.peer import Command, Order, Peer, Proxy, first_line
from bench.router.processes import NotStarted

_RESTART_TIME = 20.0


class Hero(Peer):
    """Requests of nobody, which the manifest of the service lets in."""

    name = "hero"
    worker_processes = True
    restarts = True

    def __init__(self, lab: Lab) -> None:
        self._source = lab.hero

    def version(self) -> str:
        git = ("git", "-C", str(self._source.tree))
        head = first_line(*git, "log", "-1", "--format=%h", "--", "hero", "twisted")
        changed = first_line(*git, "status", "--porcelain", "--", "hero", "twisted")
        python = first_line(
            str(self._source.python),
            "-c",
            "import platform as p; print(p.python_implementation(), p.python_version())",
        )
        return f"hero {head}{' and changes' if changed else ''} on {python}"

    def restart(self, proxy: Proxy) -> None:
        """A new process takes the listening sockets from the old one (docs: operate the router)."""
        old = self._running(proxy.order)
        os.kill(old, signal.SIGUSR2)
        deadline = time.monotonic() + _RESTART_TIME
        while self._running(proxy.order) == old:
            if time.monotonic() > deadline:
                raise NotStarted(f"{self.name} has no successor\n{proxy.log_tail()}")
            time.sleep(0.05)

    def _running(self, order: Order) -> int:
        state = json.loads((self._home(order) / "var/run/router.json").read_text())
        process: int = state["pid"]
        return process

    def _home(self, order: Order) -> Path:
        return order.directory / "home"

    def sockets(self, order: Order) -> Path:
        """The directory that it serves."""
        return order.directory / "sockets"

    def command(self, order: Order) -> Command:
        # A home of its own, with the identity and the tokens of the lab.
        home = self._home(order)
        shutil.copytree(order.lab.paths.home, home)
        sockets = self.sockets(order)
        for name in (OPEN, CLOSED, TALK):
            _serve(order.lab.socket(name), sockets / f"{name}.sock")
        argv = [str(self._source.python.parent / "twistd"), "-n", "--pidfile=", "hero-router"]
        argv += ["--sockets", str(sockets), "--mode", "local"]
        argv += ["--listen", f"tcp:{order.ports.plain}:interface=127.0.0.1"]
        argv += ["--listen", f"ssl:{order.ports.tls}:interface=127.0.0.1"]
        if order.workers > 1:
            argv += ["--workers", str(order.workers)]
        environ = {"HERO_HOME": str(home), "PYTHONPATH": str(self._source.tree)}
        return Command(argv=argv, environ=environ)


class HeroWithToken(Hero):
    """Requests with a bearer token, to a service that is for the cluster only."""

    name = "hero-token"
    variant = True
    route = CLOSED

    def headers(self, lab: Lab) -> list[str]:
        return [f"Authorization: Bearer {lab.token}"]


def _serve(backend: Path, here: Path) -> None:
    """Give the socket *backend* a second name: two routers cannot serve one directory."""
    here.parent.mkdir(parents=True, exist_ok=True)
    os.link(backend, here)
