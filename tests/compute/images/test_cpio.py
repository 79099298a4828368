"""Archives that Linux starts from."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from hero.compute.images import cpio


class CpioTests(TestCase):
    """`cpio.write_archive`."""

    def test_bytes(self) -> None:
        """The format is that of the kernel's documentation, with its padding."""
        output = io.BytesIO()
        cpio.write_archive([cpio.file("ab", b"12345")], output)
        record = output.getvalue()[:124]
        self.assertEqual(record[:6], b"070701")
        fields = [int(record[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        self.assertEqual(fields, [1, 0o100644, 0, 0, 1, 0, 5, 0, 0, 0, 0, 3, 0])
        self.assertEqual(record[110:], b"ab\0" + b"\0" * 3 + b"12345\0\0\0")

    def test_unpacks(self) -> None:
        """The tool of the same name understands it."""
        output = io.BytesIO()
        entries = [
            cpio.directory("d"),
            cpio.file("d/run", b"#!/bin/sh\n", 0o755),
            cpio.link("d/link", "run"),
        ]
        cpio.write_archive(entries, output)
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        subprocess.run(
            ["cpio", "-idm", "--quiet"], input=output.getvalue(), cwd=directory, check=True
        )
        self.assertEqual((directory / "d/link").read_bytes(), b"#!/bin/sh\n")
        self.assertEqual((directory / "d/run").stat().st_mode & 0o777, 0o755)
