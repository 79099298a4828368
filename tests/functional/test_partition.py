"""A master and a worker in network namespaces of their own, with a cable that can be cut."""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.cluster import (
    ROUTER_PORT,
    CommandFailed,
    Node,
    console,
    eventually,
    give_images,
    guests_running,
    join,
    node_state,
)
from tests.functional.namespaces import Cable


class PartitionTests(SynchronousTestCase):
    """The link between the nodes goes down and comes back."""

    def setUp(self) -> None:
        self.cable = Cable("10.77.0.1", "10.77.0.2")
        self.addCleanup(self.cable.remove)
        self.cable.lay()
        self.master = Node("master", "10.77.0.1", self.cable.left)
        self.addCleanup(self.master.destroy)
        self.worker = Node("worker", "10.77.0.2", self.cable.right)
        self.addCleanup(self.worker.destroy)
        give_images(self.master)
        give_images(self.worker)
        self.master.up("master", "--heartbeat-interval", "1", "--port", "9001")
        join(self.master, self.worker)

    def test_guests_go_on_and_nothing_is_started_twice(self) -> None:
        """Silence makes a node unreachable and changes nothing else."""
        self.assertEqual(_listeners(self.master), {(self.master.address, ROUTER_PORT), UI})
        self.assertEqual(_listeners(self.worker), {(self.worker.address, ROUTER_PORT)})
        self.master.hero("vm", "create", "island", "--node", "worker")
        eventually("the guest's first line", lambda: "island" in console(self.master, "island"))
        guests = guests_running(self.worker)
        self.assertEqual(len(guests), 1)

        self.cable.cut()
        eventually(
            "the worker to be unreachable",
            lambda: node_state(self.master, self.worker) == "unreachable",
        )
        seen = self.master.hero("vm", "show", "island")
        self.assertEqual((seen["state"], seen["reachable"]), ("running", False))
        self.assertEqual(self.master.hero("vm", "list")["unreachable"], ["worker"])
        with self.assertRaises(CommandFailed) as caught:
            self.master.hero("vm", "stop", "island")
        self.assertIn("worker", caught.exception.stderr)
        self.assertEqual(self.master.hero("vm", "create", "here")["node_name"], "master")
        self.assertEqual(guests_running(self.worker), guests)

        self.cable.mend()
        eventually(
            "the worker to be online", lambda: node_state(self.master, self.worker) == "online"
        )
        self.assertEqual(guests_running(self.worker), guests)
        self.assertTrue(self.master.hero("vm", "show", "island")["reachable"])
        self.assertEqual(
            sorted(vm["name"] for vm in self.master.hero("vm", "list")["items"]),
            ["here", "island"],
        )
        self.master.hero("vm", "delete", "island", "--force")
        self.assertEqual(guests_running(self.worker), [])


UI = ("127.0.0.1", 9001)


def _listeners(node: Node) -> set[tuple[str, int]]:
    """The TCP addresses that anything in the node's namespace listens on, by the kernel's table."""
    table = subprocess.run(
        node.command(["cat", "/proc/net/tcp"]),
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout
    found = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            address, port = fields[1].split(":")
            octets = [str(byte) for byte in reversed(bytes.fromhex(address))]
            found.add((".".join(octets), int(port, 16)))
    return found
