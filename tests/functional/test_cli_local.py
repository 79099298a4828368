"""The ``hero`` command as people use it: real processes, a real terminal's signals.

VMs are pretended (``--hypervisor memory``); what is real is all the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from twisted.trial.unittest import TestCase

_HERO = [sys.executable, "-P", "-m", "hero.cli.main"]
_LIMIT = 120


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class NodeTestCase(TestCase):
    """A machine of one's own, which is a directory."""

    def setUp(self) -> None:
        self.home = self.new_home()

    def new_home(self) -> Path:
        """Another machine."""
        home = Path(tempfile.mkdtemp(prefix="hero-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        self.addCleanup(self.hero, "down", home=home, check=False)
        return home

    def environ(self, home: Path | None = None) -> dict[str, str]:
        """The environment of commands on the machine *home*."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**kept, "HERO_HOME": str(home or self.home), "HERO_HYPERVISOR": "memory"}

    def hero(
        self, *arguments: str, home: Path | None = None, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run ``hero``, and with *check* be sure that it was well."""
        done = subprocess.run(
            [*_HERO, *arguments],
            env=self.environ(home),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            cwd="/",
        )
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        if check:
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done

    def hero_json(self, *arguments: str, home: Path | None = None) -> Any:
        """What ``hero --json`` prints."""
        return json.loads(self.hero(*arguments, "--json", home=home).stdout)

    def up(self, *options: str, home: Path | None = None) -> Any:
        """Start the machine in the background, on ports that are free."""
        listen = f"ssl:{_free_port()}:interface=127.0.0.1"
        return self.hero_json(
            "up", "-d", "--listen", listen, "--port", str(_free_port()), *options, home=home
        )

    def pids(self) -> list[int]:
        """The processes that the supervisor started."""
        return [record["pid"] for record in self.hero_json("status")["processes"]]

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for *condition*, with a limit."""
        deadline = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.1)


class LifeOfANodeTests(NodeTestCase):
    """``hero up``, ``status``, ``down``."""

    def test_from_nothing_to_a_vm(self) -> None:
        """One command starts a machine, the next makes a VM, and it outlives both."""
        ready = self.up()
        self.assertEqual(ready["mode"], "local")
        self.assertEqual(self.hero_json("vm", "create", "demo")["state"], "running")
        self.hero("down")
        self.assertEqual(self.hero("vm", "list", check=False).returncode, 5)
        again = self.hero_json("up", "-d")
        self.assertEqual(again["router"], ready["router"])
        (found,) = self.hero_json("vm", "list")["items"]
        self.assertEqual(found["name"], "demo")

    def test_only_one(self) -> None:
        """A second hero up is refused, in the foreground and in the background."""
        self.up()
        for options in ([], ["-d"]):
            refused = self.hero("up", *options, check=False)
            self.assertEqual(refused.returncode, 6)
            self.assertIn("is running already", refused.stderr)

    def test_supervisor_is_killed(self) -> None:
        """Killed without warning, it takes its processes along, and can be started again."""
        supervisor = self.up()["pid"]
        pids = self.pids()
        self.assertEqual(len(pids), 4)
        os.kill(supervisor, signal.SIGKILL)
        self.assertEqual(self.hero_json("up", "-d")["mode"], "local")
        self.assertFalse(any(map(psutil.pid_exists, pids)))
        self.assertEqual(len(self.pids()), 4)

    def test_router_is_restarted(self) -> None:
        """The new process is the supervisor's as the old one was, and where it was."""
        ready = self.up()
        for _ in range(2):
            (before,) = (r for r in self.hero_json("status")["processes"] if r["name"] == "router")
            done = self.hero_json("router", "restart")
            self.assertEqual(done["before"], before["pid"])
            processes = {r["name"]: r["pid"] for r in self.hero_json("status")["processes"]}
            self.assertEqual(processes["router"], done["pid"])
            self.wait_until(
                lambda pid=before["pid"]: not psutil.pid_exists(pid), "the old one ends"
            )
        self.assertEqual(self.hero_json("status")["router"], ready["router"])
        self.assertEqual(len(self.pids()), 4)

    def test_process_is_killed(self) -> None:
        """A process that dies is started again."""
        self.up()
        compute = next(r for r in self.hero_json("status")["processes"] if r["name"] == "compute")
        os.kill(compute["pid"], signal.SIGKILL)
        self.wait_until(
            lambda: compute["pid"] not in self.pids() and None not in self.pids(), "a new compute"
        )
        self.wait_until(
            lambda: self.hero("vm", "list", check=False).returncode == 0, "compute answers"
        )

    def test_interrupted_in_the_foreground(self) -> None:
        """Ctrl-C stops everything, in order and quietly."""
        listen = f"ssl:{_free_port()}:interface=127.0.0.1"
        process = subprocess.Popen(
            [*_HERO, "up", "--listen", listen, "--port", str(_free_port())],
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertIn("Hero is up", process.stdout.readline())
        pids = self.pids()
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=_LIMIT)
        self.assertEqual(process.returncode, 0, said)
        self.assertNotIn("Traceback", said)
        self.assertNotIn("starting it again", said)
        self.assertFalse(any(map(psutil.pid_exists, pids)))

    def test_port_in_use(self) -> None:
        """What keeps a process from starting is on the screen, not only in a log."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            listen = f"ssl:{port}:interface=127.0.0.1"
            for options in ([], ["-d"]):
                refused = self.hero(
                    "up", *options, "--listen", listen, "--port", str(_free_port()), check=False
                )
                self.assertEqual(refused.returncode, 1, refused.stderr)
                self.assertIn("router does not start", refused.stderr)
                self.assertIn(str(port), refused.stderr)
        self.assertEqual(self.hero("status", check=False).returncode, 5)


class JoinTests(NodeTestCase):
    """``hero join``, and commands for a cluster elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        port = _free_port()
        self.url = f"https://127.0.0.1:{port}"
        self.hero(
            *("up", "-d", "--mode", "master", "--listen", f"ssl:{port}:interface=127.0.0.1"),
            *("--port", str(_free_port()), "--advertise-address", self.url),
        )
        self.worker = self.new_home()
        self.join_options = (
            *("join", "-", "--node-name", "second"),
            *("--listen", f"ssl:{_free_port()}:interface=127.0.0.1"),
        )

    def test_join_and_use(self) -> None:
        """A machine joins with one command, and takes VMs; to join again is no error."""
        token = self.hero("token", "create").stdout
        self.hero(*self.join_options, home=self.worker, stdin=token)
        self.wait_until(
            lambda: "online" in [
                n["state"] for n in self.hero_json("node", "list")["items"] if n["name"] == "second"
            ],
            "the worker is online",
        )  # fmt: skip
        made = self.hero_json("vm", "create", "far", "--node", "second")
        self.assertEqual(made["node_name"], "second")
        (there,) = self.hero_json("vm", "list", home=self.worker)["items"]
        self.assertEqual(there["sid"], made["sid"])
        again = self.hero(*self.join_options, "--json", home=self.worker, stdin=token)
        self.assertTrue(json.loads(again.stdout)["repeated"])

    def test_join_is_resumed(self) -> None:
        """A join whose answer was lost is repeated with the same token, and is the same node."""
        token = self.hero("token", "create").stdout
        join = ("join", "-", "--no-start", "--node-name", "second", "--json")
        first = json.loads(self.hero(*join, home=self.worker, stdin=token).stdout)
        tls = self.worker / "cfg/tls"
        # As if the machine had lost power after it had asked and before it kept the answer.
        (tls / "node.key").rename(tls / "node.key.new")
        for name in ("node.crt", "ca.crt"):
            (tls / name).unlink()
        second = json.loads(self.hero(*join, home=self.worker, stdin=token).stdout)
        self.assertEqual(second["node_sid"], first["node_sid"])

    def test_tokens_that_are_refused(self) -> None:
        """Each refusal says why."""
        token = self.hero("token", "create").stdout.strip()
        self.hero("join", "-", "--no-start", "--name", "b", home=self.worker, stdin=token)
        another = self.new_home()
        used = self.hero("join", token, "--no-start", "--name", "c", home=another, check=False)
        self.assertEqual(used.returncode, 4)
        self.assertIn("used", used.stderr)
        cut = self.hero("join", token[:50], "--no-start", home=self.new_home(), check=False)
        self.assertEqual(cut.returncode, 2)
        master = self.hero("join", token, "--no-start", check=False)
        self.assertEqual(master.returncode, 6)

    def test_from_elsewhere(self) -> None:
        """A token, and the CA's hash once, are all that another machine needs."""
        elsewhere = self.new_home()
        token = self.hero("token", "admin").stdout.strip()
        secret = elsewhere / "token"
        secret.write_text(token)
        there = ("--url", self.url, "--token-file", str(secret))
        unknown = self.hero(*there, "status", home=elsewhere, check=False)
        self.assertIn("--ca-sha256", unknown.stderr)
        fingerprint = self.hero_json("status")["ca_sha256"]
        wrong = self.hero(*there, "--ca-sha256", "0" * 64, "status", home=elsewhere, check=False)
        self.assertEqual(wrong.returncode, 4)
        self.hero(*there, "--ca-sha256", fingerprint, "status", home=elsewhere)
        nodes = self.hero_json(*there, "node", "list", home=elsewhere)
        self.assertEqual(len(nodes["items"]), 1)
        anonymous = self.hero("--url", self.url, "node", "list", home=elsewhere, check=False)
        self.assertEqual(anonymous.returncode, 4)
