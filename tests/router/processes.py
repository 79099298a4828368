"""Routers as real processes, and a client that notices every request that fails."""

from __future__ import annotations

import contextlib
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
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event, Thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import TestCase

from tests.router.backend import H11Service

ROOT = Path(__file__).parents[2]
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="]


class Load:
    """Clients that keep their connections, each asking on and on; ``failures`` has what failed.

    A connection is opened anew only when the router said that it closes.
    """

    def __init__(self, port: int, path: str, clients: int = 4) -> None:
        self.answers = 0
        self.connections = 0
        self.failures: list[str] = []
        self._port = port
        self._path = path
        self._stop = Event()
        self._threads = [Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        connection: HTTPConnection | None = None
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
                    connection.connect()
                    self.connections += 1
                connection.request("GET", self._path)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {body[:200]!r}")
                self.answers += 1
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
                connection = None
                time.sleep(0.01)
        if connection is not None:
            connection.close()

    def stop(self) -> Deferred[None]:
        """Stop asking; fires when all have their last answer."""
        self._stop.set()
        return deferToThread(lambda: [thread.join() for thread in self._threads])


class ProcessCase(TestCase):
    """Runs routers below one HERO_HOME, before a service at /demo/web."""

    timeout = 90

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hero-process-"))
        self.addCleanup(shutil.rmtree, self.home, True)
        self.sockets = self.home / "var/sockets"
        (self.sockets / "demo").mkdir(parents=True)
        self.service = H11Service({"access": "public"})
        self._connections = WrappingFactory(self.service)
        port = reactor.listenUNIX(str(self.sockets / "demo/web.sock"), self._connections)
        self.addCleanup(self.until, lambda: not self._connections.protocols, "routers are gone")
        self.addCleanup(port.stopListening)
        self.outputs: list[Path] = []

    def run_router(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a router; it is killed at the end if need be."""
        output = self.home / f"output{len(self.outputs)}"
        self.outputs.append(output)
        env = {**os.environ, "HERO_HOME": str(self.home), "PYTHONPATH": str(ROOT), **environ}
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*TWISTD, "hero-router", *(arguments or ("--listen", "tcp:0:interface=127.0.0.1"))],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

        def end() -> Any:
            # Successors and workers are in the session of the first.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return deferToThread(process.wait)

        self.addCleanup(end)
        return process

    def said(self) -> str:
        """What all routers printed."""
        return "\n".join(path.read_text(errors="replace") for path in self.outputs)

    def state(self) -> dict[str, Any]:
        """What ``router.json`` says; empty where there is none."""
        try:
            return dict(json.loads((self.home / "var/run/router.json").read_text()))
        except FileNotFoundError:
            return {}

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until *condition* is true."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > 60:
                self.fail(f"never happened: {what}\n{self.said()}")
            await deferLater(reactor, 0.02)

    async def port(self, process: subprocess.Popen[bytes]) -> int:
        """The port of *process*, once it is the router."""
        await self.until(
            lambda: self.state().get("pid") == process.pid or process.poll() is not None,
            f"process {process.pid} is the router",
        )
        self.assertIsNone(process.poll(), self.said())
        return int(self.state()["listening"][0].rpartition(":")[2])

    def ended(self, process: subprocess.Popen[bytes]) -> Deferred[int]:
        """The exit status of *process*."""
        return deferToThread(process.wait, 60)

    async def get(self, port: int, path: str) -> tuple[int, bytes]:
        """The status and body of one answer."""

        def ask() -> tuple[int, bytes]:
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        return await deferToThread(ask)

    async def get_local(self, path: str) -> bytes:
        """The body of one answer of the router's management socket."""
        return await deferToThread(self._ask_local, "GET", path, None)

    async def call_local(self, path: str, method: str) -> Any:
        """The result of a call to the router's management socket."""
        call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}})
        return json.loads(await deferToThread(self._ask_local, "POST", path, call))["result"]

    def _ask_local(self, verb: str, path: str, body: str | None) -> bytes:
        connection = HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.sockets / "hero_router/rpc.sock"))
            connection.request(verb, path, body, {"Content-Type": "application/json"})
            return connection.getresponse().read()
        finally:
            connection.close()
