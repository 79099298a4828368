"""What every proxy has in common: how it is started, reached and looked at."""

from __future__ import annotations

import abc
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import attrs

from bench.router.lab import OPEN, Lab
from bench.router.processes import PROXY_CORE, Session, free_port


@attrs.frozen(kw_only=True)
class Ports:
    """Where a proxy listens on 127.0.0.1."""

    plain: int
    tls: int


@attrs.frozen(kw_only=True)
class Order:
    """How a proxy is to be started. ``directory`` is its own, to write into."""

    lab: Lab
    ports: Ports
    directory: Path
    workers: int = 1


@attrs.frozen(kw_only=True)
class Command:
    """A command line, and what its environment has besides ours."""

    argv: list[str]
    environ: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class Proxy:
    """A proxy that runs."""

    peer: Peer
    order: Order
    session: Session

    @property
    def name(self) -> str:
        """The peer's name."""
        return self.peer.name

    @property
    def headers(self) -> list[str]:
        """Header lines that each request to this proxy needs."""
        return self.peer.headers(self.order.lab)

    def log_tail(self) -> str:
        """The end of what it printed, for the message of a failure."""
        return self.session.log_tail()

    def port(self, *, tls: bool) -> int:
        """Where it listens."""
        return self.order.ports.tls if tls else self.order.ports.plain

    def url(self, path: str, *, tls: bool = False, route: str | None = None) -> str:
        """The URL of *path* (without a slash) on the backend's *route*, through this proxy."""
        scheme = "https" if tls else "http"
        return f"{scheme}://127.0.0.1:{self.port(tls=tls)}/{route or self.peer.route}/{path}"


class Peer(abc.ABC):
    """A kind of proxy. It serves `OPEN` and `TALK` by their prefixes, which it strips."""

    name: str
    #: The socket that small answers are asked of.
    route = OPEN
    #: Whether another peer is the same proxy, so that only how requests are served can differ.
    variant = False
    #: Whether it passes bodies on as they come, and proxies WebSockets.
    streams = True
    websocket = True
    #: Whether its workers are processes, and whether `restart` works.
    worker_processes = False
    restarts = False

    @abc.abstractmethod
    def version(self) -> str:
        """The program and its version."""

    @abc.abstractmethod
    def command(self, order: Order) -> Command:
        """How to start it; writes its configuration first. It must stay in the foreground."""

    def headers(self, lab: Lab) -> list[str]:
        """Header lines that each request needs."""
        return []

    def restart(self, proxy: Proxy) -> None:
        """Put another process into the place of *proxy*'s, at once, without closing the door."""
        raise NotImplementedError

    def start(self, lab: Lab, *, workers: int = 1, cores: str = str(PROXY_CORE)) -> Proxy:
        """Start it afresh; it listens when this returns. Raises `NotStarted`."""
        directory = lab.new_directory(self.name)
        order = Order(
            lab=lab,
            ports=Ports(plain=free_port(), tls=free_port()),
            directory=directory,
            workers=workers,
        )
        command = self.command(order)
        session = Session(
            command.argv,
            cores=cores,
            log=directory / "output.log",
            environ={**os.environ, **command.environ},
            directory=directory,
        )
        try:
            for port in (order.ports.plain, order.ports.tls):
                session.wait_for_port(port)
        except BaseException:
            session.stop()
            raise
        return Proxy(peer=self, order=order, session=session)


def first_line(*argv: str) -> str:
    """The first line that a command prints, on either of its outputs."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().partition("\n")[0]
