"""One of the processes that ``--workers`` starts: ``python -m hero.router.worker``.

It serves its share as a router that is alone would, on sockets that it was born with, and does
what the main process says; when that is gone, it finishes what is under way and ends. What it
logs, the main process logs.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec

from hero.router.worker_link import FROM_MAIN, TO_MAIN, Answer, Ask, Lines, Start


def main() -> None:
    """Read what to be from the main process, and be it."""
    for ours in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ours, signal.SIG_IGN)  # they are meant for the main process
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(FROM_MAIN, 65536)
        if not data:
            return
        line += data
    start = msgspec.json.decode(line, type=Start)
    import_module(start.reactor).install()
    from twisted.internet import reactor
    from twisted.logger import ILogObserver, eventAsText, globalLogBeginner
    from zope.interface import implementer

    @implementer(ILogObserver)
    def log(event: Any) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        print(text, file=sys.stderr, flush=True)

    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
    _run(reactor, start)


def _run(reactor: Any, start: Start) -> None:
    from twisted.internet._posixstdio import StandardIO
    from twisted.internet.defer import Deferred

    from hero.router.listening import Listener, Listeners
    from hero.router.metrics import RouterMetrics
    from hero.router.serving import OwnServing
    from hero.router.settings import Options

    options = Options()
    options.parseOptions(start.arguments)
    listeners = Listeners(
        [
            Listener(
                spec=given.spec,
                secure=given.secure,
                sockets=tuple(socket.socket(fileno=number) for number in given.descriptors),
            )
            for given in start.listeners
        ]
    )
    serving = OwnServing(reactor, options, listeners, RouterMetrics(), share=start.share)
    serving.start()
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(serving.stop())
    )

    def orphaned() -> None:
        # Whoever replaces the main process may want to listen in the same place.
        for listener in listeners:
            for sock in listener.sockets:
                sock.close()

    link = _link(reactor, options, serving, orphaned)
    StandardIO(link, stdin=FROM_MAIN, stdout=TO_MAIN, reactor=reactor)
    reactor.run()


def _link(reactor: Any, options: Any, serving: Any, orphaned: Callable[[], None]) -> Any:
    from twisted.internet.defer import Deferred
    from twisted.internet.error import ReactorNotRunning
    from twisted.internet.protocol import Protocol, connectionDone
    from twisted.logger import Logger
    from twisted.python.failure import Failure
    from twisted.python.usage import UsageError

    from hero.router.management import GatewayView

    log = Logger(namespace=__name__)
    view = GatewayView(serving.gateway)

    class Link(Protocol):
        """This end of the talk with the main process."""

        def connectionMade(self) -> None:
            self._lines = Lines(self._received, self._end)
            self._send(Answer(id=0))

        def dataReceived(self, data: bytes) -> None:
            self._lines.feed(data)

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            log.info("the main process is gone")
            orphaned()
            self._end()

        def _received(self, line: bytes) -> None:
            ask = msgspec.json.decode(line, type=Ask)
            done = Deferred.fromCoroutine(self._act(ask))
            done.addErrback(lambda failure: log.failure("cannot {what}", failure, what=ask.what))

        async def _act(self, ask: Ask) -> None:
            match ask.what:
                case "accept":
                    serving.accept()
                case "drain":
                    await serving.drain()
                    self._end()
                case "reload":
                    self._reload()
                case "reopen":
                    serving.reopen_logs()
                case "routes":
                    self._answer(ask, await view.routes())
                case "connections":
                    self._answer(ask, await view.connections())
                case "snapshot":
                    self._answer(ask, (await view.snapshots())[0])

        def _reload(self) -> None:
            try:
                serving.reload(options.read_again())
            except (UsageError, ValueError, OSError) as error:
                log.error("settings not reloaded: {reason}", reason=str(error))

        def _answer(self, ask: Ask, value: Any) -> None:
            self._send(Answer(id=ask.id, value=msgspec.Raw(msgspec.json.encode(value))))

        def _send(self, answer: Answer) -> None:
            assert self.transport is not None
            self.transport.write(msgspec.json.encode(answer) + b"\n")

        def _end(self) -> None:
            try:
                reactor.stop()
            except ReactorNotRunning:
                return  # it is about to stop

    return Link()


if __name__ == "__main__":
    main()
