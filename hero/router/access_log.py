"""One line of JSON for each request that was answered, or could not be.

A request pays for a list's append, and its share of encoding a batch. The bytes go to a thread
(`LineWriter`) a few times a second: a slow or full disk costs lines, never requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from hero.router.line_writer import LineWriter

#: Records that are encoded at once: little enough for the pause not to be felt.
_BATCH = 128
#: Encoded lines that are handed to the writer at once, whatever the time, in bytes.
_HELD = 1024 * 1024
#: From a record to its line in the file, in seconds.
_DELAY = 0.2

_log = Logger()


class Record(msgspec.Struct, gc=False):
    """What is known of one request; its fields, in this order, are those of the log's line.

    ``path`` has no query: queries may hold secrets. ``started`` is a moment of the router's own
    clock, which means nothing elsewhere, and is not written. ``upstream_seconds`` are those from
    sending the request to the first byte of the answer.
    """

    started: float
    request_id: str
    peer: str
    method: str = "-"
    path: str = "-"
    route: str = "-"
    user: str = "anonymous"
    status: int = 0
    reason: str | None = None
    tunnel: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    protocol: str = "HTTP/1.1"
    upstream_seconds: float | None = None
    seconds: float = 0.0
    time: str = ""


class AccessLog:
    """Passes records on to *writer*; without one they are forgotten.

    *clock* is the reactor's; *wall* tells the time of day, in seconds of the epoch.
    """

    def __init__(
        self,
        clock: IReactorTime,
        writer: LineWriter | None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._open = writer is not None
        self._wall = wall
        self._records: list[Record] = []
        self._held: list[bytes] = []
        self._held_bytes = self._held_lines = 0
        self._timer: IDelayedCall | None = None
        self._encoder = msgspec.json.Encoder()
        self._millisecond = self._next_millisecond = 0.0
        self._time = self._time_of_second = ""
        self._second = -1
        self._told = False

    @property
    def lost(self) -> int:
        """Lines that were not written, so far."""
        return self._writer.lost if self._writer is not None else 0

    def write(self, record: Record, seconds: float) -> None:
        """*record* is complete, and ours from here on; it took *seconds*."""
        if not self._open:
            return
        now = self._wall()
        if not self._millisecond <= now < self._next_millisecond:
            self._read_time(now)
        record.time = self._time
        record.seconds = seconds
        record.started = msgspec.UNSET  # type: ignore[assignment]
        records = self._records
        records.append(record)
        if len(records) >= _BATCH or self._timer is None:
            self._gather()

    def reopen(self) -> None:
        """Go on in a new file, as the present one was moved away."""
        if self._open and self._writer is not None:
            self._hand_over()
            self._writer.reopen()

    def close(self) -> None:
        """Write what is left, waiting for it, and end."""
        writer = self._writer
        if writer is None or not self._open:
            return
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        self._hand_over()
        writer.close()
        self._report(writer)

    def _read_time(self, now: float) -> None:
        """Formatting costs more than all else of `write`; many requests share a millisecond."""
        milliseconds = int(now * 1000)
        self._millisecond, self._next_millisecond = milliseconds / 1000, (milliseconds + 1) / 1000
        second, rest = divmod(milliseconds, 1000)
        if second != self._second:
            self._second = second
            self._time_of_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._time = f"{self._time_of_second}.{rest:03}Z"

    def _gather(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(_DELAY, self._tick)
        if len(self._records) >= _BATCH:
            self._encode()
            if self._held_bytes >= _HELD:
                self._hand_over()

    def _encode(self) -> None:
        records, self._records = self._records, []
        lines = self._encoder.encode_lines(records)
        self._held.append(lines)
        self._held_bytes += len(lines)
        self._held_lines += len(records)

    def _hand_over(self) -> None:
        if self._records:
            self._encode()
        if self._held and self._writer is not None:
            self._writer.put(b"".join(self._held), self._held_lines)
            self._held = []
            self._held_bytes = self._held_lines = 0

    def _tick(self) -> None:
        """Stops when there is nothing more to write, nor to be told about it."""
        self._timer = None
        writer = self._writer
        assert writer is not None
        self._hand_over()
        # Asked before the report: what goes wrong in between is told the next time.
        busy = writer.busy
        self._report(writer)
        if busy:
            self._timer = self._clock.callLater(_DELAY, self._tick)

    def _report(self, writer: LineWriter) -> None:
        """Say once that lines are lost, and once that they no longer are."""
        trouble = writer.trouble
        if trouble is not None and not self._told:
            _log.error(
                "the access log cannot be written, its lines are lost: {reason}", reason=trouble
            )
        elif trouble is None and self._told:
            _log.info("the access log is written again; lost: {lost} lines", lost=writer.lost)
        self._told = trouble is not None
