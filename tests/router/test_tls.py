"""The door over TLS, with real certificates."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.threads import deferToThread

from hero.identity.node import ensure_master_identity
from hero.identity.tls import ServerTls, client_tls, peer_identity
from hero.paths import HeroPaths
from hero.router.door import Door
from hero.router.gateway import GatewayFactory
from hero.router.limits import Limits
from hero.router.tls_listener import over_tls
from tests.router.backend import H11Service, ScriptedService
from tests.router.harness import RouterCase, Wire

GET = b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class TlsCase(RouterCase):
    """A router whose port speaks TLS."""

    def make_door(self) -> Door:
        return Door(self.tokens, peer_identity=peer_identity)

    def prepare_identity(self) -> Path:
        """Make the node's certificate; returns the directory that it is in."""
        home = self.directory / "home"
        self.paths = HeroPaths(home=home, sockets=home / "s")
        self.paths.ensure()
        self.identity = ensure_master_identity(self.paths, [])
        return self.paths.tls

    async def listen(self) -> int:
        factory = over_tls(
            ServerTls(self.prepare_identity()), GatewayFactory(self.gateway, secure=True), reactor
        )
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        self.port: int = port.getHost().port
        return self.port

    async def secure(self, *, with_certificate: bool) -> Wire:
        if not hasattr(self, "port"):
            await self.listen()
        creator = client_tls(
            self.paths.tls if with_certificate else None,
            host="127.0.0.1",
            ca_pem=None if with_certificate else self.identity.ca_pem,
        )
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        wire: Any = await connectProtocol(wrapClientTLS(creator, tcp), Wire())
        self.wires.append(wire)
        return wire


class TlsTests(TlsCase):
    async def test_certificate_makes_a_caller(self) -> None:
        service = H11Service({"access": "cluster"})
        self.serve(service)
        wire = await self.secure(with_certificate=True)
        wire.send(GET)
        self.assertIn(b"200 OK", await wire.rest())
        seen = service.seen[0]
        self.assertEqual(seen.values(b"x-hero-user"), [f"node:{self.identity.node_sid}".encode()])
        self.assertEqual(seen.values(b"x-hero-claims"), [b"explorer, node"])
        self.assertEqual(seen.values(b"x-forwarded-proto"), [b"https"])

    async def test_client_without_certificate_is_anonymous(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        wire = await self.secure(with_certificate=False)
        wire.send(GET)
        self.assertIn(b"200 OK", await wire.rest())
        self.assertEqual(service.seen[0].values(b"x-hero-user"), [b"anonymous"])

    async def test_plain_http_gets_a_readable_400(self) -> None:
        answer = await self.ask(GET)
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "))
        self.assertIn(b"https://", answer)

    async def test_rubbish_is_closed(self) -> None:
        self.assertEqual(await self.ask(b"\x00\x01\x02"), b"")

    async def test_large_answer_arrives_whole(self) -> None:
        service = H11Service({"access": "public"})
        body = b"z" * 3_000_000
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        plain = service.answer
        service.answer = lambda request: answer if request.target == b"/" else plain(request)  # type: ignore[method-assign]
        self.serve(service)
        wire = await self.secure(with_certificate=False)
        wire.send(GET)
        self.assertTrue((await wire.rest()).endswith(b"\r\n\r\n" + body))


class FullTests(TlsCase):
    """With one connection, the door is full."""

    limits = Limits(linger_time=0.5, stop_time=1.0, connections=1)

    async def test_connection_too_many_is_closed_at_once(self) -> None:
        first = await self.connect()
        self.assertEqual(await (await self.connect()).rest(), b"")
        self.assertFalse(first.closed)
        self.assertEqual(self.metrics.rejections["too_many_connections"], 1)


class SlowReaderTests(TlsCase):
    """Time limits that are shorter than what it takes to read an answer."""

    limits = Limits(linger_time=1.0, idle_time=1.0, stop_time=1.0)

    async def test_slow_reader_gets_the_end_of_an_answer(self) -> None:
        body = b"z" * 3_000_000
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        self.serve(ScriptedService(lambda connection, data: connection.transport.write(answer)))
        await self.listen()
        self.assertEqual(await deferToThread(self._read_slowly), len(body))

    def _read_slowly(self) -> int:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        received = 0
        with socket.socket() as tcp:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            tcp.connect(("127.0.0.1", self.port))
            with context.wrap_socket(tcp) as wire:
                wire.sendall(GET.replace(b"Connection: close\r\n", b""))
                head = wire.recv(1024)
                received = len(head.partition(b"\r\n\r\n")[2])
                while piece := wire.recv(16384):
                    received += len(piece)
                    time.sleep(0.025)
        return received
