"""Telling the explorer, again and again, that this node is alive and what it has.

Any explorer of the cluster will do: the sender stays with one that answers, and goes on to the
next one when it does not. Nothing on the node depends on an answer.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import attrs
from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from hero.errors import HeroError
from hero.explorer.model import Heartbeat, HeartbeatReply, NodeState

#: Seconds to the next heartbeat where the explorer has not said otherwise.
INTERVAL = 5.0
#: Seconds in which an explorer has to answer.
TIMEOUT = 10.0
#: A change is told after this many seconds at most, however long the interval is.
SOON = 1.0

Retry = Callable[[int], float]


class Explorer(Protocol):
    """What the sender needs of an explorer: a part of `ExplorerService`, as its proxy has it."""

    async def heartbeat(
        self, *, heartbeat: Heartbeat, tokens_digest: str, timeout: float
    ) -> HeartbeatReply:
        """See `ExplorerService.heartbeat`."""


def default_retry() -> Retry:
    """After a failed attempt (counted from 1), the seconds to the next: 1 s, doubling, to 30 s."""
    policy = backoffPolicy(1.0, 30.0, 2.0, jitter=lambda: random.uniform(0.0, 0.5))  # noqa: S311
    return lambda failures: policy(failures - 1)


@attrs.frozen
class Report:
    """What changes from one heartbeat to the next. ``heartbeat`` carries the VM records."""

    heartbeat: Heartbeat
    tokens_digest: str


class HeartbeatSender(Service):
    """Sends heartbeats while it runs.

    *explorers* are to be tried in this order, by address. *report* makes the heartbeat with the
    number that it is given. *accept* gets each answer. *retry* says how long to wait after so many
    failures in a row.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        explorers: Sequence[tuple[str, Explorer]],
        report: Callable[[int], Awaitable[Report]],
        accept: Callable[[HeartbeatReply], Awaitable[None]],
        retry: Retry | None = None,
    ) -> None:
        self._clock = clock
        self._explorers = list(explorers)
        self._report = report
        self._accept = accept
        self._retry = retry or default_retry()
        self._current = 0
        self._seq = 0
        self._failures = 0
        self._interval = INTERVAL
        self._told_digest: str | None = None
        self._changed = False
        self._next: IDelayedCall | None = None
        self._beating: Deferred[None] | None = None
        self.state: NodeState | None = None
        self.problem: str | None = None

    def startService(self) -> None:
        """Send the first heartbeat now."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._explorers:
            self._schedule(0.0)

    def stopService(self) -> None:
        """Send no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        if self._beating is not None:
            self._beating.cancel()

    def soon(self) -> None:
        """Something has changed: let the next heartbeat come within `SOON`."""
        self._changed = True
        call = self._next
        if call is None or not call.active() or self._failures:
            return
        if call.getTime() - self._clock.seconds() > SOON:
            call.reset(SOON)

    def _schedule(self, delay: float) -> None:
        if self.running:
            self._next = self._clock.callLater(delay, self._tick)

    def _tick(self) -> None:
        self._beating = Deferred.fromCoroutine(self._beat())
        self._beating.addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("a heartbeat could not be made", failure)
            self._schedule(self._interval)

    async def _beat(self) -> None:
        """Try each explorer once, from the current one on."""
        self._seq += 1
        self._changed = False
        report = await self._report(self._seq)
        for _ in self._explorers:
            address, explorer = self._explorers[self._current]
            try:
                reply, told = await self._send(explorer, report)
            except HeroError as error:
                self._note_failure(address, error)
                self._current = (self._current + 1) % len(self._explorers)
            else:
                self._told_digest = None if reply.send_vms else report.heartbeat.vms_digest
                await self._note_success(address, reply)
                self._schedule(self._pause(wanted_at_once=reply.send_vms and not told))
                return
        self._failures += 1
        self._schedule(self._retry(self._failures))

    def _pause(self, *, wanted_at_once: bool) -> float:
        if wanted_at_once:
            return 0.0
        return min(SOON, self._interval) if self._changed else self._interval

    async def _send(self, explorer: Explorer, report: Report) -> tuple[HeartbeatReply, bool]:
        """The answer, and whether it was told the VM records."""
        heartbeat = report.heartbeat
        known = heartbeat.vms_digest == self._told_digest
        if known:
            heartbeat = attrs.evolve(heartbeat, vms=None)
        reply = await explorer.heartbeat(
            heartbeat=heartbeat, tokens_digest=report.tokens_digest, timeout=TIMEOUT
        )
        return reply, not known

    def _note_failure(self, address: str, error: HeroError) -> None:
        # The next one to answer may know less than this one did.
        self._told_digest = None
        if self.problem is None:
            self._log.warn(
                "the explorer {address} does not take heartbeats: {error}",
                address=address,
                error=error.detail,
            )
        self.problem = f"the explorer {address} does not take heartbeats: {error.detail}"

    async def _note_success(self, address: str, reply: HeartbeatReply) -> None:
        if self.problem is not None or self.state is None:
            self._log.info("the explorer {address} takes heartbeats", address=address)
        if reply.state is not self.state:
            self._log.info("this node is {state}", state=reply.state.value)
        self.problem = None
        self.state = reply.state
        self._failures = 0
        self._interval = max(0.1, reply.interval)
        try:
            await self._accept(reply)
        except Exception:
            self._log.failure("the answer to a heartbeat could not be used")
