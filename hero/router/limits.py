"""Bounds on what one client, or one service, may make the router hold or wait for."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Limits:
    """Sizes are in bytes, times in seconds."""

    #: The request line, and each single field line.
    line: int = 8192
    #: A whole head, of a request or of an answer.
    head: int = 32768
    #: Field lines in a head.
    fields: int = 100
    #: A request's body; None for no bound. Bodies are never held, only passed on.
    body: int | None = None
    #: Connections of clients at one time.
    connections: int = 20_000
    #: Of these, from one address.
    address_connections: int = 10_000
    #: TLS handshakes under way at one time.
    handshakes: int = 1000
    #: Connections to one service, without those that became tunnels.
    upstreams: int = 1024
    #: Requests that wait until one of these is free.
    waiting: int = 1024
    #: Unused connections kept to one service.
    idle_upstreams: int = 256

    #: From the first byte of a head to its end; includes a TLS handshake.
    head_time: float = 15.0
    #: Between two requests of one connection.
    idle_time: float = 75.0
    #: A connection that is older is not kept for another request, so that its client shows a new
    #: certificate in time.
    connection_time: float = 3600.0
    #: Without any progress of a body, in either direction.
    stall_time: float = 120.0
    #: For the service to begin its answer.
    answer_time: float = 300.0
    #: For the whole of a request and its answer; None for no bound.
    whole_time: float | None = None
    #: To connect to a service.
    connect_time: float = 5.0
    #: For one of the connections to a service to be free.
    wait_time: float = 10.0
    #: Without a byte in either direction of a tunnel.
    tunnel_time: float = 4 * 3600.0
    #: The same, once one end has said that it sends no more.
    half_closed_time: float = 60.0
    #: After an answer of the router's own, or where nothing is under way, for the client to go.
    linger_time: float = 3.0
    #: Unused, before a connection to a service is closed. Less than services wait themselves.
    idle_upstream_time: float = 20.0
    #: To read a service's manifest.
    manifest_time: float = 2.0
    #: A service's manifest.
    manifest: int = 16384
    #: For requests under way when the router is told to stop.
    stop_time: float = 10.0
    #: The same, and for tunnels, when another router has taken over.
    drain_time: float = 300.0
