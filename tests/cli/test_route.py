"""``hero route``: watching routes come and go, and what they are used for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import SynchronousTestCase

from hero.cli.route_changes import by_prefix, changes, rates
from hero.errors import Forbidden, Unavailable
from hero.router.model import Durations, Route, RoutePage, RouterStats, RouteState, RouteStats
from hero.rpc.declare import Call
from tests.cli.cluster import CliTestCase

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_route(name: str, state: RouteState = RouteState.UP, **more: Any) -> Route:
    """A route, found at a certain time."""
    members: dict[str, Any] = {"discovered_at": NOW, "access": "cluster", **more}
    return Route(
        service=name,
        socket="web",
        prefix=f"/{name}/web",
        path=f"/s/{name}/web.sock",
        state=state,
        **members,
    )


def make_stats(uptime: float, **requests: int) -> RouterStats:
    """What a router says that has run for *uptime* seconds; *requests* by service."""
    routes = [
        RouteStats(
            prefix=f"/{name}/web",
            requests=count,
            errors=count // 10,
            responses={"200": count},
            bytes_in=2048,
            bytes_out=3 * 1024**2,
            active=4,
            total=Durations(p50=0.0012, p90=0.002, p99=0.25),
        )
        for name, count in requests.items()
    ]
    total = sum(requests.values())
    return RouterStats(
        started_at=NOW,
        uptime=uptime,
        workers=1,
        listening=[],
        connections=1,
        connections_total=2,
        requests=total,
        responses={"200": total},
        rejections={},
        bytes_in=0,
        bytes_out=0,
        routes=len(routes),
        per_route=routes,
    )


class ChangesTests(SynchronousTestCase):
    """What differs between two looks."""

    def between(self, before: list[Route], after: list[Route]) -> list[tuple[str, str]]:
        found = changes(by_prefix(before), by_prefix(after))
        return [(change.event, change.route.prefix) for change in found]

    def test_routes_come_and_go(self) -> None:
        before, after = [make_route("old"), make_route("same")], [make_route("same")]
        self.assertEqual(self.between(before, after), [("vanished", "/old/web")])
        self.assertEqual(self.between(after, before), [("appeared", "/old/web")])

    def test_routes_go_up_and_down(self) -> None:
        up, down = make_route("a"), make_route("a", RouteState.DOWN, reason="nobody listens")
        self.assertEqual(self.between([up], [down]), [("down", "/a/web")])
        self.assertEqual(self.between([down], [up]), [("up", "/a/web")])

    def test_socket_that_was_made_anew_replaces_a_route(self) -> None:
        later = make_route("a", discovered_at=NOW + timedelta(seconds=1))
        self.assertEqual(self.between([make_route("a")], [later]), [("replaced", "/a/web")])

    def test_entry_that_becomes_refused(self) -> None:
        """Refused entries have no time at which they were discovered."""
        refused = make_route("a", RouteState.REFUSED, discovered_at=None)
        self.assertEqual(self.between([make_route("a")], [refused]), [("refused", "/a/web")])
        self.assertEqual(self.between([refused], [make_route("a")]), [("up", "/a/web")])

    def test_other_access_or_reason(self) -> None:
        public = make_route("a", access="public")
        self.assertEqual(self.between([make_route("a")], [public]), [("changed", "/a/web")])

    def test_use_is_no_change(self) -> None:
        used = make_route("a", requests=5, active=1)
        self.assertEqual(self.between([make_route("a")], [used]), [])


class RatesTests(SynchronousTestCase):
    """Requests per second."""

    def test_between_two_looks(self) -> None:
        self.assertEqual(rates(make_stats(10, a=5), make_stats(12, a=25)), {"/a/web": 10.0})

    def test_since_the_start(self) -> None:
        self.assertEqual(rates(None, make_stats(10, a=5)), {"/a/web": 0.5})
        self.assertEqual(rates(None, make_stats(0, a=5)), {"/a/web": 0.0})

    def test_router_was_started_anew(self) -> None:
        before = attrs.evolve(make_stats(10, a=500), started_at=NOW - timedelta(days=1))
        self.assertEqual(rates(before, make_stats(2, a=5)), {"/a/web": 2.5})

    def test_route_is_new_or_counts_anew(self) -> None:
        found = rates(make_stats(10, a=5), make_stats(11, a=2, b=3))
        self.assertEqual(found, {"/a/web": 0.0, "/b/web": 3.0})


class RouteCommandTests(CliTestCase):
    """The commands, whose router gives one answer after the other and then refuses."""

    def setUp(self) -> None:
        super().setUp()
        self.answers: list[Any] = []

        async def answer(call: Call) -> Any:
            value = self.answers.pop(0) if self.answers else Forbidden("no more")
            if isinstance(value, Exception):
                raise value
            return value

        self.router.list_services = answer  # type: ignore[method-assign]
        self.router.stats = answer  # type: ignore[method-assign]
        self.serve_explorer()
        self.serve_router()

    def pages(self, *pages: list[Route]) -> None:
        self.answers = [RoutePage(items=page) for page in pages]

    async def test_watch(self) -> None:
        """First what there is, then what happens."""
        down = make_route("a", RouteState.DOWN, reason="nobody listens on the socket")
        self.pages([make_route("a")], [make_route("a")], [down, make_route("b")], [down])
        result = await self.hero("route", "watch", "--interval", "0.1")
        self.assert_fails(result, 4, "no more")
        lines = [line.split()[1:4] for line in result.stdout.splitlines()]
        expected = [
            ["present", "up", "/a/web"],
            ["down", "down", "/a/web"],
            ["appeared", "up", "/b/web"],
            ["vanished", "up", "/b/web"],
        ]
        self.assertEqual(lines, expected)
        self.assertIn("nobody listens on the socket", result.stdout.splitlines()[1])

    async def test_watch_in_json(self) -> None:
        self.pages([], [make_route("a")])
        result = await self.hero("route", "watch", "--interval", "0.1", "--json")
        (change,) = map(json.loads, result.stdout.splitlines())
        self.assertEqual(change["event"], "appeared")
        self.assertEqual(change["route"]["prefix"], "/a/web")
        self.assertTrue(change["time"].endswith("Z"))

    async def test_watch_goes_on_while_the_router_is_away(self) -> None:
        self.answers = [
            RoutePage(items=[]),
            Unavailable("it is started anew"),
            Unavailable("it is started anew"),
            RoutePage(items=[make_route("a")]),
        ]
        result = await self.hero("route", "watch", "--interval", "0.1")
        self.assertEqual(result.stderr.count("the router does not answer"), 1)
        self.assertIn("appeared", result.stdout)

    async def test_watch_needs_a_router_to_begin_with(self) -> None:
        self.answers = [Unavailable("nobody is there")]
        self.assert_fails(await self.hero("route", "watch"), 5, "nobody is there")

    async def test_stats(self) -> None:
        self.answers = [make_stats(10.0, a=50)]
        result = await self.hero("route", "stats")
        self.assertEqual(result.exit_code, 0, result.output)
        row = result.stdout.splitlines()[1].split()
        self.assertEqual(row[:5], ["/a/web", "50", "5.0", "5", "4"])
        for words in ("1.2 ms", "250.0 ms", "2.0 KiB", "3.0 MiB"):
            self.assertIn(words, result.stdout)

    async def test_stats_again_and_again(self) -> None:
        """The rates are those since the last time; a router that is away is waited for."""
        away = Unavailable("it is started anew")
        self.answers = [make_stats(10.0, a=50), away, make_stats(12.0, a=60)]
        result = await self.hero("route", "stats", "--interval", "0.1", "--count", "3", "--json")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("the router does not answer", result.stderr)
        first, second = map(json.loads, result.stdout.splitlines())
        self.assertEqual(first["per_route"][0]["rate"], 5.0)
        self.assertEqual(second["per_route"][0]["rate"], 5.0)
        self.assertEqual(second["requests"], 60)

    async def test_stats_in_json(self) -> None:
        self.answers = [make_stats(10.0, a=50)]
        stats = await self.hero_json("route", "stats")
        self.assertEqual(stats["per_route"][0]["total"]["p99"], 0.25)

    async def test_stats_of_an_unused_router(self) -> None:
        self.answers = [make_stats(10.0)]
        result = await self.hero("route", "stats")
        self.assertIn("Nobody has used a route", result.stderr)

    async def test_count_without_interval_is_refused(self) -> None:
        self.assert_fails(await self.hero("route", "stats", "--count", "2"), 2, "--interval")

    async def test_interrupted_watch_ends_cleanly(self) -> None:
        """Ctrl-C, in a process of its own."""
        self.pages(*[[make_route("a")]] * 1000)
        run = Run()
        root = Path(__file__).parents[2]
        environ = {**os.environ, **self.environ, "PYTHONPATH": str(root)}
        python = shutil.which(sys.executable)
        reactor.spawnProcess(
            run,
            python,
            [python, "-m", "hero.cli.main", "route", "watch", "--interval", "0.1"],
            env=environ,
            path="/",
        )
        await run.begun
        run.transport.signalProcess(signal.SIGINT)
        ended = await run.ended
        self.assertEqual(ended.exitCode, 130, run.said)
        self.assertIn(b"/a/web", run.said)
        self.assertIn(b"stopped watching", run.said)
        self.assertNotIn(b"Traceback", run.said)


class Run(ProcessProtocol):
    """Collects what a process says."""

    def __init__(self) -> None:
        self.said = b""
        self.begun: Deferred[None] = Deferred()
        self.ended: Deferred[Any] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.said += data
        if not self.begun.called:
            self.begun.callback(None)

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        if not self.begun.called:
            self.begun.callback(None)
        self.ended.callback(reason.value)
