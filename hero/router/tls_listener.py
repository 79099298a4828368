"""TLS on the listening side, with a readable answer to those who forget it."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory

#: RFC 8446 section 5.1: the first record of a client is a handshake record.
HANDSHAKE = b"\x16"
_EXPLANATION = (
    b"This port speaks HTTPS, and a plain HTTP request came. Use https:// in the address.\n"
)
#: What a client of plain HTTP gets.
PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_EXPLANATION), _EXPLANATION)
)


class TlsDoorway(BufferingTLSTransport):
    """TLS, unless what comes first is no TLS at all."""

    _begun = False

    def dataReceived(self, data: bytes) -> None:
        """Look at the first byte, then leave it to TLS."""
        if not self._begun:
            self._begun = True
            if data[:1] != HANDSHAKE:
                transport: Any = self.transport
                if data[:1].isalpha():
                    transport.write(PLAIN_HTTP_ANSWER)
                transport.unregisterProducer()
                transport.loseConnection()
                return
        super().dataReceived(data)  # type: ignore[no-untyped-call]


class _TlsFactory(TLSMemoryBIOFactory):
    """Builds no connection where *wrappedFactory* builds none; Twisted's own fails then."""

    protocol = TlsDoorway

    def buildProtocol(self, addr: Any) -> Any:
        """See `IProtocolFactory`."""
        inner = self.wrappedFactory.buildProtocol(addr)
        return TlsDoorway(self, inner) if inner is not None else None


def over_tls(tls: IOpenSSLServerConnectionCreator, factory: Factory, clock: Any) -> Factory:
    """A factory whose connections speak TLS on the way to *factory*'s protocols."""
    return _TlsFactory(tls, False, factory, clock)  # type: ignore[return-value]
