"""Addresses of JSON-RPC services.

``https://host:9998/hero_compute/rpc/api/root/cloud/rpc`` is a service behind a router;
``unix:///run/hero/hero_compute/rpc.sock:/api/root/cloud/rpc`` is the one on a UNIX socket (the
socket's path, a colon, the HTTP path).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import attrs
from hyperlink import EncodedURL

from hero.errors import InvalidConfiguration, SocketPathTooLong
from hero.identity.addresses import host_of_url
from hero.identity.claims import DEFAULT_CONTEXT
from hero.paths import MAX_SOCKET_PATH

#: An address without white space, and without percent-encoding in its host.
_PLAIN = re.compile(r"[^\s/]*//[^\s/%]*(/\S*)?\Z")


@attrs.frozen
class ServiceUrl:
    """A parsed address. ``socket`` is None unless it names a UNIX socket; ``http`` is what an
    HTTP client asks for."""

    http: str
    socket: Path | None


class HttpUrl(EncodedURL):
    """A URL in which an IPv6 address is not taken for a name, which treq would encode."""

    def to_uri(self) -> EncodedURL:
        """The URL in ASCII."""
        if ":" not in self.host:
            return super().to_uri()
        return EncodedURL.to_uri(self.replace(host="")).replace(host=self.host)


def parse_url(url: str) -> ServiceUrl:
    """Parse *url*. Raises `InvalidConfiguration`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _not_an_address(url) from error
    if parts.scheme == "unix":
        socket, colon, path = url.removeprefix("unix://").rpartition(":/")
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            raise SocketPathTooLong(
                f"{socket} is longer than the {MAX_SOCKET_PATH} bytes that a socket address holds",
                hint="set HERO_SOCKET_DIR to a shorter path",
            )
        if colon and socket.startswith("/"):
            return ServiceUrl(http=f"http://localhost/{path}", socket=Path(socket))
    elif parts.scheme in ("https", "http") and port != 0 and _PLAIN.match(url):
        if "@" in parts.netloc:
            raise InvalidConfiguration(
                "the address of a service has no user and no password in it",
                hint="call it with a token",
            )
        host_of_url(url)
        return ServiceUrl(http=url, socket=None)
    raise _not_an_address(url)


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


def _not_an_address(url: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{url!r} is not the address of a service",
        hint="write https://host:port/path or unix:///path/to.sock:/path",
    )
