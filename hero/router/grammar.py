"""The parts of HTTP's grammar that requests, answers and trailers share.

Everything here accepts exactly what the RFCs generate, never what they let a lenient recipient
repair.
"""

from __future__ import annotations

import re
from typing import NoReturn

#: RFC 9110 section 5.6.2: token = 1*tchar
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

#: RFC 9110 section 5.5: field-content is visible characters, obs-text, and SP or HTAB between.
TEXT = bytes(c for c in range(256) if c == 0x09 or (c >= 0x20 and c != 0x7F))

_FIELD = re.compile(rb"([^:]+):([^\r]*)\r\n")
_TOKEN = re.compile(TOKEN)

#: A field of a head: its name in lower case, as it was written, and its value.
Field = tuple[bytes, bytes, bytes]


class Malformed(ValueError):
    """The text does not follow the grammar; *reason* is a short word, *detail* a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def parse_fields(block: bytes, *, max_fields: int) -> list[Field]:
    """The field lines of *block*, each of which ends in CRLF. Raises `Malformed`."""
    lines = [b"", *block.split(b"\r\n"), b""]
    if block.translate(None, TEXT) != b"\r\n" * (len(lines) - 3):
        explain(lines)
    if len(lines) - 3 > max_fields:
        raise Malformed("too_many_fields", f"more than {max_fields} header fields")
    for line in lines[1:-2]:
        name, colon, _ = line.partition(b":")
        if not colon:
            explain(lines)
        check_name(name)
    return split_fields(block)


def split_fields(block: bytes) -> list[Field]:
    """The fields of *block*, which follows the grammar."""
    return [(n.lower(), n, value.strip(b" \t")) for n, value in _FIELD.findall(block)]


def check_name(name: bytes) -> None:
    """Raise `Malformed` where *name* is no field name (RFC 9112 section 5)."""
    if _TOKEN.fullmatch(name):
        return
    if name[:1] in (b" ", b"\t"):
        raise Malformed("obs_fold", "a header field is continued on a second line")
    if name[-1:] in (b" ", b"\t"):
        raise Malformed("bad_field", "white space between a field name and its colon")
    raise Malformed("bad_field", "a field name is not a token")


def explain(lines: list[bytes]) -> NoReturn:
    """Raise the `Malformed` that says what is wrong with *lines*, those of a head: the first line,
    one for each field, and two empty ones."""
    for line in lines[1:-2]:
        name, colon, value = line.partition(b":")
        if colon:
            check_name(name)
        if b"\r" in line or b"\n" in line:
            raise Malformed("bad_line_end", "a line ends in a bare CR or LF")
        if line[:1] in (b" ", b"\t"):
            check_name(line)
        if not colon:
            raise Malformed("bad_field", "a header line has no colon")
        if value.translate(None, TEXT):
            raise Malformed("bad_field", "a field value holds a control character")
    raise Malformed("bad_line_end", "the first line ends in a bare CR or LF")


def has_lone_lf(data: bytes) -> bool:
    """Whether a line of *data* ends without CR, so that its head might never end for us.

    It is asked of all that came of a head whenever more of it comes, so it must cost next to
    nothing.
    """
    return data.count(b"\n") != data.count(b"\r\n")


def is_token(text: bytes) -> bool:
    """Whether *text* is a token."""
    return _TOKEN.fullmatch(text) is not None


def parse_list(values: list[bytes]) -> list[bytes]:
    """The members, in lower case, of a comma-separated list field (RFC 9110 section 5.6.1)."""
    joined = b",".join(values).lower()
    return [member for part in joined.split(b",") if (member := part.strip(b" \t"))]


def parse_length(values: list[bytes]) -> int:
    """The one Content-Length. Raises `Malformed`.

    RFC 9110 section 8.6 lets a recipient accept the same value repeated; we do not.
    """
    if len(values) != 1:
        raise Malformed("bad_framing", "more than one Content-Length")
    if not values[0].isdigit() or len(values[0]) > 18:
        raise Malformed("bad_framing", "Content-Length is not a decimal number")
    return int(values[0])
