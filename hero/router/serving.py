"""What takes connections and serves them: one process's share of the router."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import attrs
from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger

from hero.errors import HeroError
from hero.identity.node import ensure_master_identity
from hero.identity.public_certificate import PublicCertificate, PublicFiles
from hero.identity.revocation import RevokedNodes
from hero.identity.tls import ServerTls, peer_identity
from hero.identity.tokens import TokenFile, TokenFiles
from hero.paths import HeroPaths
from hero.router.access_log import AccessLog
from hero.router.discovery import Discovery
from hero.router.door import Door
from hero.router.entries import Found
from hero.router.fast.port import listen_on
from hero.router.gateway import Gateway, GatewayFactory
from hero.router.heads import Heads
from hero.router.limits import Limits
from hero.router.line_writer import LineFile, LineWriter
from hero.router.listening import Listener
from hero.router.log_file import LogFile, OpenFile
from hero.router.metrics import RouterMetrics
from hero.router.proxy import ReverseProxyResource
from hero.router.routes import RouteTable
from hero.router.settings import Options

#: Descriptors for other things than clients and the services that they call.
_OTHER_FILES = 64
#: How often routes that do not answer are asked again, in seconds.
_PROBE_PERIOD = 5.0
#: For clients to use a connection once more when the router drains, and to be told then that it
#: closes. One that is closed before is closed under a request that is on its way.
_IDLE_GRACE = 5.0
_POLL = 0.1

_log = Logger()


class Serving(Protocol):
    """What serves, be it this process or its workers."""

    def start(self) -> None:
        """Prepare."""

    async def ready(self) -> None:
        """Return when connections can be accepted; raise where that cannot be."""

    def accept(self) -> None:
        """Begin to accept connections."""

    async def drain(self) -> None:
        """Accept no more; return when the clients are done, or had their time."""

    async def stop(self) -> None:
        """The same, with little time for them."""

    def reload(self, options: Options) -> None:
        """Go by *options* from now on."""

    def reopen_logs(self) -> None:
        """Go on in new files."""


class OwnServing:
    """Serves in this process, *share* of which there are. Implements `Serving`.

    Raises what the node's identity does. *metrics* are counted in.
    """

    def __init__(
        self,
        reactor: Any,
        options: Options,
        listeners: Iterable[Listener],
        metrics: RouterMetrics,
        *,
        share: int = 1,
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._listeners = listeners
        self._share = share
        self._ports: list[IListeningPort] = []
        paths = options.paths
        self._tls = ServerTls(
            paths.tls, protocols=(b"h2", b"http/1.1"), public=public_files(options)
        )
        self._limits = limits_of(options, share)
        self._heads = Heads(self._limits)
        self._tokens = [TokenFile(paths.tokens_file), TokenFile(paths.own_tokens_file)]
        self._removed = RevokedNodes(paths.state / "revoked.json")
        self._routes = RouteTable(self._make_route, soon=lambda work: reactor.callLater(0, work))
        self._access_log = AccessLog(reactor, _access_log_writer(options, paths))
        metrics.watch_log(lambda: self._access_log.lost)
        reactor.addSystemEventTrigger("after", "shutdown", self._access_log.close)
        self.gateway = Gateway(
            reactor,
            self._routes,
            Door(TokenFiles(*self._tokens), removed=self._removed, peer_identity=peer_identity),
            limits=self._limits,
            heads=self._heads,
            metrics=metrics,
            access_log=self._access_log,
        )
        self._discovery = Discovery(reactor, paths.sockets, self._routes.update)
        self._service = MultiService()
        for part in (
            self._discovery,
            TimerService(_PROBE_PERIOD, self._routes.probe),
        ):
            part.setServiceParent(self._service)  # type: ignore[no-untyped-call]

    def _make_route(self, found: Found) -> ReverseProxyResource:
        return ReverseProxyResource.for_socket(
            self._reactor,
            found.path,
            manifest_file=found.manifest,
            default_access=self._options["access"],
            limits=self._limits,
            heads=self._heads,
        )

    def start(self) -> None:
        """See `Serving`."""
        self._service.startService()
        self.gateway.start()

    async def ready(self) -> None:
        """See `Serving`."""

    def accept(self) -> None:
        """See `Serving`."""
        # The router's own socket has only just been made: the first request may be for it.
        self._discovery.look()
        for listener in self._listeners:
            factory: Any = GatewayFactory(self.gateway, secure=listener.secure)
            tls = self._tls if listener.secure else None
            for sock in listener.sockets:
                self._ports.append(listen_on(self._reactor, sock, factory, tls=tls))

    async def drain(self) -> None:
        """See `Serving`.

        Clients that send another request are told with its answer that the connection closes, so
        that none of them is lost; tunnels have `Limits.drain_time`.
        """
        await self._stop_accepting()
        gateway = self.gateway
        gateway.stopping = True
        for connection in gateway.connections:
            if connection.protocol == "HTTP/2":
                connection.stopping()  # says so at once (GOAWAY), and loses nothing by it
        began = now = self._reactor.seconds()
        while gateway.connections and now < began + self._limits.drain_time:
            await deferLater(self._reactor, _POLL)
            now = self._reactor.seconds()
            if now >= began + _IDLE_GRACE:
                for connection in gateway.connections:
                    if connection.idle:
                        connection.close()
        await self.stop()

    async def stop(self) -> None:
        """See `Serving`."""
        await self._stop_accepting()
        await self.gateway.stop()
        self._routes.close()
        await maybeDeferred(self._service.stopService)

    async def _stop_accepting(self) -> None:
        ports, self._ports = self._ports, []
        for port in ports:
            stopped = port.stopListening()
            if isinstance(stopped, Deferred):
                await stopped

    def reload(self, options: Options) -> None:
        """See `Serving`. What cannot be used leaves what was there, with a line in the log."""
        if options["mode"] != "worker":
            try:
                ensure_master_identity(options.paths, options.addresses)
            except (HeroError, OSError) as error:
                _log.error("certificate not renewed: {reason}", reason=str(error))
        try:
            self._tls.public = public_files(options)
        except HeroError as error:
            _log.error("certificate not reloaded: {reason}", reason=error.detail)
        self._tls.reload()
        for file in self._tokens:
            file.records()
        self._removed.sids()
        before, self._options = self._options, options
        self._limits = self.gateway.limits = limits_of(options, self._share)
        self._heads = self.gateway.heads = Heads(self._limits)
        for route in self._routes:
            route.set_limits(self._limits)
            if options["access"] != before["access"]:
                route.default_access = options["access"]
                route.refresh()

    def reopen_logs(self) -> None:
        """See `Serving`."""
        self._access_log.reopen()


def limits_of(options: Options, share: int = 1) -> Limits:
    """The limits of one of *share* processes: of the descriptors that it may have, one to a service
    is left for each client."""
    limits: Limits = options["limits"]
    connections = -(-limits.connections // share)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY:
        connections = min(connections, max(1, (most - _OTHER_FILES) // 2))
    return attrs.evolve(limits, connections=connections)


def public_files(options: Options) -> PublicFiles | None:
    """The certificate to serve beside the node's. Raises where other nodes would be shown it."""
    files = options.public_files
    if files is not None and options["mode"] != "local":
        PublicCertificate.load(files).refuse_addresses(options.addresses)
    return files


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
