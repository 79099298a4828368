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
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"

#: RFC 9112 section 5: field-line = field-name ":" OWS field-value OWS, each ended by CRLF. A line
#: that starts with white space (obs-fold, section 5.2) or has white space before the colon
#: (section 5.1) does not match.
FIELD_LINES = rb"(?:" + TOKEN + rb":" + _VALUE + rb"\r\n)*+"
_FIELD_LINES = re.compile(FIELD_LINES)
_FIELD = re.compile(rb"([^:]+):([^\r]*)\r\n")
_TOKEN = re.compile(TOKEN)
_LONE_LF = re.compile(rb"(?<!\r)\n")

#: A field of a head: its name in lower case, as it was written, and its value.
Field = tuple[bytes, bytes, bytes]


class Malformed(ValueError):
    """The text does not follow the grammar; *reason* is a short word, *detail* a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def parse_fields(block: bytes, *, max_fields: int, max_line: int) -> list[Field]:
    """The field lines of *block*, each of which ends in CRLF. Raises `Malformed`."""
    if _FIELD_LINES.fullmatch(block) is None:
        explain(block)
    check_fields(block, max_fields=max_fields, max_line=max_line)
    return split_fields(block)


def split_fields(block: bytes) -> list[Field]:
    """The fields of *block*, which follows the grammar."""
    return [(n.lower(), n, value.strip(b" \t")) for n, value in _FIELD.findall(block)]


def check_fields(block: bytes, *, max_fields: int, max_line: int) -> None:
    """Raise `Malformed` where the field lines of *block* are too many or too long."""
    if block.count(b"\n") > max_fields:
        raise Malformed("too_many_fields", f"more than {max_fields} header fields")
    if len(block) > max_line and any(len(n) + len(v) > max_line for _, n, v in split_fields(block)):
        raise Malformed("field_too_long", f"a header field is longer than {max_line} bytes")


def explain(block: bytes) -> NoReturn:
    """Raise the `Malformed` that says what is wrong with the field lines of *block*."""
    matched = _FIELD_LINES.match(block)
    rest = block[matched.end() if matched else 0 :]
    line = rest.partition(b"\n")[0]
    if line[:1] in b" \t":
        raise Malformed("obs_fold", "a header field is continued on a second line")
    name, colon, value = line.partition(b":")
    if not colon:
        raise Malformed("bad_field", "a header line has no colon")
    if name[-1:] in b" \t" and name:
        raise Malformed("bad_field", "white space between a field name and its colon")
    if not _TOKEN.fullmatch(name):
        raise Malformed("bad_field", "a field name is not a token")
    if b"\r" in value[:-1] or not value.endswith(b"\r"):
        raise Malformed("bad_line_end", "a line ends in a bare CR or LF")
    raise Malformed("bad_field", "a field value holds a control character")


def has_lone_lf(data: bytes) -> bool:
    """Whether a line of *data* ends without CR, so that its head might never end for us."""
    return _LONE_LF.search(data) is not None


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
