"""`hero.cli.supervisor` with processes that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from hero.cli.supervisor import ProcessKeepsDying, Supervisor


class FakeProcess:
    """A process that ends when it is told to. A *deaf* one only minds SIGKILL."""

    def __init__(self, clock: Clock, pid: int, name: str, protocol: Any) -> None:
        self.clock, self.pid, self.name, self.protocol = clock, pid, name, protocol
        self.signals: list[str] = []
        self.alive = True
        self.deaf = False

    def signalProcess(self, signal: str) -> None:
        self.signals.append(signal)
        if signal == "KILL" or not self.deaf:
            self.clock.callLater(0.01, self.end, ProcessTerminated(signal=15))

    def end(self, reason: Exception) -> None:
        self.alive = False
        self.protocol.processEnded(Failure(reason))


@implementer(IReactorProcess)
class ProcessReactor(Clock):
    """Starts made-up processes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[FakeProcess] = []

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any) -> FakeProcess:
        process = FakeProcess(self, 100 + len(self.started), executable, protocol)
        self.started.append(process)
        protocol.makeConnection(process)
        return process


class SupervisorTests(TestCase):
    """`Supervisor`."""

    def setUp(self) -> None:
        self.reactor = ProcessReactor()
        self.said: list[str] = []
        self.logs = Path(self.mktemp())
        self.logs.mkdir()
        self.supervisor = Supervisor(
            self.reactor,
            log_directory=self.logs,
            changed=lambda: None,
            say=self.said.append,
            now=self.reactor.seconds,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.supervisor.stop_in_order([])))
        self.supervisor.add("router", ["router"], {})
        self.supervisor.add("compute", ["compute"], {})
        self.supervisor.startService()

    def _process(self, name: str) -> FakeProcess:
        return [p for p in self.reactor.started if p.name == name][-1]

    def _die(self, name: str, after: float) -> None:
        self.reactor.advance(after)
        self._process(name).end(ProcessTerminated(1))
        self.reactor.advance(31)

    def test_starts_all(self) -> None:
        """Every process is started and recorded."""
        self.assertEqual([p.name for p in self.reactor.started], ["router", "compute"])
        self.assertEqual(self.supervisor.records["router"].pid, 100)

    def test_output_goes_to_the_log(self) -> None:
        """What a process prints is in its own log, byte for byte, and nobody else can read it."""
        protocol = self._process("router").protocol
        protocol.outReceived(b"hel")
        protocol.errReceived(b"lo \xff\n")
        log = self.logs / "router.log"
        self.supervisor.log_of("router").flush()
        self.assertEqual(log.read_bytes(), b"hello \xff\n")
        self.assertEqual(log.stat().st_mode & 0o077, 0)

    def test_starts_again_at_once(self) -> None:
        """A process that had run for a while is started again without delay."""
        self.reactor.advance(60)
        self._process("compute").end(ProcessTerminated(1))
        self.reactor.advance(0)
        self.assertTrue(self._process("compute").alive)
        self.assertEqual(self.supervisor.records["compute"].starts, 2)
        self.assertEqual(self.said, ["compute ended (exit code 1); starting it again"])

    def test_even_after_a_clean_end(self) -> None:
        """Services are not meant to end."""
        self.reactor.advance(60)
        self._process("compute").end(ProcessDone(0))
        self.reactor.advance(0)
        self.assertTrue(self._process("compute").alive)

    def test_backs_off(self) -> None:
        """A process that dies young waits longer each time."""
        self.supervisor.settle()
        delays = []
        for _ in range(9):
            self._process("compute").end(ProcessTerminated(1))
            before, started = self.reactor.seconds(), len(self.reactor.started)
            while len(self.reactor.started) == started:
                self.reactor.advance(0.5)
            delays.append(self.reactor.seconds() - before)
        self.assertEqual(delays, [0.5, 1, 2, 4, 8, 16, 30, 30, 30])

    def test_gives_up_when_one_keeps_dying(self) -> None:
        """While the node starts, the third death in a row is the end, and the log says why."""
        for number in range(3):
            self.assertNoResult(self.supervisor.failed)
            self._process("router").protocol.errReceived(b"port 443 is in use\n")
            self._die("router", after=number)
        error = self.failureResultOf(self.supervisor.failed, ProcessKeepsDying).value
        self.assertIn("router does not start (exit code 1)", error.detail)
        self.assertIn("port 443 is in use", error.detail)

    def test_tries_for_ever_once_settled(self) -> None:
        """When all were ready once, nothing brings the node down."""
        self.supervisor.settle()
        for _ in range(10):
            self._die("router", after=0)
        self.assertNoResult(self.supervisor.failed)
        self.assertTrue(self._process("router").alive)

    def test_deaths_far_apart(self) -> None:
        """Only deaths in a row count."""
        for _ in range(10):
            self._die("router", after=60)
        self.assertNoResult(self.supervisor.failed)

    def test_stops_in_order(self) -> None:
        """Each process is stopped when the one before it has ended."""
        router, compute = self._process("router"), self._process("compute")
        router.deaf = True
        stopped = Deferred.fromCoroutine(self.supervisor.stop_in_order(["router", "compute"]))
        self.assertEqual((router.signals, compute.signals), (["TERM"], []))
        self.reactor.advance(19)
        self.assertTrue(router.alive)
        self.reactor.advance(2)
        self.assertEqual(router.signals, ["TERM", "KILL"])
        self.reactor.advance(0.01)
        self.assertEqual(compute.signals, ["TERM"])
        self.assertNoResult(stopped)
        self.reactor.advance(0.01)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stops_while_one_waits_to_be_started(self) -> None:
        """What is not running is not started any more."""
        self._process("router").end(ProcessTerminated(1))
        stopped = Deferred.fromCoroutine(self.supervisor.stop_in_order(["router", "compute"]))
        self.reactor.advance(0.01)
        self.successResultOf(stopped)
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.started), 2)

    def test_replaces_one_that_then_ends_by_itself(self) -> None:
        """The end of the old one is no reason to start another."""
        self.supervisor.settle()
        old = self._process("router")
        self.supervisor.replace("router")
        new = self._process("router")
        self.assertNotEqual(new.pid, old.pid)
        self.assertEqual(old.signals, [])
        self.assertEqual(self.supervisor.records["router"].pid, new.pid)
        old.end(ProcessDone(0))
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.started), 3)
        new.end(ProcessTerminated(1))
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.started), 4)

    def test_stops_the_one_that_was_replaced_too(self) -> None:
        """However many of them are still there."""
        first = self._process("router")
        first.deaf = True
        self.supervisor.replace("router")
        second = self._process("router")
        self.supervisor.replace("router")
        third = self._process("router")
        stopped = Deferred.fromCoroutine(self.supervisor.stop_in_order(["router"]))
        self.assertEqual(first.signals, ["TERM"])
        for _ in range(4):
            self.reactor.advance(20.5)
        self.successResultOf(stopped)
        self.assertEqual(first.signals, ["TERM", "KILL"])
        self.assertEqual([second.alive, third.alive], [False, False])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
