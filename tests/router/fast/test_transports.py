"""Each eager transport and its plain twin do the same; every suite here runs against both."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from hero.identity.node import ensure_master_identity
from hero.identity.tls import ServerTls, client_tls
from hero.paths import HeroPaths
from hero.router.fast.connector import EagerUNIXClientEndpoint
from hero.router.fast.eager import EagerServer, EagerUNIXClient, EagerUNIXServer
from hero.router.fast.port import listen_on
from hero.router.fast.tls import TlsServer
from hero.router.tls_listener import over_tls
from tests.router.fast.test_router import listening_socket

#: More than sockets of any kind hold here.
MUCH = bytes(range(256)) * 64 * 1024


class End(Protocol):
    """An end of a connection, which takes no part in closing it by halves."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = False
        self.clean = True
        self._waiting: list[tuple[Any, Deferred[None]]] = []

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._check()

    def connectionLost(self, reason: Any) -> None:
        self.closed = True
        self.clean = reason.check(ConnectionDone) is not None
        self._check()

    def until(self, condition: Any) -> Deferred[None]:
        """Fires when *condition*, called with this end, is true, or the connection is lost."""
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

    async def get(self, needle: bytes) -> bytearray:
        """What was received, once it contains *needle*."""
        await self.until(lambda end: needle in end.received)
        return self.received

    async def rest(self) -> bytearray:
        """All that was received, once the connection is lost."""
        await self.until(lambda end: end.closed)
        return self.received


class Near(End):
    """The protocol whose transport is under test."""

    def __init__(self) -> None:
        super().__init__()
        self.reason: Any = None
        self.busy = False
        self.lost_while_busy = False
        self.explodes = False

    def dataReceived(self, data: bytes) -> None:
        if self.explodes:
            raise ZeroDivisionError
        super().dataReceived(data)

    def connectionLost(self, reason: Any) -> None:
        self.lost_while_busy = self.busy
        self.reason = reason
        super().connectionLost(reason)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Near):
    """One that goes on when the other end sends no more."""

    read_ended = False
    write_ended = False

    def readConnectionLost(self) -> None:
        self.read_ended = True
        self._check()

    def writeConnectionLost(self) -> None:
        self.write_ended = True
        self._check()


@implementer(IPushProducer)
class Pushing:
    """Counts what a transport asks of it."""

    def __init__(self) -> None:
        self.paused = self.resumed = self.stopped = 0
        self.waiting: Deferred[None] = Deferred()

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1
        if not self.waiting.called:
            self.waiting.callback(None)

    def stopProducing(self) -> None:
        self.stopped += 1


@implementer(IPullProducer)
class Pulled:
    """Gives one piece each time, and then no more."""

    def __init__(self, transport: Any, pieces: list[bytes]) -> None:
        self.transport = transport
        self.pieces = pieces

    def resumeProducing(self) -> None:
        if self.pieces:
            self.transport.write(self.pieces.pop(0))
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def stopProducing(self) -> None:
        self.pieces.clear()


class Behaviours:
    """What every stream transport does. `pair` connects *near* to an `End`, which it returns."""

    timeout = 20
    transport_class: type | None = None
    #: Whether the other end can tell a connection that was aborted from one that was closed.
    resets = True

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-fast-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.near = Near()

    def pair(self, near: Near) -> Any:
        raise NotImplementedError

    async def connected(self, near: Near | None = None) -> End:
        near = near or self.near
        far: End = await self.pair(near)
        self.addCleanup(self.end, near, far)
        far.send(b"hello")
        await near.get(b"hello")
        near.received.clear()
        if self.transport_class is not None:
            self.assertIs(type(near.transport), self.transport_class)
        return far

    async def end(self, near: Near, far: End) -> None:
        for wire in (near, far):
            if not wire.closed:
                wire.transport.abortConnection()
            await wire.rest()

    async def test_bytes_arrive_in_order_whatever_the_writes(self) -> None:
        far = await self.connected()
        sizes = (0, 1, 70_000, 3, 16384, 16385, 300_000, 5)
        for number, size in enumerate(sizes * 8):
            self.near.send(bytes([number]) * size)
        self.near.transport.writeSequence([b"a", b"", b"bc", MUCH])
        self.near.transport.writeSequence((b"en", b"d"))
        expected = (
            b"".join(bytes([n]) * s for n, s in enumerate(sizes * 8)) + b"abc" + MUCH + b"end"
        )
        await far.until(lambda wire: len(wire.received) >= len(expected))
        self.assertTrue(far.received == expected)

    async def test_large_and_small_things_are_received(self) -> None:
        far = await self.connected()
        for _ in range(3):
            far.send(MUCH)
            await self.near.until(lambda wire: len(wire.received) == len(MUCH))
            self.assertTrue(self.near.received == MUCH)
            self.near.received.clear()
            far.send(b"small")
            self.assertEqual(await self.near.get(b"small"), b"small")
            self.near.received.clear()

    async def test_only_bytes_can_be_written(self) -> None:
        await self.connected()
        self.assertRaises(TypeError, self.near.transport.write, "text")
        self.assertRaises(TypeError, self.near.transport.writeSequence, ["text"])

    async def test_producer_is_paused_while_nobody_reads(self) -> None:
        far = await self.connected()
        far.transport.pauseProducing()
        producer = Pushing()
        self.near.transport.registerProducer(producer, True)
        self.near.send(MUCH)
        await deferLater(reactor, 0.05)
        self.assertGreaterEqual(producer.paused, 1)
        self.assertEqual(producer.resumed, 0)
        far.transport.resumeProducing()
        await producer.waiting
        self.near.transport.unregisterProducer()
        await far.until(lambda wire: len(wire.received) == len(MUCH))

    async def test_producer_is_stopped_when_the_connection_is_lost(self) -> None:
        far = await self.connected()
        producer = Pushing()
        self.near.transport.registerProducer(producer, True)
        far.transport.abortConnection()
        await self.near.rest()
        self.assertEqual(producer.stopped, 1)
        late = Pushing()
        self.near.transport.registerProducer(late, True)
        self.assertEqual(late.stopped, 1)

    async def test_pull_producer_is_asked_until_it_has_no_more(self) -> None:
        far = await self.connected()
        pieces = [b"a" * 10, b"b" * 200_000, b"c", b"d" * 3_000_000]
        producer = Pulled(self.near.transport, list(pieces))
        self.near.transport.registerProducer(producer, False)
        received = await far.rest()
        self.assertTrue(received == b"".join(pieces))

    async def test_loseConnection_sends_what_was_written(self) -> None:
        far = await self.connected()
        far.transport.pauseProducing()
        self.near.send(MUCH)
        self.near.transport.loseConnection()
        await deferLater(reactor, 0.02)
        self.assertFalse(self.near.closed)
        far.transport.resumeProducing()
        self.assertTrue(await far.rest() == MUCH)
        self.assertTrue(far.clean)
        await self.near.rest()
        self.near.reason.trap(ConnectionDone)

    async def test_loseConnection_tells_the_protocol_later(self) -> None:
        await self.connected()
        self.near.busy = True
        self.near.send(b"bye")
        self.near.transport.loseConnection()
        self.near.busy = False
        await self.near.rest()
        self.assertFalse(self.near.lost_while_busy)

    async def test_abortConnection_drops_what_was_written(self) -> None:
        far = await self.connected()
        far.transport.pauseProducing()
        self.near.send(MUCH)
        self.near.busy = True
        self.near.transport.abortConnection()
        self.near.send(b"never sent")
        self.near.busy = False
        self.assertFalse(self.near.closed)
        await self.near.rest()
        self.assertFalse(self.near.lost_while_busy)
        self.near.reason.trap(ConnectionAborted, ConnectionLost)
        self.near.send(b"never sent either")
        far.transport.resumeProducing()
        received = await far.rest()
        self.assertLess(len(received), len(MUCH))
        self.assertEqual(far.clean, not self.resets)

    async def test_end_while_writing_is_told_later(self) -> None:
        far = await self.connected()
        far.transport.abortConnection()
        await far.rest()
        self.near.transport.pauseProducing()
        self.near.busy = True
        for _ in range(100):
            self.near.send(b"x" * 1000)
        self.near.busy = False
        self.assertFalse(self.near.closed)
        await self.near.rest()
        self.assertFalse(self.near.lost_while_busy)

    async def test_other_end_closes(self) -> None:
        far = await self.connected()
        far.send(b"last")
        far.transport.loseConnection()
        self.assertEqual(await self.near.rest(), b"last")
        self.near.reason.trap(ConnectionDone)

    async def test_paused_transport_delivers_nothing(self) -> None:
        far = await self.connected()
        self.near.transport.pauseProducing()
        far.send(b"x" * 40_000)
        await deferLater(reactor, 0.05)
        self.assertEqual(self.near.received, b"")
        far.transport.loseConnection()
        self.near.transport.resumeProducing()
        self.assertEqual(len(await self.near.rest()), 40_000)

    async def test_error_in_the_protocol_costs_its_connection(self) -> None:
        far = await self.connected()
        self.near.explodes = True
        far.send(b"boom")
        await self.near.rest()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await far.rest()


class LateProducing:
    """What Twisted's TLS does not: it gathers small writes, and forgets a producer's last."""

    async def test_loseConnection_waits_for_the_producer(self) -> None:
        far = await self.connected()
        far.transport.pauseProducing()
        producer = Pushing()
        self.near.transport.registerProducer(producer, True)
        self.near.send(MUCH)
        self.near.transport.loseConnection()
        far.transport.resumeProducing()
        await producer.waiting
        self.near.send(b"the end")
        self.near.transport.unregisterProducer()
        self.assertTrue(await far.rest() == MUCH + b"the end")


class HalfClosing:
    """What transports do that can be closed in one direction."""

    async def test_loseWriteConnection_leaves_the_other_direction_open(self) -> None:
        near = HalfCloseable()
        far = await self.connected(near)
        near.send(MUCH)
        near.transport.loseWriteConnection()
        await near.until(lambda wire: wire.write_ended)
        near.send(b"never sent")
        self.assertTrue(await self.end_of(far) == MUCH)
        self.assertFalse(near.closed)

    async def end_of(self, far: End) -> bytes:
        return await far.rest()

    async def test_half_closeable_protocol_goes_on_when_the_other_end_has_ended(self) -> None:
        near = HalfCloseable()
        far = await self.connected(near)
        far.send(b"question")
        far.transport.loseWriteConnection()
        await near.until(lambda wire: wire.read_ended)
        self.assertEqual(near.received, b"question")
        near.send(b"answer")
        near.transport.loseConnection()
        self.assertEqual(await far.rest(), b"answer")
        await near.rest()
        near.reason.trap(ConnectionDone)

    async def test_loseConnection_after_loseWriteConnection_closes_at_once(self) -> None:
        near = HalfCloseable()
        await self.connected(near)
        near.transport.loseWriteConnection()
        await near.until(lambda wire: wire.write_ended)
        near.transport.loseConnection()
        self.assertTrue(near.closed)
        near.reason.trap(ConnectionDone)


def _factory(near: Near) -> Factory:
    factory = Factory.forProtocol(lambda: near)
    factory.noisy = False
    return factory


class OverTcp:
    """The transport of a connection that a TCP port accepted."""

    def listen(self, near: Near) -> Deferred[Any]:
        raise NotImplementedError

    async def pair(self, near: Near) -> End:
        port = await self.listen(near)
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        end: Any = await connectProtocol(endpoint, End())
        return end


def take(factory: Any, tls: ServerTls | None) -> Deferred[Any]:
    sock = listening_socket()
    try:
        return succeed(listen_on(reactor, sock, factory, tls=tls))
    finally:
        sock.close()


def adopt(factory: Any) -> Deferred[Any]:
    sock = listening_socket()
    sock.setblocking(False)
    return AdoptedStreamServerEndpoint(reactor, sock.detach(), socket.AF_INET).listen(factory)


class PlainTcpTests(OverTcp, Behaviours, LateProducing, HalfClosing, TestCase):
    def listen(self, near: Near) -> Deferred[Any]:
        return adopt(_factory(near))


class EagerTcpTests(OverTcp, Behaviours, LateProducing, HalfClosing, TestCase):
    transport_class = EagerServer

    def listen(self, near: Near) -> Deferred[Any]:
        return take(_factory(near), None)

    async def test_small_writes_do_not_wait(self) -> None:
        await self.connected()
        assert isinstance(self.near.transport, EagerServer)
        self.assertTrue(self.near.transport.getTcpNoDelay())


class OverUnix:
    """The transport of a client of a UNIX socket."""

    endpoint: Any
    resets = False

    async def pair(self, near: Near) -> End:
        path = self.directory / "sock"
        far = End()
        port = self.listen(path, _factory(far))
        self.addCleanup(port.stopListening)
        await self.endpoint(reactor, str(path), timeout=5).connect(_factory(near))
        while far.transport is None:
            await deferLater(reactor, 0.001)
        return far

    def listen(self, path: Path, factory: Factory) -> Any:
        return reactor.listenUNIX(str(path), factory)


class PlainUnixTests(OverUnix, Behaviours, LateProducing, HalfClosing, TestCase):
    endpoint = UNIXClientEndpoint


class EagerUnixTests(OverUnix, Behaviours, LateProducing, HalfClosing, TestCase):
    endpoint = EagerUNIXClientEndpoint
    transport_class = EagerUNIXClient


class EagerUnixServerTests(OverUnix, Behaviours, LateProducing, HalfClosing, TestCase):
    """The transport of a connection that a UNIX port accepted."""

    transport_class = EagerUNIXServer

    async def pair(self, near: Near) -> End:
        path = self.directory / "sock"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen()
        path.chmod(0o600)
        port: Any = listen_on(reactor, sock, _factory(near), tls=None)
        sock.close()
        self.addCleanup(port.stopListening)
        far = End()
        await UNIXClientEndpoint(reactor, str(path)).connect(_factory(far))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        return far


class OverTls:
    """The transport of a connection that a port accepted that speaks TLS."""

    def setUp(self) -> None:
        super().setUp()
        paths = HeroPaths(home=self.directory, sockets=self.directory / "s")
        paths.ensure()
        identity = ensure_master_identity(paths, [])
        self.tls = ServerTls(paths.tls)
        self.ca_pem = identity.ca_pem

    async def pair(self, near: Near) -> End:
        port = await self.listen(near)
        self.addCleanup(port.stopListening)
        creator = client_tls(None, host="127.0.0.1", ca_pem=self.ca_pem)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        end: Any = await connectProtocol(wrapClientTLS(creator, endpoint), End())
        return end

    def listen(self, near: Near) -> Deferred[Any]:
        raise NotImplementedError


class PlainTlsTests(OverTls, Behaviours, TestCase):
    def listen(self, near: Near) -> Deferred[Any]:
        return adopt(over_tls(self.tls, _factory(near), reactor))


class EagerTlsTests(OverTls, Behaviours, LateProducing, TestCase):
    transport_class = TlsServer

    def listen(self, near: Near) -> Deferred[Any]:
        return take(_factory(near), self.tls)
