"""`hero.cli.instance`: the one supervisor of a node."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from hero.cli.instance import (
    InstanceLock,
    lock_file,
    read_state,
    router_urls,
    running_pid,
    write_state,
)
from hero.errors import Conflict
from hero.paths import HeroPaths


class InstanceTests(TestCase):
    """The lock and the state file."""

    def setUp(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="hero-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, home)
        self.paths = HeroPaths(home=home, sockets=home / "s")
        self.paths.ensure()

    def test_only_one(self) -> None:
        """The second is told who the first is."""
        lock = InstanceLock.acquire(self.paths)
        self.addCleanup(lock.release)
        self.assertEqual(running_pid(self.paths), os.getpid())
        error = self.assertRaises(Conflict, InstanceLock.acquire, self.paths)
        self.assertIn(str(os.getpid()), error.detail)

    def test_released(self) -> None:
        """After it has ended another can start."""
        InstanceLock.acquire(self.paths).release()
        self.assertIsNone(running_pid(self.paths))
        InstanceLock.acquire(self.paths).release()

    def test_file_of_the_dead(self) -> None:
        """A file that a killed supervisor left says nothing."""
        lock_file(self.paths).write_text("1\n")
        self.assertIsNone(running_pid(self.paths))

    def test_nothing_there(self) -> None:
        """Where nothing ran there is no process, no state and no router."""
        self.assertIsNone(running_pid(self.paths))
        self.assertEqual(read_state(self.paths), {})
        self.assertEqual(router_urls(self.paths), [])

    def test_state(self) -> None:
        """What is written is read; what cannot be read counts as nothing."""
        write_state(self.paths, {"mode": "local"})
        self.assertEqual(read_state(self.paths), {"mode": "local"})
        (self.paths.run / "hero.json").write_text("{")
        self.assertEqual(read_state(self.paths), {})
        (self.paths.run / "router.json").write_text('{"listening": ["https://h:1"]}')
        self.assertEqual(router_urls(self.paths), ["https://h:1"])
