"""A connection until its TLS handshake is complete: then the client has said what it speaks."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.router.connection import ClientConnection
from hero.router.interfaces import IClientConnection
from hero.router.model import Connection


@implementer(IClientConnection, IHandshakeListener)
class Doorway(ClientConnection):
    """Stands for a client until the handshake is over, and then gives way to whoever speaks the
    protocol that was agreed upon (RFC 7301)."""

    #: None of HTTP's yet.
    protocol = ""
    consumed = 0
    _why = "lost"

    def connectionMade(self) -> None:
        super().connectionMade()
        self._gateway.handshakes += 1
        self._gateway.metrics.handshake_started()

    def handshakeCompleted(self) -> None:
        """See `IHandshakeListener`."""
        gateway = self._gateway
        gateway.handshakes -= 1
        gateway.metrics.handshake_completed(resumed=getattr(self.transport, "resumed", False))
        speaker = gateway.speaker(self.transport.negotiatedProtocol)
        _hand_over(self.transport, speaker(gateway, self.number, secure=True))

    def dataReceived(self, data: bytes) -> None:
        """Nothing is read before the handshake is complete, and nothing here after it."""
        raise AssertionError("a byte came before the handshake was complete")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        gateway = self._gateway
        gateway.handshakes -= 1
        gateway.metrics.handshake_failed(self._why)
        gateway.disconnected(self)

    def late(self) -> None:
        """The handshake took too long."""
        self._why = "timeout"
        self.abort()

    def stopping(self) -> None:
        """Nothing was asked yet."""
        self.abort()

    close = stopping

    def describe(self, now: float) -> Connection:
        """See `IClientConnection`."""
        return self._describe(now, None, tunnel=False)


def _hand_over(transport: Any, successor: ClientConnection) -> None:
    """Make *successor* the protocol that *transport* speaks with."""
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport.wrappedProtocol = successor
    else:
        transport.protocol = successor
    successor.makeConnection(transport)  # type: ignore[no-untyped-call]
