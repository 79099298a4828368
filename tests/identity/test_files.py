"""Files that are whole or absent, and the lock around sets of them."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from hero.errors import Unavailable
from hero.identity.files import fingerprint, locked, write_atomically
from tests.identity.cluster import new_home


class FilesTests(SynchronousTestCase):
    """`write_atomically`, `fingerprint`, `locked`."""

    def setUp(self) -> None:
        self.directory = new_home(self).state

    def test_replaced(self) -> None:
        """A file is replaced as a whole, with its mode, and its fingerprint changes."""
        path = self.directory / "sub/file"
        self.assertEqual(fingerprint(path), (None,))
        write_atomically(path, b"one")
        first = fingerprint(path)
        self.assertEqual(fingerprint(path), first)
        write_atomically(path, b"two", mode=0o644)
        self.assertNotEqual(fingerprint(path), first)
        self.assertEqual(path.read_bytes(), b"two")
        self.assertEqual(os.listdir(path.parent), ["file"])

    def test_failure_leaves_nothing(self) -> None:
        """Where the file cannot be put, nothing stays behind."""
        path = self.directory / "file"
        path.mkdir()
        self.assertRaises(OSError, write_atomically, path, b"one")
        self.assertEqual(os.listdir(self.directory), ["file"])

    def test_lock(self) -> None:
        """The lock is held by one at a time, not waited for for ever, and let go."""
        with (
            locked(self.directory),
            self.assertRaises(Unavailable),
            locked(self.directory, timeout=0),
        ):
            self.fail("two holders")
        with locked(self.directory, timeout=0):
            pass
