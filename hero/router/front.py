"""The client's side of a connection: reads requests, sends answers, keeps the limits.

::

    HEAD ──head read──> BODY ──body read──> ANSWER ──answered──> HEAD
      │                  └──answered early──┐   └──101──> TUNNEL
      └──malformed──────────────────────────┴──> CLOSING
"""

from __future__ import annotations

import array
import enum
import fcntl
import termios
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.router.access_log import Record
from hero.router.body import BodyFollower, follower
from hero.router.errors import BadMessage, Rejection
from hero.router.exchange import Exchange
from hero.router.forwarding import forward_response, request_id_of
from hero.router.grammar import Malformed, has_lone_lf
from hero.router.head import Framing, RequestHead, ResponseHead, parse_request_head
from hero.router.interfaces import IAnswerSink
from hero.router.problem import problem_answer

if TYPE_CHECKING:
    from hero.router.gateway import Gateway

#: What is kept of requests that a client sends before the one under way is answered.
_READ_AHEAD = 65536


def unread(transport: Any) -> int:
    """How many of the bytes that were sent the other end has not got yet (SIOCOUTQ, tcp(7))."""
    left = array.array("i", [0])
    try:
        fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, left)
    except (OSError, ValueError):
        return 0  # it is closed
    return left[0]


class State(enum.Enum):
    """What is expected from the client next."""

    HEAD = "head"
    BODY = "body"
    ANSWER = "nothing before the answer"
    TUNNEL = "anything"
    CLOSING = "its end"


@implementer(IAnswerSink, IPushProducer)
class Front(Protocol):
    """One client's connection. Requests sent ahead are answered one after the other."""

    def __init__(self, gateway: Gateway, number: int, *, secure: bool) -> None:
        self._gateway = gateway
        self._limits = gateway.limits
        self.number = number
        self.secure = secure
        self.state = State.HEAD
        self.deadline = 0.0
        self.since = gateway.clock.seconds()
        self.user = "anonymous"
        self.peer = "unknown"
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.record: Record | None = None
        self.raw_chunks = True
        self._buffer = b""
        self._head: RequestHead | None = None
        self._body: BodyFollower | None = None
        self._exchange: Exchange | None = None
        self._answer: ResponseHead | None = None
        self._rechunk = False
        self._keep_alive = True
        self._writable = True
        self._body_paused = False
        self._ahead_paused = False
        self._parsing = False
        self._unread = 0

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
        transport: Any = self.transport
        self.peer = str(getattr(transport.getPeer(), "host", "local"))
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        self._wait(self._limits.head_time)
        self._gateway.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self.bytes_in += len(data)
        state = self.state
        if state is State.TUNNEL:
            self._wait(self._limits.tunnel_time)
            assert self._exchange is not None
            self._exchange.tunnel_data(data)
        elif state is State.BODY:
            self._wait(self._limits.stall_time)
            self._read_body(data)
        elif state is not State.CLOSING:
            if state is State.HEAD and not self._buffer:
                self._wait(self._limits.head_time)
            self._buffer += data
            if state is State.HEAD and self._writable:
                self._read_heads()
            elif len(self._buffer) > _READ_AHEAD:
                self._ahead_paused = True
                self._set_reading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.state = State.CLOSING
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        self._finish_record("client_gone" if self.record and not self.record.tunnel else None)
        self._gateway.disconnected(self)

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

    # From the gateway.

    def late(self) -> None:
        """What was waited for did not come in time."""
        if self._still_reads():
            return
        if self.state is State.CLOSING:
            self.transport.abortConnection()  # type: ignore[union-attr]
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
        self._wait(self._limits.stall_time if answering else self._limits.linger_time)
        return True

    def close(self) -> None:
        """Close after what was written was sent."""
        if self.state is not State.CLOSING:
            limits = self._limits
            self._leave(limits.linger_time if self.idle else limits.stall_time)
            self.transport.loseConnection()  # type: ignore[union-attr]

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    # `IAnswerSink`: from the exchange.

    def informational(self, head: ResponseHead) -> None:
        request = self._head
        if request is not None and request.minor == 1 and self._answer is None:
            assert self.record is not None
            self._wait(self._limits.answer_time)
            self._write(
                forward_response(
                    head,
                    minor=1,
                    keep_alive=True,
                    rechunk=False,
                    request_id=self.record.request_id,
                )
            )

    def start_answer(self, head: ResponseHead) -> None:
        request, record = self._head, self.record
        assert request is not None and record is not None
        self._answer = head
        until_close = head.framing is Framing.UNTIL_CLOSE
        self._rechunk = until_close and request.minor == 1
        delimited = request.minor == 1 or head.framing in (Framing.NONE, Framing.LENGTH)
        self._keep_alive = (
            request.keep_alive
            and delimited
            and self.state is State.ANSWER
            and not self._gateway.stopping
            and self._gateway.clock.seconds() - self.since < self._limits.connection_time
        )
        record.status = head.status
        self._progress()
        self._write(
            forward_response(
                head,
                minor=request.minor,
                keep_alive=self._keep_alive,
                rechunk=self._rechunk,
                request_id=record.request_id,
            )
        )

    def answer_data(self, data: bytes) -> None:
        self._progress()
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._rechunk else data)

    def finish_answer(self) -> None:
        self._exchange = None
        if self._rechunk:
            self._write(b"0\r\n\r\n")
        self._finish_record(None)
        if self.state is State.BODY:
            self._linger(self._limits.stall_time)
        elif self._keep_alive and not self._gateway.stopping:
            self._next()
        else:
            self.close()

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
        if self.record is None:
            self.record = self._gateway.record(self, None, request_id_of(None))
        self.record.status = rejection.status
        accept = head.values(b"accept") if head is not None else []
        self._write(
            problem_answer(
                rejection,
                request_id=self.record.request_id,
                accept=b",".join(accept),
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
        record = self.record
        assert record is not None and self._exchange is not None
        record.status = 101
        record.tunnel = True
        self.state = State.TUNNEL
        self._wait(self._limits.tunnel_time)
        self._write(
            forward_response(
                head, minor=1, keep_alive=True, rechunk=False, request_id=record.request_id
            )
        )
        early, self._buffer = self._buffer, b""
        self._ahead_paused = False
        self._set_reading()
        if early:
            self._exchange.tunnel_data(early)

    def close_tunnel(self) -> None:
        self._exchange = None
        self._finish_record(None)
        self.close()

    def pause_body(self) -> None:
        self._body_paused = True
        self._set_reading()

    def resume_body(self) -> None:
        self._body_paused = False
        if self.state is not State.CLOSING:
            if self._answer is None and self.state is not State.TUNNEL:
                self._wait(self._limits.answer_time)
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
        # RFC 9112 section 2.2: one empty line before a request is ignored.
        start = 2 if buffer.startswith(b"\r\n") else 0
        end = buffer.find(b"\r\n\r\n", start)
        if end < 0:
            self._check_partial(buffer)
            return False
        if end + 4 - start > self._limits.head:
            raise self._too_long(buffer)
        begun = self.consumed
        self._buffer = buffer[end + 4 :]
        head = parse_request_head(buffer[start : end + 4], self._limits)
        self.requests += 1
        self._head = head
        self._answer = None
        self._rechunk = False
        self.raw_chunks = head.minor == 1
        self.record = self._gateway.record(self, head, request_id_of(head))
        self.record.bytes_in = -begun
        self.state = State.BODY if head.has_body else State.ANSWER
        self._body = follower(head.framing, head.length, raw=True, limit=self._limits.body)
        self._wait(self._limits.answer_time)
        try:
            exchange = self._gateway.exchange(self, head, self.record)
        except Rejection as rejection:
            self.refuse(rejection)
            return True
        self._exchange = exchange
        exchange.start()
        if self.state is State.BODY and self._buffer:
            data, self._buffer = self._buffer, b""
            self._read_body(data)
        return True

    def _check_partial(self, buffer: bytes) -> None:
        if has_lone_lf(buffer):
            raise BadMessage("bad_line_end", "a line ends in a bare LF")
        if len(buffer) > self._limits.head:
            raise self._too_long(buffer)
        first = buffer.lstrip(b"\r\n")[:1]
        if first and not first.isalpha():
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
                self._wait(self._limits.answer_time)
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
        self._body_paused = self._ahead_paused = False
        self._wait(self._limits.head_time if self._buffer else self._limits.idle_time)
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
        self.transport.abortConnection()  # type: ignore[union-attr]

    def _linger(self, patience: float) -> None:
        """Let the client read the answer although it still sends (RFC 9112 section 9.6)."""
        transport: Any = self.transport
        self._leave(patience)
        self._body_paused = self._ahead_paused = False
        self._set_reading()
        if self.secure:
            transport.loseConnection()
        else:
            transport.loseWriteConnection()

    def _leave(self, patience: float) -> None:
        self.state = State.CLOSING
        self._buffer = b""
        self._wait(patience)
        self.transport.unregisterProducer()  # type: ignore[union-attr]

    def _set_reading(self) -> None:
        transport: Any = self.transport
        if self._body_paused or self._ahead_paused:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    def _progress(self) -> None:
        tunnel = self.state is State.TUNNEL
        self._wait(self._limits.tunnel_time if tunnel else self._limits.stall_time)

    def _wait(self, seconds: float) -> None:
        self.deadline = self._gateway.clock.seconds() + seconds

    def _write(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self.transport.write(data)  # type: ignore[union-attr]

    def _finish_record(self, reason: str | None) -> None:
        record, self.record = self.record, None
        if record is not None:
            self._gateway.finished(self, record, reason)
