"""One machine in local mode: what it does by itself, and what stands in its way."""

from __future__ import annotations

import os
import signal
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.cluster import (
    COMPUTE,
    Node,
    console,
    eventually,
    give_images,
    guests_running,
    once,
)


def start_node() -> Node:
    """A node in local mode that has its image."""
    node = Node("alone", "127.0.0.6")
    give_images(node.home)
    node.up("local")
    return node


class OneNodeTests(SynchronousTestCase):
    """A node that works, with no network and no credentials for the local user."""

    def setUp(self) -> None:
        self.node = once(start_node)

    def test_guest_boots_pauses_and_powers_off_by_itself(self) -> None:
        """Every verb does to a real guest what it says."""
        self.addCleanup(self.node.run, "vm", "delete", "one", "--force")
        self.node.hero("vm", "create", "one")
        eventually("the guest's first line", lambda: "one" in console(self.node, "one"))
        for verb, state in (
            ("pause", "paused"),
            ("resume", "running"),
            ("restart", "running"),
            ("stop", "stopped"),
        ):
            self.assertEqual(self.node.hero("vm", verb, "one")["state"], state, verb)
        self.assertEqual(guests_running(self.node), [])

    def test_a_guest_that_dies_is_seen_as_stopped_with_the_reason(self) -> None:
        """Nobody asked for it to stop: the record says what happened."""
        self.addCleanup(self.node.run, "vm", "delete", "victim", "--force")
        self.node.hero("vm", "create", "victim")
        for pid in guests_running(self.node):
            os.kill(pid, signal.SIGKILL)

        def stopped() -> dict[str, object] | None:
            vm: dict[str, object] = self.node.hero("vm", "show", "victim")
            return vm if vm["state"] in ("stopped", "failed") else None

        self.assertTrue(eventually("the death to be noticed", stopped)["reason"])

    def test_a_guest_that_died_while_nobody_watched_is_seen_too(self) -> None:
        """Compute is away when the guest dies; the record is true when it is back."""
        self.addCleanup(self.node.run, "vm", "delete", "unseen", "--force")
        self.node.hero("vm", "create", "unseen")
        for pid in self.node.processes("hero-compute") + guests_running(self.node):
            os.kill(pid, signal.SIGKILL)

        def stopped() -> dict[str, object] | None:
            vm: dict[str, object] = self.node.hero("vm", "show", "unseen")
            return vm if vm["state"] in ("stopped", "failed") else None

        self.assertTrue(eventually("the death to be noticed", stopped)["reason"])

    def test_a_stale_socket_file_is_no_obstacle(self) -> None:
        """kill -9 leaves the socket's file behind; the service starts again in its place."""
        [pid] = self.node.processes("hero-compute")
        os.kill(pid, signal.SIGKILL)
        eventually(
            "compute to be back", lambda: self.node.processes("hero-compute") not in ([], [pid])
        )
        eventually("compute to answer", lambda: self.node.hero("vm", "list"))
        token = self.node.hero("token", "admin")["token"]

        def status() -> bool:
            header = {"Authorization": f"Bearer {token}"}
            return self.node.rpc(COMPUTE, "ComputeService.list_vms", headers=header)[0] == 200

        eventually("the route to be up", status)

    def test_a_second_node_on_the_same_files_is_refused(self) -> None:
        """Two supervisors on one home would fight over it."""
        done = self.node.run("up", "--mode", "local")
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("Traceback", done.stderr)
        self.assertIn("running", done.stderr)


class ObstacleTests(SynchronousTestCase):
    """What a person is told when a node cannot start or do its work."""

    def setUp(self) -> None:
        self.node = Node("blocked", "127.0.0.7")
        self.addCleanup(self.node.destroy)

    def refusal(self, *arguments: str) -> str:
        done = self.node.run(*arguments)
        said = done.stdout + done.stderr
        self.assertNotEqual(done.returncode, 0, said)
        self.assertNotIn("Traceback", said)
        return said

    def test_a_port_in_use_names_its_holder(self) -> None:
        """The router does not wander off to another port."""
        holder = socket.create_server(("127.0.0.7", 9998))
        self.addCleanup(holder.close)
        said = self.refusal(
            "up", "--mode", "local", "-d", "--listen", "ssl:9998:interface=127.0.0.7"
        )
        self.assertIn("9998", said)
        self.assertIn(str(os.getpid()), said)

    def test_a_socket_directory_that_is_too_long_is_refused(self) -> None:
        """The message says how long it may be."""
        self.node.set(HERO_SOCKET_DIR=str(self.node.home / ("x" * 100)))
        self.assertIn("HERO_SOCKET_DIR", self.refusal("up", "--mode", "local", "-d"))

    def test_options_of_the_old_bridges_say_what_replaced_them(self) -> None:
        """--rpc-port and --explorer-port are gone."""
        for option in ("--rpc-port", "--explorer-port"):
            said = self.refusal("up", option, "9" + "002")
            self.assertIn("router", said)
