"""The explorer as a process, with a real compute process beside it, and what kill -9 does."""

from __future__ import annotations

import http.client
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

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
#: Seconds in which a process of ours does what it should, on a busy machine.
PATIENCE = 60.0


class Machine:
    """A home directory with an explorer and a compute service, each a process."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hx-", dir="/tmp"))
        self.socket = self.home / "var/sockets/hero_compute/explorer_rpc.sock"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *options: str) -> None:
        """Start ``twistd hero-<name>``."""
        foreign = ("HERO_", "EXPLORER_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
                    *("--nodaemon", "--pidfile=", f"hero-{name}", *options),
                ],
                cwd=self.home,
                env={**environment, "HERO_HOME": str(self.home), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end(self, name: str, signal_number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        process = self._processes.pop(name)
        process.send_signal(signal_number)
        return process.wait(PATIENCE)

    def wait(self, name: str) -> int:
        """Wait for a process to end by itself; the exit status."""
        return self._processes.pop(name).wait(PATIENCE)

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()

    def remove(self) -> None:
        """End everything and take it away."""
        for name in list(self._processes):
            self.end(name, signal.SIGKILL)
        shutil.rmtree(self.home)

    def call(self, method: str, **params: Any) -> Any:
        """The answer of the explorer: ``{"result": …}`` or ``{"error": …}``."""
        kind = "explorer" if method.startswith("Explorer") else "cloud"
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        connection = _UnixConnection(self.socket)
        try:
            connection.request(
                "POST",
                f"/api/root/{kind}/rpc",
                json.dumps(request),
                {"Content-Type": "application/json"},
            )
            return json.loads(connection.getresponse().read())
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def result(self, method: str, **params: Any) -> Any:
        """The result of a call that succeeds."""
        answer = self.call(method, **params)
        assert "result" in answer, answer
        return answer["result"]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until *condition*, which may find nobody to talk to, gives something true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            value = condition()
        except OSError:
            value = None
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {what}")


class ExplorerProcessTests(SynchronousTestCase):
    """An explorer and a compute service on one machine, guests in memory."""

    def setUp(self) -> None:
        self.machine = Machine()
        self.addCleanup(self.machine.remove)

    def up(self) -> None:
        """Start both, and wait until the node is online."""
        self.machine.start("explorer", "--heartbeat-interval", "1")
        self.machine.start("compute", "--hypervisor", "memory", "--slice-memory", "268435456")
        eventually(lambda: self.nodes() == ["online"], "the node to be online")

    def nodes(self) -> list[str]:
        """The states of the nodes."""
        page = self.machine.result("ExplorerService.list_nodes")
        return [node["state"] for node in page["items"]]

    def vms(self) -> list[str]:
        """The names of the VMs."""
        page = self.machine.result("ComputeService.list_vms")
        return [vm["name"] for vm in page["items"]]

    def test_life_of_a_vm(self) -> None:
        """Through the explorer, from deploying to deleting."""
        self.up()
        vm = self.machine.result("ComputeService.deploy_vm", name="one")["result"]
        self.assertEqual((vm["state"], vm["reachable"]), ("running", True))
        self.assertEqual(self.vms(), ["one"])
        for verb, state in (("stop_vm", "stopped"), ("start_vm", "running")):
            done = self.machine.result(f"ComputeService.{verb}", vm="one")
            self.assertEqual(done["result"]["state"], state)
        refused = self.machine.call("ComputeService.delete_vm", vm="one")
        self.assertEqual(refused["error"]["data"]["kind"], "conflict")
        self.machine.result("ComputeService.delete_vm", vm="one", force=True)
        self.assertEqual(self.vms(), [])
        self.assertIn(self.machine.end("explorer"), (0, -signal.SIGTERM))
        self.assertFalse(self.machine.socket.exists())
        self.assertNotIn("Traceback", self.machine.log("explorer"))

    def test_killed_while_deploying(self) -> None:
        """After kill -9 every operation ends, and there are just the VMs that they say."""
        self.up()
        sids = [
            self.machine.result(
                "ComputeService.deploy_vm", name=f"vm{n}", wait=False, request_id=f"r{n}"
            )["sid"]
            for n in range(6)
        ]
        self.machine.end("explorer", signal.SIGKILL)
        self.machine.start("explorer", "--heartbeat-interval", "1")
        done = {}

        def all_ended() -> bool:
            for sid in sids:
                done[sid] = self.machine.result("ComputeService.get_operation", sid=sid)
            return all(o["state"] in ("succeeded", "failed") for o in done.values())

        eventually(all_ended, "the operations to end")
        made = sorted(o["result"]["name"] for o in done.values() if o["state"] == "succeeded")
        self.assertEqual(self.vms(), made)
        again = self.machine.call("ComputeService.deploy_vm", name="vm0", request_id="r0")
        self.assertEqual("result" in again, "vm0" in made)

    def test_compute_goes_and_comes_back(self) -> None:
        """Its VMs stay listed, marked; a call says which node does not answer."""
        self.up()
        self.machine.result("ComputeService.deploy_vm", name="one")
        self.machine.end("compute", signal.SIGKILL)
        eventually(lambda: self.nodes() == ["unreachable"], "the silence to be noticed")
        page = self.machine.result("ComputeService.list_vms")
        self.assertEqual([vm["reachable"] for vm in page["items"]], [False])
        self.assertEqual(len(page["unreachable"]), 1)
        refused = self.machine.call("ComputeService.stop_vm", vm="one")["error"]["data"]
        self.assertEqual(refused["kind"], "node_unreachable")
        self.assertIn(refused["node"], refused["detail"])
        self.machine.start("compute", "--hypervisor", "memory", "--slice-memory", "268435456")
        eventually(lambda: self.nodes() == ["online"], "the node to be back")
        self.assertEqual(self.vms(), ["one"])

    def test_second_explorer(self) -> None:
        """A second one on the same files says so and ends; the first goes on."""
        self.machine.start("explorer")
        eventually(lambda: self.machine.result("ExplorerService.cluster_status"), "an answer")
        first = self.machine._processes.pop("explorer")
        self.machine.start("explorer")
        self.assertNotEqual(self.machine.wait("explorer"), 0)
        self.assertIn("another explorer uses", self.machine.log("explorer"))
        self.assertNotIn("Traceback", self.machine.log("explorer"))
        self.machine._processes["explorer"] = first
        self.assertTrue(self.machine.result("ExplorerService.cluster_status"))

    def test_wrong_mode(self) -> None:
        """A mode that an explorer does not have is refused in words."""
        self.machine.start("explorer", "--mode", "worker")
        self.assertNotEqual(self.machine.wait("explorer"), 0)
        self.assertIn("local or master", self.machine.log("explorer"))
        self.assertNotIn("Traceback", self.machine.log("explorer"))
