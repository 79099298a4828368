"""What only TLS has: handshakes, close_notify, sessions, and plain text by mistake."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from hero.identity.node import ensure_master_identity
from hero.identity.tls import ServerTls, peer_identity
from hero.paths import HeroPaths
from tests.router.fast.test_router import accept
from tests.router.fast.test_transports import HalfCloseable, Near


@implementer(IHandshakeListener)
class Listening(Near):
    """Notes what is known when the handshake is complete."""

    agreed: bytes | None = None

    def handshakeCompleted(self) -> None:
        self.agreed = self.transport.negotiatedProtocol


class TlsServerTests(TestCase):
    """The clients are of the standard library, and run in a thread."""

    timeout = 20

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="hero-fast-"))
        self.addCleanup(shutil.rmtree, directory, True)
        self.paths = HeroPaths(home=directory, sockets=directory / "s")
        self.paths.ensure()
        self.identity = ensure_master_identity(self.paths, [])
        self.nears: list[Near] = []
        self.made: Callable[[], Near] = Near

    def listen(self, *, protocols: tuple[bytes, ...] = (b"http/1.1",)) -> None:
        factory = Factory.forProtocol(self.make)
        factory.noisy = False
        self.tls = ServerTls(self.paths.tls, protocols=protocols)
        self.port = accept(self, factory, self.tls)

    def make(self) -> Near:
        near = self.made()
        self.nears.append(near)
        return near

    def context(self, *, certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.identity.ca_pem)
        if certificate:
            context.load_cert_chain(self.paths.tls / "node.crt", self.paths.tls / "node.key")
        return context

    def connect(self, context: ssl.SSLContext, **more: Any) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return context.wrap_socket(plain, server_hostname="127.0.0.1", **more)

    async def talk(self, ask: Callable[[], Any]) -> Any:
        """What *ask*, run in a thread, returns; the connections are closed then."""
        result = await deferToThread(ask)
        for near in self.nears:
            await near.rest()
        return result

    async def test_http2_is_agreed_on_only_if_offered(self) -> None:
        self.made = Listening
        context = self.context()
        context.set_alpn_protocols(["h2", "http/1.1"])

        def ask() -> None:
            self.connect(context).close()

        self.listen(protocols=(b"h2", b"http/1.1"))
        await self.talk(ask)
        self.listen()
        await self.talk(ask)
        self.assertEqual([near.agreed for near in self.nears], [b"h2", b"http/1.1"])

    async def test_end_without_close_notify_is_not_clean(self) -> None:
        self.listen()

        def cut() -> None:
            wire = self.connect(self.context())
            wire.sendall(b"half of it")
            # Closes the socket below TLS.
            socket.socket(fileno=wire.detach()).close()

        await self.talk(cut)
        self.assertEqual(self.nears[0].received, b"half of it")
        self.nears[0].reason.trap(ConnectionLost)

    async def test_end_with_close_notify_is_clean(self) -> None:
        self.listen()

        def say_goodbye() -> bytes:
            wire = self.connect(self.context())
            wire.sendall(b"all of it")
            wire.unwrap().close()
            return b""

        await self.talk(say_goodbye)
        self.assertEqual(self.nears[0].received, b"all of it")
        self.nears[0].reason.trap(ConnectionDone)

    async def test_half_closed_connection_still_answers(self) -> None:
        self.made = HalfCloseable
        self.listen()

        def ask() -> bytes:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = self.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as wire:

                def until_done(step: Callable[[], Any]) -> Any:
                    while True:
                        try:
                            return step()
                        except ssl.SSLWantReadError:
                            wire.sendall(outgoing.read())
                            incoming.write(wire.recv(65536))

                until_done(tls.do_handshake)
                tls.write(b"question")
                try:
                    tls.unwrap()
                except ssl.SSLWantReadError:
                    wire.sendall(outgoing.read())
                received = b""
                while piece := wire.recv(65536):
                    received += piece
            return received

        asking = deferToThread(ask)
        while not self.nears:
            await deferToThread(lambda: None)
        (near,) = self.nears
        assert isinstance(near, HalfCloseable)
        await near.until(lambda wire: wire.read_ended)
        self.assertEqual(near.received, b"question")
        near.send(b"answer" * 1000)
        near.transport.loseConnection()
        self.assertGreater(len(await asking), 6000)
        await near.rest()

    async def test_data_and_end_that_came_while_paused(self) -> None:
        class Pausing(Near):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.pauseProducing()
                reactor.callLater(0.05, self.transport.resumeProducing)

        self.made = Pausing
        self.listen()

        def send() -> None:
            wire = self.connect(self.context())
            wire.sendall(b"x" * 100_000)
            wire.unwrap().close()

        await self.talk(send)
        self.assertEqual(len(self.nears[0].received), 100_000)
        self.nears[0].reason.trap(ConnectionDone)

    async def test_session_is_resumed_with_the_certificate_of_the_client(self) -> None:
        self.listen()
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            self.nears.clear()
            resumed, names = await self._twice(self._context_of(version))
            self.assertEqual(resumed, [False, True], version)
            self.assertEqual(names, [self.identity.node_sid] * 2, version)

    async def test_session_ends_with_the_certificate_of_the_server(self) -> None:
        self.listen()

        def renew() -> None:
            ensure_master_identity(self.paths, ["127.0.0.7"])
            self.tls.reload()

        context = self._context_of(ssl.TLSVersion.TLSv1_3)
        resumed, _ = await self._twice(context, between=renew)
        self.assertEqual(resumed, [False, False])

    def test_session_is_not_resumed_for_ever(self) -> None:
        self.listen()
        connection = self.tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
        self.assertLessEqual(connection.get_context().get_timeout(), 3600)

    def _context_of(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = self.context(certificate=True)
        context.maximum_version = version
        return context

    async def _twice(
        self, context: ssl.SSLContext, between: Callable[[], None] = lambda: None
    ) -> tuple[list[bool], list[str | None]]:
        names: list[str | None] = []

        class Greeting(Near):
            def dataReceived(self, data: bytes) -> None:
                identity = peer_identity(self.transport)
                names.append(identity.node_sid if identity else None)
                self.transport.write(b"hello")

        self.made = Greeting

        def ask() -> list[bool]:
            resumed: list[bool] = []
            session = None
            for _ in range(2):
                wire = self.connect(context, session=session)
                wire.sendall(b"hi")
                assert wire.recv(100) == b"hello"
                resumed.append(bool(wire.session_reused))
                session = wire.session
                wire.unwrap().close()
                between()
            return resumed

        return await self.talk(ask), names

    async def test_plain_http_is_told_so_before_it_is_closed(self) -> None:
        self.listen()

        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as wire:
                wire.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + b"x" * 1000)
                received = b""
                while piece := wire.recv(65536):
                    received += piece
            return received

        received = await self.talk(ask)
        self.assertTrue(received.startswith(b"HTTP/1.1 400 "))
        self.assertIn(b"https://", received)
        self.nears[0].reason.trap(ConnectionDone)

    async def test_client_that_goes_before_the_handshake(self) -> None:
        self.listen()
        await self.talk(
            lambda: socket.create_connection(("127.0.0.1", self.port), timeout=10).close()
        )
        self.assertTrue(self.nears[0].closed)

    async def test_broken_handshake_ends_that_connection_only(self) -> None:
        self.listen()

        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as wire:
                wire.sendall(b"\x16\x03\x01\x00\x05rubbish")
                wire.recv(100)
            wire = self.connect(self.context())
            wire.sendall(b"good")
            wire.unwrap().close()
            return b""

        await self.talk(ask)
        self.assertEqual([bytes(near.received) for near in self.nears], [b"", b"good"])

    async def test_what_is_written_before_the_handshake_comes_after_it(self) -> None:
        class Early(Near):
            def connectionMade(self) -> None:
                self.transport.write(b"early")
                self.transport.loseConnection()

        self.made = Early
        self.listen()

        def read() -> bytes:
            wire = self.connect(self.context())
            received = wire.recv(100)
            assert wire.recv(100) == b""
            wire.close()
            return received

        self.assertEqual(await self.talk(read), b"early")
