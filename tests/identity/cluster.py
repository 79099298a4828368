"""Machines with certificates, and what they say to each other over real TLS, for tests."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.internet import defer
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory

from hero.identity.authority import Authority
from hero.identity.node import (
    NodeIdentity,
    ensure_master_identity,
    install_certificate,
    make_key_and_csr,
)
from hero.identity.tls import peer_identity
from hero.paths import HeroPaths


def ago(**units: float):
    """A clock that stands at some time in the past."""
    return lambda: datetime.now(UTC) - timedelta(**units)


def new_home(test) -> HeroPaths:
    """The directories of a new machine, which go when *test* ends."""
    home = Path(tempfile.mkdtemp(prefix="hero-"))
    test.addCleanup(shutil.rmtree, home)
    paths = HeroPaths(home=home, sockets=home / "s")
    paths.ensure()
    return paths


def new_master(test, *addresses: str, **options) -> HeroPaths:
    """A machine with an authority, and a certificate for *addresses*."""
    paths = new_home(test)
    ensure_master_identity(paths, addresses, **options)
    return paths


def join(
    master: HeroPaths, paths: HeroPaths, *addresses: str, sid: str = "node-worker0000", **options
) -> NodeIdentity:
    """Make the machine *paths* a node of the cluster of *master*."""
    authority = Authority.load(master.tls, **{k: options.pop(k) for k in ["now"] if k in options})
    issued = authority.issue(
        make_key_and_csr(paths.tls), node_sid=sid, addresses=addresses, **options
    )
    return install_certificate(paths.tls, issued, authority.ca_pem)


def new_worker(test, master: HeroPaths, *addresses: str, **options) -> HeroPaths:
    """A machine that has joined the cluster of *master*."""
    paths = new_home(test)
    join(master, paths, *addresses, **options)
    return paths


class Greeter(Protocol):
    """Notes what comes, and whose it is; answers each piece with ``hello``."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard.append(data)
        self.factory.peers.append(peer_identity(self.transport))
        self.transport.write(b"hello")

    def connectionLost(self, reason) -> None:
        self.factory.open -= 1
        if self.factory.open == 0:
            idle, self.factory.idle = self.factory.idle, defer.Deferred()
            idle.callback(None)


class GreeterFactory(Factory):
    """A server that greets."""

    protocol = Greeter
    noisy = False

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.peers: list[object] = []
        self.open = 0
        self.idle: defer.Deferred[None] = defer.Deferred()

    def buildProtocol(self, addr):
        self.open += 1
        return super().buildProtocol(addr)


class Caller(Protocol):
    """Says ``hi`` at once and waits for the answer."""

    def __init__(self, answer: defer.Deferred) -> None:
        self.answer = answer

    def connectionMade(self) -> None:
        self.transport.write(b"hi")

    def dataReceived(self, data: bytes) -> None:
        handle = self.transport.getHandle()
        self.version = handle.get_protocol_version_name()
        self.negotiated = self.transport.negotiatedProtocol
        self.server = self.transport.getPeerCertificate().to_cryptography()
        self.transport.loseConnection()
        if not self.answer.called:
            self.answer.callback(self)

    def connectionLost(self, reason) -> None:
        if not self.answer.called:
            self.answer.errback(reason)


async def serve(test, reactor, tls, address: str = "127.0.0.1") -> tuple[GreeterFactory, int]:
    """Greet on *address*; answer what is noted there, and the port."""
    factory = GreeterFactory()
    port = await TCP4ServerEndpoint(reactor, 0, interface=address).listen(
        TLSMemoryBIOFactory(tls, False, factory)
    )

    async def stop() -> None:
        await port.stopListening()
        if factory.open:
            await factory.idle

    test.addCleanup(lambda: defer.ensureDeferred(stop()))
    return factory, port.getHost().port


async def call(reactor, creator, port: int, address: str = "127.0.0.1") -> Caller:
    """Greet the server at *address*; raise what ends the connection before the answer."""
    answer: defer.Deferred[Caller] = defer.Deferred()
    factory = Factory.forProtocol(lambda: Caller(answer))
    factory.noisy = False
    endpoint = wrapClientTLS(creator, TCP4ClientEndpoint(reactor, address, port, timeout=10))
    await endpoint.connect(factory)
    return await answer.addTimeout(10, reactor)
