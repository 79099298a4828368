"""A compute service in a process of its own, for tests that kill it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.functional.crash import EXIT_STATUS

ROOT = Path(__file__).parents[2]
#: Seconds in which a process of ours does what it should, on a busy machine.
PATIENCE = 60.0


class RpcFailure(Exception):
    """The service answered with an error; ``data`` is its error data."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.data = error.get("data", {})


class ComputeProcess:
    """The compute service of a node in a new directory. `remove` takes everything away."""

    def __init__(self, *options: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hc-", dir="/tmp"))
        self.socket = self.home / "var/sockets/hero_compute/rpc.sock"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, crash_at: str = "never") -> None:
        """Start the service, and wait until it answers or has died at the step *crash_at*."""
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HERO_", "EXPLORER_"))},
            "HERO_HOME": str(self.home),
            "HERO_TEST_CRASH_AT": crash_at,
            "PYTHONPATH": str(ROOT),
        }
        command = [
            *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
            *("--nodaemon", "--pidfile=", "--logger", "tests.functional.crash.observer"),
            *("hero-compute", *self._options),
        ]
        with (self.home / "compute.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )
        wait_until(lambda: self.died() or self.answers(), f"compute in {self.home} to answer")

    def answers(self) -> bool:
        try:
            self.call("list_vms")
        except OSError:
            return False
        return True

    def died(self) -> bool:
        """Whether the process has crashed as planned; anything else is an error."""
        assert self._process is not None
        status = self._process.poll()
        assert status in (None, EXIT_STATUS), (status, self.log())
        return status is not None

    def wait_for_death(self) -> None:
        wait_until(self.died, "the crash")

    def stop(self) -> None:
        """Stop the service, politely."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill the service."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def log(self) -> str:
        return (self.home / "compute.log").read_text()[-8000:]

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of ComputeService; raises `RpcFailure`, or `OSError` as sockets do."""
        connection = _UnixConnection(self.socket)
        try:
            body = {
                "jsonrpc": "2.0",
                "id": 1,
                "method": f"ComputeService.{method}",
                "params": params,
            }
            connection.request(
                "POST",
                "/api/root/cloud/rpc",
                json.dumps(body),
                {"Content-Type": "application/json"},
            )
            try:
                answer = json.loads(connection.getresponse().read())
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from error
        finally:
            connection.close()
        if "error" in answer:
            raise RpcFailure(answer["error"])
        return answer["result"]

    def directories(self) -> list[str]:
        """The sids of the VMs that have files."""
        return sorted(path.name for path in (self.home / "var/vms").iterdir())

    def remove(self) -> None:
        """Stop the service and delete its files."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def wait_until(condition: Any, what: str) -> None:
    """Wait for *condition* to be true, up to `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE:g} seconds for {what}")
        time.sleep(0.05)
