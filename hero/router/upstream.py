"""One connection to a service: sends one request at a time and reads its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.router.body import BodyFollower, follower
from hero.router.errors import BadAnswer
from hero.router.grammar import Malformed, has_lone_lf
from hero.router.head import Framing, ResponseHead

if TYPE_CHECKING:
    from hero.router.pool import UpstreamPool

#: Interim answers before the final one. A service that sends more is broken.
_MAX_INTERIM = 16

#: Reads the head of an answer to a HEAD request, or to any other. Raises `BadAnswer`.
ReadAnswer = Callable[[bytes], ResponseHead]


@implementer(IPushProducer, IHalfCloseableProtocol)
class UpstreamConnection(Protocol):
    """It goes back to its pool only when the request was sent whole, the answer was read whole and
    nothing was left over; after anything else it is closed.

    ``uses`` counts the requests that it has carried.
    """

    transport: Any

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._reader: Any = None
        self._read_head: ReadAnswer = pool.heads.answer
        self._buffer = b""
        self._body: BodyFollower | None = None
        self._head: ResponseHead | None = None
        self._silent = True
        self._interim = 0
        self._sent = self._paused = False
        self._tunnel = False
        self._closing: IDelayedCall | None = None
        self.uses = 0
        self.idle_since = 0.0

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def begin(self, reader: Any, wire: bytes, *, whole: bool) -> None:
        """Send the head *wire* for *reader*, an `IAnswerReader`; *whole*: no body follows."""
        self.uses += 1
        self._reader = reader
        heads = self._pool.heads
        self._read_head = heads.answer if reader.method != b"HEAD" else heads.answer_to_head
        self._sent = whole
        self._silent = True
        self._interim = 0
        self._head = self._body = None
        self.transport.write(wire)

    def send(self, data: bytes) -> None:
        """Send a part of the request's body, or of what goes through the tunnel."""
        self.transport.write(data)

    def begin_tunnel(self, reader: Any) -> None:
        """From now on bytes go both ways as they come."""
        self._reader = reader
        self._tunnel = True
        self._pool.detach(self)

    def end_sending(self) -> None:
        """Half-close: nothing more is sent, but what the service still sends is read."""
        self.transport.loseWriteConnection()

    def request_sent(self) -> None:
        """The request's body was sent to its end."""
        self._sent = True

    def pause_reading(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        self._paused = False
        self.transport.resumeProducing()

    def close(self) -> None:
        """Close after what was written, if that is read in time; nobody is told."""
        self._reader = None
        if self._closing is None:
            # Before it closes, which may be at once.
            self._closing = self._pool.clock.callLater(self._pool.limits.stall_time, self.abort)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once; nobody is told."""
        self._reader = None
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            # Nothing was asked: whatever this is, it must not become somebody's answer.
            self._pool.forget(self)
            self.abort()
            return
        self._silent = False
        try:
            if self._tunnel:
                reader.answer_data(data)
            elif self._body is not None:
                self._read_body(reader, data)
            else:
                self._read_heads(reader, self._buffer + data if self._buffer else data)
        except (BadAnswer, Malformed) as error:
            self.abort()
            reader.upstream_failed(BadAnswer(str(error)))

    def readConnectionLost(self) -> None:
        """The service sends no more."""
        if self._tunnel and self._reader is not None:
            self._reader.service_ended()
        else:
            self._ended(clean=True)
            self.transport.abortConnection()

    def writeConnectionLost(self) -> None:
        """What was to be sent was sent, and the service told so."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._ended(clean=reason.check(ConnectionDone) is not None)

    def _ended(self, *, clean: bool) -> None:
        self._pool.forget(self)
        reader, self._reader = self._reader, None
        if reader is None:
            return
        if clean and not self._tunnel and self._body is not None and self._body.end():
            reader.answer_finished()
        else:
            reader.upstream_lost(silent=self._silent, reused=self.uses > 1)

    def pauseProducing(self) -> None:
        if self._reader is not None:
            self._reader.upstream_full()

    def resumeProducing(self) -> None:
        if self._reader is not None:
            self._reader.upstream_ready()

    def stopProducing(self) -> None:
        """The transport tells of its end by `connectionLost` as well."""

    def _read_heads(self, reader: Any, data: bytes) -> None:
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._check_partial(data)
                self._buffer = data
                return
            end += 4
            if end > self._pool.limits.head:
                raise BadAnswer(f"its head is longer than {self._pool.limits.head} bytes")
            head = self._read_head(data[:end])
            data = data[end:]
            if head.status >= 200:
                self._buffer = b""
                self._read_answer(reader, head, data)
                return
            if head.status == 101:
                self._buffer = b""
                self._switch(reader, head, data)
                return
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise BadAnswer("it sends interim answers without end")
            reader.informational(head)
            if self._reader is not reader:
                return

    def _check_partial(self, data: bytes) -> None:
        if len(data) > self._pool.limits.head:
            raise BadAnswer(f"its head is longer than {self._pool.limits.head} bytes")
        if has_lone_lf(data):
            raise BadAnswer("a line of its head ends in a bare LF")
        if data and not b"HTTP/1.".startswith(data[:7]):
            raise BadAnswer("its first line is not an HTTP/1.1 status line")

    def _switch(self, reader: Any, head: ResponseHead, early: bytes) -> None:
        reader.switched(head)
        if self._reader is reader:
            self.begin_tunnel(reader)
            if early:
                reader.answer_data(early)

    def _read_answer(self, reader: Any, head: ResponseHead, data: bytes) -> None:
        framing = head.framing
        if framing is Framing.NONE or (framing is Framing.LENGTH and len(data) == head.length):
            # The usual case: all of it came at once, or there is no body.
            self._reader = None
            if framing is Framing.NONE and data:
                self._give_back(clean=False, keep_alive=False)
                data = b""
            else:
                self._give_back(clean=True, keep_alive=head.keep_alive)
            reader.answered(head, data)
            return
        self._head = head
        body = self._body = follower(framing, head.length, raw=reader.raw_chunks, trailers=True)
        out = body.feed(data) if data else b""
        reader.answer_started(head, out)
        if body.done and self._reader is reader:
            self._finish(reader, clean=not body.rest)

    def _read_body(self, reader: Any, data: bytes) -> None:
        body = self._body
        assert body is not None
        out = body.feed(data)
        if out:
            reader.answer_data(out)
        if body.done and self._reader is reader:
            self._finish(reader, clean=not body.rest)

    def _finish(self, reader: Any, *, clean: bool) -> None:
        """The answer is complete; *clean*: and nothing followed it."""
        assert self._head is not None
        self._reader = None
        self._give_back(clean=clean, keep_alive=self._head.keep_alive)
        reader.answer_finished()

    def _give_back(self, *, clean: bool, keep_alive: bool) -> None:
        if self._sent and clean and keep_alive:
            if self._paused:
                # Its last reader was full when the answer ended; the next one is not.
                self.resume_reading()
            self._pool.release(self)
        else:
            self._pool.forget(self)
            self.transport.abortConnection()
