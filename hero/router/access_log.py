"""One line of JSON for each request that was answered, or could not be."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

import attrs
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

_log = Logger()


@attrs.define
class Record:
    """What is known of one request. ``path`` has no query: queries may hold secrets."""

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


class AccessLog:
    """Sends each record, as an event of *observer*'s, wherever that writes it."""

    def __init__(self, observer: ILogObserver) -> None:
        self._log = Logger(namespace="hero.router.access", observer=observer)

    def write(self, record: Record, seconds: float) -> None:
        """*record* is complete; it took *seconds*."""
        self._log.info(
            "{method} {path} {status}",
            peer=record.peer,
            user=record.user,
            method=record.method,
            path=record.path,
            route=record.route,
            status=record.status,
            reason=record.reason,
            bytes_in=record.bytes_in,
            bytes_out=record.bytes_out,
            seconds=round(seconds, 6),
            request_id=record.request_id,
        )


class HasWrite(Protocol):
    """A file, as far as `JsonLines` needs it."""

    def write(self, data: str) -> Any: ...


_FIELDS = (
    "peer",
    "user",
    "method",
    "path",
    "route",
    "status",
    "reason",
    "bytes_in",
    "bytes_out",
    "seconds",
    "request_id",
)


@implementer(ILogObserver)
class JsonLines:
    """Writes the events of an `AccessLog` to *file*, one JSON object a line.

    A line that cannot be written, as on a full disk, is lost; its request is not.
    """

    def __init__(self, file: HasWrite | TextIO) -> None:
        self._file = file
        self._losing = False

    def __call__(self, event: LogEvent) -> None:
        at = datetime.fromtimestamp(event["log_time"], UTC)
        line = {"time": at.isoformat(timespec="milliseconds")}
        line.update((name, event[name]) for name in _FIELDS if event.get(name) is not None)
        try:
            self._file.write(json.dumps(line) + "\n")
        except (OSError, ValueError) as error:  # ValueError: it is closed, after a failed rotation
            if not self._losing:
                _log.error("the access log cannot be written: {reason}", reason=str(error))
            self._losing = True
        else:
            self._losing = False
