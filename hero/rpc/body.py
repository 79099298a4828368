"""Requests whose body is bounded before it is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from hero.rpc.problems import PROBLEM_TYPE, problem

#: Bytes of a request's body, at most.
MAX_BODY = 4 * 1024 * 1024

#: Seconds for which the rest of a refused body is read and thrown away. A peer that is still
#: sending when the connection closes may never see the answer (RFC 9112 section 9.6).
_LINGER = 5.0


class BoundedRequest(Request):
    """A request that is answered with 413 as soon as its body is known to be too large.

    That is before the body is read where ``Content-Length`` says so, and else at the chunk that
    is one too many. The connection is closed after it.
    """

    _refused = False
    _linger: IDelayedCall | None = None
    _content_types: Sequence[bytes] = ()

    def gotLength(self, length: int | None) -> None:
        """The header has arrived; *length* is None for a chunked body."""
        if length is not None and length > MAX_BODY:
            self._refuse()
        else:
            super().gotLength(length)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body has arrived."""
        if self._refused:
            return
        assert self.content is not None
        if self.content.tell() + len(data) > MAX_BODY:
            self._refuse()
        else:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of the body has arrived."""
        if self._refused:
            self.channel.loseConnection()
            return
        # Twisted would take the body for a web form here, and parse it, however large.
        self._content_types = self.requestHeaders.getRawHeaders(b"Content-Type", [])
        self.requestHeaders.removeHeader(b"Content-Type")
        super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]

    def process(self) -> None:
        """Find the resource and let it answer."""
        self.requestHeaders.setRawHeaders(b"Content-Type", self._content_types)
        super().process()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any) -> None:
        """The peer has gone."""
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def _refuse(self) -> None:
        self._refused = True
        self.content = BytesIO()
        # Twisted would ask for the body after the answer that refuses it.
        self.requestHeaders.removeHeader(b"Expect")
        body = problem(413, "body_too_large", f"a body may have {MAX_BODY} bytes at most")
        headers = Headers(
            {
                "Content-Type": [PROBLEM_TYPE],
                "Content-Length": [str(len(body))],
                "Connection": ["close"],
            }
        )
        self.channel.writeHeaders(b"HTTP/1.1", b"413", b"Content Too Large", headers)
        self.channel.write(body)
        self._linger = self.channel.callLater(_LINGER, self.channel.forceAbortClient)
