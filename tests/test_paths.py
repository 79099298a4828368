"""`hero.paths`: where files are, and whose they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hero.errors import InvalidConfiguration, SocketPathTooLong
from hero.paths import MAX_SOCKET_PATH, HeroPaths


class PathsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def paths(self, **environ: str) -> HeroPaths:
        return HeroPaths.from_environment({"HERO_HOME": str(self.directory / "a/b"), **environ})

    def test_directories_are_their_owners(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.paths().ensure()
        made = [Path(top) for top, _, _ in os.walk(self.directory / "a")]
        self.assertIn(self.directory / "a/b/cfg/tls", made)
        self.assertEqual({path.stat().st_mode & 0o777 for path in made}, {0o700})

    def test_socket_directory_is_as_long_as_an_address_allows(self) -> None:
        longest = len("/hero_compute/explorer_rpc.sock")
        room = MAX_SOCKET_PATH - longest - len(os.fsencode(self.directory)) - 1
        self.paths(HERO_SOCKET_DIR=str(self.directory / ("x" * room))).ensure()
        too_long = self.paths(HERO_SOCKET_DIR=str(self.directory / ("x" * (room + 1))))
        with self.assertRaises(SocketPathTooLong) as caught:
            too_long.ensure()
        self.assertIn("HERO_SOCKET_DIR", caught.exception.hint)

    def test_directory_that_cannot_be_made_is_named(self) -> None:
        (self.directory / "a").write_text("in the way")
        with self.assertRaises(InvalidConfiguration) as caught:
            self.paths().ensure()
        self.assertIn(str(self.directory / "a"), caught.exception.detail)
