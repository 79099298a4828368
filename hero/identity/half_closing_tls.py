"""TLS for a client that goes on reading when it has no more to send.

Twisted's own ends a connection as soon as either side says close_notify. By RFC 8446 section 6.1
that ends one direction alone, which is what a tunnel needs.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

_PIECE = 65536


@implementer(IHalfCloseableProtocol, ITransport, IPushProducer)
class HalfClosingTls(Protocol):
    """The transport of *protocol*, which is connected when *creator* found the server to be right.

    *protocol* is an `IHalfCloseableProtocol`. A connection that ends without close_notify is lost
    uncleanly, and one on which the handshake fails with what it failed with.
    """

    transport: Any

    def __init__(self, creator: IOpenSSLClientConnectionCreator, protocol: IProtocol) -> None:
        self._creator = creator
        self.protocol: Any = protocol
        self._tls: Any = None
        self._why: Failure | None = None
        self._established = False
        self._ended = False
        self._closed = False

    def connectionMade(self) -> None:
        """Begin the handshake."""
        self._tls = self._creator.clientConnectionForTLS(self)  # type: ignore[arg-type]
        self._tls.set_app_data(self)
        self._tls.set_connect_state()
        self._shake_hands()

    def failVerification(self, reason: Failure) -> None:
        """The server is refused for *reason*; called by `hero.identity.tls`."""
        self._why = reason

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        self._tls.bio_write(data)
        if not self._established:
            self._shake_hands()
        while self._established and not self._ended:
            try:
                text = self._tls.recv(_PIECE)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self._ended = True
                self.protocol.readConnectionLost()
            except SSL.Error:
                self._fail()
                return
            else:
                self.protocol.dataReceived(text)
        self._flush()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
        except SSL.Error:
            self._fail()
        else:
            self._flush()
            self._established = True
            self.protocol.makeConnection(self)

    def _fail(self) -> None:
        if self._why is None:
            self._why = Failure()
        self._flush()  # the alert
        self.transport.loseConnection()

    def _flush(self) -> None:
        while True:
            try:
                self.transport.write(self._tls.bio_read(_PIECE))
            except SSL.WantReadError:
                return

    def readConnectionLost(self) -> None:
        """Without close_notify before it, anybody may have cut it off."""
        if not self._ended:
            if self._why is None:
                self._why = Failure(ConnectionLost())
            self.transport.abortConnection()

    def writeConnectionLost(self) -> None:
        """The directions of TLS are not those of TCP."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        self.protocol.connectionLost(self._why or reason)

    # For the protocol.

    def write(self, data: bytes) -> None:
        """See `ITransport`."""
        if data and not self._closed:
            self._tls.sendall(data)
            self._flush()

    def writeSequence(self, data: Any) -> None:
        """See `ITransport`."""
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        """See `IHalfCloseableDescriptor`; the protocol is told at once that it is done."""
        if not self._closed:
            self._say_goodbye()
            self.protocol.writeConnectionLost()

    def loseConnection(self) -> None:
        """See `ITransport`."""
        self._say_goodbye()
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def _say_goodbye(self) -> None:
        if not self._closed and self._established:
            self._closed = True
            try:
                self._tls.shutdown()
            except SSL.Error:
                return
            self._flush()

    def getPeer(self) -> Any:
        """See `ITransport`."""
        return self.transport.getPeer()

    def getHost(self) -> Any:
        """See `ITransport`."""
        return self.transport.getHost()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See `IConsumer`."""
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
        self.loseConnection()
