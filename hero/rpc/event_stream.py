"""``GET /events``: Server-Sent Events (https://html.spec.whatwg.org/#server-sent-events)."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from hero.errors import HeroError
from hero.events import RESET, Event, EventLog, Subscription
from hero.identity.claims import DEFAULT_CONTEXT, Access, Caller
from hero.rpc.identity import caller_from_headers
from hero.rpc.tree import Tree, problem_answer

#: Seconds between comments, which show both sides that the connection is alive.
KEEP_ALIVE = 15.0

#: Readers at once, at most.
MAX_READERS = 256

_log = Logger()


class EventsResource(Tree):
    """The events of *log*, from the one after ``Last-Event-ID``, else from now on.

    Viewers of a context see its events; administrators see all. An event ``reset`` says that
    events were lost: read the state afresh.
    """

    def __init__(self, log: EventLog, clock: IReactorTime) -> None:
        super().__init__()
        self._events = log
        self._clock = clock
        self._readers = 0

    def render_GET(self, request: Request) -> Any:
        """Stream; HEAD tells that there is a stream."""
        named = request.getHeader(b"X-Hero-Context") or b""
        context = named.decode("utf-8", "replace") or DEFAULT_CONTEXT
        caller = caller_from_headers(request.requestHeaders, context)
        try:
            caller.require(Access.VIEWER, delegable=True, what="/events")
        except HeroError as error:
            return problem_answer(request, error.http_status, error.kind, error.detail)
        if request.method == b"HEAD":
            request.setHeader("Content-Type", "text/event-stream")
            return b""
        if self._readers >= MAX_READERS:
            return problem_answer(
                request, 503, "too_many_readers", f"{MAX_READERS} clients follow events already"
            )
        self._readers += 1
        subscription = self._events.subscribe(_position(request))
        _Stream(request, caller, subscription, self._clock).start().addBoth(self._left)
        return NOT_DONE_YET

    def _left(self, _: Any) -> None:
        self._readers -= 1


@implementer(IPushProducer)
class _Stream:
    """One reader. While its transport is full it stands still in the `EventLog`."""

    def __init__(
        self, request: Request, caller: Caller, subscription: Subscription, clock: IReactorTime
    ) -> None:
        self._request = request
        self._caller = caller
        self._subscription = subscription
        self._alive = LoopingCall(self._keep_alive)
        self._alive.clock = clock
        self._resumed: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """Begin; the Deferred fires when the reader has gone."""
        self._request.setHeader("Content-Type", "text/event-stream")
        self._request.setHeader("Cache-Control", "no-store")
        self._request.setHeader("X-Accel-Buffering", "no")
        # The id is for a reader that is cut off before its first event.
        self._request.write(b"retry: 2000\nid: %d\n\n" % self._subscription.position)
        self._request.registerProducer(self, True)
        self._alive.start(KEEP_ALIVE, now=False)
        pump = Deferred.fromCoroutine(self._pump())
        gone: Deferred[None] = self._request.notifyFinish()
        return gone.addBoth(lambda _: self._stop(pump))

    async def _pump(self) -> None:
        try:
            async for event in self._subscription:
                while self._resumed is not None:
                    await self._resumed
                if _visible(event, self._caller):
                    self._request.write(_encode(event))
        except CancelledError:
            return

    def _stop(self, pump: Deferred[None]) -> None:
        if self._alive.running:
            self._alive.stop()
        self._resumed = None
        pump.addErrback(lambda f: _log.failure("an event stream failed", f))
        pump.cancel()

    def _keep_alive(self) -> None:
        if self._resumed is None:
            self._request.write(b": alive\n\n")

    def pauseProducing(self) -> None:
        """The reader is slow."""
        if self._resumed is None:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        """The reader has caught up."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """The reader has gone; `start`'s Deferred takes care of it."""


def _position(request: Request) -> int | None:
    value = request.getHeader(b"Last-Event-ID") or b""
    return int(value) if value.isdigit() and len(value) < 20 else None


def _visible(event: Event, caller: Caller) -> bool:
    if event.type == RESET or caller.has("admin"):
        return True
    return bool(event.data.get("context", caller.context) == caller.context)


def _encode(event: Event) -> bytes:
    data = msgspec.json.encode(event.data)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.type.encode(), data)
