"""The reactor of its own, run in a process of its own; and who chooses it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hero.router.fast.lean_reactor import LeanEpollReactor

_SELECTED = "from twisted.internet import reactor\nprint(type(reactor).__name__)\n"
_ECHO = """
import socket, sys
from hero.router.fast.lean_reactor import install
install()
from twisted.internet import protocol, reactor
from twisted.python import log
log.startLogging(sys.stderr, setStdout=False)
said = []
class Echo(protocol.Protocol):
    def dataReceived(self, data):
        if data == b"boom":
            raise ZeroDivisionError
        self.transport.write(data)
    def connectionLost(self, reason):
        said.append(reason.type.__name__)
class Asks(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(self.factory.ask)
    def dataReceived(self, data):
        said.append(len(data))
        self.transport.loseConnection()
    def connectionLost(self, reason):
        self.factory.then()
def ask(data, then):
    factory = protocol.ClientFactory.forProtocol(Asks)
    factory.ask, factory.then = data, then
    reactor.connectTCP("127.0.0.1", port.getHost().port, factory)
factory = protocol.Factory.forProtocol(Echo)
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
def last():
    reactor.callLater(0.01, reactor.stop)
ask(b"boom", lambda: ask(b"x", last))
reactor.run()
print(said)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )


class LeanEpollReactorTests(SynchronousTestCase):
    def test_error_in_a_protocol_is_logged_and_costs_that_connection_only(self) -> None:
        done = run(_ECHO)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "['ZeroDivisionError', 1, 'ConnectionDone']\n")
        self.assertEqual(done.stderr.count("ZeroDivisionError"), 1)

    def test_clock_that_is_set_back_stalls_no_timer(self) -> None:
        reactor = LeanEpollReactor()
        self.addCleanup(self._close, reactor)
        called: list[int] = []
        real = time.time()
        self.patch(time, "time", lambda: real)
        reactor.callLater(0, called.append, 1)
        self.patch(time, "time", lambda: real - 3600)
        reactor.runUntilCurrent()
        self.assertEqual(called, [1])

    def test_nothing_is_called_for_a_descriptor_that_went_in_the_same_turn(self) -> None:
        reactor = LeanEpollReactor()
        self.addCleanup(self._close, reactor)

        class Poller:
            def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
                return [(12345, 1)]

        reactor._poller.close()
        reactor._poller = Poller()
        reactor.doPoll(0)

    def _close(self, reactor: Any) -> None:
        for reader in reactor.removeAll():
            reader.connectionLost(None)
        if hasattr(reactor._poller, "close"):
            reactor._poller.close()


class ChoiceTests(SynchronousTestCase):
    def test_it_is_taken_where_none_was_chosen(self) -> None:
        code = "from hero.router.fast.lean_reactor import install_unless_chosen as f\nf()\nf()\n"
        self.assertEqual(run(code + _SELECTED).stdout, "LeanEpollReactor\n")

    def test_what_was_chosen_stays(self) -> None:
        code = (
            "from twisted.internet import selectreactor\nselectreactor.install()\n"
            "from hero.router.fast.lean_reactor import install_unless_chosen as f\nf()\n"
        )
        self.assertEqual(run(code + _SELECTED).stdout, "SelectReactor\n")

    def twistd(self, *arguments: str) -> str:
        """The reactor with which ``twistd`` would run the router."""
        code = (
            "import sys\n"
            "from twisted.scripts.twistd import ServerOptions\n"
            "options = ServerOptions()\n"
            "options.parseOptions(sys.argv[1:])\n"
        )
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [sys.executable, "-c", code + _SELECTED, *arguments, "hero-router"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={"HERO_HOME": home, "PYTHONPATH": ":".join(sys.path)},
            )
        return done.stdout or done.stderr

    def test_twistd_takes_it_for_the_router(self) -> None:
        self.assertEqual(self.twistd(), "LeanEpollReactor\n")

    def test_twistd_takes_another_if_told_to(self) -> None:
        self.assertEqual(self.twistd("--reactor=poll"), "PollReactor\n")
