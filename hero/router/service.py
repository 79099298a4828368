"""The router as a process: it takes up its place, gives it to a successor, goes.

::

    STARTING ──serving is ready──> OPEN ──successor is done──> DRAINING ──> (exit 0)
                                    └──────────told to stop──────┴──> STOPPING
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python import usage

from hero.router.activation import notify
from hero.router.listening import Listeners
from hero.router.serving import Serving
from hero.router.settings import FIXED, Options
from hero.router.successor import start_successor
from hero.router.takeover import Predecessor, TakeoverPort
from hero.rpc.unix import UnixService

STATE = "router.json"

_log = Logger()


class RouterProcess(Service):
    """Runs *serving* on *listeners*, and *management* beside it.

    ``var/run/router.json`` says where it listens while it does. SIGHUP reads the settings again,
    SIGUSR1 opens the logs again, SIGUSR2 starts a successor.
    """

    def __init__(
        self,
        reactor: Any,
        options: Options,
        listeners: Listeners,
        serving: Serving,
        management: UnixService,
        predecessor: Predecessor | None,
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._listeners = listeners
        self._serving = serving
        self._management = management
        self._predecessor = predecessor
        self._state = options.paths.run / STATE
        self._takeover = TakeoverPort(
            reactor, options.paths.run, listeners, gone=self._replaced, failed=self._keep
        )
        self._open = self._draining = self._starting_successor = False

    def startService(self) -> None:
        """Serve, as soon as the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._on_signal(signal.SIGHUP, self.reload)
        self._on_signal(signal.SIGUSR1, self._serving.reopen_logs)
        self._on_signal(signal.SIGUSR2, self.restart)
        self._serving.start()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        Deferred.fromCoroutine(self._take_up()).addErrback(self._failed)

    async def _take_up(self) -> None:
        await self._serving.ready()
        if not self.running:
            return
        self._management.startService()
        self._serving.accept()
        for url in self._listeners.urls:
            _log.info("hero-router: listening on {url}", url=url)
        self._open = True
        self._claim()
        if self._predecessor is not None:
            _log.info("took over from process {pid}", pid=self._predecessor.pid)
            self._predecessor.done()
            self._predecessor = None
        notify(os.environ, READY=1, MAINPID=os.getpid())

    def _claim(self) -> None:
        """Be the one whom others find."""
        self._takeover.open()
        content = json.dumps({"listening": self._listeners.urls, "pid": os.getpid()})
        temporary = self._state.with_suffix(".new")
        temporary.write_text(content + "\n")
        temporary.replace(self._state)

    def _failed(self, failure: Any) -> None:
        print(
            f"hero-router: cannot listen: {failure.getErrorMessage()}", file=sys.stderr, flush=True
        )
        # twistd has no other way to end with a status of one's own.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.stop()

    def _keep(self) -> None:
        """The successor took some of the names, perhaps, and is no more."""
        if self._open and not self._draining:
            self._claim()
            self._management.retake()
            notify(os.environ, MAINPID=os.getpid())

    def _replaced(self) -> None:
        """Another router serves now: finish what was begun, and go."""
        _log.info("another router took over; finishing what is under way")
        self._open, self._draining = False, True
        self._takeover.close()
        Deferred.fromCoroutine(self._drain()).addErrback(self._log_failure)

    async def _drain(self) -> None:
        await self._serving.drain()
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            return  # told to stop meanwhile

    def stopService(self) -> Deferred[None]:
        """Accept no more, and let requests under way finish."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._takeover.remove()
        if self._open:
            self._state.unlink(missing_ok=True)
            notify(os.environ, STOPPING=1)
        self._open = False
        await self._serving.stop()
        for listener in self._listeners:
            for sock in listener.sockets:
                sock.close()
            listener.remove()
        if self._management.running:
            await maybeDeferred(self._management.stopService)

    def reload(self) -> None:
        """Go by the settings as they are now; what is wrong with them leaves the old ones."""
        try:
            options = self._options.read_again()
        except (usage.UsageError, ValueError, OSError) as error:
            _log.error("settings not reloaded: {reason}", reason=str(error))
            return
        for name in FIXED:
            if options[name] != self._options[name]:
                _log.warn("--{name} has changed: that takes hero router restart", name=name)
        if options.listen != self._options.listen:
            _log.warn("--listen has changed: that takes hero router restart")
        self._serving.reload(options)
        _log.info("settings reloaded")

    def restart(self) -> None:
        """Start a successor, which takes over when it is ready."""
        if self._open and not self._starting_successor:
            self._starting_successor = True
            start_successor(self._reactor, os.environ, self._successor_ended)

    def _successor_ended(self) -> None:
        self._starting_successor = False

    def _log_failure(self, failure: Any) -> None:
        _log.failure("while draining", failure)

    def _on_signal(self, number: signal.Signals, act: Callable[[], None]) -> None:
        before = signal.getsignal(number)

        def handle(signum: int, frame: Any) -> None:
            if callable(before):
                before(signum, frame)  # twistd rotates its own log by SIGUSR1
            self._reactor.callFromThread(act)

        signal.signal(number, handle)
