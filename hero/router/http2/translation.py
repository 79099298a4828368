"""Between the field lists of HTTP/2 and the heads of HTTP/1.1 (RFC 9113 section 8). No I/O.

A field list can hold what an HTTP/1.1 head cannot: line ends in values, spaces in names, two
hosts. So each name and value is checked before it is written down, and then the same parser reads
the head that reads all others. What is written is what the service will be sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from hero.router.errors import BadMessage, Rejection
from hero.router.grammar import split_fields
from hero.router.head import ResponseHead
from hero.router.http2.websocket import new_key

#: A pair of name and value.
Pair = tuple[bytes, bytes]

#: RFC 9113 section 8.2.1: names are tokens without capitals; values have no white space around.
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[!-~\x80-\xff]+(?:[\t ]+[!-~\x80-\xff]+)*)?")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: RFC 9113 section 8.3.1. Which paths lead somewhere is for `hero.router.target` to say.
_PATH = re.compile(rb"/[!-~]*")
_AUTHORITY = re.compile(rb"[!-~]+")

_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_REQUIRED = frozenset({b":method", b":scheme", b":path"})
#: RFC 9113 section 8.2.2
CONNECTION_SPECIFIC = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)


@attrs.frozen(kw_only=True)
class Asked:
    """A request, written down as the *block* of an HTTP/1.1 head.

    ``chunked``: its body has no length of its own, so it goes on in chunks. ``key`` is what the
    service must answer to, where a WebSocket is asked for.
    """

    block: bytes
    chunked: bool
    key: bytes | None


def write_request(pairs: Iterable[Pair], *, ended: bool, longest: int) -> Asked:
    """Write down the field list of a request as a head of at most *longest* bytes.

    *ended*: no body follows. Raises `BadMessage` for a list that is malformed, or longer.
    """
    pseudo: dict[bytes, bytes] = {}
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    cookies: list[bytes] = []
    lines: list[bytes] = []
    for name, value in pairs:
        if name[:1] == b":":
            if name not in _PSEUDO or name in pseudo or hosts or lengths or cookies or lines:
                raise _malformed(f"{_shown(name)} is unknown, given twice, or out of place")
            pseudo[name] = value
            continue
        check_pair(name, value)
        if name == b"host":
            hosts.append(value)
        elif name == b"cookie":
            cookies.append(value)
        elif name != b"te":
            if name == b"content-length":
                lengths.append(value)
            lines.append(b"%b: %b\r\n" % (name, value))
    websocket = _is_websocket(pseudo)
    key = new_key() if websocket else None
    if key is not None:
        lines = [line for line in lines if not line.startswith(b"sec-websocket-key:")]
        lines.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ")
        lines.append(key + b"\r\n")
        if lengths:
            raise _malformed("a WebSocket has no Content-Length")
    if cookies:
        # RFC 9113 section 8.2.3
        crumbs = b"; ".join(crumb for crumb in cookies if crumb)
        lines.append(b"Cookie: %b\r\n" % crumbs)
    chunked = not ended and not lengths and not websocket
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif ended and lengths not in ([], [b"0"]):
        raise _malformed("Content-Length promises a body, and none comes", "bad_framing")
    start = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (
        b"GET" if websocket else pseudo[b":method"],
        pseudo[b":path"],
        _authority(pseudo.get(b":authority"), hosts),
    )
    block = b"%b%b\r\n" % (start, b"".join(lines))
    if len(block) > longest:
        raise BadMessage("head_too_long", f"the head is longer than {longest} bytes", status=431)
    return Asked(block=block, chunked=chunked, key=key)


def check_pair(name: bytes, value: bytes) -> None:
    """Raise `BadMessage` unless this can be a field of an HTTP/1.1 message."""
    if _NAME.fullmatch(name) is None:
        raise _malformed("a field name is not a token in lower case")
    if _VALUE.fullmatch(value) is None:
        raise _malformed("a field value holds a control character, or white space around it")
    if name in CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
        raise _malformed(f"{_shown(name)} is for HTTP/1.1 connections")


def answer_pairs(head: ResponseHead, request_id: bytes, date: bytes = b"") -> list[Pair]:
    """The field list of a service's answer, or interim answer, *head*.

    *date* is the time, for one that does not tell it.
    """
    pairs = [(b":status", b"%d" % head.status)]
    pairs += [(lower, value) for lower, _, value in split_fields(head.passed)]
    if head.given_length is not None:
        pairs.append((b"content-length", head.given_length))
    if head.status >= 200:
        pairs.append((b"x-request-id", head.request_id or request_id))
        if date and not head.dated:
            pairs.append((b"date", date))
    return pairs


def _is_websocket(pseudo: dict[bytes, bytes]) -> bool:
    """Check the pseudo fields; whether they ask for a WebSocket (RFC 8441 section 4)."""
    method, protocol = pseudo.get(b":method"), pseudo.get(b":protocol")
    if method == b"CONNECT" and protocol is None:
        raise Rejection(501, "no_connect", "CONNECT is not offered here")
    if not pseudo.keys() >= _REQUIRED:
        raise _malformed("a request has a method, a scheme and a path")
    assert method is not None
    if _METHOD.fullmatch(method) is None:
        raise _malformed("the method is not a token")
    if pseudo[b":scheme"] not in (b"https", b"http"):
        raise _malformed("the scheme is neither https nor http")
    if _PATH.fullmatch(pseudo[b":path"]) is None:
        raise _malformed(
            "the path has no slash before it, or a character that it cannot", "bad_path"
        )
    if protocol is None:
        return False
    if method != b"CONNECT":
        raise _malformed(":protocol goes with CONNECT only")
    if protocol != b"websocket":
        raise Rejection(501, "no_connect", "the only protocol for CONNECT here is websocket")
    return True


def _authority(given: bytes | None, hosts: list[bytes]) -> bytes:
    """RFC 9113 section 8.3.1: two that differ are a request for two servers."""
    if len(hosts) > 1 or (given is None and not hosts):
        raise _malformed("a request has exactly one host", "bad_host")
    if given is None:
        given = hosts[0]
    elif hosts and hosts[0].lower() != given.lower():
        raise _malformed(":authority and host name different hosts", "bad_host")
    if _AUTHORITY.fullmatch(given) is None:
        raise _malformed("the host is not a host name or address", "bad_host")
    return given


def _malformed(detail: str, reason: str = "bad_field") -> BadMessage:
    return BadMessage(reason, detail)


def _shown(name: bytes) -> str:
    return repr(name[:40])[2:-1]
