"""Stream transports that send at once.

Twisted's own put every write into a buffer, ask the reactor to watch the socket for room, send
when it says so and have it stop watching: `epoll_ctl(2)` twice and a turn of the loop for what one
`send(2)` does, since a socket that nothing waits for nearly always has room. Here a write is sent
at once if nothing waits before it. What the socket does not take, and everything while a
connection is being closed, goes the usual way: buffers, producers and closing are Twisted's code.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from errno import EWOULDBLOCK
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure

from hero.router.fast.turn import NO_TURN, Turn

_SMALLEST_READ = 16 * 1024
#: What is allocated at most.
_LARGEST_READ = 256 * 1024
#: What is written beyond this has company enough.
_SMALL = 16 * 1024


def _own(connection: Any, reactor: Any) -> None:
    """Give *connection* attributes of its own where Twisted has a default in the class.

    CPython finds an object's own attributes several times as fast, and each write looks at these.
    """
    connection.dataBuffer = b""
    connection.disconnecting = 0
    connection._writeDisconnecting = connection._aborting = connection.TLS = False
    connection.producer = None
    connection.streamingProducer = False
    connection._read_size = _SMALLEST_READ
    connection._turn = getattr(reactor, "turn", NO_TURN)


class EagerConnection(tcp.Connection):
    """A connected socket, whose `write` sends at once what it can.

    An error of `send` is left to the reactor, which gets it again from the buffer: a protocol never
    learns of its end while it writes.
    """

    #: Sends some of its argument and returns how many bytes, or raises `OSError`.
    _send: Callable[[bytes], int]
    reactor: Any
    _turn: Turn
    _read_size = _SMALLEST_READ

    def __init__(self, skt: socket.socket, protocol: IProtocol, reactor: Any) -> None:
        super().__init__(skt, protocol, reactor)
        _own(self, reactor)
        self._send = skt.send

    def write(self, data: bytes) -> None:
        """See `ITransport`."""
        if (
            self.dataBuffer
            or self._tempDataBuffer
            or not self.connected
            or self.disconnecting
            or self._writeDisconnecting
            or self._aborting
            or self.TLS
            or data.__class__ is not bytes
            or not data
            # A pull producer is asked for more by the reactor, once the buffer is empty.
            or (self.producer is not None and not self.streamingProducer)
        ):
            super().write(data)  # type: ignore[no-untyped-call]
            return
        self.dataBuffer = data
        self.offset = 0
        turn = self._turn
        if turn.shared and len(data) <= _SMALL:
            turn.waiting.append(self)
        else:
            self.flush()

    def flush(self) -> None:
        """Send what was written; what the socket does not take is the reactor's."""
        data = self.dataBuffer
        if not data or self._tempDataBuffer or not self.connected or self.disconnecting:
            return  # the reactor has been told of it, or there is nobody to send it to
        try:
            sent = self._send(data)
        except OSError:
            sent = 0
        if sent == len(data):
            self.dataBuffer = b""
        else:
            self.offset = sent
            self._maybePauseProducer()  # type: ignore[no-untyped-call]
            self.startWriting()  # type: ignore[no-untyped-call]

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """See `ITransport`."""
        parts = list(iovec)
        if self.dataBuffer or self._tempDataBuffer or self.TLS:
            super().writeSequence(parts)  # type: ignore[no-untyped-call]
        else:
            self.write(b"".join(parts))

    def doRead(self) -> Any:
        """Read once, more at a time while the other end sends a lot.

        A buffer has to be allocated before it is known how much comes; small ones cost less.
        """
        size = self._read_size
        try:
            data = self.socket.recv(size)
        except OSError as error:
            return None if error.errno == EWOULDBLOCK else main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        length = len(data)
        if length == size:
            if size < _LARGEST_READ:
                self._read_size = size * 2
        elif size > _SMALLEST_READ and length < size // 2:
            self._read_size = size // 2
        self.protocol.dataReceived(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol."""
        self.__dict__.pop("_send", None)
        super().connectionLost(reason)


class EagerServer(EagerConnection, tcp.Server):
    """A connection that a TCP port accepted. Plain twin: `twisted.internet.tcp.Server`."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        _own(self, reactor)
        self._send = sock.send
        tcp.Server.__init__(self, sock, protocol, client, server, sessionno, reactor)


class _UnixEnds:
    """What differs for a UNIX socket: names, and no options of TCP's."""

    socket: socket.socket

    def getTcpNoDelay(self) -> bool:
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is nothing that could be delayed."""


class EagerUNIXServer(_UnixEnds, EagerServer):
    """A connection that a UNIX port accepted.

    Plain twin: `twisted.internet.unix.Server`, which can also receive file descriptors.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        super().__init__(sock, protocol, (client, None), server, sessionno, reactor)

    def getHost(self) -> UNIXAddress:
        return UNIXAddress(self.socket.getsockname())

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(self.hostname or None)  # type: ignore[arg-type]


class EagerUNIXClient(_UnixEnds, EagerConnection):
    """A connection to the UNIX socket *path*. *lost* is called after the protocol lost it.

    Plain twin: `twisted.internet.unix.Client`, which can also receive file descriptors.
    """

    _tlsClientDefault = True

    def __init__(
        self,
        skt: socket.socket,
        protocol: IProtocol,
        reactor: Any,
        *,
        path: bytes,
        lost: Callable[[], object],
    ) -> None:
        super().__init__(skt, protocol, reactor)
        self._path = path
        self._lost = lost
        self.logstr = f"{self._getLogPrefix(protocol)},client"
        self.connected = 1
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol."""
        there = hasattr(self, "socket")
        super().connectionLost(reason)
        if there:
            self._lost()

    def getHost(self) -> UNIXAddress:
        return UNIXAddress(None)

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(self._path)
