"""Console output that is kept in part."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from hero.compute.console_log import ConsolePiece, read_console, trim_console

BLOCK = 64 * 1024


class ConsoleLogTests(TestCase):
    """`read_console` and `trim_console`."""

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.path = directory / "console.log"

    def test_absent(self) -> None:
        """A guest that never started has an empty console."""
        self.assertEqual(read_console(self.path, None, 10), ConsolePiece(0, 0, b""))
        trim_console(self.path)

    def test_pieces(self) -> None:
        """Reading goes on where the piece before ended, without a gap."""
        self.path.write_bytes(b"0123456789")
        self.assertEqual(read_console(self.path, 0, 4), ConsolePiece(0, 4, b"0123"))
        self.assertEqual(read_console(self.path, 4, 100), ConsolePiece(4, 10, b"456789"))
        self.assertEqual(read_console(self.path, 10, 4), ConsolePiece(10, 10, b""))
        self.assertEqual(read_console(self.path, 99, 4), ConsolePiece(10, 10, b""))

    def test_tail(self) -> None:
        """Without an offset it is the end that is read."""
        self.path.write_bytes(b"0123456789")
        self.assertEqual(read_console(self.path, None, 3), ConsolePiece(7, 10, b"789"))

    def test_trimmed(self) -> None:
        """The older part makes room, offsets stay, and what a writer adds comes after."""
        with self.path.open("ab", buffering=0) as writer:
            writer.write(b"a" * BLOCK * 8 + b"b" * BLOCK * 2)
            trim_console(self.path, kept=BLOCK * 2, slack=BLOCK)
            writer.write(b"c")
        self.assertLessEqual(self.path.stat().st_blocks * 512, BLOCK * 3)
        piece = read_console(self.path, 0, 1)
        self.assertEqual(piece, ConsolePiece(BLOCK * 8, BLOCK * 8 + 1, b"b"))
        self.assertEqual(read_console(self.path, None, 1).data, b"c")
        self.assertEqual(read_console(self.path, None, 1).next_offset, BLOCK * 10 + 1)

    def test_small_is_left(self) -> None:
        """Nothing goes while there is little."""
        self.path.write_bytes(b"a" * BLOCK * 3)
        trim_console(self.path, kept=BLOCK * 2, slack=BLOCK)
        self.assertEqual(read_console(self.path, 0, 1).offset, 0)
