"""What all commands have in common: targets, options, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import click

from hero.cli.exit_codes import ExitCode, exit_code_for
from hero.cli.main import main
from hero.cli.session import Session
from hero.cli.target import base_url
from hero.errors import HeroError, InvalidConfiguration
from tests.cli.cluster import CliTestCase


class TargetTests(CliTestCase):
    """Which service a command speaks to."""

    async def test_nothing_runs(self) -> None:
        """Where no socket answers, the person is told what to do."""
        self.assert_fails(await self.hero("vm", "list"), 5, "no Hero service is running here")

    async def test_explorer_goes_before_compute(self) -> None:
        """An explorer knows the whole cluster."""
        self.serve_explorer()
        self.serve_compute()
        self.assertEqual((await self.hero("node", "list")).exit_code, 0)

    async def test_explorer_that_is_away_is_missed(self) -> None:
        """Where one belongs, its absence is said; the compute service answers all the same."""
        self.serve_compute()
        result = await self.hero("vm", "list", HERO_MODE="master")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("explorer of this machine does not answer", result.stderr)
        result = await self.hero("vm", "list", HERO_MODE="worker")
        self.assertEqual((result.exit_code, "explorer" in result.stderr), (0, False))

    async def test_cluster_commands_need_an_explorer(self) -> None:
        """A worker's compute service knows no nodes, and the message says so."""
        self.serve_compute()
        self.assert_fails(await self.hero("node", "list"), 5, "this needs an explorer")

    async def test_url_without_ca(self) -> None:
        """A router elsewhere is not trusted blindly."""
        result = await self.hero("vm", "list", "--url", "https://127.0.0.1:9")
        self.assert_fails(result, 1, "is not known here", "--ca-sha256")

    async def test_url_that_is_none(self) -> None:
        """A URL with a path is not a router's."""
        result = await self.hero("vm", "list", "--url", "https://h/path")
        self.assert_fails(result, 1, "is not a router's URL")

    async def test_nobody_at_the_url(self) -> None:
        """Nobody there is the exit code 5."""
        result = await self.hero("vm", "list", "--url", "http://127.0.0.1:9")
        self.assert_fails(result, 5)

    def test_base_url(self) -> None:
        """The scheme can be left out; the rest is checked."""
        self.assertEqual(base_url("h:9998"), "https://h:9998")
        self.assertEqual(base_url("https://[::1]:9998/"), "https://[::1]:9998")
        for wrong in ("", "https://", "ftp://h", "https://h:0x", "https://h:99999"):
            self.assertRaises(InvalidConfiguration, base_url, wrong)


class UsageTests(CliTestCase):
    """The command line itself."""

    async def test_help(self) -> None:
        """Help is no error."""
        for arguments in (["--help"], ["vm", "-h"], ["vm", "create", "--help"]):
            result = await self.hero(*arguments)
            self.assertEqual(result.exit_code, 0)
            self.assertIn("Usage: hero", result.stdout)

    async def test_no_arguments(self) -> None:
        """Without a command there is help, on stderr, and the exit code of wrong usage."""
        result = await self.hero()
        self.assertEqual((result.exit_code, result.stdout), (2, ""))
        self.assertIn("vm create demo", result.stderr)

    async def test_unknown_command(self) -> None:
        """What does not exist is wrong usage."""
        self.assert_fails(await self.hero("vm", "fly"), 2, "No such command 'fly'")

    async def test_usage_error_as_json(self) -> None:
        """Wrong usage is JSON on stderr, wherever --json stands."""
        for arguments in (["--json", "vm", "fly"], ["vm", "--json", "fly"], ["vm", "x", "--json"]):
            result = await self.hero(*arguments)
            self.assertEqual((result.exit_code, result.stdout), (2, ""))
            self.assertEqual(json.loads(result.stderr)["error"]["kind"], "usage")

    async def test_json_anywhere(self) -> None:
        """--json is the same before, among and after the commands."""
        self.serve_explorer()
        answers = {
            (await self.hero(*arguments)).stdout
            for arguments in (
                ["--json", "node", "list"],
                ["node", "--json", "list"],
                ["node", "list", "--json"],
            )
        }
        self.assertEqual(len(answers), 1)
        self.assertEqual(len(json.loads(answers.pop())["items"]), 2)

    async def test_json_after_the_end_of_options(self) -> None:
        """After -- everything is an argument."""
        self.serve_explorer()
        result = await self.hero("node", "show", "--", "--json")
        self.assert_fails(result, 3, "Error: there is no node '--json'")

    async def test_options_of_old(self) -> None:
        """Options that are gone say what is in their place."""
        for option in ("--rpc-port", "--explorer-port"):
            for arguments in ([option, "9000"], [f"{option}=9000", "--mode", "master"]):
                result = await self.hero("up", *arguments)
                self.assert_fails(result, 2, f"{option} is gone", "--listen", "one TLS port")

    async def test_failure_of_our_own(self) -> None:
        """Whatever goes wrong inside, nobody sees a traceback."""

        def break_down(work: object) -> None:
            raise ZeroDivisionError("oh")

        self.serve_explorer()
        self.patch(Session, "with_services", break_down)
        result = await self.hero("node", "list")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("hero itself failed", result.stderr)

    async def test_interrupted(self) -> None:
        """Ctrl-C ends a command with the shell's code for it, and no noise."""

        def interrupt(session: Session, work: object) -> None:
            raise KeyboardInterrupt

        self.serve_explorer()
        self.patch(Session, "with_services", interrupt)
        self.assert_fails(await self.hero("node", "list"), 130, "interrupted")

    def test_every_command_has_help_and_json(self) -> None:
        """No command was forgotten."""

        def walk(command: click.Command, path: str) -> None:
            self.assertTrue(command.help, path)
            options = {o for p in command.params for o in p.opts}
            self.assertIn("--json", options, path)
            for name, child in getattr(command, "commands", {}).items():
                walk(child, f"{path} {name}")

        walk(main, "hero")

    def test_help_imports_little(self) -> None:
        """Help does not load what only work needs, so that it answers at once."""
        slow = ("twisted.internet.reactor", "twisted.web", "sqlalchemy", "cryptography", "rich")
        program = (
            f"import sys, hero.cli.main\nprint([name for name in {slow!r} if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.stdout.strip(), "[]", done.stderr)


class ExitCodeTests(CliTestCase):
    """The exit codes that scripts rely on."""

    def test_kinds(self) -> None:
        """Each kind of error has the code that the documentation says."""
        expected = {
            "not_found": 3,
            "forbidden": 4,
            "unauthenticated": 4,
            "join_token_expired": 4,
            "unavailable": 5,
            "node_unreachable": 5,
            "no_capacity": 5,
            "conflict": 6,
            "name_taken": 6,
            "timeout": 7,
            "invalid_params": 2,
            "internal": 1,
            "something_new": 1,
        }
        for kind, code in expected.items():
            error = HeroError.from_data({"kind": kind, "detail": "x"})
            self.assertEqual(exit_code_for(error), ExitCode(code), kind)
