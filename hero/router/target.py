"""From a request target to a route: checked first, split afterwards. No I/O."""

from __future__ import annotations

import re
from functools import lru_cache

import attrs

from hero.router.errors import Rejection

#: Names of services and sockets.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME = re.compile(NAME.pattern.encode())

#: RFC 3986 section 3.3: *( "/" segment ), with "[", "]" and "|", which browsers leave as they are.
_IN_PATHS = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]|]+|%[0-9A-Fa-f]{2})*"
_PATH = re.compile(rb"/" + _IN_PATHS)
#: RFC 3986 section 3.4, with what browsers leave as it is. "#" never arrives in a request.
_IN_QUERIES = rb"[!-\"$-~]*"
_QUERY = re.compile(_IN_QUERIES)
#: A target that is well-formed as far as a regular expression can tell.
_TARGET = re.compile(
    rb"(/%b/%b)(/%b)?(\?%b)?"
    % (NAME.pattern.encode(), NAME.pattern.encode(), _IN_PATHS, _IN_QUERIES)
)
#: RFC 9112 section 3.2.2
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)
#: "." and ".." as a whole segment, plain or encoded (RFC 3986 section 5.2.4).
_DOT_SEGMENT = re.compile(rb"(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?=[/\\;]|%2f|%5c|$)", re.IGNORECASE)
_CONTEXT = re.compile(rb"/api/([A-Za-z0-9][A-Za-z0-9._-]{0,62})(?:/|$)")


@attrs.frozen
class Target:
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
    matched = _TARGET.fullmatch(target)
    if matched is None:
        raise _explain(target)
    names, path, query = matched.groups()
    service, socket, prefix = _names(names)
    if query is None:
        query = b""
    if path is None:
        return Target(service, socket, prefix, b"/", b"/" + query, True)
    if b"." in path or b"%" in path:
        _check_segments(path)
    context = _context_of(path) if path.startswith(b"/api/") else None
    return Target(service, socket, prefix, path, path + query, False, context)


@lru_cache(1024)
def _names(names: bytes) -> tuple[str, str, str]:
    """The service, the socket and the prefix."""
    prefix = names.decode()
    _, service, socket = prefix.split("/")
    return service, socket, prefix


def _context_of(path: bytes) -> str | None:
    matched = _CONTEXT.match(path)
    return matched[1].decode() if matched else None


def _check_segments(path: bytes) -> None:
    if b"%00" in path:
        raise bad_path("the path holds an encoded NUL")
    if _DOT_SEGMENT.search(path):
        raise bad_path("the path has a '.' or '..' segment")


def _explain(target: bytes) -> Rejection:
    """Why *target* is no `_TARGET`."""
    path, _, query = target.partition(b"?")
    if _PATH.fullmatch(path) is None:
        return bad_path("the path holds a character that must be percent-encoded")
    if _QUERY.fullmatch(query) is None:
        return bad_path("the query holds a character that must be percent-encoded")
    _check_segments(path)
    if any(b"%" in name for name in path.split(b"/", 3)[1:3]):
        return bad_path("the names of a service and a socket are never percent-encoded")
    return no_route(path)
