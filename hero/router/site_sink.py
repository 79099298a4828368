"""Answering a `twisted.web` request with a service's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from hero.router.errors import Rejection
from hero.router.head import ResponseHead
from hero.router.interfaces import IAnswerSink
from hero.router.limits import Limits
from hero.router.problem import problem_body

if TYPE_CHECKING:
    from hero.router.exchange import Exchange

_PIECE = 65536
_FRAMED_HERE = (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer")


@implementer(IAnswerSink, IPushProducer)
class SiteSink:
    """Gives the answer of an exchange to *request*, with back-pressure both ways."""

    raw_chunks = False

    def __init__(self, reactor: Any, request: Request, limits: Limits, request_id: str) -> None:
        self._reactor = reactor
        self._request = request
        self._limits = limits
        self._request_id = request_id
        self._exchange: Exchange | None = None
        self._timer: IDelayedCall | None = None
        self._sending = False

    def run(self, exchange: Exchange) -> None:
        """Start *exchange* and send it the request's body."""
        self._exchange = exchange
        self._request.notifyFinish().addErrback(self._gone)
        self._request.registerProducer(self, True)
        self._timer = self._reactor.callLater(self._limits.answer_time, self._late)
        exchange.start()
        self._sending = True
        self.resume_body()

    def under_way(self, limits: Limits) -> None:
        self._limits = limits
        if self._timer is not None:
            self._timer.reset(limits.answer_time)

    def informational(self, head: ResponseHead) -> None:
        """`twisted.web` answers ``Expect`` by itself."""

    def start_answer(self, head: ResponseHead, data: bytes) -> None:
        self._progress()
        self._request.setResponseCode(head.status, head.reason or None)
        for lower, name, value in head.fields:
            if lower not in _FRAMED_HERE and lower not in head.options:
                self._request.responseHeaders.addRawHeader(name, value)
        if data:
            self._request.write(data)

    def whole_answer(self, head: ResponseHead, data: bytes) -> None:
        self.start_answer(head, data)
        self.finish_answer()

    def answer_data(self, data: bytes) -> None:
        self._progress()
        self._request.write(data)

    def finish_answer(self) -> None:
        self._end()
        self._request.unregisterProducer()
        self._request.finish()

    def abort_answer(self, reason: str) -> None:
        self._end()
        self._request.unregisterProducer()
        self._request.loseConnection()

    def refuse(self, rejection: Rejection) -> None:
        self._end()
        accept = self._request.getHeader(b"accept") or b""
        kind, body = problem_body(rejection, request_id=self._request_id, accept=accept)
        self._request.setResponseCode(rejection.status)
        for name, value in {b"content-type": kind, **rejection.headers}.items():
            self._request.setHeader(name, value)
        self._request.unregisterProducer()
        self._request.write(b"" if self._request.method == b"HEAD" else body)
        self._request.finish()

    def switch(self, head: ResponseHead) -> None:
        raise AssertionError("an Upgrade is never forwarded from a Site")

    def tunnel_end(self) -> None:
        raise AssertionError("an Upgrade is never forwarded from a Site")

    def close_tunnel(self) -> None:
        raise AssertionError("an Upgrade is never forwarded from a Site")

    def pause_body(self) -> None:
        self._sending = False

    def resume_body(self) -> None:
        content = self._request.content
        self._sending = self._sending or self._timer is not None
        while self._sending and self._exchange is not None and content is not None:
            piece = content.read(_PIECE)
            last = len(piece) < _PIECE
            self._exchange.body_data(piece, last=last)
            if last:
                return

    def pauseProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.pause_answer()

    def resumeProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.resume_answer()

    def stopProducing(self) -> None:
        """`notifyFinish` tells as well."""

    def _progress(self) -> None:
        if self._timer is not None:
            self._timer.reset(self._limits.stall_time)

    def _late(self) -> None:
        self._timer = None
        exchange = self._exchange
        if exchange is not None:
            exchange.abandon()
        if self._request.startedWriting:
            self.abort_answer("upstream_timeout")
        else:
            self.refuse(Rejection(504, "upstream_timeout", "the service does not answer"))

    def _gone(self, failure: Failure) -> None:
        exchange = self._exchange
        self._end()
        if exchange is not None:
            exchange.abandon()

    def _end(self) -> None:
        self._exchange = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
