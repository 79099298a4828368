"""Events from the explorer's socket to a browser, with back-pressure all the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import attrs
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from twisted.web.server import Request

from hero.errors import LimitExceeded, Unavailable
from hero.rpc.endpoints import ServiceEndpointFactory
from hero.rpc.pool import BoundedPool
from hero.ui.visitor import Visitor

#: Seconds for the explorer to answer at all.
_ANSWER_WITHIN = 10.0

#: Seconds after which a stream ends. The browser comes back for the next one, with the id of the
#: last event that it saw, and shows its cookie again: a session that has ended sees no more.
_LIFE = 300.0

#: Browsers at a time.
_MOST_STREAMS = 200


class Events(Protocol):
    """Where live events come from."""

    async def stream(self, request: Request, visitor: Visitor) -> None:
        """Answer *request* with the events that *visitor* may see; returns when they flow."""


@attrs.define
class EventRelay:
    """Passes on the events of the explorer that *agent* reaches."""

    _reactor: Any
    _agent: Agent
    _streams: int = 0

    @classmethod
    def on_socket(cls, reactor: Any, socket: Path) -> EventRelay:
        """A relay for the explorer that listens on *socket*."""
        factory = ServiceEndpointFactory(reactor, socket)
        pool = BoundedPool(reactor, persistent=False)
        return cls(reactor, Agent.usingEndpointFactory(reactor, factory, pool=pool))

    async def stream(self, request: Request, visitor: Visitor) -> None:
        if self._streams >= _MOST_STREAMS:
            raise LimitExceeded("too many pages are open", retry_after=5)
        self._streams += 1
        finished = request.notifyFinish()
        finished.addBoth(self._ended)
        headers = Headers({name: [value] for name, value in visitor.headers.items()})
        headers.setRawHeaders("X-Hero-Context", [visitor.context])
        headers.setRawHeaders("Accept", ["text/event-stream"])
        last = request.getHeader("Last-Event-ID")
        if last is not None and last.isdecimal():
            headers.setRawHeaders("Last-Event-ID", [last])
        asked: Deferred[IResponse] = self._agent.request(
            b"GET", b"http://localhost/events", headers
        )
        asked.addTimeout(_ANSWER_WITHIN, self._reactor)
        try:
            response = await asked
        except Exception as error:
            raise Unavailable("the explorer sends no events at present", retry_after=3) from error
        if response.code != 200:
            response.deliverBody(_Discard())
            raise Unavailable(f"the explorer refused its events: {response.code}", retry_after=3)
        request.setHeader("Content-Type", "text/event-stream")
        request.setHeader("X-Accel-Buffering", "no")
        stream = _Stream(request)
        response.deliverBody(stream)
        end = self._reactor.callLater(_LIFE, stream.close)
        request.notifyFinish().addBoth(lambda _: end.cancel() if end.active() else None)
        request.notifyFinish().addErrback(lambda _: stream.close())

    def _ended(self, _: object) -> None:
        self._streams -= 1


class _Stream(protocol.Protocol):
    """The body of the explorer's answer, on its way to *request*."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._open = True
        self._gone = False
        request.notifyFinish().addErrback(self._left)

    def connectionMade(self) -> None:
        self._request.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        if not self._gone:
            self._request.write(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._open = False
        if not self._gone:
            self._request.unregisterProducer()
            self._request.finish()

    def close(self) -> None:
        """End the stream; the connection to the explorer goes."""
        if self._open:
            assert self.transport is not None
            self.transport.loseConnection()

    def _left(self, _: object) -> None:
        self._gone = True


class _Discard(protocol.Protocol):
    """An answer that nobody reads."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
