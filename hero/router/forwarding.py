"""Rewriting heads on their way through (RFC 9110 section 7.6). No I/O."""

from __future__ import annotations

import re
import secrets

import attrs

from hero.identity.claims import Caller, format_claims
from hero.router.head import Framing, RequestHead, ResponseHead
from hero.router.target import Target

#: RFC 9110 section 7.6.1, and the old Proxy-Connection. TE and Trailer describe one hop only.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
#: Only the router says these, also where a gateway reads any other mark as "-", as CGI's do
#: (RFC 3875 section 4.1.18 has "_" for both).
_RESERVED = re.compile(
    rb"x[^a-z0-9]hero[^a-z0-9].*|x[^a-z0-9]forwarded[^a-z0-9].*|forwarded|x[^a-z0-9]real[^a-z0-9]ip"
)
_SET_HERE = frozenset({b"host", b"x-request-id", b"traceparent", b"hero-on-behalf-of"})

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
#: W3C Trace Context level 1, section 3.2.
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


@attrs.frozen(kw_only=True)
class Client:
    """What the router knows of the other end of a connection."""

    address: str
    scheme: str


def request_id_of(head: RequestHead | None) -> str:
    """The request's own id, where it has one that can stand in a log, or else a new one."""
    given = head.values(b"x-request-id") if head is not None else []
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0].decode()
    return secrets.token_hex(8)


def upgrade_of(head: RequestHead) -> bytes | None:
    """The protocol to which *head* asks to change, where that can be passed on.

    HTTP/2 in clear text cannot: it would put requests past the router that it never sees.
    """
    if head.upgrade is None or head.has_body or b"," in head.upgrade:
        return None
    return None if head.upgrade.lower().startswith((b"h2c", b"http", b"tls")) else head.upgrade


def forward_request(
    head: RequestHead,
    target: Target,
    *,
    caller: Caller,
    client: Client,
    request_id: str,
    drop: frozenset[bytes] = frozenset(),
) -> bytes:
    """The head to send to the service. *drop* names further fields to leave out."""
    lines = [head.method + b" " + target.rest + b" HTTP/1.1", b"Host: " + (head.host or b"hero")]
    trace = None
    for lower, name, value in head.fields:
        if lower in _HOP_BY_HOP or lower in head.options or lower in drop:
            continue
        if lower in _SET_HERE:
            if lower == b"traceparent":
                trace = _TRACEPARENT.fullmatch(value)
            continue
        if _RESERVED.fullmatch(lower):
            continue
        if lower == b"tracestate" and not _traced(head):
            continue
        if lower == b"expect" and not head.expects_continue:
            continue
        if lower == b"content-length" and head.framing is Framing.NONE and value != b"0":
            continue
        lines.append(name + b": " + value)
    if head.framing is Framing.CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    upgrade = upgrade_of(head)
    if upgrade is not None:
        lines += [b"Connection: Upgrade", b"Upgrade: " + upgrade]
    elif head.has_odd_body:
        lines.append(b"Connection: close")
    lines += _router_fields(head, target, caller, client, request_id, trace)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def forward_response(
    head: ResponseHead,
    *,
    minor: int,
    keep_alive: bool,
    rechunk: bool,
    request_id: str,
) -> bytes:
    """The head to send to a client that speaks HTTP/1.*minor*.

    *rechunk*: the router frames the body in chunks, whatever the service did.
    """
    reason = head.reason or b""
    lines = [b"HTTP/1.1 %d %s" % (head.status, reason)]
    seen_id = False
    for lower, name, value in head.fields:
        if lower in _HOP_BY_HOP or lower in head.options or lower.startswith(b"x-hero-"):
            continue
        # RFC 9110 section 8.6. A client that believes one would wait for a body.
        if lower == b"content-length" and (head.status < 200 or head.status == 204):
            continue
        seen_id = seen_id or lower == b"x-request-id"
        lines.append(name + b": " + value)
    if not seen_id and head.status >= 200:
        lines.append(b"X-Request-ID: " + request_id.encode())
    if head.status == 101 and head.upgrade is not None:
        lines += [b"Connection: Upgrade", b"Upgrade: " + head.upgrade]
    elif head.status >= 200:
        if rechunk or (head.framing is Framing.CHUNKED and minor == 1):
            lines.append(b"Transfer-Encoding: chunked")
        if not keep_alive:
            lines.append(b"Connection: close")
        elif minor == 0:
            lines.append(b"Connection: keep-alive")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _traced(head: RequestHead) -> bool:
    values = head.values(b"traceparent")
    return len(values) == 1 and _TRACEPARENT.fullmatch(values[0]) is not None


def _router_fields(
    head: RequestHead,
    target: Target,
    caller: Caller,
    client: Client,
    request_id: str,
    trace: re.Match[bytes] | None,
) -> list[bytes]:
    span = secrets.token_hex(8).encode()
    if trace is not None and _traced(head):
        traceparent = b"00-" + trace[1] + b"-" + span + b"-" + trace[3]
    else:
        traceparent = b"00-" + secrets.token_hex(16).encode() + b"-" + span + b"-01"
    lines = [
        b"X-Forwarded-For: " + client.address.encode(),
        b"X-Forwarded-Proto: " + client.scheme.encode(),
        b"X-Forwarded-Prefix: " + target.prefix.encode(),
        b"X-Hero-User: " + caller.user.encode(),
        b"X-Hero-Claims: " + format_claims(caller.claims).encode(),
        b"X-Hero-Context: " + caller.context.encode(),
        b"X-Request-ID: " + request_id.encode(),
        b"traceparent: " + traceparent,
    ]
    if head.host is not None:
        lines.append(b"X-Forwarded-Host: " + head.host)
    if caller.on_behalf_of is not None:
        lines.append(b"X-Hero-On-Behalf-Of: " + caller.on_behalf_of.encode())
    return lines
