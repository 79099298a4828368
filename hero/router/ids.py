"""Ids of requests and traces: random, unique, and cheap.

Random bytes are taken from the system by the kilobyte; each id uses its own.
"""

from __future__ import annotations

import os

_BATCH = 32768


class IdSource:
    """Hands out hexadecimal ids. Not for secrets: an id is shown to clients and services."""

    def __init__(self) -> None:
        self._text = ""
        self._position = 0

    def take(self, digits: int) -> str:
        """*digits* random hexadecimal digits."""
        position = self._position
        end = position + digits
        if end > len(self._text):
            self._text = os.urandom(_BATCH).hex()
            position, end = 0, digits
        self._position = end
        return self._text[position:end]

    def fields(self, request_id: str, trace: tuple[bytes, bytes] | None) -> bytes:
        """The end of a forwarded head: ``X-Request-ID``, and ``traceparent`` continued or begun.

        *trace* is the trace-id and the flags to continue (W3C Trace Context level 1).
        """
        digits = self.take(48)
        if trace is None:
            return (
                f"X-Request-ID: {request_id}\r\n"
                f"traceparent: 00-{digits[:32]}-{digits[32:]}-01\r\n\r\n"
            ).encode()
        return b"X-Request-ID: %b\r\ntraceparent: 00-%b-%b-%b\r\n\r\n" % (
            request_id.encode(),
            trace[0],
            digits[32:].encode(),
            trace[1],
        )
