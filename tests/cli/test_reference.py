"""`hero.cli.reference`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hero.cli.exit_codes import ExitCode
from hero.cli.reference import _MEANINGS, reference


class ReferenceTests(SynchronousTestCase):
    """The page about the command line."""

    def test_names_commands_of_every_depth(self) -> None:
        """Each command has a section with its usage and its options."""
        page = reference()
        for section in ("## hero up", "## hero vm", "### hero vm create", "### hero token revoke"):
            self.assertIn(f"\n{section}\n", page)
        self.assertIn("hero vm create [OPTIONS] NAME", page)
        self.assertIn("| `--slice-memory SIZE` | Memory of a slice.", page)

    def test_says_nothing_of_what_is_gone(self) -> None:
        """Options that only say what replaced them are not offered."""
        self.assertNotIn("--rpc-port", reference())

    def test_names_every_exit_code(self) -> None:
        """No exit code is undocumented."""
        self.assertEqual(set(_MEANINGS), set(ExitCode))
        for code in ExitCode:
            self.assertIn(f"| {int(code)} | ", reference())
