"""Both ends of TLS connections, on real sockets."""

from __future__ import annotations

import socket
import ssl
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer
from zope.interface.verify import verifyObject

from hero.errors import InvalidConfiguration
from hero.identity.authority import Authority
from hero.identity.certificates import build_node_certificate, new_key, to_pem
from hero.identity.errors import NoIdentity, PeerRefused
from hero.identity.node import NodeIdentity, ensure_master_identity
from hero.identity.tls import (
    ClusterTlsPolicy,
    ServerTls,
    bearer_client_policy,
    client_tls,
)
from hero.identity.tls_errors import explain_failure
from tests.identity.cluster import ago, call, join, new_home, new_master, new_worker, serve


@implementer(IOpenSSLClientConnectionCreator)
class PlainClient:
    """A client that shows what it is told to, limits what it is told to, and checks nothing."""

    def __init__(self, identity=None, key=None, certificate=None, highest=None, protocols=None):
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.set_verify(SSL.VERIFY_NONE)
        if highest is not None:
            self.context.set_max_proto_version(highest)
        if protocols:
            self.context.set_alpn_protos(protocols)
        if identity is not None:
            key, certificate = identity.key, identity.certificate
        if key is not None:
            self.context.use_certificate(certificate)
            self.context.use_privatekey(key)

    def clientConnectionForTLS(self, tlsProtocol):
        return SSL.Connection(self.context, None)


@implementer(IOpenSSLServerConnectionCreator)
class PlainServer:
    """A server with any certificate."""

    def __init__(self, key, certificate) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.use_certificate(certificate)
        self.context.use_privatekey(key)

    def serverConnectionForTLS(self, protocol):
        return SSL.Connection(self.context, None)


async def refusal(awaitable) -> PeerRefused:
    """The reason for which *awaitable*, a call, came to nothing."""
    try:
        await awaitable
    except Exception as error:
        reason = explain_failure(error)
        assert isinstance(reason, PeerRefused), (error, reason)
        return reason
    raise AssertionError("the peer was not refused")


class ClientTests(TestCase):
    """A client knows whom it talks to, before it says anything."""

    async def setUp(self) -> None:
        self.master = new_master(self, "127.0.0.1", "master.example")
        self.identity = NodeIdentity.load(self.master.tls)
        self.greeter, self.port = await serve(self, reactor, ServerTls(self.master.tls))

    async def test_nodes_know_each_other(self) -> None:
        """Both sides see who the other is, over TLS 1.3 and HTTP/1.1 by ALPN."""
        worker = new_worker(self, self.master, "127.0.0.2")
        creator = client_tls(
            worker.tls,
            host="127.0.0.1",
            expect_role="explorer",
            expect_sid=self.identity.node_sid,
        )
        met = await call(reactor, creator, self.port)
        self.assertEqual(met.version, "TLSv1.3")
        self.assertEqual(met.negotiated, b"http/1.1")
        (peer,) = self.greeter.peers
        self.assertEqual(peer.node_sid, "node-worker0000")
        self.assertEqual(peer.roles, {"node"})
        self.assertEqual(peer.cluster_id, self.identity.cluster_id)

    async def test_host_names(self) -> None:
        """A host name is checked like an address, whatever its case, and sent for SNI."""
        creator = client_tls(self.master.tls, host="Master.Example")
        await call(reactor, creator, self.port)
        self.assertEqual(self.greeter.heard, [b"hi"])

    async def test_nobody(self) -> None:
        """Without a certificate one is nobody, and served."""
        policy = bearer_client_policy(ca_pem=self.identity.ca_pem)
        await call(reactor, policy.creatorForNetloc(b"127.0.0.1", 443), self.port)
        self.assertEqual(self.greeter.peers, [None])

    async def test_bearer_tokens_are_for_explorers(self) -> None:
        """A worker that got itself a certificate for the master's address sees no token."""
        worker = new_worker(self, self.master, "127.0.0.1")
        greeter, port = await serve(self, reactor, ServerTls(worker.tls))
        policy = bearer_client_policy(ca_pem=self.identity.ca_pem)
        await refusal(call(reactor, policy.creatorForNetloc(b"127.0.0.1", 443), port))
        self.assertEqual(greeter.heard, [])

    async def test_terminator(self) -> None:
        """A TLS terminator with a CA of its own is checked for its name only."""
        key = new_key()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "terminator")])
        now = ago(minutes=1)()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("door.example")]), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        greeter, port = await serve(self, reactor, PlainServer(key, certificate))
        policy = bearer_client_policy(ca_pem=to_pem(certificate))
        await call(reactor, policy.creatorForNetloc(b"door.example", 443), port)
        reason = await refusal(call(reactor, policy.creatorForNetloc(b"other.example", 443), port))
        self.assertIn("not for other.example", reason.detail)
        self.assertEqual(len(greeter.heard), 1)

    async def test_ca_as_bytes(self) -> None:
        """A CA can be given as it was read from a file."""
        policy = bearer_client_policy(ca_pem=self.identity.ca_pem.encode())
        await call(reactor, policy.creatorForNetloc(b"127.0.0.1", 443), self.port)

    async def test_wrong_host(self) -> None:
        """A certificate for another address is refused, and its bearer told nothing."""
        creator = client_tls(self.master.tls, host="127.0.0.9")
        reason = await refusal(call(reactor, creator, self.port))
        self.assertIn("its certificate is not for 127.0.0.9", reason.detail)
        self.assertEqual(self.greeter.heard, [])

    async def test_wrong_host_name(self) -> None:
        """So is one for another name."""
        creator = client_tls(self.master.tls, host="other.example")
        reason = await refusal(call(reactor, creator, self.port))
        self.assertIn("its certificate is not for other.example", reason.detail)

    async def test_wrong_role(self) -> None:
        """A worker is not taken for an explorer, though its address is right."""
        worker = new_worker(self, self.master, "127.0.0.1")
        greeter, port = await serve(self, reactor, ServerTls(worker.tls))
        creator = client_tls(self.master.tls, host="127.0.0.1", expect_role="explorer")
        reason = await refusal(call(reactor, creator, port))
        self.assertIn("node-worker0000 does not have the role explorer", reason.detail)
        self.assertEqual(greeter.heard, [])

    async def test_wrong_sid(self) -> None:
        """A node is not taken for another node that has its address."""
        creator = client_tls(self.master.tls, host="127.0.0.1", expect_sid="node-other00000")
        reason = await refusal(call(reactor, creator, self.port))
        self.assertIn(f"it is {self.identity.node_sid}, not node-other00000", reason.detail)
        self.assertEqual(self.greeter.heard, [])

    async def test_other_ca(self) -> None:
        """A server of another cluster is refused, with the name of its cluster."""
        stranger = new_master(self, "127.0.0.1")
        creator = client_tls(stranger.tls, host="127.0.0.1")
        reason = await refusal(call(reactor, creator, self.port))
        self.assertIn("not issued by our cluster's CA", reason.detail)
        self.assertIn(self.identity.cluster_id, reason.detail)
        self.assertEqual(self.greeter.heard, [])

    async def test_expired_server(self) -> None:
        """A server whose certificate has expired is refused, with the date."""
        worker = new_worker(self, self.master, "127.0.0.1", now=ago(days=9))
        _greeter, port = await serve(self, reactor, ServerTls(worker.tls))
        creator = client_tls(self.master.tls, host="127.0.0.1")
        reason = await refusal(call(reactor, creator, port))
        self.assertIn("expired at", reason.detail)

    async def test_server_from_the_future(self) -> None:
        """A certificate that is not valid yet hints at the clocks."""
        worker = new_worker(self, self.master, "127.0.0.1", now=ago(days=-1))
        _greeter, port = await serve(self, reactor, ServerTls(worker.tls))
        creator = client_tls(self.master.tls, host="127.0.0.1")
        reason = await refusal(call(reactor, creator, port))
        self.assertIn("one of the clocks is wrong", reason.detail)

    async def test_not_tls(self) -> None:
        """A server that speaks something else is said to."""

        class Plain(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self.transport.loseConnection()

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Plain)
        )
        self.addCleanup(port.stopListening)
        creator = client_tls(self.master.tls, host="127.0.0.1")
        try:
            await call(reactor, creator, port.getHost().port)
        except Exception as error:
            reason = explain_failure(error)
            self.assertEqual(reason.kind, "unavailable")
            self.assertIn("does not speak TLS", reason.detail)
        else:
            self.fail("a conversation with a server that speaks no TLS")

    async def test_expired_client_calls_as_nobody(self) -> None:
        """A node whose own certificate has expired can still renew it, which needs none."""
        worker = new_worker(self, self.master, "127.0.0.2", now=ago(days=9))
        await call(reactor, client_tls(worker.tls, host="127.0.0.1"), self.port)
        self.assertEqual(self.greeter.peers, [None])

    async def test_policy_follows_the_files(self) -> None:
        """A policy shows a new certificate once it is there."""
        worker = new_worker(self, self.master, "127.0.0.2", sid="node-first00000")
        policy = ClusterTlsPolicy(worker.tls)
        verifyObject(IPolicyForHTTPS, policy)
        await call(reactor, policy.creatorForNetloc(b"127.0.0.1", 443), self.port)
        join(self.master, worker, "127.0.0.2", sid="node-second0000")
        await call(reactor, policy.creatorForNetloc(b"127.0.0.1", 443), self.port)
        sids = [peer.node_sid for peer in self.greeter.peers]
        self.assertEqual(sids, ["node-first00000", "node-second0000"])

    async def test_other_expectations(self) -> None:
        """A policy can be had again for another peer."""
        policy = ClusterTlsPolicy(self.master.tls, expect_sid="node-other00000")
        right = policy.expecting(role="explorer", sid=self.identity.node_sid)
        await call(reactor, right.creatorForNetloc(b"127.0.0.1", 443), self.port)
        await refusal(call(reactor, policy.creatorForNetloc(b"127.0.0.1", 443), self.port))

    async def test_http_client(self) -> None:
        """Twisted's HTTP client passes the reason on, wrapped; `explain_failure` finds it."""
        stranger = new_master(self)
        agent = Agent(reactor, ClusterTlsPolicy(stranger.tls))
        url = f"https://127.0.0.1:{self.port}/".encode()
        reason = await refusal(agent.request(b"GET", url))
        self.assertIn("127.0.0.1 was refused", reason.detail)
        self.assertEqual(self.greeter.heard, [])
        self.assertIsNone(explain_failure(ConnectionError("something else")))

    def test_no_identity(self) -> None:
        """A machine that has not joined has nobody to trust."""
        policy = ClusterTlsPolicy(new_home(self).tls)
        self.assertRaises(NoIdentity, policy.creatorForNetloc, b"127.0.0.1", 443)

    async def test_no_identity_with_ca(self) -> None:
        """It has, as soon as it is told a CA, as `hero join` does."""
        policy = ClusterTlsPolicy(new_home(self).tls, ca_pem=self.identity.ca_pem)
        await call(reactor, policy.creatorForNetloc(b"127.0.0.1", 443), self.port)
        self.assertEqual(self.greeter.peers, [None])

    def test_no_trust(self) -> None:
        """A policy that would trust nobody, or everybody, is a mistake."""
        self.assertRaises(ValueError, ClusterTlsPolicy)
        policy = ClusterTlsPolicy(ca_pem="no PEM")
        self.assertRaises(InvalidConfiguration, policy.creatorForNetloc, b"127.0.0.1", 443)
        self.assertRaises(InvalidConfiguration, bearer_client_policy, ca_pem="no PEM")


class ServerTests(TestCase):
    """The door lets in nobody and the cluster's nodes, and follows its files."""

    async def setUp(self) -> None:
        self.master = new_master(self, "127.0.0.1")
        self.identity = NodeIdentity.load(self.master.tls)
        self.clock = Clock()
        self.tls = ServerTls(self.master.tls, seconds=self.clock.seconds)
        self.greeter, self.port = await serve(self, reactor, self.tls)

    async def refused(self, *args, **kwargs) -> str:
        reason = await refusal(call(reactor, PlainClient(*args, **kwargs), self.port))
        self.assertEqual(self.greeter.heard, [])
        return reason.detail

    async def test_certificate_of_other_ca(self) -> None:
        """A node of another cluster does not get in, and learns why."""
        stranger = NodeIdentity.load(new_master(self).tls)
        self.assertIn("not from its cluster", await self.refused(stranger))

    async def test_expired_certificate(self) -> None:
        """Neither does one whose certificate has expired."""
        worker = new_worker(self, self.master, now=ago(days=9))
        self.assertIn("has expired", await self.refused(NodeIdentity.load(worker.tls)))

    async def test_ca_certificate(self) -> None:
        """The CA's own certificate and key are no identity."""
        authority = Authority.load(self.master.tls)
        await self.refused(key=authority._key, certificate=authority.certificate)

    async def test_certificate_that_names_no_node(self) -> None:
        """A certificate from our CA that names no node gets nobody in."""
        authority = Authority.load(self.master.tls)
        key = new_key()
        certificate = build_node_certificate(
            authority=authority.certificate,
            authority_key=authority._key,
            public_key=key.public_key(),
            cluster_id=authority.cluster_id,
            node_sid="node-0000000000",
            roles=["explorer"],
            addresses=["127.0.0.1"],
            now=ago(minutes=1)(),
            lifetime=timedelta(days=1),
        )
        with self.assertRaises(SSL.Error):
            await call(reactor, PlainClient(key=key, certificate=certificate), self.port)
        self.assertEqual(self.greeter.heard, [])

    async def test_alpn(self) -> None:
        """What is not spoken is not agreed on, and hinders nobody."""
        met = await call(reactor, PlainClient(protocols=[b"h2", b"http/1.1"]), self.port)
        self.assertEqual(met.negotiated, b"http/1.1")
        met = await call(reactor, PlainClient(protocols=[b"h2"]), self.port)
        self.assertIsNone(met.negotiated)

    async def test_tls_versions(self) -> None:
        """TLS 1.2 is spoken with those who know no better; 1.1 with nobody."""
        met = await call(reactor, PlainClient(highest=SSL.TLS1_2_VERSION), self.port)
        self.assertEqual(met.version, "TLSv1.2")
        with self.assertRaises(SSL.Error):
            await call(reactor, PlainClient(highest=SSL.TLS1_1_VERSION), self.port)

    async def test_reload(self) -> None:
        """A new certificate serves without a restart, and old connections live on."""
        before = await call(reactor, PlainClient(), self.port)
        ensure_master_identity(self.master, ["127.0.0.1", "127.0.0.7"])
        self.clock.advance(1)
        after = await call(reactor, PlainClient(), self.port)
        self.assertNotEqual(before.server.serial_number, after.server.serial_number)
        self.assertIn("127.0.0.7", self.tls.identity.addresses)
        creator = client_tls(self.master.tls, host="127.0.0.7")
        await call(reactor, creator, self.port)

    async def test_broken_reload(self) -> None:
        """A certificate that is of no use leaves the good one in place."""
        before = await call(reactor, PlainClient(), self.port)
        (self.master.tls / "node.crt").write_bytes(b"broken")
        self.clock.advance(1)
        after = await call(reactor, PlainClient(), self.port)
        self.assertEqual(before.server.serial_number, after.server.serial_number)

    def test_browsers_are_not_asked(self) -> None:
        """Client certificates are asked for by the name of our CA only."""
        connection = self.tls.serverConnectionForTLS(None)
        (name,) = connection.get_client_ca_list()
        self.assertEqual(name.CN, f"Hero {self.identity.cluster_id}")

    def test_no_certificate(self) -> None:
        """A machine without a certificate has no door."""
        self.assertRaises(NoIdentity, ServerTls, new_home(self).tls)

    async def test_openssl_of_the_standard_library(self) -> None:
        """Strict verification, as newer Pythons do it, finds nothing to complain of."""
        context = ssl.create_default_context(cadata=self.identity.ca_pem)
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN

        def ask() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
            ):
                secure.sendall(b"hi")
                return secure.recv(100)

        self.assertEqual(await deferToThread(ask), b"hello")
