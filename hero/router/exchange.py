"""One request on its way to a service, and the answer on its way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from hero.router.errors import BadAnswer, Rejection
from hero.router.forwarding import with_prefix
from hero.router.head import RequestHead, ResponseHead
from hero.router.interfaces import IAnswerReader, IUpstreamUser
from hero.router.limits import Limits
from hero.router.model import RouteState
from hero.router.upstream import UpstreamConnection

if TYPE_CHECKING:
    from hero.router.proxy import ReverseProxyResource

#: RFC 9110 section 9.2.2
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})


@implementer(IAnswerReader, IUpstreamUser)
class Exchange:
    """Carries one request to the service of *route* and the answer to *sink*.

    *wire* is the head to send, *upgrade* the protocol that it asks for. *admit* is called when
    the route's manifest is known, and raises `Rejection` to stop there. ``upstream_seconds`` is
    how long the service took to begin its answer.
    """

    __slots__ = (
        "_admit",
        "_asked_at",
        "_client_ended",
        "_held",
        "_length",
        "_now",
        "_retriable",
        "_reusable",
        "_route",
        "_service_ended",
        "_sink",
        "_started",
        "_tunnel",
        "_upgrade",
        "_upstream",
        "_whole",
        "_whole_timer",
        "_wire",
        "limits",
        "method",
        "raw_chunks",
        "upstream_seconds",
    )

    def __init__(
        self,
        route: ReverseProxyResource,
        sink: Any,
        head: RequestHead,
        wire: bytes,
        upgrade: bytes | None,
        admit: Callable[[], None] | None,
    ) -> None:
        self._route = route
        self._now = route.reactor.seconds
        self._sink = sink
        self._wire = wire
        self._admit = admit
        self._upstream: UpstreamConnection | None = None
        self._held: list[bytes] | None = None
        whole = self._whole = not head.has_body
        self._retriable = whole and head.method in _IDEMPOTENT
        self._reusable = not head.has_odd_body
        self._length = head.length
        self._upgrade = upgrade
        self._started = self._tunnel = False
        self._service_ended = self._client_ended = False
        self._whole_timer: IDelayedCall | None = None
        self._asked_at = 0.0
        self.upstream_seconds: float | None = None
        self.limits: Limits = route.limits
        self.method = head.method
        self.raw_chunks: bool = sink.raw_chunks

    # What the client's side does.

    def start(self) -> None:
        """Begin: look whether the caller is admitted, then find a connection."""
        route = self._route
        route.active += 1
        route.requests += 1
        if route.listening:
            self._known()
        else:
            route.when_known(self._known)

    def body_data(self, data: bytes, *, last: bool) -> None:
        """Pass on a part of the request's body, framed as it goes to the service."""
        if self._upstream is None:
            if self._held is None:
                self._held = []
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

    def tunnel_end(self) -> None:
        """The client sends no more, after the protocol was switched; it may still read."""
        self._client_ended = True
        if self._service_ended:
            self._close_tunnel()
        elif self._upstream is not None:
            self._upstream.end_sending()

    def pause_answer(self) -> None:
        """The client reads too slowly."""
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_answer(self) -> None:
        """The client has read what was sent."""
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

    # What the service's side does: `IAnswerReader`.

    def informational(self, head: ResponseHead) -> None:
        if self._sink is not None:
            self._sink.informational(head)

    def answer_started(self, head: ResponseHead, data: bytes) -> None:
        self._started = True
        self.upstream_seconds = self._now() - self._asked_at
        if self._sink is not None:
            self._sink.start_answer(head, data)

    def answered(self, head: ResponseHead, data: bytes) -> None:
        self.upstream_seconds = self._now() - self._asked_at
        sink, self._sink = self._sink, None
        if sink is not None:
            self._upstream = None
            self._route.active -= 1
            if self._whole_timer is not None:
                self._stop_timer()
            sink.whole_answer(head, data)

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
        self.upstream_seconds = self._now() - self._asked_at
        self._stop_timer()
        if self._sink is not None:
            self._sink.switch(head)

    def service_ended(self) -> None:
        self._service_ended = True
        if self._client_ended:
            self._close_tunnel()
        elif self._sink is not None:
            self._sink.tunnel_end()

    def upstream_failed(self, error: BadAnswer) -> None:
        self._fail("upstream_bad_answer", f"the service's answer cannot be passed on: {error}")

    def upstream_lost(self, *, silent: bool, reused: bool) -> None:
        self._upstream = None
        if self._tunnel:
            self._close_tunnel()
        elif silent and reused and self._retriable:
            # It died while nobody used it. This one is idempotent and has no body: ask again.
            self._retriable = False
            self._route.pool.retried += 1
            self._route.pool.acquire(self, fresh=True)
        else:
            self._fail("upstream_closed_early", "the service closed before its answer was complete")

    def upstream_full(self) -> None:
        if self._sink is not None:
            self._sink.pause_body()

    def upstream_ready(self) -> None:
        if self._sink is not None:
            self._sink.resume_body()

    # What the pool does: `IUpstreamUser`.

    def connected(self, upstream: UpstreamConnection) -> None:
        if not self._taken(upstream):
            return
        wire = self._wire
        if self._route.keeps_prefix:
            wire = with_prefix(wire, self._route.prefix)
        upstream.begin(self, wire, whole=self._whole and self._reusable)
        if self._held is not None:
            held, self._held = self._held, None
            for data in held:
                upstream.send(data)
            if self._sink is not None:
                self._sink.resume_body()

    def not_connected(self, why: str) -> None:
        self._route.refused()
        self._refuse(self._unreachable(why))

    def crowded(self, why: str) -> None:
        self._refuse(Rejection(503, "upstream_busy", why, headers={b"Retry-After": b"1"}))

    # Within.

    def _taken(self, upstream: UpstreamConnection) -> bool:
        """Take *upstream* over, unless nobody wants it any more."""
        if self._sink is None:
            upstream.abort()
            return False
        route = self._route
        if route.state is not RouteState.UP:
            route.answered()
        self._upstream = upstream
        self._asked_at = self._now()
        return True

    def _known(self) -> None:
        """What the service says of itself is known, as far as it will be."""
        route = self._route
        if self._sink is None:
            return
        limits = self.limits = route.limits
        try:
            self._check()
        except Rejection as rejection:
            self._refuse(rejection)
            return
        self._sink.under_way(limits)
        if limits.whole_time is not None:
            self._whole_timer = route.reactor.callLater(limits.whole_time, self._too_long)
        self._acquire()

    def _check(self) -> None:
        """Raise `Rejection` where the request is not to reach the service."""
        route, limits = self._route, self.limits
        if not route.listening:
            raise self._unreachable(route.reason or "it does not answer")
        if self._admit is not None:
            self._admit()
        if limits.body is not None and self._length > limits.body:
            raise Rejection(
                413, "body_too_large", f"the body is longer than {limits.body} bytes", close=True
            )

    def _acquire(self) -> None:
        self._route.pool.acquire(self)

    def _too_long(self) -> None:
        self._whole_timer = None
        upstream = self._upstream
        self._fail("upstream_timeout", "the service took too long with its answer", status=504)
        if upstream is not None:
            upstream.abort()

    def _unreachable(self, why: str) -> Rejection:
        return Rejection(
            503,
            "upstream_refused",
            f"the service at {self._route.prefix} is down: {why}",
            headers={b"Retry-After": b"1"},
        )

    def _fail(self, reason: str, detail: str, *, status: int = 502) -> None:
        if self._started:
            sink = self._sink
            self._end()
            if sink is not None:
                sink.abort_answer(reason)
        else:
            self._refuse(Rejection(status, reason, detail))

    def _refuse(self, rejection: Rejection) -> None:
        sink = self._sink
        self._end()
        if sink is not None:
            sink.refuse(rejection)

    def _close_tunnel(self) -> None:
        sink = self._sink
        upstream = self._end()
        if upstream is not None:
            upstream.close()
        if sink is not None:
            sink.close_tunnel()

    def _end(self) -> UpstreamConnection | None:
        """Be done with it. Returns the connection that was in use, if it still is."""
        upstream, self._upstream = self._upstream, None
        if self._sink is not None:
            self._sink = None
            self._route.active -= 1
            if upstream is None:
                self._route.pool.cancel(self)
            self._stop_timer()
        return upstream

    def _stop_timer(self) -> None:
        timer, self._whole_timer = self._whole_timer, None
        if timer is not None and timer.active():
            timer.cancel()
