"""`hero.cli.startup`: what ``hero up`` decides to run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import TestCase

from hero.cli import startup
from hero.cli.startup import StartPlan, fell_back, plan_start, save_settings
from hero.errors import Conflict, HeroError, InvalidConfiguration
from hero.settings import effective_environment


class PlanTests(TestCase):
    """`plan_start`."""

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hero-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.home)
        self.environ = {"HERO_HOME": str(self.home)}
        self.patch(startup, "default_router_port", lambda: 9998)
        self.patch(startup, "outward_address", lambda towards: "10.1.2.3")

    def plan(
        self,
        stored: Mapping[str, str] | None = None,
        listen: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
        **options: str,
    ) -> StartPlan:
        given = {name.replace("_", "-"): value for name, value in options.items()}
        return plan_start({**self.environ, **(environ or {})}, stored or {}, given, listen)

    def _files(self, *names: str) -> None:
        (self.home / "cfg/tls").mkdir(parents=True)
        for name in names:
            (self.home / "cfg/tls" / name).touch()

    def test_local_is_the_default(self) -> None:
        """Without any setting one machine runs everything, for itself."""
        plan = self.plan()
        self.assertEqual(plan.mode, "local")
        self.assertEqual(set(plan.processes), {"router", "compute", "explorer", "ui"})
        self.assertEqual(
            dict(plan.settings),
            {
                "HERO_MODE": "local",
                "EXPLORER_ADDRESSES": f"unix://{plan.paths.explorer_socket}",
                "HERO_COMPUTE_ADVERTISE_ADDRESS": "https://127.0.0.1:9998",
                "HERO_SOCKET_DIR": str(self.home / "var/sockets"),
            },
        )

    def test_master_is_reached_from_outside(self) -> None:
        """A master advertises the address that leads out of the machine."""
        plan = self.plan(mode="master")
        self.assertEqual(plan.settings["HERO_COMPUTE_ADVERTISE_ADDRESS"], "https://10.1.2.3:9998")

    def test_advertises_the_port_that_it_listens_on(self) -> None:
        """--listen decides the port of the advertised address."""
        plan = self.plan(mode="master", listen=("ssl:8443:interface=10.1.2.3",))
        self.assertEqual(plan.settings["HERO_COMPUTE_ADVERTISE_ADDRESS"], "https://10.1.2.3:8443")
        self.assertEqual(
            plan.arguments("router"), ["hero-router", "--listen=ssl:8443:interface=10.1.2.3"]
        )
        self.assertEqual(plan.arguments("compute"), ["hero-compute"])

    def test_options_are_kept(self) -> None:
        """What was given once needs not be given again."""
        first = self.plan(mode="master", listen=("ssl:1", "ssl:2"), port="9100")
        first.paths.ensure()
        save_settings(first)
        self.assertEqual((self.home / "cfg/hero.env").stat().st_mode & 0o777, 0o600)
        again = self.plan(effective_environment(self.environ))
        self.assertEqual(again.mode, "master")
        self.assertEqual(again.listen, ("ssl:1", "ssl:2"))
        self.assertEqual(again.ui_port, "9100")
        self.assertEqual(again.environment["HERO_PORT"], "9100")

    def test_order_of_precedence(self) -> None:
        """The command line goes before the environment, which goes before the file."""
        stored, environ = {"HERO_PORT": "1"}, {"HERO_PORT": "2"}
        self.assertEqual(self.plan(stored).ui_port, "1")
        self.assertEqual(self.plan(stored, environ=environ).ui_port, "2")
        self.assertEqual(self.plan(stored, environ=environ, port="3").ui_port, "3")

    def test_another_mode_has_other_addresses(self) -> None:
        """What followed from the old mode is worked out anew when the mode changes."""
        stored = dict(self.plan().settings)
        plan = self.plan(stored, mode="master")
        self.assertEqual(plan.settings["HERO_COMPUTE_ADVERTISE_ADDRESS"], "https://10.1.2.3:9998")

    def test_same_mode_keeps_its_addresses(self) -> None:
        """An address that was given stays until another is given."""
        stored = dict(self.plan(mode="master", advertise_address="https://m:1").settings)
        plan = self.plan(stored)
        self.assertEqual(plan.settings["HERO_COMPUTE_ADVERTISE_ADDRESS"], "https://m:1")

    def test_secrets_stay_with_the_command_line(self) -> None:
        """No process gets a token that was meant for the command line, and no file does."""
        plan = self.plan(environ={"HERO_TOKEN": "hero_x", "HERO_URL": "https://h"})
        self.assertNotIn("hero_x", str([plan.environment, plan.settings]))

    def test_worker_must_have_joined(self) -> None:
        """A worker without a certificate is told to join."""
        error = self.assertRaises(InvalidConfiguration, self.plan, mode="worker")
        self.assertIn("hero join", error.hint)

    def test_worker_needs_explorers(self) -> None:
        """A worker that knows no explorer is told how to name one."""
        self._files("node.crt")
        self.assertRaises(InvalidConfiguration, self.plan, mode="worker")
        plan = self.plan(mode="worker", explorer_addresses="https://m:443")
        self.assertEqual(set(plan.processes), {"router", "compute"})

    def test_roles_do_not_mix(self) -> None:
        """A worker's files make no master, nor the other way round."""
        self._files("node.crt")
        self.assertRaises(Conflict, self.plan, mode="master")
        (self.home / "cfg/tls/ca.key").touch()
        self.plan(mode="master")
        self.assertRaises(Conflict, self.plan, mode="worker", explorer_addresses="https://m")

    def test_router_that_may_not_have_443(self) -> None:
        """9998 is a surprise to whoever did not ask for it, and to nobody else."""
        unprivileged = ["https://127.0.0.1:9998"]
        for listen in ((), ("ssl:443",), ("ssl:443:interface=10.0.0.5",)):
            self.assertTrue(fell_back(listen, unprivileged))
        self.assertFalse(fell_back(("ssl:9998:interface=127.0.0.1",), unprivileged))
        for url in ("https://127.0.0.1", "https://127.0.0.1:443", "https://[::]:8443"):
            self.assertFalse(fell_back((), [url]))

    def test_values_that_cannot_be(self) -> None:
        """A wrong value is refused before anything is started or written."""
        for options in (
            {"mode": "boss"},
            {"advertise_address": "10.0.0.1"},
            {"advertise_address": "http://h:1"},
            {"advertise_address": "https://h:99999"},
            {"advertise_address": "https://h/path"},
        ):
            with self.assertRaises(HeroError):
                self.plan(**options)
        self.assertEqual(list(self.home.iterdir()), [])
