"""`hero.cli.reference`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from hero.cli.exit_codes import ExitCode
from hero.cli.reference import _MEANINGS, reference

_PAGE = Path(__file__).parents[2] / "docs/reference/cli.md"


class ReferenceTests(TestCase):
    """The page about the command line."""

    def test_is_up_to_date(self) -> None:
        """The page says what the commands say."""
        self.assertEqual(
            _PAGE.read_text(),
            reference(),
            "run python -m hero.cli.reference > docs/reference/cli.md",
        )

    def test_names_every_exit_code(self) -> None:
        """No exit code is undocumented."""
        self.assertEqual(set(_MEANINGS), set(ExitCode))
