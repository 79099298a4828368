"""What a request may be believed to say, by the door through which it came.

Behind the router, the headers that the router sets are the truth: it has removed what a client
wrote there. On 127.0.0.1 anybody on this machine can write any header, and any web page can make
the browser send a request, so that nothing counts but the session's cookie, and the ``Host`` must
be this machine's (a page whose name was made to point to 127.0.0.1 has another).
"""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import urlsplit

import attrs
from twisted.web.server import Request

from hero.identity.claims import Caller, format_claims
from hero.rpc.identity import caller_from_headers
from hero.ui.visitor import Visitor

_PREFIX = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z")
_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


class Door(Protocol):
    """How the resources ask about the request in hand."""

    def admits(self, request: Request) -> bool:
        """Whether the request was meant for this console at all."""

    def visitor(self, request: Request) -> Visitor | None:
        """Whom the request itself proves to be visiting, a cookie left aside."""

    def prefix(self, request: Request) -> str:
        """The path below which the visitor sees the console, without a slash at its end."""

    def origin(self, request: Request) -> str:
        """The origin (RFC 6454) of the console as the visitor's browser knows it."""


class RouterDoor:
    """The UNIX socket: requests come from the router, or from who could open the socket."""

    def admits(self, request: Request) -> bool:
        return True

    def visitor(self, request: Request) -> Visitor | None:
        caller: Caller = caller_from_headers(request.requestHeaders)
        if caller.is_anonymous:
            return None
        context = request.getHeader("X-Hero-Context") or ""
        return Visitor(
            user=caller.user,
            claims=format_claims(caller.claims),
            context=context if _CONTEXT.match(context) else caller.context,
        )

    def prefix(self, request: Request) -> str:
        prefix = (request.getHeader("X-Forwarded-Prefix") or "").rstrip("/")
        return prefix if _PREFIX.match(prefix) else ""

    def origin(self, request: Request) -> str:
        scheme = request.getHeader("X-Forwarded-Proto") or "https"
        host = request.getHeader("X-Forwarded-Host") or request.getHeader("Host") or ""
        return f"{scheme}://{host}"


@attrs.frozen
class LoopbackDoor:
    """The port on 127.0.0.1."""

    port: int

    def admits(self, request: Request) -> bool:
        try:
            host = urlsplit("//" + (request.getHeader("Host") or ""))
            return host.hostname in ("127.0.0.1", "localhost") and host.port == self.port
        except ValueError:
            return False

    def visitor(self, request: Request) -> Visitor | None:
        return None

    def prefix(self, request: Request) -> str:
        return ""

    def origin(self, request: Request) -> str:
        return f"http://{request.getHeader('Host')}"


def same_origin(door: Door, request: Request) -> bool:
    """Whether the request that changes something comes from a page of ours, or from no page.

    Browsers name the origin of every POST (Fetch standard, section 3.2); a program need not.
    """
    origin = request.getHeader("Origin")
    if origin is not None:
        return origin.lower() == door.origin(request).lower()
    return request.getHeader("Sec-Fetch-Site") in (None, "same-origin", "none")
