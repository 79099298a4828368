"""Reading the head of a request or an answer, and how its body is framed. No I/O.

Two parsers that disagree about where a message ends are what request smuggling needs, so whatever
is open to two readings is refused.
"""

from __future__ import annotations

import enum
import re

import attrs

from hero.router.errors import BadAnswer, BadMessage
from hero.router.grammar import TOKEN, Field, Malformed, parse_fields, parse_length, parse_list
from hero.router.limits import Limits

#: RFC 9112 section 3: method SP request-target SP HTTP-version
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/(\d)\.(\d)")
#: RFC 9112 section 4: HTTP-version SP status-code SP [ reason-phrase ]. The last SP is missing in
#: the answers of several servers, without ambiguity.
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?")
#: RFC 3986 section 3.2.2 host, with an optional port; no user information.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")

#: Fields which the proxy acts upon, that no Connection option can take away.
_NEVER_HOP_BY_HOP = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"content-type", b"upgrade"}
)
_HOP_OPTIONS_ALLOWED = frozenset({b"upgrade"})
#: Methods that give a body no meaning (RFC 9110 sections 9.3.1, 9.3.2 and 9.3.5).
_WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"DELETE"})
#: Names that gateways which map "-" to "_" take for framing fields.
_FRAMING_LOOKALIKES = frozenset({b"content_length", b"transfer_encoding"})


class Framing(enum.Enum):
    """Where a body ends (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


@attrs.frozen(kw_only=True)
class RequestHead:
    """A request's head. ``options`` are the members of its Connection fields, in lower case."""

    method: bytes
    target: bytes
    minor: int
    fields: list[Field]
    host: bytes | None
    framing: Framing
    length: int
    options: frozenset[bytes]
    upgrade: bytes | None
    expects_continue: bool

    @property
    def keep_alive(self) -> bool:
        """Whether the client can send another request after this one (RFC 9112 section 9.3)."""
        if b"close" in self.options:
            return False
        return self.minor == 1 or b"keep-alive" in self.options

    @property
    def has_body(self) -> bool:
        return self.framing is not Framing.NONE

    @property
    def has_odd_body(self) -> bool:
        """Whether it has a body that a service may not read, and take for its next request."""
        return self.has_body and self.method in _WITHOUT_BODY

    def values(self, name: bytes) -> list[bytes]:
        """The values of the field *name*, which is in lower case."""
        return [value for lower, _, value in self.fields if lower == name]


@attrs.frozen(kw_only=True)
class ResponseHead:
    """An answer's head."""

    status: int
    reason: bytes
    minor: int
    fields: list[Field]
    framing: Framing
    length: int
    options: frozenset[bytes]
    upgrade: bytes | None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection can carry another request after this answer."""
        if self.framing is Framing.UNTIL_CLOSE or b"close" in self.options:
            return False
        return self.minor == 1 or b"keep-alive" in self.options


def parse_request_head(block: bytes, limits: Limits) -> RequestHead:
    """Read *block*, a head up to and including its empty line. Raises `BadMessage`."""
    line, _, rest = block.partition(b"\r\n")
    method, target, minor = _request_line(line, limits)
    try:
        fields = parse_fields(rest[:-2], max_fields=limits.fields, max_line=limits.line)
        named = _collect(fields)
        framing, length = _request_framing(method, minor, named)
        options = _connection_options(named)
    except Malformed as error:
        status = 431 if error.reason in ("too_many_fields", "field_too_long") else 400
        raise BadMessage(error.reason, error.detail, status=status) from None
    if length and limits.body is not None and length > limits.body:
        raise BadMessage(
            "body_too_large", f"the body is longer than {limits.body} bytes", status=413
        )
    upgrade = named.get(b"upgrade", [])
    return RequestHead(
        method=method,
        target=target,
        minor=minor,
        fields=fields,
        host=_host(minor, named.get(b"host", [])),
        framing=framing,
        length=length,
        options=options,
        upgrade=upgrade[0] if len(upgrade) == 1 and b"upgrade" in options and minor else None,
        expects_continue=_expectation(minor, named.get(b"expect", [])),
    )


def parse_response_head(block: bytes, method: bytes, limits: Limits) -> ResponseHead:
    """Read the head of an answer to a *method* request. Raises `BadAnswer`."""
    line, _, rest = block.partition(b"\r\n")
    matched = _STATUS_LINE.fullmatch(line)
    if matched is None:
        raise BadAnswer("its first line is not an HTTP/1.1 status line")
    minor, status, reason = int(matched[1]), int(matched[2]), matched[3] or b""
    try:
        fields = parse_fields(rest[:-2], max_fields=limits.fields * 2, max_line=limits.head)
        named = _collect(fields)
        framing, length = _response_framing(method, status, minor, named)
        options = _connection_options(named)
    except Malformed as error:
        raise BadAnswer(error.detail) from None
    upgrade = named.get(b"upgrade", [])
    return ResponseHead(
        status=status,
        reason=reason,
        minor=minor,
        fields=fields,
        framing=framing,
        length=length,
        options=options,
        upgrade=upgrade[0] if len(upgrade) == 1 and b"upgrade" in options else None,
    )


def _request_line(line: bytes, limits: Limits) -> tuple[bytes, bytes, int]:
    if len(line) > limits.line:
        raise BadMessage(
            "target_too_long", f"the request line is longer than {limits.line} bytes", status=414
        )
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        raise BadMessage("bad_request_line", "the first line is not an HTTP/1.1 request line")
    method, target, major, minor = matched.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        raise BadMessage("bad_version", "only HTTP/1.1 and HTTP/1.0 are spoken here", status=505)
    return method, target, int(minor)


def _collect(fields: list[Field]) -> dict[bytes, list[bytes]]:
    named: dict[bytes, list[bytes]] = {}
    for lower, _, value in fields:
        named.setdefault(lower, []).append(value)
    return named


def _request_framing(
    method: bytes, minor: int, named: dict[bytes, list[bytes]]
) -> tuple[Framing, int]:
    """RFC 9112 sections 6.1 to 6.3, for requests."""
    if not _FRAMING_LOOKALIKES.isdisjoint(named):
        raise Malformed("bad_framing", "a field that gateways take for a framing field")
    codings = named.get(b"transfer-encoding")
    lengths = named.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise Malformed("bad_framing", "both Transfer-Encoding and Content-Length")
        if minor == 0:
            raise Malformed("bad_framing", "Transfer-Encoding in an HTTP/1.0 request")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            members = parse_list(codings)
            if members and members[-1] == b"chunked" and members.count(b"chunked") == 1:
                raise BadMessage(
                    "unknown_coding", "the only transfer coding here is chunked", status=501
                )
            raise Malformed("bad_framing", "Transfer-Encoding does not end in one chunked")
        return Framing.CHUNKED, 0
    if lengths is not None:
        length = parse_length(lengths)
        if length and minor == 0 and method in _WITHOUT_BODY:
            # HTTP/1.0 servers disagree about whether these have a body.
            raise Malformed("bad_framing", "an HTTP/1.0 request of this method with a body")
        return (Framing.LENGTH, length) if length else (Framing.NONE, 0)
    return Framing.NONE, 0


def _response_framing(
    method: bytes, status: int, minor: int, named: dict[bytes, list[bytes]]
) -> tuple[Framing, int]:
    """RFC 9112 section 6.3, for answers."""
    codings = named.get(b"transfer-encoding")
    lengths = named.get(b"content-length")
    if codings is not None and lengths is not None:
        raise Malformed("bad_framing", "it has both Transfer-Encoding and Content-Length")
    length = parse_length(lengths) if lengths is not None else 0
    if method == b"HEAD" or status in (204, 304) or status < 200:
        return Framing.NONE, 0
    if codings is not None:
        if minor == 0 or parse_list(codings) != [b"chunked"]:
            raise Malformed("bad_framing", "its only transfer coding may be chunked")
        return Framing.CHUNKED, 0
    if lengths is not None:
        return (Framing.LENGTH, length) if length else (Framing.NONE, 0)
    return Framing.UNTIL_CLOSE, 0


def _connection_options(named: dict[bytes, list[bytes]]) -> frozenset[bytes]:
    """RFC 9110 section 7.6.1."""
    options = frozenset(parse_list(named.get(b"connection", [])))
    if not options.isdisjoint(_NEVER_HOP_BY_HOP - _HOP_OPTIONS_ALLOWED):
        raise Malformed("bad_connection", "Connection names a field that is not hop-by-hop")
    return options


def _host(minor: int, values: list[bytes]) -> bytes | None:
    """RFC 9112 section 3.2: exactly one valid Host; HTTP/1.0 may have none."""
    if not values and minor == 0:
        return None
    if len(values) != 1:
        raise BadMessage("bad_host", "a request has exactly one Host field")
    if not _HOST.fullmatch(values[0]):
        raise BadMessage("bad_host", "Host is not a host name or address with an optional port")
    return values[0]


def _expectation(minor: int, values: list[bytes]) -> bool:
    """RFC 9110 section 10.1.1."""
    if not values or minor == 0:
        return False
    if parse_list(values) != [b"100-continue"]:
        raise BadMessage("unknown_expectation", "the only known Expect is 100-continue", status=417)
    return True
