"""Reading the head of a request or an answer, and how its body is framed. No I/O.

Two parsers that disagree about where a message ends are what request smuggling needs, so whatever
is open to two readings is refused.

A head is checked as one block and not taken apart: one pass sees that every line follows the
grammar, a second one finds the few fields upon which a proxy acts (`ACTED_UPON`). What is left
once these are cut out is passed on as it came.
"""

from __future__ import annotations

import enum
import re
from typing import NoReturn

import attrs

from hero.router.errors import BadAnswer, BadMessage
from hero.router.grammar import (
    FIELD_LINES,
    TOKEN,
    Field,
    Malformed,
    check_fields,
    explain,
    parse_length,
    parse_list,
    split_fields,
)
from hero.router.limits import Limits

#: RFC 9112 section 3: method SP request-target SP HTTP-version
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/(\d)\.(\d)")
_REQUEST = re.compile(rb"(" + TOKEN + rb") ([!-~]++) HTTP/1\.([01])\r\n(" + FIELD_LINES + rb")\r\n")
#: RFC 9112 section 4: HTTP-version SP status-code SP [ reason-phrase ]. The last SP is missing in
#: the answers of several servers, without ambiguity.
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?"
_ANSWER = re.compile(_STATUS_LINE + rb"\r\n(" + FIELD_LINES + rb")\r\n")
#: RFC 3986 section 3.2.2 host, with an optional port; no user information.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")

#: RFC 9110 section 7.6.1, and the old Proxy-Connection. TE and Trailer describe one hop only.
_HOP_BY_HOP = (
    rb"connection|keep-alive|proxy-(?:connection|authenticate|authorization)|"
    rb"te|trailer|transfer-encoding|upgrade|http2-settings"
)
#: Only the router says these, also where a gateway reads any other mark as "-", as CGI's do
#: (RFC 3875 section 4.1.18 has "_" for both).
_MARK = rb"[!#$%&'*+\-.^_`|~]"
_RESERVED = (
    rb"x" + _MARK + rb"(?:(?:hero|forwarded)" + _MARK + rb"[^:]*|real" + _MARK + rb"ip)|forwarded"
)
#: Names that gateways which map "-" to "_" take for framing fields.
_LOOKALIKES = rb"content_length|transfer_encoding"


def _acting(*names: bytes) -> re.Pattern[bytes]:
    return re.compile(
        rb"\n(" + rb"|".join(names) + rb"):[ \t]*+([^\r]*?)[ \t]*\r(?=\n)", re.IGNORECASE
    )


#: Each matches from the line feed before a field to the carriage return behind it.
_ACTED_UPON_IN_REQUESTS = _acting(
    rb"(?=[cehtaxukpf])(?:"
    rb"connection|content-length|host|expect|trace(?:parent|state)|authorization|x-request-id|"
    rb"hero-on-behalf-of",
    _HOP_BY_HOP,
    _LOOKALIKES,
    _RESERVED + rb")",
)
_ACTED_UPON_IN_ANSWERS = _acting(
    rb"(?=[ctxkpuh])(?:content-length|x-request-id|x-hero-[^:]*", _HOP_BY_HOP + rb")"
)

#: Fields which the proxy acts upon, that no Connection option can take away.
_NEVER_HOP_BY_HOP = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type"})
#: Connection options that name no further field to cut out.
_USUAL_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade"})
#: Methods that give a body no meaning (RFC 9110 sections 9.3.1, 9.3.2 and 9.3.5).
_WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"DELETE"})
_NO_OPTIONS: frozenset[bytes] = frozenset()

#: Values of the fields that are acted upon, by name in lower case.
Named = dict[bytes, list[bytes]]


class Framing(enum.Enum):
    """Where a body ends (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


@attrs.define(kw_only=True, eq=False)
class RequestHead:
    """A request's head.

    ``passed`` are the field lines that go on as they came; ``named`` has the others, by name.
    ``options`` are the members of its Connection fields, in lower case. ``block`` has all field
    lines.
    """

    method: bytes
    target: bytes
    minor: int
    block: bytes
    passed: bytes
    named: Named
    host: bytes | None
    framing: Framing
    length: int
    options: frozenset[bytes]
    upgrade: bytes | None
    expects_continue: bool
    #: Whether the client can send another request after this one (RFC 9112 section 9.3).
    keep_alive: bool
    has_body: bool
    #: Whether it has a body that a service may not read, and take for its next request.
    has_odd_body: bool

    @property
    def fields(self) -> list[Field]:
        """All fields, in order."""
        return split_fields(self.block)

    def values(self, name: bytes) -> list[bytes]:
        """The values of the field *name*, which is in lower case."""
        return [value for lower, _, value in self.fields if lower == name]


@attrs.define(kw_only=True, eq=False)
class ResponseHead:
    """An answer's head; ``passed``, ``options`` and ``block`` as in `RequestHead`.

    ``given_length`` is the Content-Length to pass on, also where no body follows (HEAD, 304).
    """

    status: int
    reason: bytes
    minor: int
    block: bytes
    passed: bytes
    framing: Framing
    length: int
    given_length: bytes | None
    request_id: bytes | None
    options: frozenset[bytes]
    upgrade: bytes | None
    #: Whether the connection can carry another request after this answer.
    keep_alive: bool
    #: The start of the head by which it is passed on.
    start: bytes = b""

    @property
    def fields(self) -> list[Field]:
        """All fields, in order."""
        return split_fields(self.block)


def parse_request_head(block: bytes, limits: Limits) -> RequestHead:
    """Read *block*, a head up to and including its empty line. Raises `BadMessage`."""
    matched = _REQUEST.fullmatch(block)
    if matched is None or len(block) > limits.line:
        _check_request_line(block, limits)
    try:
        if matched is None:
            explain(block.partition(b"\r\n")[2][:-2])
        method, target, digit, lines = matched.groups()
        check_fields(lines, max_fields=limits.fields, max_line=limits.line)
        minor = 1 if digit == b"1" else 0
        named, passed = _cut(_ACTED_UPON_IN_REQUESTS, block, matched.start(4) - 1)
        framing, length = _request_framing(method, minor, named)
        options = _connection_options(named)
    except Malformed as error:
        status = 431 if error.reason in ("too_many_fields", "field_too_long") else 400
        raise BadMessage(error.reason, error.detail, status=status) from None
    if not options <= _USUAL_OPTIONS:
        passed = _without(passed, options)
    upgrade = named.get(b"upgrade")
    has_body = framing is not Framing.NONE
    return RequestHead(
        method=method,
        target=target,
        minor=minor,
        block=lines,
        passed=passed,
        named=named,
        host=_host(minor, named.get(b"host")),
        framing=framing,
        length=length,
        options=options,
        upgrade=upgrade[0] if upgrade and len(upgrade) == 1 and b"upgrade" in options and minor
        else None,
        expects_continue=b"expect" in named and _expectation(minor, named[b"expect"]),
        keep_alive=b"close" not in options and (minor == 1 or b"keep-alive" in options),
        has_body=has_body,
        has_odd_body=has_body and method in _WITHOUT_BODY,
    )  # fmt: skip


def parse_response_head(block: bytes, method: bytes, limits: Limits) -> ResponseHead:
    """Read the head of an answer to a *method* request. Raises `BadAnswer`."""
    matched = _ANSWER.fullmatch(block)
    if matched is None:
        _explain_answer(block)
    digit, code, reason, lines = matched.groups()
    minor, status = int(digit), int(code)
    try:
        check_fields(lines, max_fields=limits.fields * 2, max_line=limits.head)
        named, passed = _cut(_ACTED_UPON_IN_ANSWERS, block, matched.start(4) - 1)
        framing, length = _response_framing(method, status, minor, named)
        options = _connection_options(named)
    except Malformed as error:
        raise BadAnswer(error.detail) from None
    if not options <= _USUAL_OPTIONS:
        passed = _without(passed, options)
    upgrade = named.get(b"upgrade")
    lengths = named.get(b"content-length")
    given_id = named.get(b"x-request-id")
    # RFC 9110 section 8.6. A client that believes one would wait for a body.
    without_length = status < 200 or status == 204
    return ResponseHead(
        status=status,
        reason=reason or b"",
        minor=minor,
        block=lines,
        passed=passed,
        framing=framing,
        length=length,
        given_length=lengths[0] if lengths and not without_length else None,
        request_id=given_id[0] if given_id else None,
        options=options,
        upgrade=upgrade[0] if upgrade and len(upgrade) == 1 and b"upgrade" in options else None,
        keep_alive=framing is not Framing.UNTIL_CLOSE
        and b"close" not in options
        and (minor == 1 or b"keep-alive" in options),
    )


def _cut(acted_upon: re.Pattern[bytes], block: bytes, start: int) -> tuple[Named, bytes]:
    """The fields that are *acted_upon*, and the lines of *block* that are not.

    *start* is the line feed that ends the first line.
    """
    named: Named = {}
    kept: list[bytes] = []
    begin = start + 1
    for found in acted_upon.finditer(block, start):
        line, end = found.span()
        if line + 1 > begin:
            kept.append(block[begin : line + 1])
        begin = end + 1
        name = found[1].lower()
        if name in named:
            named[name].append(found[2])
        else:
            named[name] = [found[2]]
    kept.append(block[begin:-2])
    return named, b"".join(kept)


def _without(lines: bytes, names: frozenset[bytes]) -> bytes:
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for lower, name, value in split_fields(lines)
        if lower not in names
    )


def _check_request_line(block: bytes, limits: Limits) -> None:
    line = block.partition(b"\r\n")[0]
    if len(line) > limits.line:
        raise BadMessage(
            "target_too_long", f"the request line is longer than {limits.line} bytes", status=414
        )
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        raise BadMessage("bad_request_line", "the first line is not an HTTP/1.1 request line")
    if matched[3] != b"1" or matched[4] not in (b"0", b"1"):
        raise BadMessage("bad_version", "only HTTP/1.1 and HTTP/1.0 are spoken here", status=505)


def _explain_answer(block: bytes) -> NoReturn:
    line, _, rest = block.partition(b"\r\n")
    if re.fullmatch(_STATUS_LINE, line) is None:
        raise BadAnswer("its first line is not an HTTP/1.1 status line")
    try:
        explain(rest[:-2])
    except Malformed as error:
        raise BadAnswer(error.detail) from None


def _request_framing(method: bytes, minor: int, named: Named) -> tuple[Framing, int]:
    """RFC 9112 sections 6.1 to 6.3, for requests."""
    if b"content_length" in named or b"transfer_encoding" in named:
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


def _response_framing(method: bytes, status: int, minor: int, named: Named) -> tuple[Framing, int]:
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


def _connection_options(named: Named) -> frozenset[bytes]:
    """RFC 9110 section 7.6.1."""
    values = named.get(b"connection")
    if values is None:
        return _NO_OPTIONS
    options = frozenset(parse_list(values))
    if not options.isdisjoint(_NEVER_HOP_BY_HOP):
        raise Malformed("bad_connection", "Connection names a field that is not hop-by-hop")
    return options


def _host(minor: int, values: list[bytes] | None) -> bytes | None:
    """RFC 9112 section 3.2: exactly one valid Host; HTTP/1.0 may have none."""
    if values is None and minor == 0:
        return None
    if values is None or len(values) != 1:
        raise BadMessage("bad_host", "a request has exactly one Host field")
    if not _HOST.fullmatch(values[0]):
        raise BadMessage("bad_host", "Host is not a host name or address with an optional port")
    return values[0]


def _expectation(minor: int, values: list[bytes]) -> bool:
    """RFC 9110 section 10.1.1."""
    if minor == 0:
        return False
    if parse_list(values) != [b"100-continue"]:
        raise BadMessage("unknown_expectation", "the only known Expect is 100-continue", status=417)
    return True
