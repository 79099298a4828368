"""The real gateway before services in memory: no socket, no clock, and every cut is chosen.

What one end writes waits until `MemoryNetwork.settle` hands it to the other, in pieces of any size.
So generated examples can be tried by the thousand, and the same bytes once whole and once one by
one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.router.entries import Found
from hero.router.gateway import GatewayFactory
from hero.router.proxy import ReverseProxyResource
from tests.router.harness import RouterCase

#: How many of the bytes that wait are handed over next.
Cut = Callable[[int], int]


def whole(waiting: int) -> int:
    """Everything at once."""
    return waiting


def pieces(size: int) -> Cut:
    """Each of *size* bytes."""
    return lambda waiting: size


def cuts(sizes: Sequence[int]) -> Cut:
    """Pieces of *sizes*, over and over."""
    size = itertools.cycle(sizes)
    return lambda waiting: next(size)


@implementer(ITCPTransport)
class MemoryTransport:
    """One end of a connection, as Twisted's TCP and UNIX transports behave."""

    disconnecting = False

    def __init__(self, cut: Cut) -> None:
        self.protocol: Any = None
        self.peer: MemoryTransport = self
        self.connected = True
        self.incoming = bytearray()
        #: How the other end went, as far as this one can know.
        self.ended = self.reset = False
        self._cut = cut
        self._told = self._paused = self._aborting = self._write_closed = False

    def write(self, data: bytes) -> None:
        if self.connected and not self._aborting and not self._write_closed:
            self.peer.incoming += data

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self._aborting = True

    def loseWriteConnection(self) -> None:
        self._write_closed = True
        self.peer.ended = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nothing is ever held back, so nobody is ever paused."""

    def unregisterProducer(self) -> None:
        """See `registerProducer`."""

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", 1024)

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", 80)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no delay."""

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """It lives as long as it is kept."""

    def getTcpKeepAlive(self) -> bool:
        return True

    def fileno(self) -> int:
        return -1

    def step(self) -> bool:
        """Do one thing that is due; whether there was one."""
        if not self.connected:
            return False
        if self._aborting:
            self.peer.reset = True
            self._gone(ConnectionAborted())
        elif self.disconnecting:
            self.peer.ended = True
            self._gone(ConnectionDone())
        elif self.incoming and not self._paused:
            size = self._cut(len(self.incoming))
            piece = bytes(self.incoming[:size])
            del self.incoming[:size]
            self.protocol.dataReceived(piece)
        elif self.incoming:
            return False
        elif self.reset:
            self._gone(ConnectionLost())
        elif self.ended and not self._told:
            self._told = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self.peer.ended = True
                self._gone(ConnectionDone())
        else:
            return False
        return True

    def _gone(self, reason: Exception) -> None:
        self.connected = False
        self.peer.ended = True
        self.protocol.connectionLost(Failure(reason))


class MemoryNetwork:
    """Connections between clients, the router and services."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: list[MemoryTransport] = []

    def join(self, client: Any, server: Any, *, to_client: Cut, to_server: Cut) -> None:
        """Connect two protocols."""
        near, far = MemoryTransport(to_client), MemoryTransport(to_server)
        near.peer, far.peer = far, near
        near.protocol, far.protocol = client, server
        self._ends += [near, far]
        server.makeConnection(far)
        client.makeConnection(near)

    def settle(self) -> None:
        """Hand over everything, and do what follows from it, until nothing is due any more."""
        due = True
        while due:
            due = False
            for end in list(self._ends):
                due = end.step() or due
            self._clock.advance(0)
            self._ends = [end for end in self._ends if end.connected]

    def cut(self) -> None:
        """End all connections."""
        for end in self._ends:
            end.abortConnection()
        self.settle()


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to *service*."""

    def __init__(self, network: MemoryNetwork, service: Factory, cut: Cut) -> None:
        self._network = network
        self._service = service
        self._cut = cut

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        server = self._service.buildProtocol(None)
        client = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        self._network.join(client, server, to_client=self._cut, to_server=whole)
        return succeed(client)


class Client(Protocol):
    """Who asks: keeps what comes, and how it ended."""

    def __init__(self) -> None:
        self.received = b""
        self.closed = False
        self.clean = True

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any) -> None:
        self.closed = True
        self.clean = reason.check(ConnectionDone) is not None


class MemoryCase(RouterCase):
    """A `RouterCase` whose clients and services are in memory; `talk` is all it takes."""

    def make_clock(self) -> Clock:
        return Clock()

    def setUp(self) -> None:
        super().setUp()
        self.network = MemoryNetwork(self.clock)

    async def stop_gateway(self) -> None:
        self.network.cut()
        await self.gateway.stop()
        self.routes.close()

    def make_route(self, found: Found) -> ReverseProxyResource:
        route = ReverseProxyResource.for_socket(
            self.clock, found.path, default_access=self.default_access, limits=self.limits
        )
        # The socket is the only thing that is not real.
        route.pool._endpoint = MemoryEndpoint(self.network, self.service, self.cut)
        return route

    def begin(self, service: Factory, *, cut: Cut = whole) -> None:
        """Put *service* at ``/demo/web``; what it answers arrives as *cut* says."""
        self.service = service
        self.cut = cut
        self.routes.update({})
        self.routes.update({("demo", "web"): Found(path=Path("/memory/demo/web.sock"))})
        self.network.settle()

    def dial(self, *, cut: Cut = whole) -> Client:
        """A client's connection to the router, to which its bytes come as *cut* says."""
        client = Client()
        front = GatewayFactory(self.gateway, secure=False).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 1024)
        )
        self.network.join(client, front, to_client=whole, to_server=cut)
        return client

    def talk(self, wire: bytes, *, cut: Cut = whole) -> Client:
        """Send *wire* on a new connection, and let everything happen that follows from it."""
        client = self.dial(cut=cut)
        client.transport.write(wire)
        self.network.settle()
        return client

    def hang_up(self, client: Client) -> None:
        """Close from the client's side, and let that be noticed."""
        client.transport.loseConnection()
        self.network.settle()
