"""The client's side of an HTTP/1.1 connection: reads requests, sends answers, keeps the limits.

::

    HEAD ──head read──> BODY ──body read──> ANSWER ──answered──> HEAD
      │                  └──answered early──┐   └──101──> TUNNEL
      └──malformed──────────────────────────┴──> CLOSING
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.router.access_log import Record
from hero.router.body import BodyFollower, follower
from hero.router.connection import ClientConnection, unread
from hero.router.errors import BadMessage, Rejection
from hero.router.exchange import Exchange
from hero.router.forwarding import answer_end
from hero.router.grammar import Malformed, has_lone_lf, is_token
from hero.router.head import Framing, RequestHead, ResponseHead
from hero.router.interfaces import IAnswerSink, IClientConnection
from hero.router.limits import Limits
from hero.router.model import Connection
from hero.router.problem import problem_answer

if TYPE_CHECKING:
    from hero.router.gateway import Gateway

#: What is kept of requests that a client sends before the one under way is answered.
_READ_AHEAD = 65536


class State(enum.Enum):
    """What is expected from the client next."""

    HEAD = "head"
    BODY = "body"
    ANSWER = "nothing before the answer"
    TUNNEL = "anything"
    CLOSING = "its end"


@implementer(IAnswerSink, IClientConnection, IPushProducer, IHalfCloseableProtocol)
class Front(ClientConnection):
    """One client's connection. Requests sent ahead are answered one after the other."""

    def __init__(self, gateway: Gateway, number: int, *, secure: bool) -> None:
        super().__init__(gateway, number, secure=secure)
        self.state = State.HEAD
        self.record: Record | None = None
        self.raw_chunks = True
        self._buffer = b""
        #: How much of it was searched for the end of a head.
        self._searched = 0
        self._head: RequestHead | None = None
        self._body: BodyFollower | None = None
        self._exchange: Exchange | None = None
        self._route_limits = gateway.limits
        self._answer: ResponseHead | None = None
        self._rechunk = False
        self._keep_alive = True
        self._writable = True
        self._half_closed = False
        self._body_paused = False
        self._ahead_paused = False
        self._parsing = False
        self._unread = 0
        #: Where the head begins that came in part.
        self._partial_since = -1
        #: Bytes that came before the request that is being read.
        self._begun = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self.state is State.HEAD and self.record is None

    @property
    def consumed(self) -> int:
        """Bytes that came, without those that belong to a later request."""
        return self.bytes_in - len(self._buffer)

    # From the transport.

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self.bytes_in += len(data)
        state = self.state
        if state is State.HEAD:
            if self._buffer:
                self._buffer += data
            else:
                self._buffer = data
            if self._writable:
                self._read_heads()
            else:
                self._bound_read_ahead()
        elif state is State.TUNNEL:
            self._progress()
            assert self._exchange is not None
            self._exchange.tunnel_data(data)
        elif state is State.BODY:
            self._wait(self._route_limits.stall_time)
            self._read_body(data)
        elif state is State.ANSWER:
            self._buffer += data
            self._bound_read_ahead()

    def readConnectionLost(self) -> None:
        """The client sends no more. Only a tunnel goes on one way."""
        if self.state is State.TUNNEL and self._exchange is not None:
            self._half_closed = True
            self._progress()
            self._exchange.tunnel_end()
        else:
            self.transport.loseConnection()
            self._gone()

    def writeConnectionLost(self) -> None:
        """What was to be sent was sent, and the client told so."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone()
        self._gateway.disconnected(self)

    def _gone(self) -> None:
        self.state = State.CLOSING
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        record = self.record
        if record is not None:
            self._finish_record(None if record.tunnel else "client_gone")

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self._writable = False
        if self._exchange is not None:
            self._exchange.pause_answer()

    def resumeProducing(self) -> None:
        """The client has read what was sent."""
        self._writable = True
        if self._exchange is not None:
            self._progress()
            self._exchange.resume_answer()
        elif self.state is State.HEAD and self._buffer:
            self._ahead_paused = False
            self._set_reading()
            self._read_heads()

    def stopProducing(self) -> None:
        """The transport tells of its end by `connectionLost` as well."""

    # From the gateway: `IClientConnection`.

    def late(self) -> None:
        """What was waited for did not come in time."""
        if self._still_reads():
            return
        if self.state is State.CLOSING:
            self.abort()
        elif self.state is State.HEAD and not self._buffer:
            self.close()
        elif self.state is State.HEAD:
            self.refuse(BadMessage("head_timeout", "the request came too slowly", status=408))
        elif self.state is State.TUNNEL:
            self._abort("tunnel_idle")
        elif self._answer is not None:
            self._abort("upstream_timeout" if self._writable else "client_timeout")
        elif self.state is State.BODY and not self._body_paused:
            self.refuse(BadMessage("body_timeout", "the body came too slowly", status=408))
        else:
            self.refuse(
                Rejection(504, "upstream_timeout", "the service does not answer", close=True)
            )

    def _still_reads(self) -> bool:
        """Whether the client goes on reading what was sent; then it is given more time."""
        answering = self._answer is not None and self.state is not State.CLOSING
        if self.state is State.TUNNEL or (answering and self._writable):
            return False
        before, self._unread = self._unread, unread(self.transport)
        if self._unread in (0, before):
            return False
        self._wait(self._route_limits.stall_time if answering else self._limits.linger_time)
        return True

    def stopping(self) -> None:
        """Take no further request; tunnels are told by their end."""
        if self.idle or self.record is None or self.record.tunnel:
            self.close()

    def close(self) -> None:
        """Close after what was written was sent."""
        if self.state is not State.CLOSING:
            limits = self._limits
            self._leave(limits.linger_time if self.idle else limits.stall_time)
            self.transport.loseConnection()

    def describe(self, now: float) -> Connection:
        """See `IClientConnection`."""
        return self._describe(now, self.record, tunnel=self.state is State.TUNNEL)

    # From the exchange: `IAnswerSink`.

    def under_way(self, limits: Limits) -> None:
        self._route_limits = limits
        if self.record is not None:
            self.deadline = self.record.started + limits.answer_time

    def informational(self, head: ResponseHead) -> None:
        request = self._head
        if request is not None and request.minor == 1 and self._answer is None:
            self._wait(self._route_limits.answer_time)
            self._write(head.start + b"\r\n")

    def start_answer(self, head: ResponseHead, data: bytes) -> None:
        self.deadline = self._now() + self._route_limits.stall_time
        self._begin_answer(head, data)

    def whole_answer(self, head: ResponseHead, data: bytes) -> None:
        self._begin_answer(head, data)
        self.finish_answer()

    def _begin_answer(self, head: ResponseHead, data: bytes) -> None:
        request, record = self._head, self.record
        assert request is not None and record is not None
        self._answer = head
        record.status = head.status
        minor = request.minor
        keep_alive = (
            request.keep_alive
            and self.state is State.ANSWER
            and record.started - self.since < self._limits.connection_time
        )
        if head.framing is Framing.UNTIL_CLOSE and minor == 1:
            self._rechunk = True
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
        elif minor == 0 and head.framing not in (Framing.NONE, Framing.LENGTH):
            keep_alive = False
        self._keep_alive = keep_alive = keep_alive and not self._gateway.stopping
        parts = [head.start]
        if not head.dated:
            parts.append(b"Date: %b\r\n" % self._gateway.date.value())
        if head.request_id is None:
            parts.append(b"X-Request-ID: %b\r\n" % record.request_id.encode())
        if keep_alive and minor and head.framing is Framing.LENGTH and head.status != 426:
            parts.append(b"\r\n")
        else:
            parts.append(
                answer_end(head, minor=minor, keep_alive=keep_alive, rechunk=self._rechunk)
            )
        parts.append(data)
        wire = b"".join(parts)
        self.bytes_out += len(wire)
        self.transport.write(wire)

    def answer_data(self, data: bytes) -> None:
        self._progress()
        if self._rechunk:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.bytes_out += len(data)
        self.transport.write(data)

    def finish_answer(self) -> None:
        exchange, self._exchange = self._exchange, None
        if self.record is not None and exchange is not None:
            self.record.upstream_seconds = exchange.upstream_seconds
        if self._rechunk:
            self._write(b"0\r\n\r\n")
        self._finish_record(None)
        if self.state is State.BODY:
            self._linger(self._route_limits.stall_time)
        elif self._keep_alive and not self._gateway.stopping:
            self._next()
        else:
            self._linger(self._limits.linger_time)

    def abort_answer(self, reason: str) -> None:
        self._exchange = None
        self._abort(reason)

    def refuse(self, rejection: Rejection) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        if self._answer is not None:
            self._abort(rejection.reason)
            return
        if self.state is State.BODY and not rejection.close:
            self._discard_body()
        head = self._head
        keep = (
            head is not None
            and head.keep_alive
            and self.state is State.ANSWER
            and not rejection.close
            and not self._gateway.stopping
        )
        record = self.record
        if record is None:
            begun = self.consumed if self._buffer else self._begun
            self._buffer = b""
            record = self.record = self._gateway.record(self, None, None)
            record.bytes_in = -begun
        record.status = rejection.status
        self._write(
            problem_answer(
                rejection,
                request_id=record.request_id,
                accept=b",".join(head.values(b"accept")) if head is not None else b"",
                keep_alive=keep,
                head_only=head is not None and head.method == b"HEAD",
            )
        )
        self._finish_record(rejection.reason)
        if keep:
            self._next()
        else:
            self._linger(self._limits.linger_time)

    def switch(self, head: ResponseHead) -> None:
        record, exchange = self.record, self._exchange
        assert record is not None and exchange is not None
        record.status = 101
        record.tunnel = True
        record.upstream_seconds = exchange.upstream_seconds
        self.state = State.TUNNEL
        self._progress()
        self._write(head.start + b"\r\n")
        early, self._buffer = self._buffer, b""
        self._ahead_paused = False
        self._set_reading()
        if early:
            exchange.tunnel_data(early)

    def tunnel_end(self) -> None:
        self._half_closed = True
        self._progress()
        self.transport.loseWriteConnection()

    def close_tunnel(self) -> None:
        self._exchange = None
        self._finish_record(None)
        self.close()

    def pause_body(self) -> None:
        self._body_paused = True
        self._set_reading()

    def resume_body(self) -> None:
        if not self._body_paused:
            return
        self._body_paused = False
        if self.state is not State.CLOSING:
            if self._answer is None and self.state is not State.TUNNEL:
                self._wait(self._route_limits.answer_time)
            else:
                self._progress()
            self._set_reading()

    # Within.

    def _read_heads(self) -> None:
        if self._parsing:
            return
        self._parsing = True
        try:
            while self.state is State.HEAD and self._buffer and self._writable:
                if not self._read_head():
                    break
        except Rejection as rejection:
            self.refuse(rejection)
        finally:
            self._parsing = False

    def _read_head(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3)) + 4
        # RFC 9112 section 2.2: one empty line before a request is ignored.
        start = 2 if buffer.startswith(b"\r\n") else 0
        if start and end == 4:
            end = buffer.find(b"\r\n\r\n", start) + 4
        if end < 4:
            self._check_partial(buffer)
            self._searched = len(buffer)
            if self._partial_since != self.consumed:
                self._partial_since = self.consumed
                self._wait(self._limits.head_time)
            return False
        if end - start > self._limits.head:
            raise self._too_long(buffer)
        gateway = self._gateway
        begun = self._begun = self.bytes_in - len(buffer)
        self._buffer = rest = buffer[end:]
        self._searched = 0
        request = gateway.heads.request(buffer[start:end])
        head = request.head
        self.requests += 1
        self._head = head
        self._answer = None
        self._rechunk = False
        self.raw_chunks = head.minor == 1
        record = self.record = gateway.record(self, request, request.request_id)
        record.bytes_in = -begun
        self.deadline = record.started + self._limits.answer_time
        if head.has_body:
            self.state = State.BODY
            self._body = follower(head.framing, head.length, raw=True)
        else:
            self.state = State.ANSWER
        try:
            exchange = self._exchange = gateway.exchange(self, self, request, record)
        except Rejection as rejection:
            self.refuse(rejection)
            return True
        exchange.start()
        if rest and self.state is State.BODY:
            self._buffer = b""
            self._read_body(rest)
        return True

    def _bound_read_ahead(self) -> None:
        if len(self._buffer) > _READ_AHEAD:
            self._ahead_paused = True
            self._set_reading()

    def _check_partial(self, buffer: bytes) -> None:
        if has_lone_lf(buffer):
            raise BadMessage("bad_line_end", "a line ends in a bare LF")
        if len(buffer) > self._limits.head:
            raise self._too_long(buffer)
        first = buffer.lstrip(b"\r\n")[:1]
        if first and not is_token(first):
            raise BadMessage("bad_request_line", "this is not HTTP")

    def _too_long(self, buffer: bytes) -> BadMessage:
        if len(buffer.partition(b"\r\n")[0]) > self._limits.line:
            return BadMessage(
                "target_too_long",
                f"the request line is longer than {self._limits.line} bytes",
                status=414,
            )
        return BadMessage(
            "head_too_long", f"the head is longer than {self._limits.head} bytes", status=431
        )

    def _read_body(self, data: bytes) -> None:
        body, exchange = self._body, self._exchange
        assert body is not None
        if exchange is None:
            return
        body.limit = exchange.limits.body
        try:
            passed = body.feed(data)
        except Malformed as error:
            status = 413 if error.reason == "body_too_large" else 400
            self.refuse(BadMessage(error.reason, error.detail, status=status))
            return
        if body.done:
            self.state = State.ANSWER
            self._buffer = body.rest
            if self._answer is None:
                self._wait(exchange.limits.answer_time)
        exchange.body_data(passed, last=body.done)

    def _discard_body(self) -> None:
        """Read over a body that came with its head, so that the connection can be kept."""
        assert self._body is not None
        data, self._buffer = self._buffer, b""
        try:
            self._body.feed(data)
        except Malformed:
            return
        if self._body.done:
            self.state = State.ANSWER
            self._buffer = self._body.rest

    def _next(self) -> None:
        self.state = State.HEAD
        self._head = self._body = self._answer = None
        limits = self._route_limits = self._limits
        self.deadline = self._now() + limits.idle_time
        if self._body_paused or self._ahead_paused:
            self._body_paused = self._ahead_paused = False
            self._set_reading()
        if self._buffer and self._writable:
            self._read_heads()

    def _abort(self, reason: str) -> None:
        """Make sure that nobody takes what was sent for the whole answer."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        self._finish_record(reason)
        self.state = State.CLOSING
        self.abort()

    def _linger(self, patience: float) -> None:
        """Let the client read the answer although it still sends (RFC 9112 section 9.6)."""
        self._leave(patience)
        self._body_paused = self._ahead_paused = False
        self._set_reading()
        if self.secure:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def _leave(self, patience: float) -> None:
        self.state = State.CLOSING
        self._buffer = b""
        self._wait(patience)
        self.transport.unregisterProducer()

    def _set_reading(self) -> None:
        if self._body_paused or self._ahead_paused:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def _progress(self) -> None:
        limits = self._route_limits
        if self.state is not State.TUNNEL:
            self.deadline = self._now() + limits.stall_time
        elif self._half_closed:
            self.deadline = self._now() + limits.half_closed_time
        else:
            self.deadline = self._now() + limits.tunnel_time

    def _write(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self.transport.write(data)

    def _finish_record(self, reason: str | None) -> None:
        record, self.record = self.record, None
        if record is not None:
            self._gateway.finished(self, record, reason)
