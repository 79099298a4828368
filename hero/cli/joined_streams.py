"""Two streams joined: what comes from one goes to the other, and so does its end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class StreamEnd(Protocol):
    """One of the two. It reads nothing before it is joined, and as fast as the other sends.

    ``closed`` fires when nothing more goes either way, and fails with what broke it off. ``broken``
    says that nobody reads any more what is sent here.
    """

    transport: Any

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()
        self._other: StreamEnd | None = None
        self._early = b""
        self.broken = False
        self._told = self._read_ended = self._write_ended = False

    def connectionMade(self) -> None:
        """Wait for the other."""
        self.transport.pauseProducing()

    def join(self, other: StreamEnd) -> None:
        """Begin to pass bytes to and from *other*."""
        for one, another in ((self, other), (other, self)):
            one._other = another
            one.transport.registerProducer(another.transport, True)
        for one, another in ((self, other), (other, self)):
            if one._early:
                another.transport.write(one._early)
                one._early = b""
            if one._read_ended:
                another._end_writing()
            else:
                one.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if self._other is None:
            self._early += data
        else:
            self._other.transport.write(data)

    def readConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""
        self._read_ended = True
        if self._other is not None:
            self._other._end_writing()
        self._close_when_done()

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""
        self._write_ended = True
        if not self._told:
            self.broken = True
            self._break_off()
        self._close_when_done()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        clean = reason.check(ConnectionDone) is not None
        self._read_ended = self._write_ended = self._told = True
        other = self._other
        if other is not None:
            if clean:
                other.close()
            else:
                other._break_off()
        self._finish(None if clean else reason)

    def close(self) -> None:
        """Close when what was written is sent."""
        self._told = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once, as far as the stream can."""
        self._told = True
        getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def _break_off(self) -> None:
        self.abort()
        if self._other is not None and not self._other._told:
            self._other.abort()

    def _end_writing(self) -> None:
        if not self._told:
            self._told = True
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def _close_when_done(self) -> None:
        if self._read_ended and self._write_ended:
            # `connectionLost` follows when the last byte is out.
            self.transport.loseConnection()

    def _finish(self, reason: Failure | None) -> None:
        if not self.closed.called:
            self.closed.callback(None) if reason is None else self.closed.errback(reason)


class StandardStreams(StreamEnd):
    """Standard input and output, of which Twisted says less: nothing, when both have ended."""

    def close(self) -> None:
        """See `StreamEnd`."""
        super().close()
        if self._write_ended:
            self._finish(None)

    def _close_when_done(self) -> None:
        if self._read_ended and self._write_ended:
            self._finish(None)
