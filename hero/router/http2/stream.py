"""One request of an HTTP/2 connection, and its answer.

::

    waiting for the answer ──answer begun──> answering ──END_STREAM sent──> over
      │        └──101──> tunnel ──both ends done───────────────────────────┘
      └──refused, malformed──> the router's own answer ────────────────────┘

Any of them ends early when either side resets. The body of the request comes meanwhile, or has
come; a client that still sends when all was answered may do so within the window that it has, and
is told to stop after a while. To tell it at once is allowed, but clients that are about to send
then lose the answer (curl 7.88 does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes
from zope.interface import implementer

from hero.router.access_log import Record
from hero.router.errors import BadMessage, Rejection
from hero.router.exchange import Exchange
from hero.router.head import Framing, ResponseHead
from hero.router.http2.outbox import Outgoing
from hero.router.http2.translation import (
    CONNECTION_SPECIFIC,
    Pair,
    answer_pairs,
    check_pair,
    write_request,
)
from hero.router.http2.websocket import accepts
from hero.router.interfaces import IAnswerSink
from hero.router.limits import Limits
from hero.router.problem import problem_fields
from hero.router.request import Request

if TYPE_CHECKING:
    from hero.router.http2.connection import Http2Connection

#: Above the first the service is made to wait, until no more than the second is left.
_FULL, _LOW = 65536, 16384


@implementer(IAnswerSink)
class Stream:
    """Carries what the stream *number* of *connection* asks to the gateway, and the answer back."""

    raw_chunks = False

    def __init__(self, connection: Http2Connection, number: int) -> None:
        self._connection = connection
        self._limits = connection.limits
        self.number = number
        self.outgoing = Outgoing()
        self.in_turn = False
        self.deadline = math.inf
        self.record: Record | None = None
        self.tunnel = False
        self._request: Request | None = None
        self._exchange: Exchange | None = None
        #: Bytes of the body that are still to come; None where only the client knows.
        self._left: int | None = 0
        self._received = 0
        self._key: bytes | None = None
        self._early: list[bytes] = []
        self._client_ended = False
        self._begun = self._answered = False
        self._reason: str | None = None
        self._excuse = ErrorCodes.NO_ERROR
        self._body_paused = self._answer_paused = False
        self._unacknowledged = 0

    # From the client.

    def asked(self, pairs: Sequence[Pair], *, ended: bool) -> None:
        """The field list of the request has come; *ended*: without a body."""
        connection = self._connection
        self._client_ended = ended
        try:
            asked = write_request(pairs, ended=ended, longest=self._limits.head)
            request = connection.read_request(asked.block)
        except Rejection as rejection:
            self.refuse(rejection)
            return
        self._request = request
        self._key = asked.key
        self._left = None if asked.chunked else request.head.length
        self.record = connection.record(request)
        self.record.bytes_in = len(asked.block)
        quick = ended or self._key is not None
        self._wait(self._limits.answer_time if quick else self._limits.stall_time)
        try:
            self._exchange = connection.exchange(self, request, self.record)
        except Rejection as rejection:
            self.refuse(rejection)
            return
        self._exchange.start()

    def body(self, data: bytes, flow: int, *, ended: bool) -> None:
        """A part of the body, or of what goes through a tunnel. *flow* is its cost in windows."""
        self._client_ended = ended
        self._received += len(data)
        if self.record is not None:
            self.record.bytes_in += len(data)
        exchange = self._exchange
        if exchange is None:
            self._connection.discard(flow)
            if ended and self._answered:
                self._drop(None)
            return
        self._unacknowledged += flow
        if self.tunnel:
            self._progress()
            if data:
                exchange.tunnel_data(data)
            if ended:
                exchange.tunnel_end()
        elif self._key is not None:
            # Nothing is a tunnel before the service says so. What the window allows is kept.
            self._early.append(data)
            return
        else:
            self._pass_on(exchange, data, ended=ended)
        if not self._body_paused:
            self._acknowledge()

    def trailers(self, pairs: Sequence[Pair]) -> None:
        """The end of the body, with trailers."""
        try:
            for name, value in pairs:
                check_pair(name, value)
        except BadMessage as error:
            self.refuse(error)
            return
        self.body(b"", 0, ended=True)

    def cancelled(self) -> None:
        """The stream is no more: the client reset it, or the connection is lost."""
        self._drop(None if self.tunnel else self._reason or "client_gone")

    # From the connection.

    def late(self) -> None:
        """What was waited for did not come in time."""
        if self._answered:
            self._reset(ErrorCodes.NO_ERROR, None)
        elif self.tunnel:
            self._reset(ErrorCodes.CANCEL, "tunnel_idle")
        elif self._begun:
            waits_for_client = self.outgoing.size or self._exchange is None
            if waits_for_client and self._connection.still_reads():
                self._wait(self._limits.stall_time)
                return
            reason = "client_timeout" if waits_for_client else "upstream_timeout"
            self._reset(ErrorCodes.INTERNAL_ERROR, reason)
        elif self._client_ended or self._body_paused or self._key is not None:
            self.refuse(Rejection(504, "upstream_timeout", "the service does not answer"))
        else:
            self.refuse(Rejection(408, "body_timeout", "the body came too slowly"))

    def sent(self, count: int, *, last: bool) -> None:
        """*count* bytes of the answer left; the *last* ones, or not."""
        self._connection.sent(count)
        self._progress()
        if last:
            if self._exchange is None:
                self._complete()
        elif self._answer_paused and self.outgoing.size <= _LOW and self._exchange is not None:
            self._answer_paused = False
            self._exchange.resume_answer()

    # `IAnswerSink`: from the exchange.

    def under_way(self, limits: Limits) -> None:
        self._limits = limits
        self._wait(limits.answer_time)

    def informational(self, head: ResponseHead) -> None:
        if not self._begun:
            self._wait(self._limits.answer_time)
            self._connection.send_pairs(self.number, answer_pairs(head, b""))

    def start_answer(self, head: ResponseHead, data: bytes) -> None:
        record = self.record
        assert record is not None
        if self._key is not None and head.status < 300:
            # To the client it would mean that the WebSocket is open (RFC 8441 section 5).
            self.refuse(_no_websocket("it answered, and did not change the protocol"))
            return
        self._begun = True
        record.status = head.status
        self._progress()
        whole = head.framing is Framing.NONE
        pairs = answer_pairs(head, record.request_id.encode(), self._connection.date())
        self._send_pairs(pairs, last=whole)
        if data:
            self.answer_data(data)

    def whole_answer(self, head: ResponseHead, data: bytes) -> None:
        self.start_answer(head, data)
        if self._reason is None:  # otherwise it was refused, and all is said
            self.finish_answer()

    def answer_data(self, data: bytes) -> None:
        if self.outgoing.size < _FULL:
            self._progress()
        self._put(data)
        full = self.outgoing.size > _FULL or self._connection.full
        if full and not self._answer_paused and self._exchange is not None:
            self._answer_paused = True
            self._exchange.pause_answer()

    def finish_answer(self) -> None:
        self._note_upstream()
        self._exchange = None
        self._end()

    def abort_answer(self, reason: str) -> None:
        self._exchange = None
        self._reset(ErrorCodes.INTERNAL_ERROR, reason)

    def refuse(self, rejection: Rejection) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        malformed = isinstance(rejection, BadMessage)
        self._excuse = ErrorCodes.PROTOCOL_ERROR if malformed else ErrorCodes.NO_ERROR
        if self._begun:
            code = self._excuse if malformed else ErrorCodes.INTERNAL_ERROR
            self._reset(code, rejection.reason)
        else:
            self._answer_with(rejection)
        if malformed and exchange is not None:
            self._connection.provoked()

    def switch(self, head: ResponseHead) -> None:
        exchange, record = self._exchange, self.record
        assert exchange is not None and record is not None
        if self._key is None or not accepts(head.fields, self._key):
            self.refuse(_no_websocket("it accepted another key than was sent"))
            return
        self._begun = self.tunnel = record.tunnel = True
        self._note_upstream()
        record.status = 200
        pairs = answer_pairs(head, b"")[1:]
        kept = [pair for pair in pairs if pair[0] != b"sec-websocket-accept"]
        self._send_pairs([(b":status", b"200"), *kept], last=False)
        self._progress()
        early, self._early = b"".join(self._early), []
        if early:
            exchange.tunnel_data(early)
        if not self._body_paused:
            self._acknowledge()
        if self._client_ended:
            exchange.tunnel_end()

    def tunnel_end(self) -> None:
        self._progress()
        self._end()

    def close_tunnel(self) -> None:
        self._exchange = None
        self._end()

    def pause_body(self) -> None:
        self._body_paused = True

    def resume_body(self) -> None:
        self._body_paused = False
        if self._exchange is not None and self._request is not None:
            if self._begun:
                self._progress()
            else:
                self._wait(self._limits.answer_time)
        if self._key is None or self.tunnel:
            self._acknowledge()

    # Within.

    def _pass_on(self, exchange: Exchange, data: bytes, *, ended: bool) -> None:
        if not self._begun:
            self._wait(self._limits.answer_time if ended else self._limits.stall_time)
        most = self._limits.body
        if most is not None and self._received > most:
            self.refuse(Rejection(413, "body_too_large", f"the body is longer than {most} bytes"))
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (ended and self._left):
                self.refuse(BadMessage("bad_framing", "the body has not the length it promised"))
                return
            if not self._received:
                return  # there is none
        elif data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is None and ended:
            data += b"0\r\n\r\n"
        if data or ended:
            exchange.body_data(data, last=ended)

    def _answer_with(self, rejection: Rejection) -> None:
        request = self._request
        if self.record is None:
            self.record = self._connection.record(None)
        self.record.status = rejection.status
        self._reason = rejection.reason
        self._begun = True
        accept = request.head.values(b"accept") if request is not None else []
        fields, body = problem_fields(
            rejection, request_id=self.record.request_id, accept=b",".join(accept)
        )
        pairs = [(name.lower(), value) for name, value in fields]
        pairs = [pair for pair in pairs if pair[0] not in CONNECTION_SPECIFIC]
        whole = request is not None and request.head.method == b"HEAD"
        self._wait(self._limits.stall_time)
        self._send_pairs([(b":status", b"%d" % rejection.status), *pairs], last=whole)
        if not whole:
            self._put(body)
        self._end()
        if rejection.close and rejection.status in (401, 403):
            # It is the connection's certificate that does not hold.
            self._connection.stopping()

    def _put(self, data: bytes) -> None:
        if self.record is not None:
            self.record.bytes_out += len(data)
        self.outgoing.put(data)
        self._connection.holds(len(data))
        self._connection.ready(self)

    def _note_upstream(self) -> None:
        if self.record is not None and self._exchange is not None:
            self.record.upstream_seconds = self._exchange.upstream_seconds

    def _send_pairs(self, pairs: list[Pair], *, last: bool) -> None:
        assert self.record is not None
        self.record.bytes_out += sum(len(name) + len(value) for name, value in pairs)
        self._connection.send_pairs(self.number, pairs, last=last)
        self.outgoing.done = last

    def _end(self) -> None:
        """Nothing more will be put into the answer."""
        if self.outgoing.done:
            if self._exchange is None:
                self._complete()
            return
        self.outgoing.ended = True
        self._connection.ready(self)

    def _complete(self) -> None:
        """All was sent. A client that still sends has no reason to (RFC 9113 section 8.1)."""
        if self._client_ended:
            self._drop(self._reason)
        elif self._excuse is not ErrorCodes.NO_ERROR:
            self._reset(self._excuse, self._reason)
        else:
            self._answered = True
            self._finish_record(self._reason)
            self._wait(self._limits.linger_time)

    def _reset(self, code: ErrorCodes, reason: str | None) -> None:
        """Make sure that nobody takes what was sent for the whole answer."""
        self._connection.reset(self.number, code)
        self._drop(reason)

    def _drop(self, reason: str | None) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        self._connection.holds(-self.outgoing.size)
        self.outgoing.drop()
        self._early = []
        self._acknowledge()
        self._finish_record(reason)
        self._connection.over(self)

    def _finish_record(self, reason: str | None) -> None:
        record, self.record = self.record, None
        if record is not None:
            self._connection.finished(record, reason)

    def _acknowledge(self) -> None:
        count, self._unacknowledged = self._unacknowledged, 0
        if count:
            self._connection.acknowledge(count, self.number)

    def _progress(self) -> None:
        limits = self._limits
        if not self.tunnel:
            self._wait(limits.stall_time)
        elif self._client_ended or self.outgoing.ended:
            self._wait(limits.half_closed_time)
        else:
            self._wait(limits.tunnel_time)

    def _wait(self, seconds: float) -> None:
        self.deadline = self._connection.soon(seconds)


def _no_websocket(why: str) -> Rejection:
    return Rejection(502, "upstream_bad_answer", f"the service opened no WebSocket: {why}")
