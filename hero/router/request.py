"""What the bytes of a request's head alone decide: route, framing, and the head to send on.

Nothing here depends on who asks, when, or what runs behind the router. So the result for a head
that was seen before can be kept (`hero.router.memo`).
"""

from __future__ import annotations

import re

import msgspec

from hero.router.errors import Rejection
from hero.router.forwarding import request_start
from hero.router.grammar import TOKEN
from hero.router.head import RequestHead, parse_request_head
from hero.router.limits import Limits
from hero.router.target import Target, origin_form, split_target

#: RFC 9110 section 9.3 and RFC 5789, without those that are refused.
_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
}
_ONLY_HOST = {b"host"}
_TOKEN_PREFIX = b"hero_"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
#: RFC 9110 section 7.8: protocol-name [ "/" protocol-version ]; one of several cannot be asked for.
_PROTOCOL = re.compile(TOKEN + rb"(?:/" + TOKEN + rb")?")
#: W3C Trace Context level 1, section 3.2.
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Request(msgspec.Struct, eq=False, frozen=True):
    """A request's head as the router understands it.

    ``wire`` is the start of the head that goes to the service; the fields that depend on who
    asks follow it. ``token`` is the bearer token for the router, ``request_id`` the client's own
    id where it can stand in a log, and ``trace`` the trace-id and the flags that it continues.
    ``path`` is for logs: it has no query, which may hold secrets. Where the target leads nowhere
    ``target`` is None and ``refusal`` says why.
    """

    head: RequestHead
    method: str
    path: str
    target: Target | None
    refusal: Rejection | None
    wire: bytes
    upgrade: bytes | None
    token: str | None
    request_id: str | None
    trace: tuple[bytes, bytes] | None


def read_request(block: bytes, limits: Limits) -> Request:
    """Read *block*, a head up to and including its empty line. Raises `BadMessage`."""
    return request_of(parse_request_head(block, limits))


def request_of(head: RequestHead) -> Request:
    """What *head* asks for."""
    target, refusal, wire = None, None, b""
    token, request_id, trace, upgrade = None, None, None, None
    try:
        if head.method not in _METHODS:
            _check_method(head.method)
        if head.named.keys() != _ONLY_HOST:
            request_id = _request_id_of(head)
            trace = _trace_of(head)
            upgrade = upgrade_of(head)
            token = _token_of(head)
        target = split_target(origin_form(head.target, head.host))
        wire = request_start(head, target, upgrade, traced=trace is not None, token=token)
    except Rejection as rejection:
        refusal = rejection
    return Request(
        head,
        _METHODS.get(head.method) or head.method[:32].decode("ascii"),
        head.target.partition(b"?")[0][:1024].decode("ascii"),
        target,
        refusal,
        wire,
        upgrade,
        token,
        request_id,
        trace,
    )


def upgrade_of(head: RequestHead) -> bytes | None:
    """The protocol to which *head* asks to change, where that can be passed on.

    HTTP/2 in clear text cannot: it would put requests past the router that it never sees.
    """
    if head.upgrade is None or head.has_body or not _PROTOCOL.fullmatch(head.upgrade):
        return None
    return None if head.upgrade.lower().startswith((b"h2c", b"http", b"tls")) else head.upgrade


def _check_method(method: bytes) -> None:
    if method == b"CONNECT":
        raise Rejection(501, "no_connect", "CONNECT is not offered here", close=True)
    if method == b"TRACE":
        raise Rejection(405, "no_trace", "TRACE is not offered here", close=True)


def _token_of(head: RequestHead) -> str | None:
    """The bearer token of ours in the Authorization field (RFC 6750 section 2.1).

    Anything else in it is between the client and the service.
    """
    given = head.named.get(b"authorization")
    if given is None:
        return None
    if len(given) > 1:
        raise Rejection(400, "bad_authorization", "more than one Authorization field")
    scheme, _, rest = given[0].partition(b" ")
    token = rest.strip(b" ")
    if scheme.lower() != b"bearer" or not token.startswith(_TOKEN_PREFIX):
        return None
    return token.decode("latin-1")


def _request_id_of(head: RequestHead) -> str | None:
    given = head.named.get(b"x-request-id")
    if given is not None and len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0].decode()
    return None


def _trace_of(head: RequestHead) -> tuple[bytes, bytes] | None:
    given = head.named.get(b"traceparent")
    matched = _TRACEPARENT.fullmatch(given[0]) if given and len(given) == 1 else None
    return (matched[1], matched[3]) if matched is not None else None
