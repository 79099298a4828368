"""Connections to one service, kept open between requests."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Protocol as TypingProtocol

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.router.body import BodyFollower, follower
from hero.router.errors import BadAnswer
from hero.router.grammar import Malformed
from hero.router.head import Framing, ResponseHead, parse_response_head
from hero.router.limits import Limits

#: Interim answers before the final one. A service that sends more is broken.
_MAX_INTERIM = 16
#: Between attempts to connect to a service whose backlog is full.
_BUSY = backoffPolicy(initialDelay=0.01, maxDelay=0.2, factor=2.0)


class AnswerReader(TypingProtocol):
    """What an `UpstreamConnection` tells of the answer it reads."""

    method: bytes
    raw_chunks: bool

    def informational(self, head: ResponseHead) -> None: ...
    def answer_started(self, head: ResponseHead) -> None: ...
    def answer_data(self, data: bytes) -> None: ...
    def answer_finished(self) -> None: ...
    def switched(self, head: ResponseHead) -> None: ...
    def upstream_failed(self, error: BadAnswer) -> None: ...
    def upstream_lost(self, *, silent: bool, reused: bool) -> None: ...
    def upstream_full(self) -> None: ...
    def upstream_ready(self) -> None: ...


@implementer(IPushProducer)
class UpstreamConnection(Protocol):
    """One connection to a service: sends one request at a time and reads its answer.

    It goes back to its pool only when the request was sent whole, the answer was read whole and
    nothing was left over; after anything else it is closed.
    """

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._reader: AnswerReader | None = None
        self._buffer = b""
        self._body: BodyFollower | None = None
        self._head: ResponseHead | None = None
        self._silent = True
        self._interim = 0
        self._sent = False
        self._tunnel = False
        self._closing: IDelayedCall | None = None
        self.uses = 0
        self.idle_since = 0.0

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]

    def begin(self, reader: AnswerReader, wire: bytes, *, whole: bool) -> None:
        """Send the head *wire*; *whole* says that no body follows."""
        assert self.transport is not None
        self.uses += 1
        self._reader = reader
        self._sent = whole
        self._silent = True
        self._interim = 0
        self._head = self._body = None
        self.transport.write(wire)

    def send(self, data: bytes) -> None:
        """Send a part of the request's body, or of what goes through the tunnel."""
        assert self.transport is not None
        self.transport.write(data)

    def request_sent(self) -> None:
        """The request's body was sent to its end."""
        self._sent = True

    def pause_reading(self) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume_reading(self) -> None:
        self.transport.resumeProducing()  # type: ignore[union-attr]

    def close(self) -> None:
        """Close after what was written, if that is read in time; nobody is told."""
        self._reader = None
        assert self.transport is not None
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self.transport.loseConnection()
        self._closing = self._pool.clock.callLater(self._pool.limits.stall_time, self.abort)

    def abort(self) -> None:
        """Close at once; nobody is told."""
        self._reader = None
        self.transport.abortConnection()  # type: ignore[union-attr]

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
            elif self._body is None:
                self._buffer += data
                self._read_heads(reader)
            else:
                self._read_body(reader, data)
        except (BadAnswer, Malformed) as error:
            self.abort()
            reader.upstream_failed(BadAnswer(str(error)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._pool.forget(self)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        reader, self._reader = self._reader, None
        if reader is None:
            return
        clean = reason.check(ConnectionDone) is not None and not self._tunnel
        if clean and self._body is not None and self._body.end():
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

    def _read_heads(self, reader: AnswerReader) -> None:
        limits = self._pool.limits
        while self._reader is reader and self._body is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > limits.head:
                    raise BadAnswer(f"its head is longer than {limits.head} bytes")
                if self._buffer and not b"HTTP/1.".startswith(self._buffer[:7]):
                    raise BadAnswer("its first line is not an HTTP/1.1 status line")
                return
            block, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            self._read_head(reader, parse_response_head(block, reader.method, limits))

    def _read_head(self, reader: AnswerReader, head: ResponseHead) -> None:
        if head.status == 101:
            self._tunnel = True
            self._body = follower(Framing.UNTIL_CLOSE, 0, raw=True)
            reader.switched(head)
            early, self._buffer = self._buffer, b""
            if early and self._reader is reader:
                reader.answer_data(early)
            return
        if head.status < 200:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise BadAnswer("it sends interim answers without end")
            reader.informational(head)
            return
        self._head = head
        self._body = follower(head.framing, head.length, raw=reader.raw_chunks, trailers=True)
        reader.answer_started(head)
        if self._reader is not reader:
            return
        if self._body.done:
            self._body.rest, self._buffer = self._buffer, b""
            self._finish(reader)
        elif self._buffer:
            data, self._buffer = self._buffer, b""
            self._read_body(reader, data)

    def _read_body(self, reader: AnswerReader, data: bytes) -> None:
        body = self._body
        assert body is not None
        out = body.feed(data)
        if out:
            reader.answer_data(out)
        if body.done and self._reader is reader:
            self._finish(reader)

    def _finish(self, reader: AnswerReader) -> None:
        assert self._head is not None and self._body is not None
        self._reader = None
        if self._sent and self._head.keep_alive and not self._body.rest:
            self.resume_reading()
            self._pool.release(self)
        else:
            self._pool.forget(self)
            self.abort()
        reader.answer_finished()


class UpstreamPool:
    """The connections to one service that are not in use."""

    def __init__(
        self, clock: IReactorTime, endpoint: IStreamClientEndpoint, limits: Limits
    ) -> None:
        self.limits = limits
        self.clock = clock
        self._endpoint = endpoint
        self._idle: deque[UpstreamConnection] = deque()
        self._closed = False

    def reuse(self) -> UpstreamConnection | None:
        """The connection that was used last, if one is idle."""
        return self._idle.pop() if self._idle else None

    def connect(self) -> Deferred[UpstreamConnection]:
        """A new connection. A service that is too busy to accept it is given some time."""
        return Deferred.fromCoroutine(self._connect())

    async def _connect(self) -> UpstreamConnection:
        factory = Factory.forProtocol(lambda: UpstreamConnection(self))
        factory.noisy = False
        deadline = self.clock.seconds() + self.limits.connect_time
        for attempt in itertools.count():
            try:
                return await self._endpoint.connect(factory)  # type: ignore[return-value]
            except ConnectError as error:
                # A UNIX socket whose backlog is full gives no error number (connect(2), EAGAIN).
                busy = type(error) is ConnectError and error.osError is None
                if not busy or self.clock.seconds() >= deadline:
                    raise
            await deferLater(self.clock, _BUSY(attempt))
        raise AssertionError("unreachable")

    def release(self, connection: UpstreamConnection) -> None:
        """Keep *connection* for another request."""
        if self._closed or len(self._idle) >= self.limits.idle_upstreams:
            connection.close()
            return
        connection.idle_since = self.clock.seconds()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """*connection* is gone, or must not be used again."""
        if connection in self._idle:
            self._idle.remove(connection)

    def reap(self) -> None:
        """Close the connections that were idle for too long."""
        limit = self.clock.seconds() - self.limits.idle_upstream_time
        while self._idle and self._idle[0].idle_since <= limit:
            self._idle.popleft().close()

    def close(self) -> None:
        """Close what is idle, and from now on what becomes so."""
        self._closed = True
        while self._idle:
            self._idle.popleft().close()
