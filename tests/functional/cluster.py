"""Real nodes for functional tests: own home directories, own addresses, real processes.

A node's processes are started as a person would start them, with ``hero up``, and spoken to
with ``hero --json`` or with the standard library's own HTTP and TLS, which share no code with
Hero.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

#: Long enough for a loaded two-core machine; a wait that is satisfied ends at once.
PATIENCE = 90.0
HERO = [sys.executable, "-m", "hero.cli.main"]
ROUTER_PORT = 9998


class CommandFailed(AssertionError):
    """A command ended with another status than the test expected."""

    def __init__(self, arguments: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"hero {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        self.status = done.returncode
        self.stderr = done.stderr


def eventually(what: str, probe: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true value of ``probe()``, asked for again and again until *patience* runs out."""
    deadline = time.monotonic() + patience
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = probe()
        except (OSError, CommandFailed, http.client.HTTPException) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.1)
    raise AssertionError(f"waited {patience:.0f} s for {what}; last seen: {last!r}")


class Node:
    """One machine of a cluster: a home directory and an address, in a network namespace or not."""

    def __init__(self, name: str, address: str, namespace: str | None = None) -> None:
        self.name = name
        self.address = address
        self.namespace = namespace
        self.home = Path(tempfile.mkdtemp(prefix=f"hero-{name}-", dir="/tmp"))
        atexit.register(self.destroy)
        self.url = f"https://{address}:{ROUTER_PORT}"
        self._environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("HERO_", "EXPLORER_"))
        } | {"HERO_HOME": str(self.home), "HERO_NODE_NAME": name}

    @property
    def environment(self) -> Mapping[str, str]:
        return self._environment

    def set(self, **settings: str) -> None:
        """Environment variables for the node's processes."""
        self._environment.update(settings)

    def command(self, arguments: list[str]) -> list[str]:
        """*arguments* as they are run on this node's network."""
        if self.namespace is None:
            return arguments
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def run(self, *arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """``hero *arguments`` on this node, whatever its exit status."""
        return subprocess.run(
            self.command([*HERO, *arguments]),
            env=self._environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
        )

    def hero(self, *arguments: str, timeout: float = PATIENCE) -> Any:
        """What ``hero --json *arguments`` prints, parsed. Raises `CommandFailed`."""
        done = self.run("--json", *arguments, timeout=timeout)
        if done.returncode != 0:
            raise CommandFailed(arguments, done)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def up(self, mode: str, *options: str) -> None:
        """Start the node's processes in the background and wait until they are ready.

        The web console's port is the node's own, unless *options* say otherwise.
        """
        done = self.run(
            "up",
            "--mode",
            mode,
            "-d",
            "--listen",
            f"ssl:{ROUTER_PORT}:interface={self.address}",
            "--advertise-address",
            self.url,
            "--port",
            str(9100 + int(self.address.rpartition(".")[2])),
            *options,
        )
        if done.returncode != 0:
            raise CommandFailed(("up", "--mode", mode), done)

    def down(self) -> None:
        """Stop the node's processes; guests go on."""
        self.run("down")

    def processes(self, word: str) -> list[int]:
        """The ids of this node's processes whose command line contains *word*."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (entry / "environ").read_bytes()
            except (OSError, UnicodeDecodeError):
                continue
            if word in arguments and f"HERO_HOME={self.home}\0".encode() in environment:
                found.append(int(entry.name))
        return found

    def destroy(self) -> None:
        """Stop everything that belongs to the node, guests too, and remove its files."""
        if not self.home.exists():
            return
        self.down()
        for pid in self.processes(""):
            if pid != os.getpid():
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
        for pid in _qemu_of(self.home):
            os.kill(pid, 9)
        shutil.rmtree(self.home, ignore_errors=True)

    def tls_context(self, *, certificate_of: Node | None = None) -> ssl.SSLContext:
        """A client's TLS settings: this node's CA, and another node's certificate if named."""
        context = ssl.create_default_context(cafile=str(self.home / "cfg/tls/ca.crt"))
        if certificate_of is not None:
            tls = certificate_of.home / "cfg/tls"
            context.load_cert_chain(tls / "node.crt", tls / "node.key")
        return context

    def http(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request to the node's router over TLS, by the standard library's client."""
        connection = http.client.HTTPSConnection(
            self.address, ROUTER_PORT, timeout=30, context=context or self.tls_context()
        )
        try:
            payload = None if body is None else json.dumps(body).encode()
            sent = {"Content-Type": "application/json"} if payload is not None else {}
            connection.request(method, path, payload, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def rpc(
        self,
        route: str,
        method: str,
        params: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> tuple[int, Any]:
        """A JSON-RPC call to the node's router; the HTTP status and the parsed body."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        status, _, body = self.http("POST", route, request, headers, context)
        return status, json.loads(body)


_Made = TypeVar("_Made")
_started: dict[object, Any] = {}
_not_started: dict[object, Exception] = {}


def once(start: Callable[[], _Made]) -> _Made:
    """What ``start()`` made for the first test that asked.

    trial runs no ``setUpClass``. What failed once is not tried again for the next test.
    """
    if start in _not_started:
        raise _not_started[start]
    if start not in _started:
        try:
            _started[start] = start()
        except Exception as error:
            _not_started[start] = error
            raise
    made: _Made = _started[start]
    return made


COMPUTE = "/hero_compute/rpc/api/root/cloud/rpc"
CLOUD = "/hero_compute/explorer_rpc/api/root/cloud/rpc"
EXPLORER = "/hero_compute/explorer_rpc/api/root/explorer/rpc"


def _qemu_of(home: Path) -> list[int]:
    found = []
    for pidfile in home.glob("var/vms/*/*.pid"):
        try:
            pid = int(pidfile.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if b"qemu-system" in command:
            found.append(pid)
    return found


def guests_running(node: Node) -> list[int]:
    """The process ids of the node's QEMUs that are alive."""
    return _qemu_of(node.home)


def _build_images() -> Node:
    builder = Node("builder", "127.0.0.9")
    builder.up("local")
    builder.hero("image", "build", "micro", timeout=180)
    builder.down()
    return builder


def built_images() -> Path:
    """A directory of images, built once for all tests on a node that can reach the packages."""
    return once(_build_images).home / "var/images"


def give_images(home: Path) -> None:
    """Give the node in *home* the images."""
    (home / "var").mkdir(mode=0o700, exist_ok=True)
    shutil.copytree(built_images(), home / "var/images", dirs_exist_ok=True)


def join(master: Node, worker: Node) -> None:
    """Let *worker* join the cluster of *master* and wait until it is online."""
    token = master.hero("token", "create")["token"]
    worker.hero("join", token, "--advertise-address", worker.url, "--no-start")
    worker.up("worker")
    eventually(f"{worker.name} to be online", lambda: node_state(master, worker) == "online")


def node_state(master: Node, node: Node) -> str | None:
    """The state of *node*, as the explorer on *master* sees it."""
    for item in master.hero("node", "list")["items"]:
        if item["name"] == node.name:
            return str(item["state"])
    return None


def console(node: Node, vm: str) -> str:
    """What the guest has written to its serial console so far."""
    return str(node.hero("vm", "logs", vm)["data"])
