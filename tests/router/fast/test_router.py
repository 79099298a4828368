"""Whatever holds for the router behind Twisted's own ports holds behind the eager ones."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from hero.identity.tls import ServerTls, peer_identity
from hero.router.door import Door
from hero.router.fast.port import listen_on
from hero.router.gateway import GatewayFactory
from tests.router import test_front, test_tls
from tests.router.backend import H11Service
from tests.router.http2 import test_lifetime, test_requests, test_websocket
from tests.router.http2.client import PROTOCOLS


def listening_socket() -> socket.socket:
    """A loopback port that nobody accepts on yet."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def accept(test: TestCase, factory: Any, tls: ServerTls | None) -> int:
    """Accept on a new port while *test* runs; returns its number."""
    sock = listening_socket()
    port: Any = listen_on(reactor, sock, factory, tls=tls)
    sock.close()
    test.addCleanup(port.stopListening)
    number: int = port.getHost().port
    return number


class OnEagerTransports:
    """Puts the router of a test case on the transports of `hero.router.fast`."""

    async def listen_with(self, tls: ServerTls | None) -> int:
        factory: Any = GatewayFactory(self.gateway, secure=tls is not None)
        self.port = accept(self, factory, tls)
        return self.port


class OnEagerTcp(OnEagerTransports):
    """Without TLS."""

    async def listen(self) -> int:
        return await self.listen_with(None)


class OnEagerTls(OnEagerTransports):
    """With TLS."""

    async def listen(self) -> int:
        return await self.listen_with(ServerTls(self.prepare_identity()))


class ResumedSessionTests(OnEagerTls, test_tls.TlsCase):
    """A resumed session counts no more than the certificate that it was opened with."""

    def make_door(self) -> Door:
        self.removed: set[str] = set()
        self.now = datetime.now(UTC)
        return Door(
            self.tokens,
            removed=self.removed,
            peer_identity=peer_identity,
            now=lambda: self.now,
        )

    async def visit(self, version: ssl.TLSVersion, between: Callable[[], None]) -> list[bytes]:
        """Ask with the node's certificate, then again in the same session after *between*."""
        tls = self.paths.tls
        context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
        context.maximum_version = version
        context.load_cert_chain(tls / "node.crt", tls / "node.key")

        def ask(session: ssl.SSLSession | None) -> tuple[bytes, bool, ssl.SSLSession | None]:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as wire,
            ):
                wire.sendall(test_tls.GET)
                received = b""
                while piece := wire.recv(65536):
                    received += piece
                return received, bool(wire.session_reused), wire.session

        first, reused, session = await deferToThread(ask, None)
        self.assertFalse(reused)
        between()
        # What comes now has no certificate to verify: only the ticket's.
        second, reused, _ = await deferToThread(ask, session)
        self.assertTrue(reused)
        return [first, second]

    async def check(self, between: Callable[[], None], status: bytes, reason: bytes) -> None:
        self.serve(H11Service({"access": "cluster"}))
        await self.listen()
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            self.removed.clear()
            self.now = datetime.now(UTC)
            first, second = await self.visit(version, between)
            self.assertTrue(first.startswith(b"HTTP/1.1 200 "), first)
            self.assertTrue(second.startswith(b"HTTP/1.1 " + status), second)
            self.assertIn(reason, second)

    async def test_the_caller_is_the_same(self) -> None:
        await self.check(lambda: None, b"200 ", b"ok")

    async def test_removed_node_is_refused(self) -> None:
        await self.check(lambda: self.removed.add(self.identity.node_sid), b"403 ", b"node_removed")

    async def test_expired_certificate_is_refused(self) -> None:
        def years_later() -> None:
            self.now += timedelta(days=3650)

        await self.check(years_later, b"401 ", b"certificate_expired")


class OnEagerHttp2(OnEagerTransports):
    """With TLS, over which HTTP/2 is offered."""

    async def listen(self) -> int:
        return await self.listen_with(ServerTls(self.prepare_identity(), protocols=PROTOCOLS))


def _cases(module: Any, mixin: type, kind: str = "Eager") -> dict[str, type]:
    return {
        f"{kind}{name}": type(f"{kind}{name}", (mixin, case), {"__module__": __name__})
        for name, case in vars(module).items()
        if isinstance(case, type) and issubclass(case, TestCase) and name.endswith("Tests")
    }


globals().update(_cases(test_front, OnEagerTcp))
globals().update(_cases(test_tls, OnEagerTls))
for _module in (test_requests, test_websocket, test_lifetime):
    globals().update(_cases(_module, OnEagerHttp2, "EagerHttp2"))
