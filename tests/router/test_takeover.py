"""One router takes the place of another, and no client notices."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from tests.router.harness import Wire
from tests.router.processes import Load, ProcessCase


class TakeoverTests(ProcessCase):
    def load(self, port: int) -> Load:
        load = Load(port, "/demo/web/")
        self.addCleanup(load.stop)
        return load

    async def go_on(self, load: Load, answers: int = 100) -> None:
        """Wait for more answers."""
        wanted = load.answers + answers
        await self.until(lambda: load.answers >= wanted, "more answers")

    async def finish(self, load: Load) -> None:
        await load.stop()
        self.assertEqual(load.failures, [], self.said())

    async def test_second_router_takes_over_without_a_failed_request(self) -> None:
        first = self.run_router()
        port = await self.port(first)
        load = self.load(port)
        await self.go_on(load)
        second = self.run_router()
        self.assertEqual(await self.port(second), port)
        self.assertEqual(await self.ended(first), 0, self.said())
        await self.go_on(load)
        await self.finish(load)
        self.assertEqual(self.state()["pid"], second.pid)
        status, body = await self.get(port, "/hero_router/rpc/health")
        self.assertEqual(status, 200)
        self.assertIn(b"hero-router", body)
        second.send_signal(signal.SIGTERM)
        await self.ended(second)
        self.assertEqual(self.state(), {})
        self.assertFalse((self.sockets / "hero_router/rpc.sock").exists())
        self.assertFalse((self.home / "var/run/router.takeover").exists())
        self.assertNotIn("Traceback", self.said())

    async def test_usr2_starts_a_successor_with_the_same_command_line(self) -> None:
        first = self.run_router("--listen", "tcp:0:interface=127.0.0.1", "--access", "public")
        port = await self.port(first)
        load = self.load(port)
        await self.go_on(load)
        for _ in range(2):
            before = self.state()["pid"]
            os.kill(before, signal.SIGUSR2)
            await self.until(lambda old=before: self.state()["pid"] != old, "a successor")
            await self.go_on(load)
        self.assertEqual(await self.ended(first), 0, self.said())
        await self.finish(load)
        self.assertEqual(int(self.state()["listening"][0].rpartition(":")[2]), port)

    async def test_successor_that_cannot_start_changes_nothing(self) -> None:
        first = self.run_router()
        port = await self.port(first)
        load = self.load(port)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            other = taken.getsockname()[1]
            second = self.run_router(
                *("--listen", "tcp:0:interface=127.0.0.1"),
                *("--listen", f"tcp:{other}:interface=127.0.0.1"),
            )
            self.assertEqual(await self.ended(second), 1, self.said())
        await self.go_on(load)
        self.assertEqual(self.state()["pid"], first.pid)
        await self.finish(load)
        third = self.run_router()
        self.assertEqual(await self.port(third), port)
        self.assertEqual(await self.ended(first), 0, self.said())

    async def test_successor_that_dies_before_it_is_ready_is_not_missed(self) -> None:
        first = self.run_router()
        port = await self.port(first)
        load = self.load(port)
        for wanted in (1, 2):
            with socket.socket(socket.AF_UNIX) as successor:
                successor.connect(str(self.home / "var/run/router.takeover"))
                successor.sendall(b'{"take": 1}\n')
                await self.until(
                    lambda n=wanted: self.said().count("a successor asked") == n, "it asks"
                )
                _, sockets, _, _ = socket.recv_fds(successor, 65536, 16)
                self.assertTrue(sockets)
                await self.go_on(load)
                for descriptor in sockets:
                    os.close(descriptor)
            await self.go_on(load)
            self.assertIsNone(first.poll(), self.said())
        await self.finish(load)
        self.assertEqual(self.state()["pid"], first.pid)
        status, _ = await self.get(port, "/hero_router/rpc/health")
        self.assertEqual(status, 200)

    async def test_names_are_taken_back_from_a_successor_that_went(self) -> None:
        """It had come as far as taking them, and had not said that it is done."""
        first = self.run_router()
        port = await self.port(first)
        run = self.home / "var/run"
        with socket.socket(socket.AF_UNIX) as successor:
            successor.connect(str(run / "router.takeover"))
            successor.sendall(b'{"take": 1}\n')
            await self.until(lambda: "a successor asked" in self.said(), "it asks")
            (run / "router.json").write_text('{"listening": [], "pid": 1}')
            (self.sockets / "hero_router/rpc.sock").unlink()
            (run / "router.takeover").unlink()
        await self.until(lambda: self.state().get("pid") == first.pid, "it is back")
        await self.until((self.sockets / "hero_router/rpc.sock").exists, "its socket is back")
        status, _ = await self.get(port, "/hero_router/rpc/health")
        self.assertEqual(status, 200)
        second = self.run_router()
        self.assertEqual(await self.port(second), port)

    async def test_predecessor_killed_mid_way_is_not_missed(self) -> None:
        """Connections that wait to be accepted are served by the successor."""
        first = self.run_router()
        port = await self.port(first)
        second = self.run_router()
        await self.until(lambda: "a successor asked" in self.said(), "it asks")
        first.kill()
        await self.ended(first)
        # From here on, until the second is ready, nobody accepts.
        load = self.load(port)
        self.assertEqual(await self.port(second), port)
        await self.go_on(load)
        await self.finish(load)

    async def test_request_under_way_is_finished_and_its_connection_closed(self) -> None:
        first = self.run_router()
        port = await self.port(first)
        wire = await self.connect(port)
        wire.send(b"POST /demo/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        idle = await self.connect(port)
        idle.send(b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
        await idle.get(b"ok")
        second = self.run_router()
        await self.port(second)
        await self.until(lambda: "took over" in self.said(), "it took over")
        await deferLater(reactor, 0.3)
        wire.send(b"cd")
        self.assertIn(b"Connection: close", await wire.rest())
        self.assertIn(b" 200 OK\r\n", wire.received)
        self.assertFalse(idle.closed)
        del idle.received[:]
        idle.send(b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(b"Connection: close", await idle.rest())
        self.assertIn(b" 200 OK\r\n", idle.received)
        self.assertEqual(await self.ended(first), 0, self.said())

    async def test_drain_time_bounds_what_is_waited_for(self) -> None:
        first = self.run_router(
            "--listen", "tcp:0:interface=127.0.0.1", "--limits", "drain_time=0.5 stop_time=0.2"
        )
        wire = await self.connect(await self.port(first))
        wire.send(b"POST /demo/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        await deferLater(reactor, 0.2)
        self.run_router()
        self.assertEqual(await self.ended(first), 0, self.said())
        self.assertNotIn(b" 200 OK\r\n", await wire.rest())

    async def test_socket_is_the_owners_alone_and_odd_requests_are_refused(self) -> None:
        first = self.run_router()
        port = await self.port(first)
        path = self.home / "var/run/router.takeover"
        self.assertEqual(stat.S_IMODE(path.lstat().st_mode), 0o600)
        for said in (b'{"done": 1}\n', b"GET / HTTP/1.1\r\n\r\n", b"x" * 70000):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(path))
                client.sendall(said)
                await deferLater(reactor, 0.05)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.recv(10), b"")
        status, _ = await self.get(port, "/demo/web/")
        self.assertEqual(status, 200)

    async def connect(self, port: int) -> Wire:
        wire = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Wire())
        self.addCleanup(wire.transport.abortConnection)
        return wire
