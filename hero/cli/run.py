"""Running the reactor for the length of one command."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Something to do with a reactor at hand.
Work = Callable[[Any], Awaitable[T]]


def run_in_new_reactor(work: Work[T]) -> T:
    """Run the reactor until *work* has ended, and return what it returned.

    A process can do this once, as a Twisted reactor cannot be restarted. Ctrl-C and SIGTERM cancel
    the work; unless it returns all the same, `KeyboardInterrupt` is raised when it has cleaned up.
    """
    from twisted.internet import reactor
    from twisted.internet.defer import CancelledError, Deferred
    from twisted.internet.error import ReactorNotRunning
    from twisted.python.failure import Failure

    outcome: list[Any] = []
    finished: Deferred[None] = Deferred()

    def ended(result: Any) -> None:
        outcome.append(result)
        finished.callback(None)
        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()

    def start() -> None:
        deferred = Deferred.fromCoroutine(_coroutine(work, reactor))
        reactor.addSystemEventTrigger("before", "shutdown", cancel, deferred)
        deferred.addBoth(ended)

    def cancel(deferred: Deferred[Any]) -> Deferred[None]:
        if not outcome:
            deferred.cancel()
        return finished

    reactor.callWhenRunning(start)
    reactor.run()
    if not outcome:
        raise KeyboardInterrupt
    result = outcome[0]
    if isinstance(result, Failure):
        if result.check(CancelledError):
            raise KeyboardInterrupt
        result.raiseException()
    return result  # type: ignore[no-any-return]


async def _coroutine(work: Work[T], reactor: Any) -> T:
    return await work(reactor)
