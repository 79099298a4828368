"""A tour of a cluster of two, on this machine: ``make demo``.

Starts a master on 127.0.0.2 and a worker on 127.0.0.3, each with a home directory of its own and
one TLS port; joins them by token; deploys a guest on the worker from the master; prints the line
that the guest wrote on its console and the path that the call took; takes everything down. Exits
with 0 only if all of that happened.
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
from typing import Any, NoReturn

PORT = int(os.environ.get("HERO_DEMO_PORT", "9998"))
HERO = [sys.executable, "-m", "hero.cli.main"]
GUEST = "tour"
READY = f"hero micro: {GUEST} ready"

#: Seconds. The first image is built from packages that have to be fetched.
COMMAND_LIMIT = 300
PATIENCE = 60


class TourFailed(Exception):
    """What did not happen."""


class Node:
    """One node: a home directory, an address, and the ``hero`` command there."""

    def __init__(self, name: str, address: str, home: Path) -> None:
        self.name = name
        self.address = address
        self.url = f"https://{address}:{PORT}"
        self.home = home
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("HERO_", "EXPLORER_"))
        }
        self._environment = {**inherited, "HERO_HOME": str(home), "HERO_NODE_NAME": name}

    def hero(self, *arguments: str) -> Any:
        """What ``hero --json *arguments`` says, with the command shown first."""
        say(f"  {self.name}$ hero {' '.join(shorten(word) for word in arguments)}")
        return self.ask(*arguments)

    def ask(self, *arguments: str) -> Any:
        """The same, unshown."""
        done = subprocess.run(
            [*HERO, "--json", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT,
        )
        if done.returncode != 0:
            raise TourFailed(
                f"hero {arguments[0]} on {self.name} ended with {done.returncode}\n"
                f"{done.stdout}{done.stderr}"
            )
        return json.loads(done.stdout) if done.stdout.strip() else None

    def up(self, mode: str, *options: str) -> None:
        """Start the node's processes, in the background."""
        listen = f"ssl:{PORT}:interface={self.address}"
        where = ("--listen", listen, "--advertise-address", self.url)
        self.hero("up", "--mode", mode, "-d", *where, *options)

    def processes(self) -> dict[int, str]:
        """The command lines of this node's processes, guests among them."""
        marker = os.fsencode(self.home)
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
                directory = os.readlink(entry / "cwd")
            except OSError:
                continue
            ours = b"HERO_HOME=" + marker + b"\0" in environment
            if command and (ours or marker in command or directory.startswith(str(self.home))):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def is_gone(self) -> bool:
        """Whether none of its processes is left."""
        return not self.processes()

    def guests(self) -> list[int]:
        """The process ids of this node's virtual machines."""
        return [pid for pid, command in self.processes().items() if "qemu-system" in command]

    def requests(self) -> int:
        """How many requests this node's router has passed to its compute service."""
        for route in self.ask("route", "list")["items"]:
            if route["prefix"] == "/hero_compute/rpc":
                return int(route["requests"])
        return 0

    def complaints(self) -> str:
        """The ends of this node's logs."""
        tails = []
        for log in sorted(self.home.glob("var/log/*.log")):
            lines = log.read_text(errors="replace").splitlines()[-8:]
            tails.append("\n".join([f"--- {self.name} {log.name}", *lines]))
        return "\n".join(tails)


def main() -> int:
    """Give the tour; the exit status says whether all of it happened."""
    base = Path(tempfile.mkdtemp(prefix="hero-tour-", dir="/tmp"))
    master = Node("master", "127.0.0.2", base / "master")
    worker = Node("worker", "127.0.0.3", base / "worker")
    signal.signal(signal.SIGTERM, stop)
    started = time.monotonic()
    worked = False
    try:
        tour(master, worker)
        worked = True
    except TourFailed as failure:
        say(f"\nThe tour failed: {failure}")
    except subprocess.TimeoutExpired as late:
        say(f"\nThe tour failed: {' '.join(late.cmd)} took more than {late.timeout:.0f} s")
    except KeyboardInterrupt:
        say("\nInterrupted.")
    if not worked:
        say(master.complaints() + "\n" + worker.complaints())
    clean = take_down(master, worker)
    shutil.rmtree(base, ignore_errors=True)
    if worked and clean:
        say(f"\nAll of it happened, in {time.monotonic() - started:.0f} s, and nothing is left.")
        return 0
    return 1


def tour(master: Node, worker: Node) -> None:
    """Every stop of the tour. Raises `TourFailed` at the first that goes wrong."""
    for node in (master, worker):
        refuse_taken(node)

    say("A master and a worker, each behind one TLS port.")
    master.up("master", "--port", str(free_port()))
    token = master.hero("token", "create")["token"]
    worker.hero("join", token, "--advertise-address", worker.url, "--no-start")
    worker.up("worker")
    await_that("the worker is online", lambda: "online" in state_of(master, worker))
    for node in master.ask("node", "list")["items"]:
        say(f"    {node['name']:8} {node['state']:8} {node['advertise_address']}")

    say("\nA guest on the worker, asked for on the master. The first image takes a while.")
    before = worker.requests()
    begun = time.monotonic()
    vm = master.hero("vm", "create", GUEST, "--node", "worker", "--timeout", str(COMMAND_LIMIT))
    created = time.monotonic() - begun
    expect(vm["node_name"] == "worker", f"the guest is on {vm['node_name']}, not on the worker")
    expect(not master.guests(), "the master runs a guest that it should not")
    guests = worker.guests()
    expect(len(guests) == 1, f"the worker runs {len(guests)} guests where there should be one")
    after = worker.requests()
    expect(after > before, "the worker's router passed no request on to its compute service")

    line = await_that("the guest writes to its console", lambda: console_line(master))
    spent = time.monotonic() - begun
    say(f"    created in {created:.1f} s; {spent:.1f} s after the command its console says:")
    say(f"\n      {line}\n")

    say("The path of the call:")
    say("    hero vm create")
    say(f"      | UNIX socket  {within(master, 'var/sockets/hero_compute/explorer_rpc.sock')}")
    say("    explorer of the master: chose the worker")
    say(f"      | mutual TLS   {worker.url}/hero_compute/rpc/api/root/cloud/rpc")
    say(f"    router of the worker: passed on {after - before} requests in the meantime")
    say(f"      | UNIX socket  {within(worker, 'var/sockets/hero_compute/rpc.sock')}")
    say(f"    compute of the worker: {vm['sid']}")
    say("      | QMP          on a UNIX socket beside the guest's disk")
    say(f"    QEMU, process {guests[0]}\n")

    say("The guest, seen from the master, and gone again.")
    for item in master.hero("vm", "list")["items"]:
        say(f"    {item['name']:8} {item['state']:8} on {item['node_name']}")
    master.hero("vm", "delete", GUEST, "--force")
    expect(not master.ask("vm", "list")["items"], "the guest is still listed")
    await_that("QEMU ends", lambda: not worker.guests())


def take_down(master: Node, worker: Node) -> bool:
    """Stop every process of both nodes; whether that went as it should."""
    say("\nTaking everything down.")
    clean = True
    for node in (worker, master):
        if not node.home.exists():
            continue
        try:
            node.hero("down")
        except (TourFailed, subprocess.TimeoutExpired) as failure:
            say(f"    {failure}")
            clean = False
    for node in (worker, master):
        try:
            await_that(f"{node.name} has no process left", node.is_gone, 15)
        except TourFailed:
            clean = False
            for pid, command in node.processes().items():
                say(f"    killing what was left of {node.name}: {pid} {command[:80]}")
                os.kill(pid, signal.SIGKILL)
    return clean


def console_line(master: Node) -> str | None:
    """The line by which the guest says that it runs, once it is there."""
    for line in master.ask("vm", "logs", GUEST)["data"].splitlines():
        if READY in line:
            return str(line.strip())
    return None


def state_of(master: Node, node: Node) -> str:
    """What the master thinks of *node*."""
    states = {n["name"]: n["state"] for n in master.ask("node", "list")["items"]}
    return str(states.get(node.name, "unknown"))


def refuse_taken(node: Node) -> None:
    """Raise `TourFailed` where somebody listens already where *node* wants to."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((node.address, PORT))
        except OSError as error:
            raise TourFailed(
                f"port {PORT} of {node.address} cannot be used ({error.strerror}); "
                "name another with HERO_DEMO_PORT"
            ) from None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses, for the master's web console."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_that(what: str, probe: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true answer of *probe*. Raises `TourFailed` when there is none in time."""
    deadline = time.monotonic() + patience
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise TourFailed(f"waited {patience:.0f} s until {what}")
        time.sleep(0.2)
    return answer


def expect(truth: bool, otherwise: str) -> None:
    """Raise `TourFailed` with *otherwise* unless *truth*."""
    if not truth:
        raise TourFailed(otherwise)


def within(node: Node, path: str) -> str:
    """*path* in the home of *node*, which has to exist."""
    full = node.home / path
    expect(full.is_socket(), f"{full} is no socket")
    return str(full)


def shorten(word: str) -> str:
    """*word*, with the middle of a long one left out: a token is a secret."""
    return word if len(word) <= 60 else f"{word[:12]}..."


def say(text: str) -> None:
    """Print *text* at once."""
    print(text, flush=True)


def stop(number: int, frame: object) -> NoReturn:
    """A signal ends the tour as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
