"""``twistd hero-router``: its options, and the process as a whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hero.router.limits import Limits
from hero.router.tap import Options
from tests.router.harness import Wire


class OptionsTests(SynchronousTestCase):
    def options(self, *arguments: str, **environ: str) -> Options:
        options = Options({"HERO_HOME": "/nonexistent/hero"} | environ)
        options.parseOptions(list(arguments))
        return options

    def test_local_mode_listens_to_this_machine_only(self) -> None:
        self.assertEqual(self.options().listen, ["ssl:443:interface=127.0.0.1"])
        self.assertEqual(self.options("--mode", "master").listen, ["ssl:443"])

    def test_listen_may_be_repeated_or_come_from_the_environment(self) -> None:
        options = self.options("--listen", "ssl:1", "--listen", "tcp:2", HERO_LISTEN="ssl:3")
        self.assertEqual(options.listen, ["ssl:1", "tcp:2"])
        self.assertEqual(self.options(HERO_LISTEN="ssl:3 tcp:4").listen, ["ssl:3", "tcp:4"])

    def test_sockets_override_the_environment(self) -> None:
        options = self.options("--sockets", "/run/x", HERO_SOCKET_DIR="/run/y")
        self.assertEqual(str(options.paths.sockets), "/run/x")
        self.assertEqual(str(options.paths.router_socket), "/run/x/hero_router/rpc.sock")

    def test_unknown_words_are_refused(self) -> None:
        self.assertRaises(usage.UsageError, self.options, "--access", "everyone")
        self.assertRaises(usage.UsageError, self.options, "--mode", "solo")

    def test_limits_are_read(self) -> None:
        options = self.options("--limits", "connections=5, idle_time=1.5 body=none")
        self.assertEqual(options["limits"], Limits(connections=5, idle_time=1.5, body=None))
        self.assertEqual(self.options(HERO_LIMITS="body=7")["limits"], Limits(body=7))
        self.assertEqual(self.options()["limits"], Limits())
        for wrong in ("conections=5", "connections=none", "connections", "line=x", "line=-1"):
            error = self.assertRaises(usage.UsageError, self.options, "--limits", wrong)
            self.assertIn(wrong.partition("=")[0], str(error).replace("''", "connections"))

    def test_settings_of_the_file_are_read_again_also_where_they_were_handed_down(self) -> None:
        home = Path(self.mktemp()).absolute()
        (home / "cfg").mkdir(parents=True)
        file = home / "cfg/hero.env"
        file.write_text("HERO_ACCESS=public\nHERO_LIMITS=connections=5\n")
        handed_down = {"HERO_ACCESS": "public", "HERO_LIMITS": "connections=6"}
        options = self.options("--listen", "tcp:1", HERO_HOME=str(home), **handed_down)
        file.write_text("HERO_LIMITS=connections=7\n")
        again = options.read_again()
        self.assertEqual(again["access"], "cluster")
        self.assertEqual(again["limits"].connections, 6)
        self.assertEqual(again.listen, ["tcp:1"])
        self.assertEqual(again.paths, options.paths)
        file.write_text("HERO_ACCESS=everyone\n")
        self.assertRaises(usage.UsageError, options.read_again)

    def test_addresses_are_split(self) -> None:
        options = self.options("--advertise-address", "10.0.0.1, node.example,")
        self.assertEqual(options.addresses, ["10.0.0.1", "node.example"])


class Run(ProcessProtocol):
    """Collects what a process says."""

    def __init__(self) -> None:
        self.said = b""
        self.ended: Deferred[Any] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.said += data

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value)


class ProcessTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hero-tap-"))
        self.addCleanup(shutil.rmtree, self.home, True)

    def run_router(self, *arguments: str, descriptors: int | None = None) -> Run:
        run = Run()
        root = Path(__file__).parents[2]
        twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
        command = [*twistd, "-n", "--pidfile=", "hero-router", *arguments]
        environ = {**os.environ, "HERO_HOME": str(self.home), "PYTHONPATH": str(root)}
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
        program = shutil.which(command[0])
        process = reactor.spawnProcess(run, program, command, env=environ, path="/")
        run.transport = process

        def stop() -> Any:
            if process.pid is not None:
                process.signalProcess("KILL")
                return run.ended
            return None

        self.addCleanup(stop)
        return run

    async def port_of(self, run: Run) -> int:
        """The port of *run*, a router that listens on one."""
        state = self.home / "var/run/router.json"
        while not state.exists():
            self.assertFalse(run.ended.called, run.said)
            await deferLater(reactor, 0.05)
        (url,) = json.loads(state.read_text())["listening"]
        return int(url.rpartition(":")[2])

    async def test_idle_clients_leave_descriptors_for_services(self) -> None:
        run = self.run_router("--listen", "tcp:0:interface=127.0.0.1", descriptors=128)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", await self.port_of(run))
        wires = [await connectProtocol(endpoint, Wire()) for _ in range(128)]
        for wire in wires:
            self.addCleanup(wire.transport.abortConnection)
        for wire in wires[:5]:
            wire.send(b"GET /hero_router/rpc/health HTTP/1.1\r\nHost: a\r\n\r\n")
        for wire in wires[:5]:
            self.assertIn(b" 200 OK\r\n", await wire.get(b"\r\n\r\n"))

    async def test_router_serves_its_own_api_and_stops_cleanly(self) -> None:
        run = self.run_router("--listen", "tcp:0:interface=127.0.0.1")
        state = self.home / "var/run/router.json"
        port = await self.port_of(run)
        wire = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Wire())
        wire.send(b"GET /hero_router/rpc/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.assertIn(b" 200 OK\r\n", await wire.rest())
        self.assertIn(b"hero-router: listening on http://127.0.0.1:", run.said)
        os.kill(run.transport.pid, signal.SIGTERM)
        ended = await run.ended
        self.assertEqual(ended.signal, signal.SIGTERM, run.said)
        self.assertFalse(state.exists())
        self.assertNotIn(b"Traceback", run.said)

    async def test_last_requests_are_in_the_access_log(self) -> None:
        """What was answered just before the end is written too."""
        run = self.run_router("--listen", "tcp:0:interface=127.0.0.1")
        port = await self.port_of(run)
        wire = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Wire())
        wire.send(b"GET /hero_router/rpc/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await wire.rest()
        os.kill(run.transport.pid, signal.SIGTERM)
        await run.ended
        (line,) = (self.home / "var/log/router-access.log").read_text().splitlines()
        self.assertEqual(json.loads(line)["path"], "/hero_router/rpc/health")

    async def test_access_log_goes_to_standard_output(self) -> None:
        run = self.run_router("--access-log", "stdout", "--listen", "tcp:0:interface=127.0.0.1")
        port = await self.port_of(run)
        wire = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Wire())
        wire.send(b"GET /hero_router/rpc/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await wire.rest()
        os.kill(run.transport.pid, signal.SIGTERM)
        await run.ended
        self.assertIn(b'"path":"/hero_router/rpc/health"', run.said)
        self.assertFalse((self.home / "var/log/router-access.log").exists())

    async def test_worker_that_has_not_joined_is_told_how(self) -> None:
        run = self.run_router("--mode", "worker", "--listen", "tcp:0:interface=127.0.0.1")
        ended = await run.ended
        self.assertEqual(ended.exitCode, 1)
        self.assertIn(b"hero join", run.said)
        self.assertNotIn(b"Traceback", run.said)

    async def test_access_log_that_cannot_be_opened_is_named(self) -> None:
        run = self.run_router(
            "--access-log", f"{self.home}/no/such.log", "--listen", "tcp:0:interface=127.0.0.1"
        )
        ended = await run.ended
        self.assertEqual(ended.exitCode, 1)
        self.assertIn(b"/no/such.log", run.said)
        self.assertNotIn(b"Traceback", run.said)

    async def test_socket_that_systemd_did_not_pass_ends_the_process(self) -> None:
        run = self.run_router("--listen", "systemd:domain=INET:index=0")
        ended = await run.ended
        self.assertEqual(ended.exitCode, 1)
        self.assertIn(b"'systemd:domain=INET:index=0' names no socket", run.said)
        self.assertIn(b"systemctl start hero-router.socket", run.said)
        self.assertNotIn(b"Traceback", run.said)
