"""From a request target to a route: checked first, split afterwards. No I/O."""

from __future__ import annotations

import re

import attrs

from hero.router.errors import Rejection

#: Names of services and sockets.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME = re.compile(NAME.pattern.encode())

#: RFC 3986 section 3.3: *( "/" segment ), with "[", "]" and "|", which browsers leave as they are.
_PATH = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]|]|%[0-9A-Fa-f]{2})*")
#: RFC 3986 section 3.4, with what browsers leave as it is. "#" never arrives in a request.
_QUERY = re.compile(rb"[!-\"$-~]*")
#: RFC 9112 section 3.2.2
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)
#: "." and ".." as a whole segment, plain or encoded (RFC 3986 section 5.2.4).
_DOT_SEGMENT = re.compile(rb"(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?=[/\\;]|%2f|%5c|$)", re.IGNORECASE)
_CONTEXT = re.compile(rb"/api/([A-Za-z0-9][A-Za-z0-9._-]{0,62})(?:/|$)")


@attrs.frozen(kw_only=True)
class Target:
    """Where a request goes. ``rest`` is what is forwarded: path without the prefix, and query.

    ``path`` is the path of ``rest``. ``bare`` is true where not even a slash followed the prefix.
    """

    service: str
    socket: str
    path: bytes
    rest: bytes
    bare: bool = False
    prefix: str = attrs.field(init=False)
    #: The context that the path names, as in ``/api/<context>/cloud/rpc``.
    context: str | None = attrs.field(init=False)

    @prefix.default
    def _prefix(self) -> str:
        return f"/{self.service}/{self.socket}"

    @context.default
    def _context(self) -> str | None:
        matched = _CONTEXT.match(self.path)
        return matched[1].decode() if matched else None


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
    if _PATH.fullmatch(path) is None:
        raise bad_path("the path holds a character that must be percent-encoded")
    if _QUERY.fullmatch(query) is None:
        raise bad_path("the query holds a character that must be percent-encoded")
    if b"." in path or b"%" in path:
        lower = path.lower()
        if b"%00" in lower:
            raise bad_path("the path holds an encoded NUL")
        if _DOT_SEGMENT.search(path):
            raise bad_path("the path has a '.' or '..' segment")
    _, service, *more = path.split(b"/", 3)
    if not more:
        raise bad_path("a name is percent-encoded") if b"%" in service else no_route(path)
    socket = more[0]
    if b"%" in service or b"%" in socket:
        raise bad_path("the names of a service and a socket are never percent-encoded")
    if not _NAME.fullmatch(service) or not _NAME.fullmatch(socket):
        raise no_route(path)
    bare = len(more) == 1
    inner = b"/" if bare else b"/" + more[1]
    return Target(
        service=service.decode(),
        socket=socket.decode(),
        path=inner,
        rest=inner + question + query,
        bare=bare,
    )
