"""Starting the router that is to take this one's place, with the same command line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

#: The process id of the supervisor that starts routers, where there is one.
SUPERVISOR = "HERO_SUPERVISOR"

_log = Logger()


def start_successor(reactor: Any, environ: Mapping[str, str], ended: Callable[[], None]) -> None:
    """Start this program once more, or have the supervisor of ``hero up`` do so.

    *ended* is called when another can be started: this one ended, and we are still here.
    """
    supervisor = environ.get(SUPERVISOR, "")
    if supervisor.isdigit():
        _log.info("asking the supervisor for a successor")
        try:
            os.kill(int(supervisor), signal.SIGUSR2)
        except OSError as error:
            _log.error("no successor: {reason}", reason=error.strerror)
        ended()
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    reactor.spawnProcess(
        _Started(ended), command[0], command, env=dict(environ), childFDs={0: 0, 1: 1, 2: 2}
    )


class _Started(ProcessProtocol):
    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def connectionMade(self) -> None:
        _log.info("started process {pid} as the successor", pid=self.transport.pid)  # type: ignore[union-attr]

    def processEnded(self, reason: Failure) -> None:
        _log.warn("the successor ended: {reason}", reason=reason.getErrorMessage())
        self._ended()
