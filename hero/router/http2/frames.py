"""Looking at frame headers before anybody acts on frames (RFC 9113 section 4.1). No I/O.

`h2` waits for the whole of a frame that is too long, keeps header blocks that never end, takes
frames that cost their sender nothing for as long as they come, and cannot answer once the client
has sent GOAWAY (python-hyper/h2#1181). So each frame header is looked at here first: four
comparisons, before anything is allocated for it.
"""

from __future__ import annotations

from hero.router.http2.budget import Budget

_PREFACE = 24
_HEADER = 9
_DATA, _HEADERS, _RST_STREAM, _GOAWAY, _CONTINUATION = 0x0, 0x1, 0x3, 0x7, 0x9
_END_STREAM, _END_HEADERS = 0x1, 0x4

#: RFC 9113 section 6.5.2: the least that a client may be allowed, and all that we announce.
MAX_FRAME = 16384

#: Streams a client may cancel (CVE-2023-44487): a page that is left cancels all it asked for.
_RESETS, _RESETS_A_SECOND = 200, 20
#: Frames that carry nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, CONTINUATION, empty DATA.
_FRAMES, _FRAMES_A_SECOND = 1000, 100
#: For each frame of an answer a client may well send two WINDOW_UPDATE, and some pings.
_EARNED, _MOST_EARNED = 3, 20_000


class Flood(Exception):
    """The client sends too much of what means nothing. *reason* is for the metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FrameTooLong(Exception):
    """A frame is longer than `MAX_FRAME` (RFC 9113 section 4.2)."""


class FrameWatch:
    """Follows the frames of one client. A header block may have *max_block* bytes, encoded."""

    def __init__(self, max_block: int, now: float) -> None:
        self._max_block = max_block
        self._resets = Budget(_RESETS, _RESETS_A_SECOND, now)
        self._frames = Budget(_FRAMES, _FRAMES_A_SECOND, now)
        self._partial = b""
        #: Bytes of the current frame that are still to come; those to be cut out, if `_cutting`.
        self._left = _PREFACE
        self._cutting = False
        self._block = 0
        self._block_ends = True
        #: Whether the client said that it will go (RFC 9113 section 6.8).
        self.leaving = False

    @property
    def in_head(self) -> bool:
        """Whether a header block has begun, and not ended."""
        return self._block > 0

    def feed(self, data: bytes, now: float) -> bytes:
        """Look at *data*; return what is for `h2`. Raises `Flood` and `FrameTooLong`."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        size = len(data)
        position = 0
        kept: list[bytes] | None = None
        begin = 0
        while True:
            if self._left > size - position:
                self._left -= size - position
                position = size
                break
            position += self._left
            self._left = 0
            if self._cutting:
                self._cutting = False
                begin = position
            elif self._block and self._block_ends:
                self._block = 0
            if size - position < _HEADER:
                break
            if self._look(data, position, now):
                kept = [] if kept is None else kept
                kept.append(data[begin:position])
                begin = position
            position += _HEADER
        self._partial = data[position:]
        stop = begin if self._cutting else position
        if kept is None:
            return data[begin:stop] if begin or stop < size else data
        kept.append(data[begin:stop])
        return b"".join(kept)

    def reset_by_us(self, now: float) -> None:
        """The client made us cancel a stream, which is as good as cancelling it. Raises `Flood`."""
        if not self._resets.spend(now):
            raise Flood("http2_rapid_reset")

    def answered(self) -> None:
        """A frame of an answer was sent."""
        self._frames.earn(_EARNED, _MOST_EARNED)

    def _look(self, data: bytes, at: int, now: float) -> bool:
        """Take note of the frame whose header is at *at*; whether to cut it out."""
        length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
        kind, flags = data[at + 3], data[at + 4]
        if length > MAX_FRAME:
            raise FrameTooLong
        self._left = length
        if kind in (_HEADERS, _CONTINUATION):
            self._block += length + 1
            self._block_ends = bool(flags & _END_HEADERS)
            if self._block > self._max_block:
                raise Flood("http2_flood")
            free = kind == _HEADERS
        elif kind == _RST_STREAM:
            free = self._resets.spend(now)
            if not free:
                raise Flood("http2_rapid_reset")
        else:
            free = kind == _DATA and bool(length or flags & _END_STREAM)
        if not free and not self._frames.spend(now):
            raise Flood("http2_flood")
        if kind == _GOAWAY and not self._block and length >= 8 and not any(data[at + 5 : at + 9]):
            self.leaving = self._cutting = True
        return self._cutting
