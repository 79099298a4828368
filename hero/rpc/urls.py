"""Addresses of JSON-RPC services.

``https://host:9998/hero_compute/rpc/api/root/cloud/rpc`` is a service behind a router;
``unix:///run/hero/hero_compute/rpc.sock:/api/root/cloud/rpc`` is the one on a UNIX socket (the
socket's path, a colon, the HTTP path).
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import attrs

from hero.errors import InvalidConfiguration
from hero.identity.claims import DEFAULT_CONTEXT


@attrs.frozen
class ServiceUrl:
    """A parsed address. ``socket`` is None unless it names a UNIX socket; ``http`` is what an
    HTTP client asks for."""

    http: str
    socket: Path | None


def parse_url(url: str) -> ServiceUrl:
    """Parse *url*. Raises `InvalidConfiguration`."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        socket, colon, path = url.removeprefix("unix://").rpartition(":/")
        if colon and socket.startswith("/"):
            return ServiceUrl(http=f"http://localhost/{path}", socket=Path(socket))
    elif parts.scheme in ("https", "http") and parts.hostname:
        return ServiceUrl(http=url, socket=None)
    raise InvalidConfiguration(
        f"{url!r} is not the address of a service",
        hint="write https://host:port/path or unix:///path/to.sock:/path",
    )


def api_path(kind: str, context: str = DEFAULT_CONTEXT) -> str:
    """The HTTP path of an API on its own socket. *kind* is ``cloud``, ``explorer``, ``router``."""
    return f"/api/{context}/{kind}/rpc"


def unix_url(socket: Path, context: str, kind: str) -> str:
    """The address of an API on a UNIX socket of this machine."""
    return f"unix://{socket}:{api_path(kind, context)}"


def router_url(base: str, route: str, context: str, kind: str) -> str:
    """The address of an API behind the router at *base*.

    *route* is ``<service>/<socket>``, such as ``hero_compute/explorer_rpc``.
    """
    return f"{base.rstrip('/')}/{route.strip('/')}{api_path(kind, context)}"
