"""An epoll reactor that calls what is ready with nothing around it.

`EPollReactor` enters a log context for each event and looks again whether the descriptor is still
open. The context only puts a prefix before lines of the old log format. For the plain cases,
readable or writable and nothing else, this one calls `doRead` or `doWrite` itself; all else is left
to Twisted's code. Time is monotonic: Twisted's is the wall clock, and when that is set back, every
timer waits for it to catch up.

Plain twin: `twisted.internet.epollreactor.EPollReactor`, or ``twistd --reactor=epoll``.
"""

from __future__ import annotations

import sys
import time
from select import EPOLLIN, EPOLLOUT
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

from hero.router.fast.turn import Turn

#: Room for this many events is allocated for each call; the rest is reported by the next.
_EVENTS = 256


class LeanEpollReactor(EPollReactor):
    """See the module. An error that a `doRead` raises is logged, and costs that connection."""

    seconds = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.turn = Turn()
        super().__init__()  # type: ignore[no-untyped-call]

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, at most *timeout* seconds, and act on them."""
        selectables: dict[int, Any] = self._selectables
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, _EVENTS)
        except InterruptedError:
            return
        turn = self.turn
        turn.shared = len(events) > 1
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            try:
                if event == EPOLLIN:
                    why = selectable.doRead()
                elif event == EPOLLOUT:
                    why = selectable.doWrite()
                else:
                    log.callWithLogger(
                        selectable, self._doReadOrWrite, selectable, descriptor, event
                    )
                    continue
            except BaseException:
                log.err(None, f"from {type(selectable).__name__}")
                why = sys.exc_info()[1]
            if why:
                self._disconnectSelectable(selectable, why, event == EPOLLIN)  # type: ignore[no-untyped-call]
        if turn.shared:
            turn.end()

    doIteration = doPoll


def install() -> None:
    """Make it the reactor of this process."""
    installReactor(LeanEpollReactor())


def install_unless_chosen() -> None:
    """Make it the reactor, unless there is one: ``twistd --reactor`` or a test runner chose it."""
    if "twisted.internet.reactor" not in sys.modules:
        install()
