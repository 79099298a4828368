"""`hero.settings`: options that come from the environment."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from hero.settings import EnvironmentOptions


class Options(EnvironmentOptions):
    optParameters = [["port", None, 9001, "A port", int]]  # noqa: RUF012


class EnvironmentOptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = tempfile.mkdtemp()
        self.addCleanup(Path(self.home).rmdir)

    def test_value_that_cannot_be_used_is_named(self) -> None:
        """As on the command line: a message, no traceback."""
        with self.assertRaises(UsageError) as caught:
            Options({"HERO_HOME": self.home, "HERO_PORT": "abc"})
        self.assertIn("HERO_PORT", str(caught.exception))
