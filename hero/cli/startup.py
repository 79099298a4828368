"""Working out what ``hero up`` runs, from its options, the environment and ``cfg/hero.env``."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Literal, cast
from urllib.parse import urlsplit

import attrs

from hero.errors import Conflict, InvalidConfiguration
from hero.paths import HeroPaths
from hero.settings import environment_name, write_env_file

Mode = Literal["local", "master", "worker"]

#: What each mode runs, in the order in which the processes are stopped.
PROCESSES: Mapping[str, tuple[str, ...]] = {
    "local": ("ui", "router", "explorer", "compute"),
    "master": ("ui", "router", "explorer", "compute"),
    "worker": ("router", "compute"),
}

ADVERTISE = "HERO_COMPUTE_ADVERTISE_ADDRESS"
EXPLORERS = "EXPLORER_ADDRESSES"
MODE = "HERO_MODE"
SOCKETS = "HERO_SOCKET_DIR"

#: Settings that follow from the mode, and are worked out anew when it changes.
_FROM_MODE = (ADVERTISE, EXPLORERS)

#: Settings of the command line that no process of the node needs to know.
_SECRETS = ("HERO_TOKEN", "HERO_URL", "HERO_CA", "HERO_CA_SHA256")

DEFAULT_UI_PORT = "9001"
_TLS_PORT, _UNPRIVILEGED_TLS_PORT = 443, 9998


@attrs.frozen(kw_only=True)
class StartPlan:
    """What to run. ``settings`` are the ones to write to ``hero.env``; ``environment`` is for the
    processes, these settings included."""

    mode: Mode
    paths: HeroPaths
    settings: Mapping[str, str]
    environment: Mapping[str, str]
    listen: tuple[str, ...] = ()

    @property
    def processes(self) -> tuple[str, ...]:
        """The processes of the mode, in the order in which they are stopped."""
        return PROCESSES[self.mode]

    @property
    def ui_port(self) -> str:
        """The port of 127.0.0.1 on which the web console is served."""
        return self.environment.get("HERO_PORT") or DEFAULT_UI_PORT

    def arguments(self, process: str) -> list[str]:
        """The ``twistd`` command line of *process*."""
        options = (
            [f"--listen={endpoint}" for endpoint in self.listen] if process == "router" else []
        )
        return [f"hero-{process}", *options]


def plan_start(
    environ: Mapping[str, str],
    stored: Mapping[str, str],
    options: Mapping[str, str],
    listen: Sequence[str] = (),
) -> StartPlan:
    """Put together what to run.

    *options* maps option names (``node-name``) to what the command line gave; *environ* goes
    before *stored*, the content of ``hero.env``. Raises `InvalidConfiguration` and `Conflict`.
    """
    given = {environment_name(option): value for option, value in options.items()}
    if listen:
        given["HERO_LISTEN"] = " ".join(listen)
    mode = given.get(MODE) or environ.get(MODE) or stored.get(MODE) or "local"
    if mode not in PROCESSES:
        raise InvalidConfiguration(
            f"{mode!r} is no mode", hint="HERO_MODE is local, master or worker"
        )
    kept = {
        name: value
        for name, value in stored.items()
        if stored.get(MODE) in (None, mode) or name not in _FROM_MODE
    }
    known = {**kept, **environ, **given}
    paths = HeroPaths.from_environment(known)
    _refuse_other_role(cast(Mode, mode), paths)
    endpoints = tuple((known.get("HERO_LISTEN") or "").split())
    advertise = known.get(ADVERTISE)
    if not advertise:
        advertise = default_advertise_address(cast(Mode, mode), endpoints)
    check_advertise_address(advertise)
    explorers = known.get(EXPLORERS) or ""
    if mode == "worker" and not explorers:
        raise InvalidConfiguration(
            "a worker needs to know its explorers, and none are known",
            hint="hero join TOKEN sets them, as does --explorer-addresses",
        )
    if not explorers:
        explorers = f"unix://{paths.explorer_socket}"
    settings = {
        **{name: value for name, value in given.items() if value},
        MODE: mode,
        EXPLORERS: explorers,
        ADVERTISE: advertise,
        SOCKETS: str(paths.sockets),
    }
    environment = {**known, **settings, "HERO_HOME": str(paths.home)}
    for name in (*_SECRETS, "HERO_LISTEN"):
        environment.pop(name, None)
    return StartPlan(
        mode=cast(Mode, mode),
        paths=paths,
        settings=settings,
        environment=environment,
        listen=endpoints,
    )


def save_settings(plan: StartPlan) -> None:
    """Write the settings of *plan* to ``hero.env``, for the next ``hero up`` without options."""
    write_env_file(plan.paths.env_file, plan.settings)


def check_advertise_address(address: str) -> None:
    """Raise `InvalidConfiguration` unless *address* is a router's URL, ``https://host:port``."""
    parts = urlsplit(address)
    try:
        valid = parts.scheme == "https" and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid or parts.path not in ("", "/") or parts.query or parts.username:
        raise InvalidConfiguration(
            f"{address!r} is not how other machines reach this router",
            hint="write --advertise-address https://host:port, with no path",
        )


def default_advertise_address(
    mode: Mode, listen: Sequence[str] = (), towards: str = "192.0.2.1"
) -> str:
    """The router's URL as others see it: the address of this machine that leads *towards* them."""
    host = "127.0.0.1" if mode == "local" else outward_address(towards)
    port = next((p for p in map(_port_of, listen) if p), None) or default_router_port()
    bracketed = f"[{host}]" if ":" in host else host
    return f"https://{bracketed}:{port}"


def outward_address(towards: str) -> str:
    """The address from which this machine would send to *towards*. Nothing is sent."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(towards, 9, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def default_router_port() -> int:
    """443, or 9998 where binding 443 is not permitted. A port in use is the router's to report."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", _TLS_PORT))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                return _UNPRIVILEGED_TLS_PORT
    return _TLS_PORT


def fell_back(listen: Sequence[str], urls: Sequence[str]) -> bool:
    """Whether a router that was to *listen* so took 9998, at one of *urls*, in place of 443."""
    taken = {urlsplit(url).port for url in urls}
    wanted = {_port_of(endpoint) for endpoint in listen}
    return _UNPRIVILEGED_TLS_PORT in taken - wanted


def _port_of(endpoint: str) -> int | None:
    """The port in an endpoint description such as ``ssl:8443:interface=127.0.0.1``."""
    found = re.match(r"(?:ssl|tls|tcp6?):(?:port=)?(\d+)(?::|\Z)", endpoint)
    return int(found.group(1)) if found else None


def _refuse_other_role(mode: Mode, paths: HeroPaths) -> None:
    member = (paths.tls / "node.crt").exists()
    master = (paths.tls / "ca.key").exists()
    if mode == "worker" and not member:
        raise InvalidConfiguration(
            f"this machine has not joined a cluster: {paths.tls} holds no certificate",
            hint="make a token with hero token create on the master, then hero join TOKEN here",
        )
    if mode != "worker" and member and not master:
        raise Conflict(
            f"{paths.home} belongs to a worker of a cluster and cannot be a {mode} node too",
            hint="start it with --mode worker, or use another HERO_HOME",
        )
    if mode == "worker" and master:
        raise Conflict(
            f"{paths.home} belongs to the master of a cluster and cannot be a worker too",
            hint="start it with --mode master, or use another HERO_HOME",
        )
