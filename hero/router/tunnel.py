"""Byte tunnels to services that speak no HTTP, such as SSH.

A route is one only where the manifest *file* beside its socket says ``"protocol": "tunnel"``: who
can reach an HTTP service by such a tunnel writes the fields by which it knows its callers, so
nothing that is asked over the network makes one. The client asks to change the protocol (RFC 9110
section 7.8); the router connects, answers 101 itself, and passes on bytes from there.
"""

from __future__ import annotations

from hero.router.errors import Rejection
from hero.router.exchange import Exchange
from hero.router.heads import Heads
from hero.router.limits import Limits
from hero.router.upstream import UpstreamConnection

#: What a request's Upgrade field names.
UPGRADE = b"hero-tunnel"
#: What a manifest file calls it.
PROTOCOL = "tunnel"

_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % UPGRADE
)
_switching = Heads(Limits()).answer(_SWITCHING)


def needs_upgrade(prefix: str) -> Rejection:
    """The route at *prefix* is used in another way (RFC 9110 section 15.5.22)."""
    return Rejection(
        426,
        "upgrade_required",
        f"{prefix} is a tunnel: use hero tunnel {prefix.lstrip('/')}",
        headers={b"Upgrade": UPGRADE, b"Connection": b"upgrade"},
    )


class TunnelExchange(Exchange):
    """Carries bytes both ways between *sink* and a new connection to the service.

    The request that asked for this is not sent on. Each has a connection of its own, of which the
    route's ``limits.upstreams`` allow so many at one time.
    """

    __slots__ = ()

    def connected(self, upstream: UpstreamConnection) -> None:
        if self._taken(upstream):
            upstream.begin_tunnel(self)
            self.switched(_switching)

    def _check(self) -> None:
        super()._check()
        route = self._route
        if not route.tunnel or self._upgrade is None or self._upgrade.lower() != UPGRADE:
            raise needs_upgrade(route.prefix)
        most = self.limits.upstreams
        if route.pool.tunnels >= most:
            raise Rejection(
                503,
                "upstream_busy",
                f"{most} tunnels to this service are open already",
                headers={b"Retry-After": b"1"},
            )

    def _acquire(self) -> None:
        self._route.pool.acquire(self, fresh=True)
