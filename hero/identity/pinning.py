"""Getting a cluster's CA certificate from a server, given nothing but its SHA-256."""

from __future__ import annotations

from typing import Any, cast

from cryptography import x509
from OpenSSL import SSL
from twisted.internet import defer
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.errors import Timeout, Unavailable
from hero.identity.certificates import sha256_fingerprint, to_pem
from hero.identity.errors import CaMismatch
from hero.identity.tls_errors import explain_failure


async def fetch_ca(
    reactor: Any, host: str, port: int, sha256: str, *, timeout: float = 15.0
) -> str:
    """The CA certificate (PEM) with the SHA-256 (hex, of its DER form) that *host* presents.

    Nothing is sent but the TLS handshake, and nothing else of what the server presents is
    believed: connect again with the certificate as the one CA to trust. Raises `CaMismatch` where
    the server does not present it, `Unavailable` or `Timeout` where there is none.
    """
    wanted = sha256.replace(":", "").strip().lower()
    where = f"{host}:{port}"
    chain: defer.Deferred[list[x509.Certificate]] = defer.Deferred()
    endpoint = wrapClientTLS(_AcceptAny(), HostnameEndpoint(reactor, host, port, timeout=timeout))
    try:
        onlooker = cast(Protocol, await endpoint.connect(_OnlookerFactory(chain)))
    except (ConnectError, DNSLookupError) as error:
        raise Unavailable(f"{where} cannot be reached: {error}") from error
    try:
        certificates = await chain.addTimeout(timeout, reactor)
    except defer.TimeoutError as error:
        raise Timeout(f"{where} accepts connections and does not answer") from error
    except (SSL.Error, ConnectionClosed) as error:
        reason = explain_failure(error) or Unavailable("it closed the connection")
        raise Unavailable(f"{where} cannot be used: {reason.detail}", hint=reason.hint) from error
    finally:
        cast(ITCPTransport, onlooker.transport).abortConnection()
    for certificate in certificates:
        if sha256_fingerprint(certificate) == wanted:
            return to_pem(certificate)
    raise CaMismatch(
        f"{where} does not present the CA certificate that was pinned",
        hint="check the address; if it is right, somebody is between this machine and that one",
    )


@implementer(IOpenSSLClientConnectionCreator)
class _AcceptAny:
    """TLS without any verification, for looking only."""

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_verify(SSL.VERIFY_NONE)
        return SSL.Connection(context, None)


@implementer(IHandshakeListener)
class _Onlooker(Protocol):
    """Tells *chain* what the server presents, or why there was nothing to see."""

    def __init__(self, chain: defer.Deferred[list[x509.Certificate]]) -> None:
        self._chain = chain

    def handshakeCompleted(self) -> None:
        connection = self.transport.getHandle()  # type: ignore[union-attr]
        if not self._chain.called:
            self._chain.callback(connection.get_peer_cert_chain(as_cryptography=True) or [])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._chain.called:
            self._chain.errback(reason)


class _OnlookerFactory(Factory):
    noisy = False

    def __init__(self, chain: defer.Deferred[list[x509.Certificate]]) -> None:
        self._chain = chain

    def buildProtocol(self, addr: IAddress | None) -> _Onlooker:
        return _Onlooker(self._chain)
