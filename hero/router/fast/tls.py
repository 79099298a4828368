"""TLS on the socket itself.

Twisted puts OpenSSL between two memory buffers, so that TLS can run over any transport, and each
byte goes through four of them. Here OpenSSL reads and writes the socket: one call to receive and
one to send, and all that Twisted buffers is plain text that waits for room.

`SSL_read` and `SSL_write` are called without pyOpenSSL's methods, in `_receive` and `_encrypt`
alone: those allocate a buffer for each read and raise an exception where nothing is left to read,
and took 51 µs for a request of 600 bytes and its answer where 30 are enough. Driving memory
buffers directly took 31, and 100 instead of 80 for an answer of 48 KiB. All else is pyOpenSSL's.

OpenSSL takes no more from the socket than the record it works on, which the buffer here always has
room for: it never holds back text that `epoll(7)` does not know of. An answer is written without
``SSL_MODE_ENABLE_PARTIAL_WRITE``: one call for several records. What could not be sent is tried
again from the same byte with no less behind it, as OpenSSL wants.

Plain twin: `hero.router.tls_listener.over_tls`.
"""

from __future__ import annotations

import socket
from errno import EPIPE
from typing import Any

from OpenSSL import SSL
from twisted.internet import main
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, INegotiated, IProtocol, ISSLTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.identity.tls import ServerTls
from hero.router.fast.eager import EagerServer
from hero.router.tls_listener import HANDSHAKE, PLAIN_HTTP_ANSWER

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_read = _lib.SSL_read
_write = _lib.SSL_write

#: RFC 8446 section 5.1: the text in a record is no longer.
_RECORD = 16384
#: Full records that are read before others get their turn.
_RECORDS_AT_ONCE = 8
_buffer = _ffi.new("char[]", _RECORD)
_text = _ffi.buffer(_buffer)


@implementer(ISSLTransport, INegotiated)
class TlsServer(EagerServer):
    """A connection that a TCP port accepted, whose protocol's bytes go over TLS.

    As with the twin, the protocol is connected before the handshake, and told of its end if it is
    an `IHandshakeListener`. An end without close_notify is a lost connection (RFC 8446 section
    6.1). `loseConnection` sends close_notify and waits for the other end to close, which the
    protocol bounds with `abortConnection`; what still comes is dropped.
    """

    _begun = False
    _established = False
    #: The other end sends no more.
    _ended = False
    #: We have sent close_notify.
    _closed = False
    _paused = False
    #: OpenSSL can read only when the socket can be written, and the other way round.
    _read_wants_write = False
    _write_wants_read = False
    #: What was found behind bytes that the protocol got before it paused.
    _outcome: Exception | None = None

    def __init__(
        self,
        tls: ServerTls,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        super().__init__(sock, protocol, client, server, sessionno, reactor)
        self._connection = tls.connection_on(sock)
        self._ssl: Any = self._connection._ssl
        self._send = self._encrypt
        # As in `hero.router.fast.eager`.
        self._established = self._write_wants_read = self._paused = False

    def getHandle(self) -> Any:
        """The connection of pyOpenSSL."""
        return self._connection

    def getPeerCertificate(self) -> Any:
        """See `ISSLTransport`."""
        return self._connection.get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """See `INegotiated`."""
        return self._connection.get_alpn_proto_negotiated() or None

    @property
    def resumed(self) -> bool:
        """Whether the client resumed an earlier session."""
        return bool(_lib.SSL_session_reused(self._ssl))

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = False
        super().resumeProducing()  # type: ignore[no-untyped-call]
        if self._outcome is not None:
            self.reactor.callLater(0, self._finish)

    def _finish(self) -> None:
        if self._outcome is not None and self.connected and not (self._paused or self._aborting):
            outcome, self._outcome = self._outcome, None
            self.reactor._disconnectSelectable(self, outcome, True)

    # The handshake.

    def _shake_hands(self) -> Any:
        if not self._begun:
            try:
                first = self.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return None
            except OSError:
                return main.CONNECTION_LOST
            if first != HANDSHAKE:
                return self._refuse(first)
            self._begun = True
        if self._read_wants_write:
            self._read_wants_write = False
            self.stopWriting()  # type: ignore[no-untyped-call]
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return None
        except SSL.WantWriteError:
            return self._read_after_write()
        except SSL.Error as error:
            # OpenSSL has sent the alert that says why.
            _lib.ERR_clear_error()
            return main.CONNECTION_LOST if isinstance(error, SSL.SysCallError) else error
        self._established = True
        if self.disconnecting:
            self.stopReading()  # type: ignore[no-untyped-call]
        if self._waiting() or self._writeDisconnecting:
            self.startWriting()
        if IHandshakeListener.providedBy(self.protocol):
            self.protocol.handshakeCompleted()
        return None

    def _refuse(self, first: bytes) -> Exception:
        """Explain to a client of plain HTTP what it did wrong; others are just closed."""
        self._ended = True
        self.disconnecting = 1
        if first.isalpha():
            try:
                # What is left unread would turn the close into a reset, and the answer be lost.
                self.socket.recv(65536)
                self.socket.send(PLAIN_HTTP_ANSWER)
            except OSError:
                return main.CONNECTION_LOST
        return main.CONNECTION_DONE

    # Reading.

    def doRead(self) -> Any:
        """Go on with the handshake, or read some records."""
        if not self._established:
            return self._shake_hands()
        count = _read(self._ssl, _buffer, _RECORD)
        if 0 < count < _RECORD and not (self._write_wants_read or self.disconnecting):
            # The usual case: one record, which is not full.
            self.protocol.dataReceived(_text[:count])
            return None
        return self._read_records(count)

    def _read_records(self, count: int) -> Any:
        """Go on after a read that gave *count*."""
        parts: list[bytes] = []
        outcome: Exception | None = None
        while count > 0:
            parts.append(_text[:count])
            if count < _RECORD or len(parts) == _RECORDS_AT_ONCE:
                break
            count = _read(self._ssl, _buffer, _RECORD)
        else:
            outcome = self._why_no_text(count)
        if self._write_wants_read:
            self._write_wants_read = False
            self.startWriting()
        if parts and not self.disconnecting:
            self.protocol.dataReceived(parts[0] if len(parts) == 1 else b"".join(parts))
            if self._paused or self._aborting:
                self._outcome = outcome
                return None
        return outcome

    def _why_no_text(self, result: int) -> Any:
        error = _lib.SSL_get_error(self._ssl, result)
        if error == _lib.SSL_ERROR_WANT_READ:
            return None
        if error == _lib.SSL_ERROR_WANT_WRITE:
            return self._read_after_write()
        _lib.ERR_clear_error()
        if error == _lib.SSL_ERROR_ZERO_RETURN:
            self._ended = True
            return main.CONNECTION_DONE
        # Who has got everything, close_notify included, may go without a word.
        done = self._closed and self.disconnecting
        return main.CONNECTION_DONE if done else main.CONNECTION_LOST

    def _read_after_write(self) -> None:
        self._read_wants_write = True
        self.reactor.addWriter(self)

    # Writing.

    def startWriting(self) -> None:
        """Watch for room, unless OpenSSL waits for something else."""
        if self._established and not self._write_wants_read:
            super().startWriting()  # type: ignore[no-untyped-call]

    def doWrite(self) -> Any:
        """Go on with whatever waits for room."""
        if self._read_wants_write:
            if not self._established:
                return self._shake_hands()
            self._read_wants_write = False
            why = self.doRead()
            if why or not self.connected:
                return why
        return super().doWrite()  # type: ignore[no-untyped-call]

    def writeSomeData(self, data: Any) -> int | ConnectionLost:
        """See `FileDescriptor`."""
        if not data:
            return 0
        try:
            return self._encrypt(data if data.__class__ is bytes else _ffi.from_buffer(data))
        except BlockingIOError:
            if self._write_wants_read:
                self.stopWriting()  # type: ignore[no-untyped-call]
            return 0
        except OSError:
            return main.CONNECTION_LOST

    def _encrypt(self, data: Any) -> int:
        if not self._established:
            raise BlockingIOError
        count: int = _write(self._ssl, data, min(len(data), self.SEND_LIMIT))
        if count > 0:
            return count
        error = _lib.SSL_get_error(self._ssl, count)
        if error == _lib.SSL_ERROR_WANT_READ:
            self._write_wants_read = True
        elif error != _lib.SSL_ERROR_WANT_WRITE:
            _lib.ERR_clear_error()
            raise OSError(EPIPE, "TLS cannot go on")
        raise BlockingIOError

    def _waiting(self) -> bool:
        return bool(self.dataBuffer or self._tempDataBuffer)

    # Closing.

    def loseConnection(self) -> None:
        """See `ITransport` and the class."""
        if not self.connected or self.disconnecting:
            return
        if not self._established:
            if self._waiting():
                self.disconnecting = 1
            else:
                self.abortConnection()  # type: ignore[no-untyped-call]
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def _postLoseConnection(self) -> Any:
        if not self._say_goodbye():
            return None
        if self._ended:
            return main.CONNECTION_DONE
        self.reactor.addReader(self)
        return None

    def _closeWriteConnection(self) -> None:
        if self._say_goodbye():
            super()._closeWriteConnection()

    def _say_goodbye(self) -> bool:
        """Send close_notify and a FIN, for clients that only look for the second; or wait for room.

        True once that was done or cannot be done.
        """
        if not self._closed:
            try:
                self._connection.shutdown()
            except SSL.WantWriteError:
                self.startWriting()
                return False
            except SSL.Error:
                _lib.ERR_clear_error()
            self._closed = True
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                return True
        return True

    def readConnectionLost(self, reason: Failure) -> None:
        """The other end sends no more, or the reactor was told that it is gone altogether."""
        if self.disconnecting:
            self._ended = True
            if not self._waiting():
                self.connectionLost(reason)
        elif self._ended:
            super().readConnectionLost(reason)
        else:
            self.connectionLost(Failure(main.CONNECTION_LOST))

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol.

        The other end gets a close_notify only where nothing that was written is lost.
        """
        finished = self._established and not self._waiting() and reason.check(ConnectionDone)
        if self.connected and finished:
            self._say_goodbye()
        super().connectionLost(reason)
