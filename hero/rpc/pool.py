"""Kept connections of an HTTP client, on which the head of an answer is bounded.

Twisted's client bounds a line, and not how many there are.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.iweb import IResponse

from hero.errors import LimitExceeded

#: Bytes of an answer's status line and fields, at most (give or take one read).
MAX_HEAD = 64 * 1024


class _Connection(HTTP11ClientProtocol):
    #: Bytes that have come of the head that is awaited; None while none is.
    _head: int | None = None

    def request(self, request: Any) -> Deferred[IResponse]:
        self._head = 0
        answer = super().request(request)
        answer.addBoth(self._arrived)
        return answer

    def dataReceived(self, data: bytes) -> None:
        if self._head is not None:
            if self._head > MAX_HEAD:
                error = LimitExceeded(f"the head of the answer has more than {MAX_HEAD} bytes")
                self._giveUp(Failure(error))  # type: ignore[no-untyped-call]
                return
            self._head += len(data)
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def _arrived(self, answer: Any) -> Any:
        self._head = None
        return answer


class _ConnectionFactory(_HTTP11ClientFactory):
    noisy = False

    def buildProtocol(self, addr: Any) -> HTTP11ClientProtocol:
        return _Connection(self._quiescentCallback)  # type: ignore[no-untyped-call]


class BoundedPool(HTTPConnectionPool):
    """A pool of such connections."""

    _factory = _ConnectionFactory

    def __init__(self, reactor: Any, persistent: bool) -> None:
        super().__init__(reactor, persistent)  # type: ignore[no-untyped-call]

    def closeCachedConnections(self) -> Deferred[None]:
        """Close the connections that are kept; fires when they are gone."""
        closed: Deferred[None] = super().closeCachedConnections()  # type: ignore[no-untyped-call]
        return closed
