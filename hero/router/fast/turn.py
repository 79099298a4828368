"""What a turn of the reactor collects, to be sent at its end.

A proxy that sends at once wakes a service for one request, which it answers and then waits for the
next, still on its way here: each message costs a wake-up on the other side, which this side pays
for. So when a turn has more than one event to act upon, small writes wait for its end and leave
together. With a single event there is nothing to wait for.
"""

from __future__ import annotations

from typing import Protocol


class CanFlush(Protocol):
    """A connection, as far as `Turn` needs it."""

    def flush(self) -> None:
        """Send what was written."""


class Turn:
    """``shared`` while the reactor acts upon several events; ``waiting`` has what to flush then."""

    def __init__(self) -> None:
        self.shared = False
        self.waiting: list[CanFlush] = []

    def end(self) -> None:
        """Send what was written."""
        self.shared = False
        waiting, self.waiting = self.waiting, []
        for connection in waiting:
            connection.flush()


#: For reactors that have none of their own.
NO_TURN = Turn()
