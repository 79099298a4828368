"""Running programs of the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hero.compute.programs import ProgramMissing, ProgramResult, run_program
from hero.errors import Timeout


async def shell(script: str, limit: float = 10.0) -> ProgramResult:
    """The outcome of a shell script."""
    return await run_program(
        reactor,
        ["sh", "-c", script],
        directory=Path("/"),
        environment={"MARK": "m"},
        limit=limit,
    )


class RunProgramTests(TestCase):
    """`run_program`."""

    timeout = 6

    async def test_outcome(self) -> None:
        """Its status, output and complaints are known; it has our environment and no input."""
        result = await shell("cat; echo $MARK; echo oh >&2; echo dear >&2; exit 7")
        self.assertEqual((result.status, result.output), (7, "m\n"))
        self.assertEqual(result.last_words, "oh; dear")

    async def test_signal(self) -> None:
        """A signal counts as a negative status."""
        result = await shell("kill -TERM $$")
        self.assertEqual(result.status, -15)
        self.assertIn("-15", result.last_words)

    async def test_too_slow(self) -> None:
        """What takes too long is killed and reported."""
        with self.assertRaises(Timeout):
            await shell("exec sleep 60", limit=0.05)

    async def test_too_slow_with_a_child(self) -> None:
        """A child that has the program's output open is not waited for."""
        with self.assertRaises(Timeout):
            await shell("sleep 8 & sleep 60", limit=0.05)

    def test_we_are_killed(self) -> None:
        """A program does not outlive the process that waits for it."""
        starter = subprocess.Popen(
            [sys.executable, "-c", _STARTER], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        self.addCleanup(starter.wait)
        self.addCleanup(starter.kill)
        assert starter.stdout is not None
        self.addCleanup(starter.stdout.close)
        starter.stdout.readline()
        (program,) = psutil.Process(starter.pid).children()
        starter.kill()
        gone, _ = psutil.wait_procs([program], timeout=3.0)
        program_outlives_us = not gone and program.status() != psutil.STATUS_ZOMBIE
        if program_outlives_us:
            program.kill()
        self.assertFalse(program_outlives_us)

    async def test_too_talkative(self) -> None:
        """Only so much of the output is kept."""
        result = await shell("head -c 3000000 /dev/zero | tr '\\0' x")
        self.assertEqual(len(result.output), 1024 * 1024)

    async def test_missing(self) -> None:
        """A program that is not installed is named."""
        with self.assertRaises(ProgramMissing) as caught:
            await run_program(reactor, ["no-such-thing"], directory=Path("/"), limit=1.0)
        self.assertEqual(caught.exception.args, ("no-such-thing",))


_STARTER = """
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from hero.compute.programs import run_program

def start():
    Deferred.fromCoroutine(run_program(reactor, ["sleep", "60"], directory=Path("/"), limit=60.0))
    reactor.callLater(0.2, print, "started", flush=True)

reactor.callWhenRunning(start)
reactor.run()
"""
