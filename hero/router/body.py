"""Following a body to its end, to pass it on as it comes. No I/O.

Each follower is fed what arrives and returns what is to be passed on; ``done`` says that the body
has ended, and ``rest`` then holds what followed it.
"""

from __future__ import annotations

import re
from typing import Protocol

from hero.router.grammar import TOKEN, Malformed, has_lone_lf
from hero.router.head import Framing, passed_trailers

#: RFC 9112 section 7.1: chunk-size [ chunk-ext ]. Extensions are dropped (section 7.1.1).
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*" % (TOKEN, TOKEN, _QUOTED)
)
_MAX_CHUNK_LINE = 256
_MAX_TRAILER = 8192


class BodyFollower(Protocol):
    """What knows where a body ends."""

    done: bool
    rest: bytes
    #: The most that it may hold; None for no bound.
    limit: int | None

    def feed(self, data: bytes) -> bytes:
        """Take *data*; return what is to be passed on. Raises `Malformed`."""

    def end(self) -> bool:
        """The sender closed the connection; whether that is a proper end of this body."""


class LengthBody:
    """A body of *length* bytes (RFC 9112 section 6.2)."""

    limit: int | None = None

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        if len(data) < self._left:
            self._left -= len(data)
            return data
        mine, self.rest = data[: self._left], data[self._left :]
        self._left = 0
        self.done = True
        return mine

    def end(self) -> bool:
        return False


class UntilCloseBody:
    """A body that lasts until its sender closes (RFC 9112 section 6.3, item 8)."""

    done = False
    rest = b""
    limit: int | None = None

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bool:
        self.done = True
        return True


class ChunkedBody:
    """A chunked body (RFC 9112 section 7.1).

    With *raw* it is passed on in chunks as large as they came, rewritten so that every recipient
    reads them alike; otherwise their content is. Trailer fields are passed on only where
    *trailers* asks for it.
    """

    def __init__(self, *, raw: bool, trailers: bool = False) -> None:
        self.done = False
        self.rest = b""
        self.size = 0
        self._raw = raw
        self._trailers = trailers
        self.limit: int | None = None
        self._pending = b""
        self._left = 0
        self._step = self._size_line

    def feed(self, data: bytes) -> bytes:
        if self._pending:
            data, self._pending = self._pending + data, b""
        out: list[bytes] = []
        position = 0
        while not self.done:
            reached = self._step(data, position, out)
            if reached < 0:
                self._pending = data[position:]
                break
            position = reached
        else:
            self.rest = data[position:]
        return b"".join(out)

    def end(self) -> bool:
        return False

    def _size_line(self, data: bytes, start: int, out: list[bytes]) -> int:
        stop = data.find(b"\r\n", start, start + _MAX_CHUNK_LINE)
        if stop < 0:
            if len(data) - start >= _MAX_CHUNK_LINE or b"\n" in data[start:]:
                raise Malformed("bad_chunk", "a chunk size line is too long or ends in a bare LF")
            return -1
        matched = _CHUNK_LINE.fullmatch(data, start, stop)
        if matched is None:
            raise Malformed("bad_chunk", "a chunk size is not a hexadecimal number")
        self._left = int(matched[1], 16)
        if self._left == 0:
            self._step = self._trailer
            return stop + 2
        self.size += self._left
        if self.limit is not None and self.size > self.limit:
            raise Malformed("body_too_large", f"the body is longer than {self.limit} bytes")
        if self._raw:
            out.append(b"%x\r\n" % self._left)
        self._step = self._content
        return stop + 2

    def _content(self, data: bytes, start: int, out: list[bytes]) -> int:
        part = data[start : start + self._left]
        if not part:
            return -1
        out.append(part)
        self._left -= len(part)
        if not self._left:
            self._step = self._content_end
        return start + len(part)

    def _content_end(self, data: bytes, start: int, out: list[bytes]) -> int:
        found = data[start : start + 2]
        if not b"\r\n".startswith(found):
            raise Malformed("bad_chunk", "a chunk is longer than its size says")
        if len(found) < 2:
            return -1
        if self._raw:
            out.append(found)
        self._step = self._size_line
        return start + 2

    def _trailer(self, data: bytes, start: int, out: list[bytes]) -> int:
        if data.startswith(b"\r\n", start):
            stop, lines = start + 2, b""
        else:
            found = data.find(b"\r\n\r\n", start, start + _MAX_TRAILER)
            if found < 0:
                if has_lone_lf(data[start:]):
                    raise Malformed("bad_line_end", "a trailer ends in a bare LF")
                if len(data) - start >= _MAX_TRAILER:
                    raise Malformed("bad_trailer", "the trailer section is too long")
                return -1
            stop, lines = found + 4, data[start : found + 2]
            lines = passed_trailers(lines)
        if self._raw:
            out.append(b"0\r\n" + (lines if self._trailers else b"") + b"\r\n")
        self.done = True
        return stop


def follower(
    framing: Framing,
    length: int,
    *,
    raw: bool,
    trailers: bool = False,
) -> BodyFollower:
    """What follows a body that is framed so."""
    match framing:
        case Framing.CHUNKED:
            return ChunkedBody(raw=raw, trailers=trailers)
        case Framing.UNTIL_CLOSE:
            return UntilCloseBody()
        case _:
            return LengthBody(length)
