"""``--workers``: the processes that serve, and the one that looks after them.

The main process has the listening sockets, the management socket and the signals; each worker
finds the routes, keeps connections to services and checks identities for itself. A worker that
dies takes its own connections with it, and is started again with the sockets that it had, in
whose queues clients wait meanwhile.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import attrs
import msgspec
from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from hero.errors import HeroError
from hero.router.listening import Listeners
from hero.router.model import Connection, Route, RouteState
from hero.router.settings import Options
from hero.router.snapshot import RouterSnapshot, add_pools, as_past, keep_routes, merge
from hero.router.worker_link import (
    FIRST_SOCKET,
    FROM_MAIN,
    LONGEST,
    TO_MAIN,
    Answer,
    Ask,
    Command,
    Given,
    Lines,
    Question,
    Start,
)

#: Seconds that a worker has to answer.
_PATIENCE = 2.0
#: Seconds between two looks at what workers counted, so that little is forgotten when one dies.
_LOOK = 5.0
#: A worker that lived as long did not fail to start.
_WELL = 10.0
#: Failures to start after which the router does not.
_TRIES = 4
#: Beyond what they have to finish, for workers to end.
_GRACE = 5.0
#: A log line of a worker's.
_LOG_LINE = 65536

_log = Logger()
_chance = random.SystemRandom()
T = TypeVar("T")


class WorkersKeepDying(HeroError):
    """The workers of the router end as soon as they start; the log says why."""

    kind = "workers_keep_dying"


class Workers:
    """*count* processes that serve on *listeners*, together; implements `Serving` and `RouterView`.

    ``restarts`` and ``silences`` (questions that a worker did not answer in time) are counted.
    """

    def __init__(self, reactor: Any, options: Options, listeners: Listeners, count: int) -> None:
        self._reactor = reactor
        self._options = options
        self._listeners = listeners
        self._count = count
        self._slots = [_Slot(self, number) for number in range(count)]
        self._ready: Deferred[None] | None = Deferred()
        self._past = RouterSnapshot(workers=0)
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._accepting = self._ending = False
        self._ended: list[Deferred[None]] = []
        self._backoff = backoffPolicy(0.2, 30.0, 2.0, jitter=lambda: _chance.uniform(0, 0.2))
        self.restarts = 0
        self.silences = 0

    @property
    def pids(self) -> dict[int, int]:
        """The process ids of the workers that run, by number."""
        return {slot.number: slot.pid for slot in self._slots if slot.pid is not None}

    # `Serving`

    def start(self) -> None:
        """See `Serving`."""
        for slot in self._slots:
            slot.start()
        self._looking.start(_LOOK, now=False)

    async def ready(self) -> None:
        """See `Serving`. Raises `WorkersKeepDying`."""
        if self._ready is not None:
            await self._ready

    def accept(self) -> None:
        """See `Serving`."""
        self._accepting = True
        self._tell("accept")

    async def drain(self) -> None:
        """See `Serving`."""
        self._ending = True
        self._tell("drain")
        await self._all_ended()

    async def stop(self) -> None:
        """See `Serving`."""
        self._ending = True
        if self._looking.running:
            self._looking.stop()
        for slot in self._slots:
            slot.signal("TERM")
        patience = self._options["limits"].stop_time + _GRACE
        killing = self._reactor.callLater(patience, self._kill)
        await self._all_ended()
        if killing.active():
            killing.cancel()

    def reload(self, options: Options) -> None:
        """See `Serving`."""
        self._options = options
        self._tell("reload")

    def reopen_logs(self) -> None:
        """See `Serving`."""
        self._tell("reopen")

    # `RouterView`

    async def routes(self) -> list[Route]:
        """See `RouterView`."""
        return join_routes([page for _, page in await self._ask("routes", list[Route])])

    async def connections(self) -> list[Connection]:
        """See `RouterView`."""
        pages = await self._ask("connections", list[Connection])
        found = [attrs.evolve(each, worker=number) for number, page in pages for each in page]
        return sorted(found, key=lambda connection: connection.since)

    async def snapshots(self) -> Sequence[RouterSnapshot]:
        """See `RouterView`. For a worker that does not answer, what it said last is taken."""
        await self._look()
        return self.known_snapshots()

    def known_snapshots(self) -> list[RouterSnapshot]:
        """The last of each worker, and what those counted that are no more."""
        known = [slot.snapshot for slot in self._slots if slot.snapshot is not None]
        return [*known, self._past]

    async def _look(self) -> None:
        for number, snapshot in await self._ask("snapshot", RouterSnapshot):
            self._slots[number].snapshot = snapshot
        self._past = keep_routes(self._past, self._live_prefixes())

    def _live_prefixes(self) -> set[str]:
        known = [slot.snapshot for slot in self._slots if slot.snapshot is not None]
        return {prefix for snapshot in known for prefix in snapshot.routes}

    # What a slot tells.

    def start_message(self, number: int) -> tuple[Start, list[int]]:
        """What worker *number* is to be, and the sockets to be born with."""
        sockets: list[int] = []
        given = []
        for listener in self._listeners:
            share = listener.share_of(number, self._count)
            first = FIRST_SOCKET + len(sockets)
            sockets += [sock.fileno() for sock in share]
            descriptors = list(range(first, first + len(share)))
            given.append(Given(listener.spec, listener.secure, descriptors))
        start = Start(
            number=number,
            share=self._count,
            arguments=self._options.arguments,
            listeners=given,
            reactor=type(self._reactor).__module__,
        )
        return start, sockets

    def slot_ready(self, slot: _Slot) -> None:
        """*slot* can accept connections."""
        if self._accepting:
            slot.tell("accept")
        if self._ready is not None and all(each.is_ready for each in self._slots):
            ready, self._ready = self._ready, None
            ready.callback(None)

    def slot_ended(self, slot: _Slot, lived: float, reason: str) -> None:
        """The process of *slot* is no more."""
        if slot.snapshot is not None:
            self._past = merge([self._past, as_past(slot.snapshot)])
            slot.snapshot = None
        if self._ending:
            if not self.pids:
                ended, self._ended = self._ended, []
                for waiting in ended:
                    waiting.callback(None)
            return
        slot.failures = slot.failures + 1 if lived < _WELL else 0
        _log.warn("worker {number} ended ({reason})", number=slot.number, reason=reason)
        if self._ready is not None and slot.failures >= _TRIES:
            ready, self._ready = self._ready, None
            ready.errback(WorkersKeepDying(f"worker {slot.number} does not start ({reason})"))
            return
        self.restarts += 1
        self._reactor.callLater(self._backoff(slot.failures), self._restart, slot)

    def _restart(self, slot: _Slot) -> None:
        if not self._ending and slot.pid is None:
            slot.start()

    def _all_ended(self) -> Deferred[None]:
        ended: Deferred[None] = Deferred()
        if self.pids:
            self._ended.append(ended)
        else:
            ended.callback(None)
        return ended

    def _kill(self) -> None:
        for slot in self._slots:
            slot.signal("KILL")

    def _tell(self, what: Command) -> None:
        for slot in self._slots:
            if slot.is_ready:
                slot.tell(what)

    async def _ask(self, what: Question, expected: type[T]) -> list[tuple[int, T]]:
        """The answers of the workers that give one in time, by their numbers."""
        asked = [slot for slot in self._slots if slot.is_ready]
        answers = await DeferredList([slot.ask(what) for slot in asked])
        given = []
        for slot, (_, value) in zip(asked, answers, strict=True):
            if value is None:
                self.silences += 1
            else:
                given.append((slot.number, msgspec.json.decode(value, type=expected)))
        return given


class _Slot:
    """The place of one worker, and the process that is in it."""

    def __init__(self, workers: Workers, number: int) -> None:
        self._workers = workers
        self._reactor = workers._reactor
        self._process: Any = None
        self._began = 0.0
        self._asked: dict[int, Deferred[bytes | None]] = {}
        self._questions = 0
        self.number = number
        self.failures = 0
        self.is_ready = False
        self.snapshot: RouterSnapshot | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
        return None if self._process is None else int(self._process.pid)

    def start(self) -> None:
        """Start a process."""
        start, sockets = self._workers.start_message(self.number)
        descriptors: dict[int, Any] = {0: "w", 1: "r", 2: "r", FROM_MAIN: "w", TO_MAIN: "r"}
        descriptors |= {FIRST_SOCKET + place: number for place, number in enumerate(sockets)}
        self._began = self._reactor.seconds()
        self._process = self._reactor.spawnProcess(
            _Worker(self),
            sys.executable,
            [sys.executable, "-P", "-m", "hero.router.worker"],
            env=dict(os.environ),
            childFDs=descriptors,
        )
        self._write(msgspec.json.encode(start))

    def tell(self, what: Command) -> None:
        """Have the worker do *what*."""
        self._write(msgspec.json.encode(Ask(what)))

    def ask(self, what: Question) -> Deferred[bytes | None]:
        """The worker's answer, in JSON; None if it gives none in time."""
        self._questions += 1
        number = self._questions
        answer: Deferred[bytes | None] = Deferred()
        self._asked[number] = answer
        late = self._reactor.callLater(_PATIENCE, self._answered, number, None)

        def in_time(value: bytes | None) -> bytes | None:
            if late.active():
                late.cancel()
            return value

        self._write(msgspec.json.encode(Ask(what, number)))
        return answer.addCallback(in_time)

    def signal(self, name: str) -> None:
        """Send the process a signal, if there is one."""
        if self._process is not None:
            try:
                self._process.signalProcess(name)
            except ProcessExitedAlready:
                return

    def received(self, line: bytes) -> None:
        """A message from the worker."""
        answer = msgspec.json.decode(line, type=Answer)
        if answer.id:
            self._answered(answer.id, bytes(answer.value))
        else:
            self.is_ready = True
            self._workers.slot_ready(self)

    def ended(self, reason: Failure) -> None:
        """The process is gone, and so are its answers."""
        self._process = None
        self.is_ready = False
        for number in list(self._asked):
            self._answered(number, None)
        lived = self._reactor.seconds() - self._began
        self._workers.slot_ended(self, lived, _describe(reason))

    def _answered(self, number: int, value: bytes | None) -> None:
        answer = self._asked.pop(number, None)
        if answer is not None:
            answer.callback(value)

    def _write(self, message: bytes) -> None:
        if FROM_MAIN in self._process.pipes:
            self._process.writeToChild(FROM_MAIN, message + b"\n")


class _Worker(ProcessProtocol):
    """The main process's end of a worker's pipes."""

    def __init__(self, slot: _Slot) -> None:
        self._slot = slot
        self._messages = Lines(slot.received, self._overrun, LONGEST)
        self._said = {number: Lines(self._log, lambda: None, _LOG_LINE) for number in (1, 2)}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == TO_MAIN:
            self._messages.feed(data)
        else:
            self._said[childFD].feed(data)

    def processEnded(self, reason: Failure) -> None:
        self._slot.ended(reason)

    def _overrun(self) -> None:
        _log.error("worker {number} talks too much", number=self._slot.number)
        self._slot.signal("KILL")

    def _log(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        _log.info("worker {number}: {text}", number=self._slot.number, text=text)


def join_routes(pages: Sequence[Sequence[Route]]) -> list[Route]:
    """The routes of several workers as those of one router, in order of prefix.

    A route is up where any of them can use it.
    """
    joined: dict[str, Route] = {}
    for page in pages:
        for route in page:
            other = joined.get(route.prefix)
            joined[route.prefix] = route if other is None else _join(other, route)
    return [joined[prefix] for prefix in sorted(joined)]


def _join(one: Route, other: Route) -> Route:
    shown = other if other.state is RouteState.UP and one.state is not RouteState.UP else one
    pools = [route.pool for route in (one, other) if route.pool is not None]
    return attrs.evolve(
        shown,
        requests=one.requests + other.requests,
        active=one.active + other.active,
        pool=add_pools(pools) if pools else None,
    )


def _describe(reason: Failure) -> str:
    value = reason.value
    number = getattr(value, "signal", None)
    return f"signal {number}" if number else f"status {getattr(value, 'exitCode', 'unknown')}"
