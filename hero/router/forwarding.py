"""Rewriting heads on their way through (RFC 9110 section 7.6). No I/O."""

from __future__ import annotations

from hero.identity.claims import Caller, format_claims
from hero.router.head import Framing, RequestHead, ResponseHead
from hero.router.target import Target


def request_start(
    head: RequestHead,
    target: Target,
    upgrade: bytes | None,
    *,
    traced: bool,
    token: str | None,
) -> bytes:
    """The start of the head to send to the service: everything that *head* alone decides.

    It is followed by `caller_fields` and `ids`. *upgrade* is the protocol to ask for, if any;
    *traced* says that *head* continues a trace; a *token* was for the router and stays here.
    """
    host = head.host or b"hero"
    # RFC 9110 section 7.6.3: a field line of its own comes behind those that came.
    start = b"%b %b HTTP/1.1\r\nHost: %b\r\n%bVia: %b hero\r\nX-Forwarded-Prefix: %b\r\n" % (
        head.method,
        target.rest,
        host,
        head.passed,
        b"1.1" if head.minor else b"1.0",
        target.prefix.encode(),
    )
    named = head.named
    if head.host is not None:
        start += b"X-Forwarded-Host: %b\r\n" % host
        if len(named) == 1:
            return start
    lines = [start]
    if head.framing is Framing.LENGTH or b"content-length" in named:
        lines.append(b"Content-Length: %d\r\n" % head.length)
    elif head.framing is Framing.CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if head.expects_continue:
        lines.append(b"Expect: 100-continue\r\n")
    if traced:
        lines += [b"tracestate: %b\r\n" % value for value in named.get(b"tracestate", ())]
    if token is None:
        lines += [b"Authorization: %b\r\n" % value for value in named.get(b"authorization", ())]
    if upgrade is not None:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade)
    elif head.has_odd_body:
        lines.append(b"Connection: close\r\n")
    return b"".join(lines)


def with_prefix(wire: bytes, prefix: str) -> bytes:
    """The head *wire* for a service that wants to see *prefix* in the path."""
    method, space, rest = wire.partition(b" ")
    return b"".join((method, space, prefix.encode(), rest))


def caller_fields(caller: Caller, *, address: str, scheme: str) -> bytes:
    """The fields that say who is calling, from *address*."""
    fields = (
        f"X-Forwarded-For: {address}\r\nX-Forwarded-Proto: {scheme}\r\n"
        f"X-Hero-User: {caller.user}\r\nX-Hero-Claims: {format_claims(caller.claims)}\r\n"
        f"X-Hero-Context: {caller.context}\r\n"
    )
    if caller.on_behalf_of is not None:
        fields += f"X-Hero-On-Behalf-Of: {caller.on_behalf_of}\r\n"
    return fields.encode()


def answer_start(head: ResponseHead) -> bytes:
    """The start of the head to send to a client: everything that the service's *head* decides.

    It is followed by `answer_end`.
    """
    start = b"HTTP/1.1 %d %b\r\n%b" % (head.status, head.reason, head.passed)
    if head.given_length is not None:
        start += b"Content-Length: %b\r\n" % head.given_length
    if head.request_id is not None:
        start += b"X-Request-ID: %b\r\n" % head.request_id
    if head.status == 101 and head.upgrade is not None:
        start += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    elif head.status == 426 and head.upgrade is not None:
        start += b"Upgrade: %b\r\n" % head.upgrade
    return start


def answer_end(head: ResponseHead, *, minor: int, keep_alive: bool, rechunk: bool) -> bytes:
    """The end of the head of a final answer to a client that speaks HTTP/1.*minor*.

    *rechunk*: the router frames the body in chunks, whatever the service did.
    """
    chunked = rechunk or (head.framing is Framing.CHUNKED and minor == 1)
    end = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    if not keep_alive:
        end += b"Connection: close\r\n" if head.status != 426 else b"Connection: close, upgrade\r\n"
    elif minor == 0:
        end += b"Connection: keep-alive\r\n"
    elif head.status == 426:
        end += b"Connection: upgrade\r\n"
    return end + b"\r\n"
