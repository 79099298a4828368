"""Trusting a cluster for the first time, by the hash of its CA."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from hero.errors import Timeout, Unavailable
from hero.identity.authority import Authority
from hero.identity.errors import CaMismatch
from hero.identity.pinning import fetch_ca
from hero.identity.tls import ServerTls
from tests.identity.cluster import new_master, new_worker, serve


class PinningTests(TestCase):
    """`fetch_ca`."""

    async def setUp(self) -> None:
        self.master = new_master(self, "10.9.9.9")
        self.authority = Authority.load(self.master.tls)
        self.greeter, self.port = await serve(self, reactor, ServerTls(self.master.tls))

    def fetch(self, sha256: str, port: int | None = None, **options):
        return fetch_ca(reactor, "127.0.0.1", port or self.port, sha256, **options)

    async def test_match(self) -> None:
        """The CA with the pinned hash is found, however the hash is written; nothing is said."""
        plain = self.authority.fingerprint
        colons = ":".join(plain[i : i + 2] for i in range(0, 64, 2)).upper()
        for sha256 in (plain, colons):
            self.assertEqual(await self.fetch(sha256), self.authority.ca_pem)
        self.assertEqual(self.greeter.heard, [])

    async def test_by_way_of_a_worker(self) -> None:
        """Any node of the cluster presents the CA."""
        worker = new_worker(self, self.master)
        _greeter, port = await serve(self, reactor, ServerTls(worker.tls))
        self.assertEqual(await self.fetch(self.authority.fingerprint, port), self.authority.ca_pem)

    async def test_mismatch(self) -> None:
        """Another cluster's node is told nothing."""
        other = Authority.load(new_master(self).tls)
        with self.assertRaises(CaMismatch):
            await self.fetch(other.fingerprint)
        self.assertEqual(self.greeter.heard, [])

    async def test_nobody_there(self) -> None:
        """A port on which nobody listens is said to be that."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())
        number = port.getHost().port
        await port.stopListening()
        with self.assertRaises(Unavailable):
            await self.fetch(self.authority.fingerprint, number)

    async def plain(self, protocol: type[Protocol]) -> int:
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(protocol)
        )
        self.addCleanup(port.stopListening)
        return port.getHost().port

    async def test_not_tls(self) -> None:
        """A server that does not speak TLS is said to be that."""

        class Plain(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")

        with self.assertRaises(Unavailable) as caught:
            await self.fetch(self.authority.fingerprint, await self.plain(Plain))
        self.assertIn("does not speak TLS", caught.exception.detail)

    async def test_closes(self) -> None:
        """So is one that hangs up."""

        class Closing(Protocol):
            def connectionMade(self) -> None:
                self.transport.loseConnection()

        with self.assertRaises(Unavailable) as caught:
            await self.fetch(self.authority.fingerprint, await self.plain(Closing))
        self.assertIn("closed the connection", caught.exception.detail)

    async def test_silence(self) -> None:
        """A server that says nothing does not hold us for ever."""
        silent = await self.plain(Protocol)
        with self.assertRaises(Timeout):
            await self.fetch(self.authority.fingerprint, silent, timeout=0.2)
