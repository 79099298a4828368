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
class Route:
    """One entry of the socket directory. ``prefix`` is ``/{service}/{socket}``.

    ``access`` is who may call, from the service's manifest or the router's default.
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
    description: str | None = None
    discovered_at: datetime | None = None
    requests: int = 0
    active: int = 0


@attrs.frozen(kw_only=True)
class RoutePage:
    """What the router found in the socket directory, in order of prefix."""

    items: list[Route]


@attrs.frozen(kw_only=True)
class Connection:
    """A client's connection to the router. ``request`` is the one under way, if any."""

    id: int
    peer: str
    user: str
    since: datetime
    requests: int
    bytes_in: int
    bytes_out: int
    request: str | None = None
    tunnel: bool = False


@attrs.frozen(kw_only=True)
class ConnectionPage:
    """Clients' connections, oldest first."""

    items: list[Connection]


@attrs.frozen(kw_only=True)
class RouterStats:
    """Counts since the router started. ``responses`` is by status, ``rejections`` by reason."""

    started_at: datetime
    listening: list[str]
    connections: int
    connections_total: int
    requests: int
    responses: dict[str, int]
    rejections: dict[str, int]
    bytes_in: int
    bytes_out: int
    routes: int
