"""Several processes that are one router."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import psutil
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import SynchronousTestCase

from hero.router.model import PoolStats, Route, RouteState
from hero.router.snapshot import RouteCounts, RouterSnapshot, as_past, keep_routes, merge
from hero.router.worker_link import Lines
from hero.router.workers import join_routes
from tests.router.harness import Wire
from tests.router.processes import Load, ProcessCase

RPC = "/hero_router/rpc/api/root/router/rpc"


class WorkerTests(ProcessCase):
    timeout = 120

    async def start(self, *more: str, workers: int = 2, **environ: str) -> int:
        self.router = self.run_router(
            *("--listen", "tcp:0:interface=127.0.0.1", "--workers", str(workers), *more), **environ
        )
        return await self.port(self.router)

    def workers(self, pid: int | None = None) -> list[psutil.Process]:
        """The worker processes of a router, oldest first."""
        found = psutil.Process(pid or self.router.pid).children()
        found = [p for p in found if "hero.router.worker" in p.cmdline()]
        return sorted(found, key=lambda process: process.create_time())

    def load(self, port: int) -> Load:
        load = Load(port, "/demo/web/")
        self.addCleanup(load.stop)
        return load

    async def go_on(self, load: Load, answers: int = 100) -> None:
        wanted = load.answers + answers
        await self.until(lambda: load.answers >= wanted, "more answers")

    async def metrics(self) -> dict[str, float]:
        """All samples of /metrics, on the management socket."""
        text = (await self.get_local("/metrics")).decode()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    async def rpc(self, method: str) -> Any:
        return await self.call_local(
            RPC.removeprefix("/hero_router/rpc"), f"RouterService.{method}"
        )

    async def test_all_serve_and_are_one_router_to_those_who_ask(self) -> None:
        port = await self.start()
        self.assertEqual(len(self.workers()), 2)
        wires = [await self.connect(port) for _ in range(16)]
        for wire in wires:
            wire.send(b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
        for wire in wires:
            self.assertIn(b" 200 OK\r\n", await wire.get(b"ok"))
        connections = (await self.rpc("list_connections"))["items"]
        self.assertEqual({c["worker"] for c in connections}, {0, 1})
        self.assertEqual(len(connections), 16)
        self.assertEqual(len({(c["worker"], c["id"]) for c in connections}), 16)
        (route,) = [
            r for r in (await self.rpc("list_services"))["items"] if r["prefix"] == "/demo/web"
        ]
        self.assertEqual((route["state"], route["requests"]), ("up", 16))
        stats = await self.rpc("stats")
        self.assertEqual((stats["workers"], stats["requests"], stats["connections"]), (2, 16, 16))
        samples = await self.metrics()
        self.assertEqual(
            samples['hero_router_requests_total{route="/demo/web",status="200"}'], 16.0
        )
        self.assertEqual(samples['hero_router_routes{state="up"}'], 2.0)
        self.assertEqual(samples["hero_router_workers"], 2.0)
        self.assertEqual(samples["hero_router_worker_restarts_total"], 0.0)
        for number in (0, 1):
            memory = samples[f'hero_router_worker_memory_bytes{{worker="{number}"}}']
            self.assertGreater(memory, 1e6)

    async def test_worker_that_is_killed_loses_its_own_connections_and_is_replaced(self) -> None:
        port = await self.start()
        wires = [await self.connect(port) for _ in range(16)]
        for wire in wires:
            wire.send(b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
            await wire.get(b"ok")
        connections = (await self.rpc("list_connections"))["items"]
        lost = sum(connection["worker"] == 0 for connection in connections)
        self.assertEqual((await self.rpc("stats"))["requests"], 16)
        before = self.workers()
        os.kill(self.pid_of_worker(0), signal.SIGKILL)
        await self.until(lambda: sum(wire.closed for wire in wires) == lost, "lost connections")
        # Those that come meanwhile wait for the new one.
        load = self.load(port)
        await self.until(
            lambda: self.said().count("listening on") and len(self.workers()) == 2, "2"
        )
        await self.go_on(load, 200)
        await load.stop()
        self.assertEqual(load.failures, [], self.said())
        self.assertEqual(len({p.pid for p in before} & {p.pid for p in self.workers()}), 1)
        samples = await self.metrics()
        self.assertEqual(samples["hero_router_worker_restarts_total"], 1.0)
        # What the dead one had counted is not forgotten.
        served = samples['hero_router_requests_total{route="/demo/web",status="200"}']
        self.assertEqual(served, 16.0 + load.answers)
        for wire in wires:
            if not wire.closed:
                del wire.received[:]
                wire.send(b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertIn(b" 200 OK\r\n", await wire.get(b"ok"))

    def pid_of_worker(self, number: int) -> int:
        """By the order in which they were started."""
        return int(self.workers()[number].pid)

    async def test_worker_that_does_not_answer_is_left_out_and_counted(self) -> None:
        await self.start()
        os.kill(self.pid_of_worker(1), signal.SIGSTOP)
        self.assertEqual((await self.rpc("list_connections"))["items"], [])
        prefixes = [route["prefix"] for route in (await self.rpc("list_services"))["items"]]
        self.assertEqual(prefixes, ["/demo/web", "/hero_router/rpc"])
        samples = await self.metrics()
        self.assertGreaterEqual(samples["hero_router_worker_silences_total"], 3.0)
        os.kill(self.pid_of_worker(1), signal.SIGCONT)

    async def test_workers_end_with_the_main_process_however_it_ends(self) -> None:
        for number in (signal.SIGKILL, signal.SIGTERM):
            await self.start()
            workers = self.workers()
            self.router.send_signal(number)
            await self.ended(self.router)
            await self.until(lambda ps=workers: not any(p.is_running() for p in ps), "they end")
        self.assertEqual(self.state(), {})
        self.assertNotIn("Traceback", self.said())

    async def test_successor_takes_over_from_all_without_a_failed_request(self) -> None:
        """And with another number of workers, one alone among them."""
        port = await self.start()
        load = self.load(port)
        await self.go_on(load)
        first = self.router
        os.kill(first.pid, signal.SIGUSR2)
        await self.until(lambda: self.state()["pid"] != first.pid, "a successor")
        second = self.state()["pid"]
        await self.go_on(load)
        self.assertEqual(await self.ended(first), 0, self.said())
        self.assertEqual(len(self.workers(second)), 2)
        for workers in (1, 3):
            before = self.state()["pid"]
            self.assertEqual(await self.start(workers=workers), port)
            await self.until(lambda pid=before: not psutil.pid_exists(pid) or is_zombie(pid), "end")
            await self.go_on(load)
        self.assertEqual(len(self.workers()), 3)
        await load.stop()
        self.assertEqual(load.failures, [], self.said())

    async def test_settings_are_read_again_by_all(self) -> None:
        await self.start()
        file = self.home / "cfg/hero.env"
        file.write_text("HERO_LIMITS=connections=1\n")
        self.router.send_signal(signal.SIGHUP)
        await self.until(lambda: "settings reloaded" in self.said(), "settings reloaded")
        file.write_text("HERO_LIMITS=connections=x\n")
        self.router.send_signal(signal.SIGHUP)
        await self.until(lambda: "'x' is no value for connections" in self.said(), "refused")

    async def test_logs_are_opened_again_by_all(self) -> None:
        port = await self.start()
        log = self.home / "var/log/router-access.log"
        wires = [await self.connect(port) for _ in range(16)]
        for wire in wires:
            wire.send(b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
            await wire.get(b"ok")
        await self.until(lambda: lines(log) == 16, "16 lines")
        log.rename(log.with_name("old"))
        self.router.send_signal(signal.SIGUSR1)
        await self.until(log.exists, "a new file")
        for wire in wires:
            del wire.received[:]
            wire.send(b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
            await wire.get(b"ok")
        await self.until(lambda: lines(log) == 16, "16 lines more")
        self.assertEqual(lines(log.with_name("old")), 16)

    async def test_router_whose_workers_cannot_start_says_so_and_ends(self) -> None:
        broken = self.home / "broken"
        broken.mkdir()
        (broken / "sitecustomize.py").write_text(
            "import sys\nif '-m' in sys.orig_argv: raise SystemExit('it is broken')\n"
        )
        root = Path(__file__).parents[2]
        self.router = self.run_router(
            *("--listen", "tcp:0:interface=127.0.0.1", "--workers", "2"),
            PYTHONPATH=f"{broken}:{root}",
        )
        self.assertEqual(await self.ended(self.router), 1, self.said())
        self.assertRegex(self.said(), re.compile(r"worker \d does not start \(status 1\)"))
        self.assertIn("it is broken", self.said())

    async def connect(self, port: int) -> Wire:
        wire = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Wire())
        self.addCleanup(wire.transport.abortConnection)
        return wire


def lines(path: Path) -> int:
    return path.read_text().count("\n")


def is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class JoinTests(SynchronousTestCase):
    def route(self, **more: Any) -> Route:
        members = {"service": "shop", "socket": "api", "prefix": "/shop/api", "path": "/s/api.sock"}
        return Route(**members, access="public", **more)

    def test_route_is_up_where_any_worker_can_use_it(self) -> None:
        one = self.route(state=RouteState.DOWN, reason="nobody", requests=1, pool=PoolStats(idle=1))
        other = self.route(state=RouteState.UP, requests=2, active=1, pool=PoolStats(idle=2))
        for pages in ([[one], [other]], [[other], [one]], [[one], [], [other]]):
            (joined,) = join_routes(pages)
            self.assertEqual((joined.state, joined.reason), (RouteState.UP, None))
            self.assertEqual((joined.requests, joined.active), (3, 1))
            self.assertEqual(joined.pool, PoolStats(idle=3))

    def test_dead_worker_leaves_its_counts_and_no_present(self) -> None:
        counts = RouteCounts(responses={200: 3}, active=2, pool=PoolStats(idle=1, connected=5))
        snapshot = RouterSnapshot(
            routes={"/a/b": counts, "/c/d": RouteCounts(responses={404: 1})},
            connections={"HTTP/1.1": 4},
            accepted={"HTTP/1.1": 9},
        )
        past = as_past(snapshot)
        self.assertEqual(past.routes["/a/b"].pool, PoolStats(connected=5))
        self.assertEqual((past.routes["/a/b"].active, past.connections, past.workers), (0, {}, 0))
        self.assertEqual(counts.active, 2)
        total = merge([RouterSnapshot(routes={"/a/b": counts}), keep_routes(past, {"/a/b"})])
        self.assertEqual(total.routes["/a/b"].responses, {200: 6})
        self.assertEqual(set(total.routes), {"/a/b"})
        self.assertEqual(total.gone.responses, {404: 1})
        self.assertEqual((total.accepted, total.workers), ({"HTTP/1.1": 9}, 1))


class LinesTests(SynchronousTestCase):
    def test_lines_are_put_together_and_bounded(self) -> None:
        received: list[bytes] = []
        overruns: list[int] = []
        whole = Lines(received.append, lambda: overruns.append(1), 10)
        for data in (b"a\nb", b"c", b"d\n\ne\n", b"x" * 8):
            whole.feed(data)
        self.assertEqual((received, overruns), ([b"a", b"bcd", b"", b"e"], []))
        whole.feed(b"xxx")
        self.assertEqual(overruns, [1])
