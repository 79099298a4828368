"""What happened lately, in order, for whoever wants to follow.

An `EventLog` is a ring of the newest events. A reader holds a position in it, not a queue of its
own: one that is too slow loses the oldest events, learns of that by a ``reset``, and reads the
state afresh.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

#: The type of the event that stands for events that were lost.
RESET = "reset"


@attrs.frozen
class Event:
    """Something that happened. ``id`` grows, also over restarts of the service."""

    id: int
    type: str
    data: dict[str, Any]


class EventLog:
    """The newest *size* events. *clock* gives the first id, so that ids grow over restarts."""

    def __init__(self, clock: IReactorTime, size: int = 4096) -> None:
        self._events: deque[Event] = deque(maxlen=size)
        self._first = self._next = int(clock.seconds() * 1000) * 1000
        self._waiting: list[Deferred[None]] = []

    def publish(self, type: str, data: dict[str, Any]) -> int:
        """Add an event, whose *data* is a JSON value, and return its id."""
        event = Event(self._next, type, data)
        self._next += 1
        self._events.append(event)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)
        return event.id

    def subscribe(self, after: int | None = None) -> Subscription:
        """Follow the events that come after the one with the id *after*, or from now on."""
        return Subscription(self, self._next if after is None else after + 1)

    def _oldest(self) -> int:
        return self._events[0].id if self._events else self._next

    def _at(self, position: int) -> Event | None:
        """The event at *position*, None where it is still to come, or a reset."""
        if self._oldest() <= position < self._next:
            return self._events[position - self._oldest()]
        if position == self._next:
            return None
        return Event(self._next - 1, RESET, {})

    def _changed(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter


class Subscription:
    """A reader's position in an `EventLog`; an asynchronous iterator of `Event`."""

    def __init__(self, log: EventLog, position: int) -> None:
        self._log = log
        self._position = position

    @property
    def position(self) -> int:
        """The id of the last event that the reader has, or does not want."""
        return self._position - 1

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        """The next event, once there is one. Cancelling the wait loses nothing."""
        while (event := self._log._at(self._position)) is None:
            await self._log._changed()
        self._position = event.id + 1
        return event
