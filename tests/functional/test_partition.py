"""A master and a worker in network namespaces of their own, with a cable that can be cut."""

from __future__ import annotations

import ipaddress
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.capture import Capture, what_is_not_tls
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
        self.capture = Capture(self.cable.left, self.cable.left_device)
        self.addCleanup(self.capture.close)
        self.capture.start()
        give_images(self.master.home)
        give_images(self.worker.home)
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
        self._assert_all_of_it_was_tls()

    def _assert_all_of_it_was_tls(self) -> None:
        """The nodes spoke to each other's routers, TLS, and said nothing else."""
        self.capture.stop()
        streams = self.capture.streams()
        self.assertTrue(what_is_not_tls(b"GET / HTTP/1.1\r\n"))
        doors = {(node.address, ROUTER_PORT) for node in (self.master, self.worker)}
        called = set()
        for (source, destination), stream in streams.items():
            self.assertTrue({source, destination} & doors, f"{source} to {destination}")
            self.assertEqual(what_is_not_tls(stream.content()), b"", f"{source} to {destination}")
            if destination in doors and stream.segments:
                called.add(destination)
        self.assertEqual(called, doors)


UI = ("127.0.0.1", 9001)


def _listeners(node: Node) -> set[tuple[str, int]]:
    """The TCP addresses that anything in the node's namespace listens on, by the kernel's table."""
    table = subprocess.run(
        node.command(["cat", "/proc/net/tcp", "/proc/net/tcp6"]),
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout
    found = set()
    for fields in map(str.split, table.splitlines()):
        if fields[3] == "0A":
            address, port = fields[1].split(":")
            packed = bytes.fromhex(address)
            words = (packed[start : start + 4][::-1] for start in range(0, len(packed), 4))
            found.add((str(ipaddress.ip_address(b"".join(words))), int(port, 16)))
    return found
