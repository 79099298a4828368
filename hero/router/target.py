"""From a request target to a route: checked first, split afterwards. No I/O."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from hero.router.errors import Rejection

#: Names of services and sockets.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME = re.compile(NAME.pattern.encode())

#: RFC 3986 section 3.3: *( "/" segment ), with "[", "]" and "|", which browsers leave as they are.
_IN_PATHS = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]|]+|%[0-9A-Fa-f]{2})*"
_PATH = re.compile(rb"/" + _IN_PATHS)
#: RFC 3986 section 3.4, with what browsers leave as it is. "#" never arrives in a request.
_QUERY = re.compile(rb"[!-\"$-~]*")
#: A path that is well-formed as far as a regular expression can tell.
_ROUTED_PATH = re.compile(rb"(/%b/%b)(/%b)?" % (_NAME.pattern, _NAME.pattern, _IN_PATHS))
#: RFC 9112 section 3.2.2
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)
#: "." and ".." as a whole segment, plain or encoded (RFC 3986 section 5.2.4).
_DOT_SEGMENT = re.compile(rb"(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?=[/\\;]|%2f|%5c|$)", re.IGNORECASE)
#: Paths that are remembered, and how long they may be.
_PATHS = 1024
_LONGEST_PATH = 256
_CONTEXT = re.compile(rb"/api/([A-Za-z0-9][A-Za-z0-9._-]{0,62})(?:/|$)")


class Target(msgspec.Struct, frozen=True):
    """Where a request goes. ``rest`` is what is forwarded: path without the prefix, and query.

    ``path`` is the path of ``rest``. ``bare`` is true where not even a slash followed the prefix.
    ``context`` is what the path names, as in ``/api/<context>/cloud/rpc``.
    """

    service: str
    socket: str
    prefix: str
    path: bytes
    rest: bytes
    bare: bool = False
    context: str | None = None

    @classmethod
    def below(cls, service: str, socket: str, path: bytes, query: bytes) -> Target:
        """The target of a request for *path* at a service; *query* has its question mark."""
        context = _context_of(path)
        return cls(service, socket, f"/{service}/{socket}", path, path + query, False, context)


def bad_path(detail: str) -> Rejection:
    """The path can be read in two ways, or in none."""
    return Rejection(400, "bad_path", detail)


def no_route(path: bytes) -> Rejection:
    """No socket of the directory has this path."""
    return Rejection(
        404, "no_route", f"there is no service at {path[:200].decode('ascii', 'replace')}"
    )


def origin_form(target: bytes, host: bytes | None) -> bytes:
    """*target* in origin form (RFC 9112 section 3.2). Raises `Rejection`."""
    if target[:1] == b"/":
        return target
    matched = _ABSOLUTE.fullmatch(target)
    if matched is None:
        raise bad_path("the request target is not a path")
    if host is None or matched[1].lower() != host.lower():
        raise Rejection(400, "bad_host", "the request target and Host name different hosts")
    rest = matched[2]
    return rest if rest[:1] == b"/" else b"/" + rest


def split_target(target: bytes) -> Target:
    """Check *target*, in origin form, then take it apart. Raises `Rejection`."""
    path, question, query = target.partition(b"?")
    below = _split_path(path) if len(path) <= _LONGEST_PATH else _split_path.__wrapped__(path)
    if not question:
        return below
    if _QUERY.fullmatch(query) is None:
        raise bad_path("the query holds a character that must be percent-encoded")
    return Target(
        below.service,
        below.socket,
        below.prefix,
        below.path,
        below.path + question + query,
        below.bare,
        below.context,
    )


@lru_cache(_PATHS)
def _split_path(path: bytes) -> Target:
    """The target that *path* is without a query."""
    matched = _ROUTED_PATH.fullmatch(path)
    if matched is None:
        raise _explain(path)
    names, inner = matched.groups()
    prefix = names.decode()
    _, service, socket = prefix.split("/")
    if inner is None:
        return Target(service, socket, prefix, b"/", b"/", True)
    if b"." in inner or b"%" in inner:
        _check_segments(inner)
    return Target(service, socket, prefix, inner, inner, False, _context_of(inner))


def _context_of(path: bytes) -> str | None:
    matched = _CONTEXT.match(path)
    return matched[1].decode() if matched else None


def _check_segments(path: bytes) -> None:
    if b"%00" in path:
        raise bad_path("the path holds an encoded NUL")
    if _DOT_SEGMENT.search(path):
        raise bad_path("the path has a '.' or '..' segment")


def _explain(path: bytes) -> Rejection:
    """Why *path* is no `_ROUTED_PATH`."""
    if _PATH.fullmatch(path) is None:
        return bad_path("the path holds a character that must be percent-encoded")
    _check_segments(path)
    if any(b"%" in name for name in path.split(b"/", 3)[1:3]):
        return bad_path("the names of a service and a socket are never percent-encoded")
    return no_route(path)
