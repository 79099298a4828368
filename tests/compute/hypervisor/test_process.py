"""Processes that outlive ours."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from hero.compute.hypervisor.process import (
    HeldProcess,
    command_line,
    start_detached,
    start_ticks,
)
from hero.compute.programs import ProgramMissing


class DetachedTests(TestCase):
    """`start_detached` and `HeldProcess`."""

    timeout = 20

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.messages = self.directory / "messages"

    def start(self, *argv: str) -> Any:
        return start_detached(reactor, argv, self.directory, self.messages)

    async def test_own_session(self) -> None:
        """What is started leads a session of its own, in the directory asked for."""
        child = self.start("sh", "-c", 'pwd; cut -d" " -f1,6 /proc/$$/stat')
        self.assertEqual(await child.ended, 0)
        where, numbers = self.messages.read_text().splitlines()
        self.assertEqual(where, str(self.directory))
        self.assertEqual(numbers.split(), [str(child.pid)] * 2)

    async def test_last_words(self) -> None:
        """Its status and what it said are known if it ends soon."""
        child = self.start("sh", "-c", "echo one; echo two >&2; exit 3")
        self.assertEqual(await child.ended, 3)
        self.assertEqual(child.last_words(), "one; two")

    def test_missing(self) -> None:
        """A program that is not installed is named."""
        error = self.assertRaises(ProgramMissing, self.start, "no-such-program")
        self.assertEqual(error.args, ("no-such-program",))

    async def test_end_is_noticed(self) -> None:
        """The end of a held process is told once."""
        child = self.start("sleep", "60")
        gone: Deferred[None] = Deferred()
        held = HeldProcess.hold(reactor, child.pid, lambda _: True, lambda: gone.callback(None))
        assert held is not None
        held.kill()
        await gone
        self.assertEqual(await child.ended, -9)
        held.kill()
        held.release()

    async def test_another_process(self) -> None:
        """A process that turns out to be another is not held."""
        ended: list[None] = []

        def note() -> None:
            ended.append(None)

        self.assertIsNone(HeldProcess.hold(reactor, os.getpid(), lambda _: False, note))
        self.assertIsNone(HeldProcess.hold(reactor, 0, lambda _: True, note))
        self.assertIsNone(HeldProcess.hold(reactor, 2**22 + 5, lambda _: True, note))
        self.assertEqual(ended, [])

    def test_start_ticks(self) -> None:
        """A process keeps the moment of its start; one that is not there has none."""
        self.assertEqual(start_ticks(os.getpid()), start_ticks(os.getpid()))
        self.assertIsNone(start_ticks(2**22 + 5))
        self.assertEqual(command_line(2**22 + 5), [])
