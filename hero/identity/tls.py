"""TLS between nodes, and for the people who call them.

Only the cluster's CA is trusted, on both sides. A client checks who answers while the handshake
still runs, so a wrong peer gets neither the client's certificate nor a byte of its request; the
reason reaches the caller as `PeerRefused`. Certificates are read again when their files change.
"""

from __future__ import annotations

import copy
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from hero.errors import HeroError, Unavailable
from hero.identity.addresses import normalize_address
from hero.identity.authority import utc_now
from hero.identity.certificates import (
    EXPLORER,
    certificates_from_pem,
    read_cluster_id,
    read_identity,
)
from hero.identity.errors import NoIdentity, PeerRefused
from hero.identity.files import Fingerprint
from hero.identity.node import NodeIdentity, identity_fingerprint
from hero.identity.public_certificate import PublicCertificate, PublicFiles
from hero.identity.tls_errors import explain_verification
from hero.identity.user_certificates import Peer, read_peer

#: RFC 9325 section 4.2 for TLS 1.2; TLS 1.3 has only good ones.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK"
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
HTTP_1_1 = b"http/1.1"
#: How long a client may resume a session, in seconds; RFC 8446 section 4.6.1 allows a week.
_SESSION_LIFETIME = 3600
#: Seconds for which the files of the identity are taken to be as they were.
_LOOK_AGAIN = 1.0

_log = Logger()

VerifyCallback = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


class HasPeerCertificate(Protocol):
    """A TLS transport, as far as `peer_identity` needs it."""

    def getPeerCertificate(self) -> Any: ...


#: Reading a certificate takes longer than the rest of what a router does for a request.
_peers: WeakKeyDictionary[HasPeerCertificate, Peer] = WeakKeyDictionary()


def peer_identity(transport: HasPeerCertificate) -> Peer | None:
    """Who is at the other end of *transport*, a connection accepted with `ServerTls`.

    None where the client showed no certificate. Whether it did is known once the handshake is
    complete, that is, when the first byte has come.
    """
    known = _peers.get(transport)
    if known is not None:
        return known
    certificate = transport.getPeerCertificate()
    if certificate is None:
        return None
    identity = read_peer(certificate.to_cryptography())
    if identity is not None:
        _peers[transport] = identity
    return identity


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """The server side of a node's door.

    Client certificates are optional; those shown must come from the cluster's CA. When a
    connection comes, the files in *tls_dir* are looked at, at most once a second by *seconds*: a
    new certificate serves from then on, and one that cannot be used leaves the old one in place,
    with a line in the log. *protocols* are what ALPN offers, best first. *public* is a certificate
    for the names in it (SNI, RFC 6066 section 3), beside the node's own for all else. The
    constructor raises `InvalidConfiguration`.

    Clients may resume sessions. The ticket holds the certificate that the client showed at first,
    so whoever looks at the peer sees the same as then, and must look, for each request, whether
    the certificate is still valid and its node not removed. The keys of the tickets are OpenSSL's,
    random and only in memory; a new certificate, or another CA, has new ones.
    """

    def __init__(
        self,
        tls_dir: Path,
        *,
        protocols: tuple[bytes, ...] = (HTTP_1_1,),
        public: PublicFiles | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tls_dir = tls_dir
        self._protocols = protocols
        self._seconds = seconds
        self._looked = seconds()
        #: Can be set anew; `reload` goes by it.
        self.public = public
        self._seen = self._fingerprint()
        self._identity = NodeIdentity.load(tls_dir)
        self._context = self._make_context(self._identity)

    @property
    def identity(self) -> NodeIdentity:
        """The identity that serves now."""
        return self._identity

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IOpenSSLServerConnectionCreator`."""
        return SSL.Connection(self._current(), None)

    def connection_on(self, sock: socket.socket) -> SSL.Connection:
        """The server side of a connection that reads and writes *sock* itself."""
        connection = SSL.Connection(self._current(), sock)
        connection.set_accept_state()
        return connection

    def _current(self) -> SSL.Context:
        now = self._seconds()
        if now - self._looked >= _LOOK_AGAIN:
            self._looked = now
            self.reload()
        return self._context

    def reload(self) -> None:
        """Read the files again if they have changed."""
        seen = self._fingerprint()
        if seen == self._seen:
            return
        try:
            identity = NodeIdentity.load(self._tls_dir)
            context = self._make_context(identity)
        except Unavailable as error:
            _log.warn("certificate not reloaded yet: {reason}", reason=error.detail)
            return
        except (HeroError, SSL.Error, OSError) as error:
            self._seen = seen
            _log.error("certificate not reloaded: {reason}", reason=_describe(error))
            return
        self._seen, self._identity, self._context = seen, identity, context
        _log.info("certificate reloaded, valid until {until}", until=identity.not_after)

    def _fingerprint(self) -> Fingerprint:
        public = self.public.fingerprint() if self.public is not None else ()
        return (*identity_fingerprint(self._tls_dir), *public)

    def _make_context(self, identity: NodeIdentity) -> SSL.Context:
        context = self._context_for(identity)
        _present(context, identity)
        if self.public is None:
            return context
        public = PublicCertificate.load(self.public)
        for_public = self._context_for(identity)
        public.present(for_public)
        # A connection that changes over still calls the verification of the context it began with.
        for_public.set_app_data(context)

        def change_over(connection: SSL.Connection) -> None:
            name = connection.get_servername()
            if name is not None and public.covers(name.decode("latin-1")):
                connection.set_context(for_public)

        context.set_tlsext_servername_callback(change_over)
        return context

    def _context_for(self, identity: NodeIdentity) -> SSL.Context:
        context = _new_context(identity.trusted)
        for authority in identity.trusted:
            context.add_client_ca(authority)
        # Sessions are in the tickets that clients keep, and nowhere here.
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER | SSL.SESS_CACHE_NO_INTERNAL)
        context.set_session_id(b"hero")
        context.set_timeout(_SESSION_LIFETIME)
        context.set_alpn_select_callback(self._select_protocol)
        context.set_verify(SSL.VERIFY_PEER, _server_verification(identity.cluster_id))
        return context

    def _select_protocol(self, connection: SSL.Connection, offered: list[bytes]) -> Any:
        for protocol in self._protocols:
            if protocol in offered:
                return protocol
        return SSL.NO_OVERLAPPING_PROTOCOLS


@implementer(IOpenSSLClientConnectionCreator)
class ClientTls:
    """The client side of one connection; made by `ClusterTlsPolicy` or `client_tls`."""

    def __init__(
        self, context: SSL.Context, host: str, expect_role: str | None, expect_sid: str | None
    ) -> None:
        self._context = context
        self._host = normalize_address(host)
        self._expect_role = expect_role
        self._expect_sid = expect_sid

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        connection = SSL.Connection(self._context, None)
        if not _is_ip_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        connection.set_verify(
            SSL.VERIFY_PEER, _client_verification(self._host, self._expect_role, self._expect_sid)
        )
        return connection


class _ClientContexts:
    """The OpenSSL context of a client, made again when the node's files change."""

    def __init__(self, tls_dir: Path | None, ca_pem: bytes | None) -> None:
        self._tls_dir = tls_dir
        self._ca_pem = ca_pem
        self._seen: Fingerprint | None = None
        self._identity: NodeIdentity | None = None
        self._shows_certificate = False
        self._context: SSL.Context | None = None

    def current(self) -> SSL.Context:
        """The context for a connection that is made now."""
        context = self._context
        if self._tls_dir is not None:
            seen = identity_fingerprint(self._tls_dir)
            if seen != self._seen:
                self._identity = self._load_identity(self._tls_dir)
                self._seen, context = seen, None
        identity = self._identity
        shows_certificate = identity is not None and identity.valid_at(utc_now())
        if context is None or shows_certificate != self._shows_certificate:
            context = self._make_context(identity if shows_certificate else None)
            self._context, self._shows_certificate = context, shows_certificate
        return context

    def _load_identity(self, tls_dir: Path) -> NodeIdentity | None:
        try:
            return NodeIdentity.load(tls_dir)
        except NoIdentity:
            if self._ca_pem is None:
                raise
            return None

    def _make_context(self, shown: NodeIdentity | None) -> SSL.Context:
        if self._ca_pem is not None:
            trusted = certificates_from_pem(self._ca_pem, "the CA certificate")
        else:
            trusted = self._identity.trusted if self._identity is not None else []
        context = _new_context(trusted)
        if shown is not None:
            _present(context, shown)
        context.set_alpn_protos([HTTP_1_1])
        context.set_verify(SSL.VERIFY_PEER, _refuse_all)
        return context


@implementer(IPolicyForHTTPS)
class ClusterTlsPolicy:
    """How this process calls the nodes of its cluster; a policy for `twisted.web.client.Agent`.

    With *tls_dir* it shows the node's certificate (unless that has expired: what such a node may
    still do needs none) and trusts the CA in it; *ca_pem* replaces the CA to trust. Each peer
    must have a certificate for the host that was asked for, and with *expect_role* (``node``,
    ``explorer``) or *expect_sid* for that role and that node. Files that change are read again.
    Nothing is read before the first connection, which raises `InvalidConfiguration` if need be.
    """

    def __init__(
        self,
        tls_dir: Path | None = None,
        *,
        ca_pem: str | bytes | None = None,
        expect_role: str | None = None,
        expect_sid: str | None = None,
    ) -> None:
        if tls_dir is None and ca_pem is None:
            raise ValueError("a CA to trust is needed: tls_dir or ca_pem")
        self._contexts = _ClientContexts(
            tls_dir, ca_pem.encode() if isinstance(ca_pem, str) else ca_pem
        )
        self._expect_role = expect_role
        self._expect_sid = expect_sid

    def creatorForNetloc(self, hostname: bytes | str, port: int) -> ClientTls:
        """See `IPolicyForHTTPS`."""
        host = hostname.decode("ascii") if isinstance(hostname, bytes) else hostname
        return ClientTls(self._contexts.current(), host, self._expect_role, self._expect_sid)

    def expecting(self, *, role: str | None = None, sid: str | None = None) -> ClusterTlsPolicy:
        """The same policy with other expectations. It costs next to nothing."""
        policy = copy.copy(self)
        policy._expect_role, policy._expect_sid = role, sid
        return policy


def client_tls(
    tls_dir: Path | None,
    *,
    host: str,
    expect_role: str | None = None,
    expect_sid: str | None = None,
    ca_pem: str | bytes | None = None,
) -> ClientTls:
    """The client side of one connection to *host*; see `ClusterTlsPolicy`."""
    policy = ClusterTlsPolicy(
        tls_dir, ca_pem=ca_pem, expect_role=expect_role, expect_sid=expect_sid
    )
    return policy.creatorForNetloc(host, 0)


def bearer_client_policy(*, ca_pem: str | bytes) -> ClusterTlsPolicy:
    """How somebody without a certificate calls an explorer, to whom a bearer token can be shown.

    A node chooses the addresses in its certificate, so where *ca_pem* is a cluster's CA the role
    counts too. It may also be the CA of a TLS terminator in front, which knows no roles.
    """
    policy = ClusterTlsPolicy(None, ca_pem=ca_pem)
    pem = ca_pem.encode() if isinstance(ca_pem, str) else ca_pem
    of_cluster = read_cluster_id(certificates_from_pem(pem, "the CA certificate")[0]) is not None
    return policy.expecting(role=EXPLORER) if of_cluster else policy


def _new_context(trusted: list[x509.Certificate]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(_CIPHERS)
    store = context.get_cert_store()
    assert store is not None
    for authority in trusted:
        store.add_cert(crypto.X509.from_cryptography(authority))
    return context


def _present(context: SSL.Context, identity: NodeIdentity) -> None:
    context.use_certificate(identity.certificate)
    context.add_extra_chain_cert(identity.issuer)
    context.use_privatekey(identity.key)
    context.check_privatekey()


def _server_verification(cluster_id: str) -> VerifyCallback:
    def verify(
        connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
    ) -> bool:
        if ok and (depth or read_peer(certificate.to_cryptography()) is not None):
            return True
        reason = _chain_problem(certificate, error, ok) or "it names neither a node nor a person"
        _log.info("client certificate refused: {reason}", reason=reason, cluster_id=cluster_id)
        return False

    return verify


def _client_verification(
    host: str, expect_role: str | None, expect_sid: str | None
) -> VerifyCallback:
    def verify(
        connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
    ) -> bool:
        reason = _chain_problem(certificate, error, ok)
        if reason is None and depth == 0:
            leaf = certificate.to_cryptography()
            reason = _host_problem(leaf, host) or _name_problem(leaf, expect_role, expect_sid)
        if reason is None:
            return True
        protocol = connection.get_app_data()
        if protocol is not None:
            refusal = PeerRefused(
                f"{host} was refused: {reason}", data={"host": host, "reason": reason}
            )
            protocol.failVerification(Failure(refusal))
        return False

    return verify


def _refuse_all(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    """Stands in the context; each connection brings a verification of its own."""
    return False


def _chain_problem(certificate: crypto.X509, error: int, ok: int) -> str | None:
    if ok:
        return None
    shown = certificate.to_cryptography()
    return explain_verification(error, read_cluster_id(shown), shown)


def _host_problem(certificate: x509.Certificate, host: str) -> str | None:
    wanted = IPAddress_ID(host) if _is_ip_address(host) else DNS_ID(host)
    try:
        verify_service_identity(extract_patterns(certificate), [wanted], [])
    except (VerificationError, CertificateError):
        return f"its certificate is not for {host}"
    return None


def _name_problem(
    certificate: x509.Certificate, expect_role: str | None, expect_sid: str | None
) -> str | None:
    if expect_role is None and expect_sid is None:
        return None
    peer = read_identity(certificate)
    if peer is None:
        return "its certificate is not the certificate of a node"
    if expect_sid is not None and peer.node_sid != expect_sid:
        return f"it is {peer.node_sid}, not {expect_sid}"
    if expect_role is not None and expect_role not in peer.roles:
        return f"{peer.node_sid} does not have the role {expect_role}"
    return None


def _is_ip_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _describe(error: BaseException) -> str:
    return error.detail if isinstance(error, HeroError) else str(error) or type(error).__name__
