"""The values that RouterService speaks of, as they stand on the wire."""

from __future__ import annotations

import enum
from datetime import datetime

import attrs


class RouteState(enum.StrEnum):
    """Whether a route's socket can be used."""

    UP = "up"
    DOWN = "down"
    """Nobody listens on the socket, or its last use failed."""
    REFUSED = "refused"
    """The entry is never routed; ``reason`` says why."""


@attrs.frozen(kw_only=True)
class PoolStats:
    """The router's connections to a service: now, and what was done since it was discovered.

    Now: ``idle``, ``busy``, ``tunnels``; ``waiting`` are requests that wait for one. Since then:
    ``connected``, ``refused``, requests on one that was ``reused``, and those that were sent once
    more (``retried``) because such a one had just died.
    """

    idle: int = 0
    busy: int = 0
    waiting: int = 0
    tunnels: int = 0
    connected: int = 0
    refused: int = 0
    reused: int = 0
    retried: int = 0


@attrs.frozen(kw_only=True)
class RouteLimits:
    """Bounds on a route: ``upstreams`` requests at a time, beyond which ``waiting`` may wait.

    Times are in seconds: to connect, to wait for a connection, for the answer to begin, without any
    progress of a body, for request and answer together, and without a byte in a tunnel. ``body`` is
    the bytes of a request's body. Null is no bound.
    """

    upstreams: int
    waiting: int
    body: int | None
    connect_time: float
    wait_time: float
    answer_time: float
    stall_time: float
    whole_time: float | None
    tunnel_time: float


@attrs.frozen(kw_only=True)
class Route:
    """One entry of the socket directory. ``prefix`` is ``/{service}/{socket}``.

    ``access`` is who may call, from the service's manifest or the router's default: ``cluster``,
    ``public``, or ``operator`` for a byte tunnel. ``pool`` and ``limits`` are missing for an entry
    that is refused.
    """

    service: str
    socket: str
    prefix: str
    path: str
    state: RouteState
    access: str
    reason: str | None = None
    name: str | None = None
    version: str | None = None
    protocol: str | None = None
    description: str | None = None
    discovered_at: datetime | None = None
    requests: int = 0
    active: int = 0
    pool: PoolStats | None = None
    limits: RouteLimits | None = None


@attrs.frozen(kw_only=True)
class RoutePage:
    """What the router found in the socket directory, in order of prefix."""

    items: list[Route]


@attrs.frozen(kw_only=True)
class Connection:
    """A client's connection to the router.

    ``request`` is the one under way, if any. With several workers each numbers its own
    connections: ``worker`` and ``id`` together name one.
    """

    id: int
    peer: str
    user: str
    since: datetime
    requests: int
    bytes_in: int
    bytes_out: int
    request: str | None = None
    tunnel: bool = False
    protocol: str = "HTTP/1.1"
    secure: bool = False
    worker: int | None = None


@attrs.frozen(kw_only=True)
class ConnectionPage:
    """Clients' connections, oldest first."""

    items: list[Connection]


@attrs.frozen(kw_only=True)
class Durations:
    """Seconds within which a half, nine of ten and 99 of 100 requests were done.

    They are estimated from the histograms that the metrics show.
    """

    p50: float
    p90: float
    p99: float


@attrs.frozen(kw_only=True)
class RouteStats:
    """Counts of one route since the router started.

    ``errors`` are requests that ended in a server error or without any answer; ``total`` is the
    time from a request's head to the end of its answer, ``first_byte`` from sending it to the
    service to the first byte of the answer. The prefix ``-`` has the requests for no route, and
    ``other`` those of the routes that are too many to be told apart.
    """

    prefix: str
    requests: int
    errors: int
    responses: dict[str, int]
    bytes_in: int
    bytes_out: int
    active: int = 0
    total: Durations | None = None
    first_byte: Durations | None = None


@attrs.frozen(kw_only=True)
class RouterStats:
    """Counts since the router started. ``responses`` is by status, ``rejections`` by reason.

    ``uptime`` is in seconds. A client works out rates from two answers. ``per_route`` leaves out
    routes that nobody has used, and those that have gone; the totals have all.
    """

    started_at: datetime
    uptime: float
    workers: int
    listening: list[str]
    connections: int
    connections_total: int
    requests: int
    responses: dict[str, int]
    rejections: dict[str, int]
    bytes_in: int
    bytes_out: int
    routes: int
    total: Durations | None = None
    access_log_lines_lost: int = 0
    per_route: list[RouteStats] = attrs.field(factory=list)
