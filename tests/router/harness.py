"""The real front on a loopback port, before services on UNIX sockets in a temporary directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from hero.explorer.model import TokenRecord
from hero.router.access_log import Record
from hero.router.discovery import scan
from hero.router.door import Door
from hero.router.gateway import Gateway, GatewayFactory
from hero.router.limits import Limits
from hero.router.metrics import RouterMetrics
from hero.router.proxy import ReverseProxyResource
from hero.router.routes import RouteTable


class Tokens:
    """Bearer tokens in memory."""

    def __init__(self) -> None:
        self.records: dict[str, TokenRecord] = {}

    def add(self, secret: str, user: str, claims: str, context: str = "root") -> None:
        self.records[secret] = TokenRecord(
            sid="token-0000000000", hash="", user=user, claims=claims, context=context
        )

    def lookup(self, secret_text: str) -> TokenRecord | None:
        return self.records.get(secret_text)


class RecordList:
    """An access log in memory: the members of each record."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records

    def write(self, record: Record, seconds: float) -> None:
        record.seconds = seconds
        self._records.append(msgspec.structs.asdict(record))


@implementer(IHalfCloseableProtocol)
class Wire(Protocol):
    """A client that sends and receives bytes. With ``half_closes`` it goes on sending when the
    other end has ended."""

    half_closes = False

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self.closed = False
        self.clean = True
        self._waiting: list[tuple[Any, Deferred[None]]] = []

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._check()

    def readConnectionLost(self) -> None:
        self.ended = True
        if not self.half_closes:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do."""

    def connectionLost(self, reason: Any) -> None:
        self.closed = True
        self.clean = reason.check(ConnectionDone) is not None
        self._check()

    def until(self, condition: Any) -> Deferred[None]:
        """Fires when *condition*, called with this client, is true."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((condition, waiting))
        self._check()
        return waiting

    def _check(self) -> None:
        for item in list(self._waiting):
            # What one of them does may have woken another already.
            if item in self._waiting and (self.closed or item[0](self)):
                self._waiting.remove(item)
                item[1].callback(None)

    async def get(self, needle: bytes) -> bytes:
        """What was received, once it contains *needle* or the connection is closed."""
        await self.until(lambda wire: needle in wire.received)
        return self.received

    async def rest(self) -> bytes:
        """All that was received, once the connection is closed."""
        await self.until(lambda wire: wire.closed)
        return self.received


class RouterCase(TestCase):
    """Runs a router. Set `limits` and `default_access` before `start`."""

    timeout = 20
    limits = Limits(linger_time=0.5, stop_time=1.0)
    default_access = "public"

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-router-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.tokens = Tokens()
        self.log: list[dict[str, Any]] = []
        self.metrics = RouterMetrics(CollectorRegistry())
        self.routes = RouteTable(self.make_route)
        self.clock = self.make_clock()
        self.gateway = Gateway(
            self.clock,
            self.routes,
            self.make_door(),
            limits=self.limits,
            metrics=self.metrics,
            access_log=RecordList(self.log),
        )
        self.gateway.start()
        self.addCleanup(self.stop_gateway)
        self.wires: list[Wire] = []

    def make_clock(self) -> Any:
        """What deadlines are measured by."""
        return reactor

    def make_door(self) -> Door:
        return Door(self.tokens)

    def make_route(self, found: Any) -> ReverseProxyResource:
        return ReverseProxyResource.for_socket(
            reactor,
            found.path,
            manifest_file=found.manifest,
            default_access=self.default_access,
            limits=self.limits,
        )

    async def stop_gateway(self) -> None:
        for wire in self.wires:
            if wire.closed:
                continue
            wire.transport.abortConnection()
        await self.gateway.stop()
        self.routes.close()
        await self.pause()

    def pause(self, seconds: float = 0.02) -> Deferred[None]:
        return deferLater(reactor, seconds)

    def serve(self, factory: Any, service: str = "demo", socket: str = "web") -> Any:
        """Run *factory* on a socket, and make it a route."""
        path = self.directory / service / f"{socket}.sock"
        path.parent.mkdir(exist_ok=True)
        port = reactor.listenUNIX(str(path), factory)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.look()
        return port

    def look(self) -> None:
        """Discover what is in the directory now."""
        self.routes.update(scan(self.directory, frozenset({0, os.geteuid()})))

    async def listen(self) -> int:
        """Start the front; returns its port."""
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(GatewayFactory(self.gateway, secure=False))
        self.addCleanup(port.stopListening)
        self.port: int = port.getHost().port
        return self.port

    async def connect(self) -> Wire:
        """A client's connection to the front."""
        if not hasattr(self, "port"):
            await self.listen()
        wire = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), Wire())
        self.wires.append(wire)
        return wire

    async def ask(self, request: bytes) -> bytes:
        """Send *request*, which asks to close, on a new connection; returns all that came back."""
        wire = await self.connect()
        wire.send(request)
        return await wire.rest()
