"""Ids of requests and traces: random, unique, and cheap.

Random bytes are taken from the system by the kilobyte; each id uses its own.
"""

from __future__ import annotations

import os

_BATCH = 32768
_DIGITS = 16


class IdSource:
    """Hands out hexadecimal ids of 16 digits. Not for secrets: clients and services see them."""

    def __init__(self) -> None:
        self._text = ""
        self._position = 0
        # With a request's id behind it, a trace-id of 32 digits that nobody else has.
        self._trace_start = os.urandom(_DIGITS // 2).hex().encode()

    def take(self) -> str:
        """A new id."""
        position = self._position
        end = position + _DIGITS
        if end > len(self._text):
            self._text = os.urandom(_BATCH).hex()
            position, end = 0, _DIGITS
        self._position = end
        return self._text[position:end]

    def fields(
        self, request_id: str, trace: tuple[bytes, bytes] | None, *, given: bool = False
    ) -> bytes:
        """The end of a forwarded head: ``X-Request-ID``, and ``traceparent`` continued or begun.

        *trace* is the trace-id and the flags to continue (W3C Trace Context level 1). The
        parent-id, and of a new trace the end of its trace-id, are the request's id, unless that
        was *given* by the client.
        """
        own = request_id.encode()
        part = self.take().encode() if given else own
        if trace is None:
            return b"X-Request-ID: %b\r\ntraceparent: 00-%b%b-%b-01\r\n\r\n" % (
                own,
                self._trace_start,
                part,
                part,
            )
        return b"X-Request-ID: %b\r\ntraceparent: 00-%b-%b-%b\r\n\r\n" % (
            own,
            trace[0],
            part,
            trace[1],
        )
