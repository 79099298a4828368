"""What all connections share: routes, identity, limits, counts; and who is connected now."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hero.router.access_log import AccessLog, Record
from hero.router.connection import ClientConnection
from hero.router.date import DateSource
from hero.router.door import Door
from hero.router.doorway import Doorway
from hero.router.errors import Rejection
from hero.router.exchange import Exchange
from hero.router.front import Front
from hero.router.heads import Heads
from hero.router.http2.connection import Http2Connection
from hero.router.ids import IdSource
from hero.router.limits import Limits
from hero.router.metrics import RouterMetrics
from hero.router.request import Request
from hero.router.routes import RouteTable
from hero.router.target import Target, no_route

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
        heads: Heads | None = None,
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.heads = heads or Heads(limits)
        self.routes = routes
        self.metrics = metrics
        self.stopping = False
        self._door = door
        self._access_log = access_log
        self._now = clock.seconds
        self._ids = IdSource()
        self.date = DateSource()
        self._connections: dict[int, Any] = {}
        self._by_address: Counter[str] = Counter()
        #: TLS handshakes under way.
        self.handshakes = 0
        self._count = 0
        self._drained: Deferred[None] | None = None
        metrics.watch_routes(routes)
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    @property
    def connections(self) -> list[Any]:
        """The clients' connections, each an `IClientConnection`, oldest first."""
        return list(self._connections.values())

    def start(self) -> None:
        """Begin to watch over deadlines."""
        self.stopping = False
        self._ticking.start(_TICK, now=False)

    async def stop(self) -> None:
        """Let requests under way finish, for as long as the limits allow, then close."""
        self.stopping = True
        for connection in self.connections:
            connection.stopping()
        if self._connections:
            self._drained = Deferred()
            timer = self.clock.callLater(self.limits.stop_time, self._cut)
            await self._drained
            if timer.active():
                timer.cancel()
        if self._ticking.running:
            self._ticking.stop()

    def admit(self, address: str, *, secure: bool) -> str | None:
        """Why another connection from *address* is not accepted; None if it is."""
        limits = self.limits
        if self.stopping or len(self._connections) >= limits.connections:
            return "too_many_connections"
        if self._by_address[address] >= limits.address_connections:
            return "too_many_from_address"
        if secure and self.handshakes >= limits.handshakes:
            return "too_many_handshakes"
        return None

    def speaker(self, protocol: bytes | None) -> type[ClientConnection]:
        """What speaks the *protocol* that a client agreed upon by ALPN."""
        return Http2Connection if protocol == b"h2" else Front

    def next_number(self) -> int:
        """A number for a new connection."""
        self._count += 1
        return self._count

    # What an `IClientConnection` tells.

    def connected(self, connection: Any) -> None:
        if connection.number not in self._connections:
            self._by_address[connection.peer] += 1
        self._connections[connection.number] = connection
        if connection.protocol:
            self.metrics.connected(connection.protocol)

    def disconnected(self, connection: Any) -> None:
        if self._connections.pop(connection.number, None) is None:
            return
        if connection.protocol:
            self.metrics.disconnected(connection.protocol)
        address = connection.peer
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        drained = self._drained
        if drained is not None and not self._connections:
            self._drained = None
            drained.callback(None)

    def record(self, connection: Any, request: Request | None, request_id: str | None) -> Record:
        """Begin the log record of a request, or of what should have been one."""
        return Record(
            self._now(),
            request_id or self._ids.take(),
            connection.peer,
            request.method if request is not None else "-",
            request.path if request is not None else "-",
            protocol=connection.protocol,
            bytes_out=-connection.bytes_out,
        )

    def exchange(self, connection: Any, sink: Any, request: Request, record: Record) -> Exchange:
        """The exchange that answers *request* to *sink*. Raises `Rejection`."""
        target = request.target
        if target is None:
            raise self._refusal(request)
        route = self.routes.lookup(target.service, target.socket)
        if route is None:
            raise no_route(target.prefix.encode() + target.path)
        record.route = target.prefix
        caller = self._door.identify(connection, request, target)
        fields = connection.caller_fields(caller)
        record.user = caller.user
        if target.bare and request.head.method in (b"GET", b"HEAD"):
            raise _add_slash(target)
        wire = (
            request.wire
            + fields
            + self._ids.fields(
                record.request_id, request.trace, given=request.request_id is not None
            )
        )
        if route.listening:
            self._door.admit(caller, route.access, target, request.head.method)
            admit = None
        else:
            # What access it needs will be known when somebody listens.
            admit = self._door.admission(caller, route, target, request.head.method)
        return route.exchange(sink, request.head, wire, request.upgrade, admit)

    def finished(self, connection: Any, record: Record, reason: str | None) -> None:
        """*record*'s request was answered, or ended for *reason*."""
        record.reason = reason
        record.bytes_in += connection.consumed
        record.bytes_out += connection.bytes_out
        seconds = self._now() - record.started
        self.metrics.finished(record, seconds)
        self._access_log.write(record, seconds)

    def _refusal(self, request: Request) -> Rejection:
        """Why *request* has no target; a browser that names only the host sees the console."""
        head = request.head
        if (
            request.path == "/"
            and head.method in (b"GET", b"HEAD")
            and self.routes.lookup(*_WEB_CONSOLE) is not None
        ):
            location = "/{}/{}/".format(*_WEB_CONSOLE).encode()
            return Rejection(
                302, "moved", "the web console is elsewhere", headers={b"Location": location}
            )
        assert request.refusal is not None
        return request.refusal.with_traceback(None)

    def _tick(self) -> None:
        """One connection that goes wrong must not keep the others from their deadlines."""
        now = self._now()
        for connection in self.connections:
            if connection.deadline <= now:
                try:
                    connection.late()
                except Exception:
                    number = connection.number
                    _log.failure("connection {number} missed its deadline", number=number)
                    connection.abort()
        self.routes.tend()

    def _cut(self) -> None:
        for connection in self.connections:
            connection.abort()


class GatewayFactory(Factory):
    """Builds what serves each connection of one listener. *secure*: it speaks TLS."""

    noisy = False

    def __init__(self, gateway: Gateway, *, secure: bool) -> None:
        self._gateway = gateway
        self._secure = secure

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection | None:
        """See `IProtocolFactory`."""
        gateway = self._gateway
        reason = gateway.admit(str(getattr(addr, "host", "local")), secure=self._secure)
        if reason is not None:
            gateway.metrics.rejected(reason)
            return None
        first = Doorway if self._secure else Front
        return first(gateway, gateway.next_number(), secure=self._secure)


def _add_slash(target: Target) -> Rejection:
    location = target.prefix.encode() + target.rest
    return Rejection(
        308, "moved", f"the service is at {target.prefix}/", headers={b"Location": location}
    )
