"""Asking a service for ``/.well-known/heroservice.json``, and seeing whether somebody listens."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from hero.errors import Timeout
from hero.router.errors import BadAnswer
from hero.router.head import ResponseHead
from hero.router.limits import Limits
from hero.router.manifest import Manifest, parse_manifest, starts_like_one
from hero.router.pool import UpstreamPool
from hero.router.upstream import UpstreamConnection

_REQUEST = (
    b"GET /.well-known/heroservice.json HTTP/1.1\r\n"
    b"Host: hero\r\nAccept: application/json\r\n"
    b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: hero\r\n"
    b"X-Hero-User: anonymous\r\nX-Hero-Claims: \r\n\r\n"
)


def fetch_manifest(clock: Any, pool: UpstreamPool, limits: Limits) -> Deferred[Manifest | None]:
    """Ask the service for its manifest; None where it has none.

    Fails with what connecting failed with, `hero.errors.Timeout`, or `BadAnswer` for a manifest
    that cannot be read.
    """
    fetch = _Fetch(limits.manifest)
    timer = clock.callLater(limits.manifest_time, fetch.late)
    connecting = pool.connect()
    fetch.connecting = connecting
    connecting.addCallbacks(fetch.connected, fetch.failed)

    def done(result: Any) -> Any:
        if timer.active():
            timer.cancel()
        return result

    return fetch.result.addBoth(done)


async def look_whether_somebody_listens(pool: UpstreamPool) -> None:
    """Connect, and close again. Raises what connecting fails with."""
    (await pool.connect()).abort()


class _Fetch:
    """Reads one small answer; an `hero.router.upstream.AnswerReader`."""

    method = b"GET"
    raw_chunks = False

    def __init__(self, limit: int) -> None:
        self.result: Deferred[Manifest | None] = Deferred()
        self.connecting: Deferred[UpstreamConnection] | None = None
        self._upstream: UpstreamConnection | None = None
        self._limit = limit
        self._status = 0
        self._body = b""
        self._done = False

    def connected(self, upstream: UpstreamConnection) -> None:
        self.connecting = None
        if self._done:
            upstream.abort()
            return
        self._upstream = upstream
        upstream.begin(self, _REQUEST, whole=True)

    def failed(self, failure: Failure) -> None:
        self.connecting = None
        self._finish(failure)

    def late(self) -> None:
        if self._upstream is not None:
            self._upstream.abort()
        self._finish(Failure(Timeout("the service did not tell its manifest in time")))
        if self.connecting is not None:
            self.connecting.cancel()

    def informational(self, head: ResponseHead) -> None:
        """Nothing to pass on."""

    def service_ended(self) -> None:
        """It never becomes a tunnel."""

    def switched(self, head: ResponseHead) -> None:
        raise BadAnswer("it switches to a protocol that nobody asked for")

    def answer_started(self, head: ResponseHead, data: bytes) -> None:
        self._status = head.status
        self.answer_data(data)

    def answered(self, head: ResponseHead, data: bytes) -> None:
        self.answer_started(head, data)
        self.answer_finished()

    def answer_data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._limit:
            raise BadAnswer(f"its manifest is longer than {self._limit} bytes")

    def answer_finished(self) -> None:
        if self._status >= 500 and self._status != 501:  # 501: it knows no GET at all
            self._finish(Failure(BadAnswer(f"its manifest: status {self._status}")))
            return
        if self._status != 200:
            self._finish(None)
            return
        try:
            self._finish(parse_manifest(self._body))
        except BadAnswer as error:
            # A web server that answers everything with its start page has no manifest.
            self._finish(Failure(error) if starts_like_one(self._body) else None)

    def upstream_failed(self, error: BadAnswer) -> None:
        self._finish(Failure(error))

    def upstream_lost(self, *, silent: bool, reused: bool) -> None:
        self._finish(Failure(BadAnswer("it closed before its manifest was complete")))

    def upstream_full(self) -> None:
        """The request is short."""

    def upstream_ready(self) -> None:
        """The request is short."""

    def _finish(self, result: Any) -> None:
        if not self._done:
            self._done = True
            self.result.callback(result)
