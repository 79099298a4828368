"""Reading the head of a request or an answer, and how its body is framed. No I/O.

Two parsers that disagree about where a message ends are what request smuggling needs, so whatever
is open to two readings is refused.

Lines repeat, in heads that differ in others. So a line is looked at once, as long as it is
remembered, unless it is one upon which a proxy acts; all others are passed on as they came.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache

import msgspec

from hero.router.errors import BadAnswer, BadMessage
from hero.router.grammar import (
    TEXT,
    TOKEN,
    Field,
    Malformed,
    check_name,
    explain,
    parse_fields,
    parse_length,
    parse_list,
    split_fields,
)
from hero.router.limits import Limits

#: RFC 9112 section 3: method SP request-target SP HTTP-version
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/(\d)\.(\d)")
#: RFC 9112 section 4: HTTP-version SP status-code SP [ reason-phrase ]. The last SP is missing in
#: the answers of several servers, without ambiguity.
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?")
#: RFC 3986 section 3.2.2 host, with an optional port; no user information.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{0,5}))?")

#: RFC 9110 section 7.6.1, and the old Proxy-Connection. TE and Trailer describe one hop only.
_HOP_BY_HOP = (
    rb"connection|keep-alive|proxy-(?:connection|authenticate|authorization)|"
    rb"te|trailer|transfer-encoding|upgrade|http2-settings"
)
#: Only the router says these, also where a gateway reads any other mark as "-", as CGI's do
#: (RFC 3875 section 4.1.18 has "_" for both).
_RESERVED = (
    rb"x[^a-z0-9](?:(?:hero|forwarded)[^a-z0-9].*|real[^a-z0-9]ip)|forwarded|hero-on-behalf-of"
)
#: Some frameworks take the path from these instead of the request line.
_OTHER_PATHS = rb"x[^a-z0-9](?:original|rewrite)[^a-z0-9]ur[il]"
#: Names that gateways which map "-" to "_" take for framing fields.
_LOOKALIKES = rb"content_length|transfer_encoding"
_ACTED_UPON_IN_REQUESTS = re.compile(
    rb"content-length|host|expect|trace(?:parent|state)|authorization|x-request-id|"
    + rb"|".join((_HOP_BY_HOP, _LOOKALIKES, _RESERVED, _OTHER_PATHS))
)
_ACTED_UPON_IN_ANSWERS = re.compile(rb"content-length|x-request-id|x-hero-.*|" + _HOP_BY_HOP)
#: Fields of framing, routing, authentication and of the content's kind.
_HEAD_ONLY = re.compile(
    rb"content-.*|host|set-cookie|cache-control|date|location|vary|www-authenticate|authorization"
)
_TRAILERS = 50
_DATE = re.compile(rb"(?:^|\n)date:", re.IGNORECASE)
#: Names and lines that are remembered, of requests and of answers.
_NAMES = 4096
_LINES = 4096
_LONGEST_LINE = 256

#: Fields which the proxy acts upon, that no Connection option can take away.
_NEVER_HOP_BY_HOP = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type"})
#: Connection options that name no further field to cut out.
_USUAL_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade"})
#: Methods that give a body no meaning (RFC 9110 sections 9.3.1, 9.3.2 and 9.3.5).
_WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"DELETE"})
_NO_OPTIONS: frozenset[bytes] = frozenset()
_ONLY_HOST = {b"host"}

#: Values of the fields that are acted upon, by name in lower case.
Named = dict[bytes, list[bytes]]


class Framing(enum.Enum):
    """Where a body ends (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


class RequestHead(msgspec.Struct, eq=False, frozen=True):
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
        return split_fields(self.block.partition(b"\r\n")[2][:-2])

    def values(self, name: bytes) -> list[bytes]:
        """The values of the field *name*, which is in lower case."""
        return [value for lower, _, value in self.fields if lower == name]


class ResponseHead(msgspec.Struct, kw_only=True, eq=False):
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
    #: Whether it says when it was made.
    dated: bool
    #: The start of the head by which it is passed on.
    start: bytes = b""

    @property
    def fields(self) -> list[Field]:
        """All fields, in order."""
        return split_fields(self.block.partition(b"\r\n")[2][:-2])


def parse_request_head(block: bytes, limits: Limits) -> RequestHead:
    """Read *block*, a head up to and including its empty line. Raises `BadMessage`."""
    lines = block.split(b"\r\n")
    method, target, minor = _request_line(lines[0], limits)
    try:
        named, passed = _read_lines(
            lines, _ACTED_UPON_IN_REQUESTS, _lines_of_requests, limits.fields
        )
        if len(block) > limits.line:
            _check_lengths(lines, limits.line)
        framing, length, options = Framing.NONE, 0, _NO_OPTIONS
        if named.keys() != _ONLY_HOST:
            framing, length = _request_framing(method, minor, named)
            options = _connection_options(named)
    except Malformed as error:
        status = 431 if error.reason in ("too_many_fields", "field_too_long") else 400
        raise BadMessage(error.reason, error.detail, status=status) from None
    if options and not options <= _USUAL_OPTIONS:
        passed = _without(passed, options)
    upgrade = None
    if minor and b"upgrade" in options and len(named.get(b"upgrade", ())) == 1:
        upgrade = named[b"upgrade"][0]
    has_body = framing is not Framing.NONE
    return RequestHead(
        method,
        target,
        minor,
        block,
        passed,
        named,
        _host(minor, named.get(b"host")),
        framing,
        length,
        options,
        upgrade,
        b"expect" in named and _expectation(minor, named[b"expect"]),
        b"close" not in options and (minor == 1 or b"keep-alive" in options),
        has_body,
        has_body and method in _WITHOUT_BODY,
    )


def parse_response_head(block: bytes, method: bytes, limits: Limits) -> ResponseHead:
    """Read the head of an answer to a *method* request. Raises `BadAnswer`."""
    lines = block.split(b"\r\n")
    matched = _STATUS_LINE.fullmatch(lines[0])
    if matched is None:
        raise BadAnswer("its first line is not an HTTP/1.1 status line")
    digit, code, reason = matched.groups()
    minor, status = int(digit), int(code)
    try:
        named, passed = _read_lines(
            lines, _ACTED_UPON_IN_ANSWERS, _lines_of_answers, limits.fields * 2
        )
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
        block=block,
        passed=passed,
        framing=framing,
        length=length,
        given_length=lengths[0] if lengths and not without_length else None,
        request_id=given_id[0] if given_id else None,
        dated=_DATE.search(passed) is not None,
        options=options,
        upgrade=upgrade[0] if upgrade and len(upgrade) == 1 and b"upgrade" in options else None,
        keep_alive=framing is not Framing.UNTIL_CLOSE
        and b"close" not in options
        and (minor == 1 or b"keep-alive" in options),
    )


def _read_lines(
    lines: list[bytes], acted_upon: re.Pattern[bytes], memory: _Lines, max_fields: int
) -> tuple[Named, bytes]:
    """The fields that are acted upon, and the lines of the others. Raises `Malformed`.

    *lines* are those of a head: the first line, one for each field, and two empty ones.
    """
    fields = lines[1:-2]
    if len(fields) > max_fields:
        raise Malformed("too_many_fields", f"more than {max_fields} header fields")
    named: Named = {}
    for line in [line for line in fields if line not in memory.inert]:
        name, value = memory.acted_upon.get(line) or _read_line(line, lines, acted_upon, memory)
        if name:
            fields.remove(line)
            if name in named:
                named[name].append(value)
            else:
                named[name] = [value]
    fields.append(b"")
    return named, b"\r\n".join(fields)


def _read_line(
    line: bytes, lines: list[bytes], acted_upon: re.Pattern[bytes], memory: _Lines
) -> tuple[bytes, bytes]:
    """The field of *line*, one of *lines*, if it is acted upon; else an empty name."""
    name, colon, value = line.partition(b":")
    if not colon or line.translate(None, TEXT):
        explain(lines)
    look = _recall_acted_upon if len(line) <= _LONGEST_LINE else _acted_upon
    lower = look(acted_upon, name)
    if lower is None:
        memory.remember_inert(line)
        return b"", b""
    field = lower, value.strip(b" \t")
    memory.remember_acted_upon(line, field)
    return field


class _Lines:
    """Field lines that follow the grammar, and need no second look.

    Clients and services send the same lines again and again, in heads that differ in others. Long
    ones, and all but the latest few thousand, are forgotten.
    """

    def __init__(self) -> None:
        #: Upon these nobody acts.
        self.inert: set[bytes] = set()
        #: Upon these a proxy does: their fields.
        self.acted_upon: dict[bytes, tuple[bytes, bytes]] = {}

    def remember_inert(self, line: bytes) -> None:
        if len(line) <= _LONGEST_LINE:
            if len(self.inert) >= _LINES:
                self.inert.clear()
            self.inert.add(line)

    def remember_acted_upon(self, line: bytes, field: tuple[bytes, bytes]) -> None:
        if len(line) <= _LONGEST_LINE:
            if len(self.acted_upon) >= _LINES:
                self.acted_upon.clear()
            self.acted_upon[line] = field


_lines_of_requests = _Lines()
_lines_of_answers = _Lines()


def passed_trailers(block: bytes) -> bytes:
    """The lines of a trailer section that are passed on. Raises `Malformed`.

    Those that would have to be in the head are not (RFC 9110 section 6.5.1).
    """
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for lower, name, value in parse_fields(block, max_fields=_TRAILERS)
        if _acted_upon(_ACTED_UPON_IN_ANSWERS, name) is None and not _HEAD_ONLY.fullmatch(lower)
    )


def _acted_upon(names: re.Pattern[bytes], name: bytes) -> bytes | None:
    """*name* in lower case, if it is one of *names*. Raises `Malformed`."""
    check_name(name)
    lower = name.lower()
    return lower if names.fullmatch(lower) else None


_recall_acted_upon = lru_cache(_NAMES)(_acted_upon)


def _check_lengths(lines: list[bytes], max_line: int) -> None:
    if any(len(line) > max_line for line in lines):
        raise Malformed("field_too_long", f"a header field is longer than {max_line} bytes")


def _without(lines: bytes, names: frozenset[bytes]) -> bytes:
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for lower, name, value in split_fields(lines)
        if lower not in names
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
    return method, target, 1 if minor == b"1" else 0


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
        if minor == 0 or len(codings) != 1 or codings[0].lower() != b"chunked":
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
    host = values[0]
    if not (_recall_host(host) if len(host) <= _LONGEST_LINE else _is_host(host)):
        raise BadMessage("bad_host", "Host is not a host name or address with an optional port")
    return host


def _is_host(value: bytes) -> bool:
    matched = _HOST.fullmatch(value)
    return matched is not None and int(matched[1] or 0) <= 65535


_recall_host = lru_cache(_NAMES)(_is_host)


def _expectation(minor: int, values: list[bytes]) -> bool:
    """RFC 9110 section 10.1.1."""
    if minor == 0:
        return False
    if parse_list(values) != [b"100-continue"]:
        raise BadMessage("unknown_expectation", "the only known Expect is 100-continue", status=417)
    return True
