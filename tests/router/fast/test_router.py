"""Whatever holds for the router behind Twisted's own ports holds behind the eager ones."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hero.identity.tls import ServerTls
from hero.router.fast.port import listen_on
from hero.router.gateway import GatewayFactory
from tests.router import test_front, test_tls


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


def _cases(module: Any, mixin: type) -> dict[str, type]:
    return {
        f"Eager{name}": type(f"Eager{name}", (mixin, case), {"__module__": __name__})
        for name, case in vars(module).items()
        if isinstance(case, type) and issubclass(case, TestCase) and name.endswith("Tests")
    }


globals().update(_cases(test_front, OnEagerTcp))
globals().update(_cases(test_tls, OnEagerTls))
