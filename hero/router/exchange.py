"""One request on its way to a service, and the answer on its way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.python.failure import Failure

from hero.router.errors import BadAnswer, Rejection
from hero.router.forwarding import upgrade_of
from hero.router.head import RequestHead, ResponseHead
from hero.router.interfaces import IAnswerSink
from hero.router.upstream import UpstreamConnection

if TYPE_CHECKING:
    from hero.router.proxy import ReverseProxyResource

#: RFC 9110 section 9.2.2
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})


class Exchange:
    """Carries one request to the service of *route* and the answer to *sink*.

    *admit* is called when the route's manifest is known, and raises `Rejection` to stop there.
    """

    def __init__(
        self,
        route: ReverseProxyResource,
        sink: IAnswerSink,
        head: RequestHead,
        wire: bytes,
        admit: Callable[[], None],
    ) -> None:
        self._route = route
        self._sink: IAnswerSink | None = sink
        self._wire = wire
        self._admit = admit
        self._upstream: UpstreamConnection | None = None
        self._connecting: Deferred[UpstreamConnection] | None = None
        self._held: list[bytes] = []
        self._whole = not head.has_body
        self._retriable = self._whole and head.method in _IDEMPOTENT
        self._reusable = not head.has_odd_body
        self._upgrade = upgrade_of(head)
        self._started = False
        self._tunnel = False
        self.method = head.method
        self.raw_chunks = sink.raw_chunks

    # What the client's side does.

    def start(self) -> None:
        """Begin: look whether the caller is admitted, then find a connection."""
        self._route.active += 1
        self._route.requests += 1
        self._route.when_known(self._known)

    def body_data(self, data: bytes, *, last: bool) -> None:
        """Pass on a part of the request's body, framed as it goes to the service."""
        if self._upstream is None:
            self._held.append(data)
            self._whole = last
            if not last and self._sink is not None:
                self._sink.pause_body()
            return
        if data:
            self._upstream.send(data)
        if last and self._reusable:
            self._upstream.request_sent()

    def tunnel_data(self, data: bytes) -> None:
        """Pass on bytes after the protocol was switched."""
        if self._upstream is not None:
            self._upstream.send(data)

    def pause_answer(self) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_answer(self) -> None:
        if self._upstream is not None:
            self._upstream.resume_reading()

    def abandon(self) -> None:
        """The client is gone, or was answered otherwise: the service shall not go on."""
        upstream = self._end()
        if upstream is not None:
            if self._tunnel:
                upstream.close()
            else:
                upstream.abort()

    # What the service's side does; see `AnswerReader`.

    def informational(self, head: ResponseHead) -> None:
        if self._sink is not None:
            self._sink.informational(head)

    def answer_started(self, head: ResponseHead) -> None:
        self._started = True
        if self._sink is not None:
            self._sink.start_answer(head)

    def answer_data(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.answer_data(data)

    def answer_finished(self) -> None:
        sink = self._sink
        self._end()
        if sink is not None:
            sink.finish_answer()

    def switched(self, head: ResponseHead) -> None:
        asked, given = self._upgrade, head.upgrade
        if asked is None or given is None or asked.lower() != given.lower():
            raise BadAnswer("it switches to a protocol that nobody asked for")
        self._started = self._tunnel = True
        if self._sink is not None:
            self._sink.switch(head)

    def upstream_failed(self, error: BadAnswer) -> None:
        self._fail("upstream_bad_answer", f"the service's answer cannot be passed on: {error}")

    def upstream_lost(self, *, silent: bool, reused: bool) -> None:
        self._upstream = None
        if self._tunnel:
            sink = self._sink
            self._end()
            if sink is not None:
                sink.close_tunnel()
        elif silent and reused and self._retriable:
            # It died while nobody used it. This one is idempotent and has no body: ask again.
            self._retriable = False
            self._connect()
        else:
            self._fail("upstream_closed_early", "the service closed before its answer was complete")

    def upstream_full(self) -> None:
        if self._sink is not None:
            self._sink.pause_body()

    def upstream_ready(self) -> None:
        if self._sink is not None:
            self._sink.resume_body()

    def _known(self) -> None:
        if self._sink is None:
            return
        if not self._route.listening:
            self._refuse(self._unreachable(self._route.reason or "it does not answer"))
            return
        try:
            self._admit()
            self._route.check_capacity()
        except Rejection as rejection:
            self._refuse(rejection)
            return
        reused = self._route.pool.reuse()
        if reused is not None:
            self._connected(reused)
        else:
            self._connect()

    def _connect(self) -> None:
        self._connecting = self._route.pool.connect()
        self._connecting.addCallbacks(self._connected, self._not_connected)

    def _connected(self, upstream: UpstreamConnection) -> None:
        self._connecting = None
        if self._sink is None:
            upstream.abort()
            return
        self._route.answered()
        self._upstream = upstream
        upstream.begin(self, self._wire, whole=self._whole and self._reusable)
        held, self._held = self._held, []
        for data in held:
            upstream.send(data)
        if self._sink is not None:
            self._sink.resume_body()

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if self._sink is None:
            return
        self._route.refused()
        known = failure.check(ConnectError) is not None
        why = failure.getErrorMessage() if known else type(failure.value).__name__
        self._refuse(self._unreachable(why))

    def _unreachable(self, why: str) -> Rejection:
        return Rejection(
            503,
            "upstream_refused",
            f"the service at {self._route.prefix} is down: {why}",
            headers={b"Retry-After": b"1"},
        )

    def _fail(self, reason: str, detail: str) -> None:
        sink = self._sink
        if self._started:
            self._end()
            if sink is not None:
                sink.abort_answer(reason)
        else:
            self._refuse(Rejection(502, reason, detail))

    def _refuse(self, rejection: Rejection) -> None:
        sink = self._sink
        self._end()
        if sink is not None:
            sink.refuse(rejection)

    def _end(self) -> UpstreamConnection | None:
        """Be done with it. Returns the connection that was in use, if it still is."""
        upstream, self._upstream = self._upstream, None
        if self._sink is not None:
            self._sink = None
            self._route.active -= 1
        if self._connecting is not None:
            self._connecting.cancel()
        return upstream
