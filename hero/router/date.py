"""The Date field of answers that have none (RFC 9110 section 6.6.1)."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate


class DateSource:
    """Tells the time as HTTP writes it; *wall* is in seconds of the epoch.

    Formatting is done once a second.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._second = 0
        self._value = b""

    def value(self) -> bytes:
        """Such as ``Sun, 06 Nov 1994 08:49:37 GMT`` (section 5.6.7)."""
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self._value = formatdate(second, usegmt=True).encode()
        return self._value
