"""How an HTTP client reaches one service: over TLS, in the clear, or by a UNIX socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

#: Who checks the server's certificate.
Tls = IPolicyForHTTPS | IOpenSSLClientConnectionCreator


@implementer(IAgentEndpointFactory)
@attrs.frozen
class ServiceEndpointFactory:
    """Endpoints for *socket* where that is set, else for the host of the URI.

    *tls* is asked, per host, for a connection creator, or is one; without it certificates are
    checked as a browser does.
    """

    reactor: Any
    socket: Path | None
    tls: Any = None
    connect_timeout: float = 10.0

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        """Where to connect."""
        if self.socket is not None:
            return UNIXClientEndpoint(self.reactor, str(self.socket), timeout=self.connect_timeout)
        host = HostnameEndpoint(
            self.reactor, uri.host.strip(b"[]"), uri.port, timeout=self.connect_timeout
        )
        if uri.scheme == b"http":
            return host
        return wrapClientTLS(self._creator(uri), host)

    def _creator(self, uri: Any) -> IOpenSSLClientConnectionCreator:
        if IOpenSSLClientConnectionCreator.providedBy(self.tls):
            return self.tls
        policy = self.tls if self.tls is not None else BrowserLikePolicyForHTTPS()
        return policy.creatorForNetloc(uri.host.strip(b"[]"), uri.port)
