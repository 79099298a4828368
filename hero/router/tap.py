"""``twistd hero-router``: options, and how the process is put together."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.application.internet import TimerService
from twisted.application.service import IService, MultiService
from twisted.python import usage

from hero.errors import HeroError
from hero.identity.addresses import host_of_url
from hero.identity.node import ensure_master_identity
from hero.identity.revocation import RevokedNodes
from hero.identity.tls import ServerTls, peer_identity
from hero.identity.tokens import TokenFile, TokenFiles
from hero.paths import HeroPaths
from hero.router.access_log import AccessLog
from hero.router.api import RouterService
from hero.router.discovery import Discovery, Found
from hero.router.door import Door
from hero.router.gateway import Gateway
from hero.router.heads import Heads
from hero.router.limits import Limits
from hero.router.line_writer import LineFile, LineWriter
from hero.router.listening import open_listener
from hero.router.log_file import LogFile, OpenFile
from hero.router.management import GatewayView, RouterApi
from hero.router.metrics import RouterMetrics
from hero.router.proxy import ReverseProxyResource
from hero.router.routes import RouteTable
from hero.router.service import ListeningService
from hero.rpc.site import UnixService, service_site
from hero.settings import EnvironmentOptions

MODES = ("local", "master", "worker")
#: Descriptors for other things than clients and the services that they call.
_OTHER_FILES = 64
#: How often routes that do not answer are asked again, in seconds.
_PROBE_PERIOD = 5.0


def _access(value: str) -> str:
    if value not in ("cluster", "public"):
        raise usage.UsageError("--access is cluster or public")
    return value


def _mode(value: str) -> str:
    if value not in MODES:
        raise usage.UsageError(f"--mode is one of {', '.join(MODES)}")
    return value


class Options(EnvironmentOptions):
    """Options of ``twistd hero-router``."""

    synopsis = "[options]"
    longdesc = "The one network door of a node: a TLS reverse proxy for the sockets of its services"

    optParameters = [  # noqa: RUF012
        ["sockets", None, None, "Directory whose sockets are served [HERO_SOCKET_DIR]"],
        ["mode", None, "local", "local, master or worker", _mode],
        ["access", None, "cluster", "Who may call what does not say: cluster, public", _access],
        ["advertise-address", None, "", "URLs or hosts by which others reach this node, by commas"],
        ["access-log", None, None, "A file, stdout, or - for none [var/log/router-access.log]"],
    ]

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(environ)
        self.listen: list[str] = []

    def opt_listen(self, spec: str) -> None:
        """Listen on this: ssl:443, tcp:9998:interface=127.0.0.1, systemd:… May be repeated."""
        self.listen.append(spec)

    def postOptions(self) -> None:
        """Fill in what depends on other options."""
        super().postOptions()
        if self["sockets"]:
            sockets = Path(self["sockets"]).expanduser().absolute()
            self.paths = HeroPaths(home=self.paths.home, sockets=sockets)
        if not self.listen:
            self.listen = self.environment.get("HERO_LISTEN", "").split()
        if not self.listen:
            local = self["mode"] == "local"
            self.listen = ["ssl:443:interface=127.0.0.1" if local else "ssl:443"]

    @property
    def addresses(self) -> list[str]:
        """The node's addresses, for its certificate."""
        parts = [part for text in self["advertise-address"].split(",") if (part := text.strip())]
        return [host_of_url(part) if "://" in part else part for part in parts]


def makeService(options: Options) -> IService:
    """Take the ports and assemble the router. Exits with a message where that cannot be."""
    from twisted.internet import reactor

    try:
        return _assemble(reactor, options)
    except HeroError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        raise SystemExit(f"hero-router: {error.detail}{hint}") from None
    except OSError as error:
        raise SystemExit(f"hero-router: {error}") from None


def _assemble(reactor: Any, options: Options) -> IService:
    paths = options.paths
    paths.ensure()
    if options["mode"] != "worker":
        ensure_master_identity(paths, options.addresses)
    tls = ServerTls(paths.tls)
    listeners = [open_listener(spec) for spec in options.listen]

    limits = _limits()
    registry = CollectorRegistry()
    metrics = RouterMetrics(registry)

    heads = Heads(limits)

    def make(found: Found) -> ReverseProxyResource:
        return ReverseProxyResource.for_socket(
            reactor, found.path, default_access=options["access"], limits=limits, heads=heads
        )

    routes = RouteTable(make, soon=lambda work: reactor.callLater(0, work))
    door = Door(
        TokenFiles(TokenFile(paths.tokens_file), TokenFile(paths.own_tokens_file)),
        removed=RevokedNodes(paths.state / "revoked.json"),
        peer_identity=peer_identity,
    )
    access_log = AccessLog(reactor, _access_log_writer(options, paths))
    metrics.watch_log(lambda: access_log.lost)
    reactor.addSystemEventTrigger("after", "shutdown", access_log.close)
    gateway = Gateway(
        reactor,
        routes,
        door,
        limits=limits,
        heads=heads,
        metrics=metrics,
        access_log=access_log,
    )
    listening = ListeningService(reactor, gateway, listeners, tls, paths.run / "router.json")
    site = service_site(
        reactor=reactor,
        name="hero-router",
        description="The one network door of this node",
        access="cluster",
        rpc={"router": {RouterService: RouterApi(GatewayView(gateway), listening)}},
        registry=registry,
    )

    probing = TimerService(_PROBE_PERIOD, routes.probe)
    service = MultiService()
    for part in (
        UnixService(reactor, paths.router_socket, site),
        Discovery(reactor, paths.sockets, routes.update),
        probing,
        listening,
    ):
        part.setServiceParent(service)  # type: ignore[no-untyped-call]
    return service


def _limits() -> Limits:
    """Bounds that leave, of the descriptors this process may have, one to a service per client."""
    default = Limits()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY:
        return default
    room = max(1, (most - _OTHER_FILES) // 2)
    return attrs.evolve(default, connections=min(default.connections, room))


def _access_log_writer(options: Options, paths: HeroPaths) -> LineWriter | None:
    chosen = options["access-log"]
    if chosen == "-":
        return None
    file: LineFile
    if chosen == "stdout":
        file = OpenFile(os.dup(1))
    else:
        file = LogFile(Path(chosen) if chosen else paths.log / "router-access.log")
    return LineWriter(file)
