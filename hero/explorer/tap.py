"""``twistd hero-explorer``."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil
from twisted.application.service import IService
from twisted.python import usage

from hero.errors import HeroError, InvalidConfiguration
from hero.explorer.daemon import ExplorerDaemon
from hero.explorer.joining import Advertised
from hero.explorer.leases import Pace
from hero.settings import EnvironmentOptions


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.05 <= value <= 3600:
        raise ValueError("between 0.05 and 3600 seconds")
    return value


_seconds.coerceDoc = "Seconds, 0.05 to 3600."  # type: ignore[attr-defined]


class Options(EnvironmentOptions):
    """Options of ``twistd hero-explorer``; each is an environment variable too."""

    synopsis = "[options]"
    optParameters = (
        ["mode", None, "local", "local (one machine) or master (others may join)"],
        [
            "advertise-address",
            None,
            "",
            "URLs or hosts, comma-separated, by which other machines reach this one's router",
        ],
        ["heartbeat-interval", None, 5.0, "seconds between a node's heartbeats", _seconds],
    )

    def postOptions(self) -> None:
        """Check what can be checked now."""
        super().postOptions()
        if self["mode"] not in ("local", "master"):
            raise usage.UsageError(
                f"--mode {self['mode']}: an explorer runs in the mode local or master"
            )


def makeService(options: Options) -> IService:
    """The explorer as a service."""
    from twisted.internet import reactor

    paths = options.paths

    def fatal(error: HeroError) -> None:
        print(f"hero-explorer: {_explain(error)}", file=sys.stderr, flush=True)
        # twistd has no other way to end with a status of one's own.
        reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        reactor.callWhenRunning(reactor.stop)

    try:
        paths.ensure()
        hold(paths.state / "explorer.lock")
        local = options["mode"] == "local"
        return ExplorerDaemon(
            reactor,
            paths,
            mode=options["mode"],
            advertised=Advertised(
                configured=options["advertise-address"],
                listening=lambda: listening(paths.run / "router.json"),
                hosts=(lambda: ["127.0.0.1"]) if local else machine_addresses,
            ),
            pace=Pace(interval=options["heartbeat-interval"]),
            fatal=fatal,
        )
    except HeroError as error:
        raise SystemExit(f"hero-explorer: {_explain(error)}") from None


def hold(path: Path) -> int:
    """Keep every other explorer from this machine's state while this process lives.

    Raises `InvalidConfiguration` where there is one already.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InvalidConfiguration(
            f"another explorer uses {path.parent}", hint="hero status shows it; hero down stops it"
        ) from None
    return descriptor


def listening(router_file: Path) -> Sequence[str]:
    """The URLs on which this machine's router listens, as it wrote them down."""
    try:
        members = msgspec.json.decode(router_file.read_bytes())
        return [str(url) for url in members["listening"]]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return []


def machine_addresses() -> Sequence[str]:
    """The addresses of this machine that others may be able to reach, IPv4 first."""
    found = [
        address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    found.sort(key=lambda address: address.family != socket.AF_INET)
    usable = [a.address for a in found if not a.address.startswith(("127.", "::1", "fe80:"))]
    return usable or ["127.0.0.1"]


def _explain(error: HeroError) -> str:
    return error.detail if error.hint is None else f"{error.detail}; {error.hint}"
