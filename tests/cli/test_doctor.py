"""``hero doctor``."""

from __future__ import annotations

import errno
import json
import socket
from typing import Any

from hero.cli import checks
from hero.cli.checks import Finding, Machine, check_port, run_checks
from tests.cli.cluster import CliTestCase


class DoctorTests(CliTestCase):
    """The command and its checks."""

    def machine(self, **settings: str) -> Machine:
        return Machine({**self.environ, **settings}, self.paths)

    async def test_says_what_it_found(self) -> None:
        """Each finding is a line, and what mends it is below."""

        def findings(settings: Any) -> list[Finding]:
            return [Finding("one", "ok", "well"), Finding("two", "warn", "so so", "mend --it")]

        self.patch(checks, "run_checks", findings)
        result = await self.hero("doctor")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("-> mend --it", result.stdout)

    async def test_failure(self) -> None:
        """A check that fails is the command's failure, and it is still an answer."""
        self.patch(checks, "run_checks", lambda settings: [Finding("x", "fail", "bad", "mend")])
        self.assertEqual((await self.hero("doctor")).exit_code, 1)
        result = await self.hero("doctor", "--json")
        self.assertEqual(result.exit_code, 1)
        self.assertFalse(json.loads(result.stdout)["ok"])

    def test_every_check_answers(self) -> None:
        """No check breaks down, whatever this machine is, and each that complains has a remedy."""
        findings = run_checks(self.environ)
        self.assertEqual(len(findings), len(checks.CHECKS))
        for finding in findings:
            if finding.verdict != "ok":
                self.assertTrue(finding.mend, finding)

    def test_long_socket_directory(self) -> None:
        """A socket directory whose sockets fit no address is found out."""
        long = str(self.home / ("x" * 90))
        found = [
            finding
            for finding in run_checks({**self.environ, "HERO_SOCKET_DIR": long})
            if finding.name == "sockets"
        ]
        self.assertEqual(found[0].verdict, "fail")
        self.assertIn("HERO_SOCKET_DIR", found[0].mend or "")

    def test_port_in_use(self) -> None:
        """The process that has the port is named."""
        self.patch(checks, "_bind_problem", lambda port: errno.EADDRINUSE)
        self.patch(checks, "_holder", lambda port: "nginx (process 7)")
        finding = check_port(self.machine())
        self.assertEqual(finding.verdict, "fail")
        self.assertIn("nginx (process 7)", finding.detail)

    def test_port_not_permitted(self) -> None:
        """Without permission for 443 there is 9998, and a way to mend it."""
        self.patch(checks, "_bind_problem", {443: errno.EACCES, 9998: None}.get)
        self.assertEqual(check_port(self.machine()).verdict, "warn")

    def test_finds_the_holder(self) -> None:
        """The holder of a port is found among this machine's processes."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.assertIn("process", checks._holder(server.getsockname()[1]))

    def test_loose_permissions(self) -> None:
        """Keys that others could read are a failure."""
        self.paths.home.chmod(0o755)
        self.paths.tls.chmod(0o755)
        found = checks.check_home(self.machine())
        self.assertEqual(found.verdict, "fail")
        self.assertIn("chmod 700", found.mend or "")

    def test_worker_without_certificate(self) -> None:
        """A worker that has not joined is told to."""
        finding = checks.check_certificate(self.machine(HERO_MODE="worker"))
        self.assertEqual((finding.verdict, finding.mend), ("fail", "hero join TOKEN"))
