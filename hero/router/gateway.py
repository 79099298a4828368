"""What all connections share: routes, identity, limits, counts; and who is connected now."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hero.router.access_log import AccessLog, Record
from hero.router.door import Door
from hero.router.errors import Rejection
from hero.router.exchange import Exchange
from hero.router.forwarding import Client, forward_request
from hero.router.front import Front
from hero.router.head import RequestHead
from hero.router.limits import Limits
from hero.router.metrics import RouterMetrics
from hero.router.routes import RouteTable
from hero.router.target import Target, no_route, origin_form, split_target

#: How often deadlines are looked at, in seconds.
_TICK = 1.0
_WEB_CONSOLE = ("hero_compute", "ui")

_log = Logger()


class Gateway:
    """Finds the way of each request from its `Front` to a route."""

    def __init__(
        self,
        clock: Any,
        routes: RouteTable,
        door: Door,
        *,
        limits: Limits,
        metrics: RouterMetrics,
        access_log: AccessLog,
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.routes = routes
        self.metrics = metrics
        self.stopping = False
        self._door = door
        self._access_log = access_log
        self._fronts: dict[int, Front] = {}
        self._count = 0
        self._drained: Deferred[None] | None = None
        metrics.watch_routes(routes.count)
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    @property
    def fronts(self) -> list[Front]:
        """The connections, oldest first."""
        return list(self._fronts.values())

    def start(self) -> None:
        """Begin to watch over deadlines."""
        self.stopping = False
        self._ticking.start(_TICK, now=False)

    async def stop(self) -> None:
        """Let requests under way finish, for as long as the limits allow, then close."""
        self.stopping = True
        for front in self.fronts:
            if front.idle or front.record is None or front.record.tunnel:
                front.close()
        if self._fronts:
            self._drained = Deferred()
            timer = self.clock.callLater(self.limits.stop_time, self._cut)
            await self._drained
            if timer.active():
                timer.cancel()
        if self._ticking.running:
            self._ticking.stop()

    def front(self, *, secure: bool) -> Front | None:
        """A protocol for a new connection; None where there are too many."""
        if self.stopping or len(self._fronts) >= self.limits.connections:
            self.metrics.rejected("too_many_connections")
            return None
        self._count += 1
        return Front(self, self._count, secure=secure)

    # What a `Front` tells.

    def connected(self, front: Front) -> None:
        self._fronts[front.number] = front
        self.metrics.connected()

    def disconnected(self, front: Front) -> None:
        if self._fronts.pop(front.number, None) is not None:
            self.metrics.disconnected()
        drained = self._drained
        if drained is not None and not self._fronts:
            self._drained = None
            drained.callback(None)

    def record(self, front: Front, head: RequestHead | None, request_id: str) -> Record:
        """Begin the log record of a request, or of what should have been one."""
        record = Record(
            started=self.clock.seconds(),
            request_id=request_id,
            peer=front.peer,
            bytes_in=-front.consumed,
            bytes_out=-front.bytes_out,
        )
        if head is not None:
            record.method = head.method[:32].decode("ascii")
            record.path = head.target.partition(b"?")[0][:1024].decode("ascii")
        return record

    def exchange(self, front: Front, head: RequestHead, record: Record) -> Exchange:
        """The exchange that answers *head*. Raises `Rejection`."""
        if head.method == b"CONNECT":
            raise Rejection(501, "no_connect", "CONNECT is not offered here", close=True)
        if head.method == b"TRACE":
            raise Rejection(405, "no_trace", "TRACE is not offered here", close=True)
        origin = origin_form(head.target, head.host)
        if origin.partition(b"?")[0] == b"/":
            self._welcome(head)
        target = split_target(origin)
        route = self.routes.lookup(target.service, target.socket)
        if route is None:
            raise no_route(origin.partition(b"?")[0])
        record.route = target.prefix
        door = self._door
        caller, dropped = door.identify(front.transport, front.secure, head, target)
        record.user = front.user = caller.user
        if target.bare and head.method in (b"GET", b"HEAD"):
            raise _add_slash(target)
        wire = forward_request(
            head,
            target,
            caller=caller,
            client=Client(address=front.peer, scheme="https" if front.secure else "http"),
            request_id=record.request_id,
            drop=dropped,
        )
        return route.forward(front, head, wire, lambda: door.admit(caller, route.access, target))

    def finished(self, front: Front, record: Record, reason: str | None) -> None:
        """*record*'s request was answered, or ended for *reason*."""
        record.reason = reason
        record.bytes_in += front.consumed
        record.bytes_out += front.bytes_out
        seconds = self.clock.seconds() - record.started
        self.metrics.finished(record, seconds)
        self._access_log.write(record, seconds)

    def _welcome(self, head: RequestHead) -> None:
        """A browser that names only the host is sent to the web console, where there is one."""
        if head.method in (b"GET", b"HEAD") and self.routes.lookup(*_WEB_CONSOLE) is not None:
            location = "/{}/{}/".format(*_WEB_CONSOLE).encode()
            raise Rejection(
                302, "moved", "the web console is elsewhere", headers={b"Location": location}
            )
        raise no_route(b"/")

    def _tick(self) -> None:
        """One connection that goes wrong must not keep the others from their deadlines."""
        now = self.clock.seconds()
        for front in self.fronts:
            if front.deadline <= now:
                try:
                    front.late()
                except Exception:
                    _log.failure("connection {number} missed its deadline", number=front.number)
                    front.abort()
        self.routes.tend()

    def _cut(self) -> None:
        for front in self.fronts:
            front.abort()


class GatewayFactory(Factory):
    """Builds a `Front` for each connection of one listener. *secure*: it speaks TLS."""

    noisy = False

    def __init__(self, gateway: Gateway, *, secure: bool) -> None:
        self._gateway = gateway
        self._secure = secure

    def buildProtocol(self, addr: IAddress | None) -> Front | None:
        """See `IProtocolFactory`."""
        return self._gateway.front(secure=self._secure)


def _add_slash(target: Target) -> Rejection:
    location = target.prefix.encode() + target.rest
    return Rejection(
        308, "moved", f"the service is at {target.prefix}/", headers={b"Location": location}
    )
