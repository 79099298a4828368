"""Manifests: what services, and files beside their sockets, say of them, and what that changes."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hero.router.entries import Identity
from hero.router.errors import BadAnswer
from hero.router.limits import Limits
from hero.router.manifest import parse_manifest, read_manifest_file
from hero.router.model import Route, RouteState
from tests.router.backend import H11Service, ScriptedService
from tests.router.harness import RouterCase, Wire

GET = b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n"
GET_AND_CLOSE = b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /demo/%b/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"


def identity_of(path: Path) -> Identity:
    status = path.lstat()
    return status.st_dev, status.st_ino, status.st_ctime_ns


class ParseTests(SynchronousTestCase):
    def test_limits_and_timeouts_change_the_routers(self) -> None:
        manifest = parse_manifest(
            b'{"limits": {"body": 10, "connections": 2, "waiting": 0}, "timeouts": {"connect": 1, '
            b'"wait": 2, "first_byte": 3, "idle": 4.5, "whole": 5, "tunnel": 6}}'
        )
        self.assertEqual(
            manifest.applied_to(Limits(head=1234)),
            Limits(
                head=1234,
                body=10,
                upstreams=2,
                waiting=0,
                connect_time=1,
                wait_time=2,
                answer_time=3,
                stall_time=4.5,
                whole_time=5,
                tunnel_time=6,
            ),
        )

    def test_what_is_not_said_or_not_known_changes_nothing(self) -> None:
        limits = Limits(body=7)
        for text in (
            b"{}",
            b'{"limits": {}, "timeouts": {}}',
            b'{"limits": {"body": null, "rate": "fast"}, "timeouts": {"whole": null, "x": -1}}',
            b'\xef\xbb\xbf {"future": [1]}',
        ):
            self.assertEqual(parse_manifest(text).applied_to(limits), limits)

    def test_values_out_of_bounds_make_it_unreadable(self) -> None:
        for text in (
            '{"limits": {"body": -1}}',
            '{"limits": {"body": 1.5}}',
            '{"limits": {"body": true}}',
            '{"limits": {"body": 9007199254740993}}',
            '{"limits": {"connections": 0}}',
            '{"limits": {"connections": 1000001}}',
            '{"limits": {"waiting": -1}}',
            '{"limits": []}',
            '{"timeouts": {"connect": 0}}',
            '{"timeouts": {"idle": -1}}',
            '{"timeouts": {"whole": "60"}}',
            '{"timeouts": {"tunnel": 2592001}}',
            '{"timeouts": {"first_byte": 1e400}}',
            '{"timeouts": {"first_byte": NaN}}',
            '{"access": "everybody"}',
            "[" * 10_000,
            "",
        ):
            with self.assertRaises(BadAnswer, msg=text):
                parse_manifest(text.encode())


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text('{"name": "x"}')

    def assertUnreadable(self, identity: Identity, why: str) -> None:
        with self.assertRaises(BadAnswer) as caught:
            read_manifest_file(self.path, identity, Limits(manifest=100))
        self.assertIn(why, str(caught.exception))

    def test_read(self) -> None:
        manifest = read_manifest_file(self.path, identity_of(self.path), Limits())
        self.assertEqual(manifest.name, "x")

    def test_other_file_of_the_name_is_not_read(self) -> None:
        identity = identity_of(self.path)
        other = self.path.with_suffix(".new")
        other.write_text('{"access": "public"}')
        other.replace(self.path)
        self.assertUnreadable(identity, "has just changed")

    def test_link_and_fifo_of_the_name_are_not_read(self) -> None:
        identity = identity_of(self.path)
        self.path.unlink()
        self.path.symlink_to("/dev/zero")
        self.assertUnreadable(identity, "symbolic links")
        self.path.unlink()
        os.mkfifo(self.path)
        self.assertUnreadable(identity_of(self.path), "is not a file")

    def test_too_long(self) -> None:
        self.path.write_text('{"name": "' + "x" * 100 + '"}')
        self.assertUnreadable(identity_of(self.path), "longer than 100 bytes")


class ManifestCase(RouterCase):
    def describe(self, socket: str = "web") -> Route:
        """The route as list_services shows it."""
        (route,) = [r for r in self.routes.describe() if r.socket == socket]
        return route

    def write_file(self, content: Any, name: str = "web") -> Path:
        """Put a manifest beside a socket; discover it."""
        path = self.directory / "demo" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{name}.new")
        temporary.write_text(content if isinstance(content, str) else json.dumps(content))
        temporary.replace(path)
        self.look()
        return path


class ServedTests(ManifestCase):
    """What a service itself says."""

    async def test_body_limit_is_the_routes_own(self) -> None:
        self.serve(H11Service({"limits": {"body": 4}}))
        self.serve(H11Service({"limits": {"body": 5}}), socket="large")
        answer = await self.ask(POST % b"web")
        self.assertIn(b" 413 ", answer)
        self.assertIn(b"longer than 4 bytes", answer)
        self.assertIn(b" 200 ", await self.ask(POST % b"large"))
        limits = self.describe().limits
        assert limits is not None
        self.assertEqual(limits.body, 4)

    async def test_paths_reach_the_service_with_the_prefix_where_it_wants_that(self) -> None:
        service = H11Service({"prefix": "keep"})
        self.serve(service)
        await self.ask(GET_AND_CLOSE.replace(b"/demo/web/", b"/demo/web/a?b=/c"))
        await self.ask(GET_AND_CLOSE.replace(b"/demo/web/", b"/demo/web/a?b=/c"))
        self.assertEqual([seen.target for seen in service.seen], [b"/demo/web/a?b=/c"] * 2)
        self.assertEqual(service.seen[0].values(b"x-forwarded-prefix"), [b"/demo/web"])

    async def test_connections_and_waiting_are_the_routes_own(self) -> None:
        service = ScriptedService(lambda connection, data: None, manifest=False)
        self.write_file({"limits": {"connections": 1, "waiting": 0}})
        self.serve(service)
        first = await self.connect()
        first.send(GET)
        await self.until_asked(service)
        self.assertIn(b"upstream_busy", await self.ask(GET_AND_CLOSE))

    async def until_asked(self, service: ScriptedService) -> None:
        while not any(b"GET /" in c.received for c in service.connections):
            await self.pause()

    async def test_limits_go_back_with_the_manifest(self) -> None:
        manifest = {"limits": {"body": 4, "connections": 2}, "timeouts": {"whole": 60}}
        port = self.serve(H11Service(manifest))
        self.assertIn(b" 413 ", await self.ask(POST % b"web"))
        await port.stopListening()
        self.serve(H11Service())
        self.assertIn(b" 200 ", await self.ask(POST % b"web"))
        limits = self.describe().limits
        assert limits is not None
        self.assertEqual(
            (limits.body, limits.upstreams, limits.whole_time),
            (self.limits.body, self.limits.upstreams, self.limits.whole_time),
        )

    async def test_routers_new_limits_keep_what_the_manifest_says(self) -> None:
        self.serve(H11Service({"limits": {"body": 4}}))
        await self.ask(GET_AND_CLOSE)
        route = self.routes.lookup("demo", "web")
        assert route is not None
        route.set_limits(Limits(body=100, waiting=3))
        for limits in (route.limits, route.pool.limits):
            self.assertEqual((limits.body, limits.waiting), (4, 3))

    async def test_bad_value_closes_the_route(self) -> None:
        self.serve(H11Service({"access": "public", "limits": {"body": "much"}}))
        self.assertIn(b" 401 ", await self.ask(GET_AND_CLOSE))
        route = self.describe()
        self.assertEqual(route.access, "cluster")
        self.assertIn("$.limits.body", route.reason or "")


class TimeoutTests(ManifestCase):
    limits = Limits(linger_time=60)

    def make_clock(self) -> Clock:
        return Clock()

    async def late(self, answer: bytes) -> Wire:
        """A request to a service that sends *answer* and no more, 4 seconds later."""
        service = ScriptedService(
            lambda connection, data: connection.transport.write(answer), manifest=False
        )
        self.write_file({"timeouts": {"first_byte": 3, "idle": 2}})
        self.serve(service)
        wire = await self.connect()
        wire.send(GET)
        while not any(c.received for c in service.connections):
            await self.pause()
        await self.pause()
        self.clock.pump([1.0] * 4)
        return wire

    async def test_first_byte(self) -> None:
        wire = await self.late(b"")
        self.assertIn(b" 504 ", await wire.get(b"upstream_timeout"))

    async def test_idle(self) -> None:
        wire = await self.late(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        self.assertTrue((await wire.rest()).endswith(b"abc"))
        self.assertEqual(self.log[0]["reason"], "upstream_timeout")


class BesideTests(ManifestCase):
    """A file beside the socket."""

    default_access = "cluster"

    async def test_file_wins_and_the_service_is_not_asked(self) -> None:
        service = ScriptedService(
            lambda connection, data: connection.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            ),
            manifest=False,
        )
        self.write_file({"access": "public", "name": "shop", "limits": {"body": 4}})
        self.serve(service)
        self.assertIn(b" 200 ", await self.ask(GET_AND_CLOSE))
        self.assertIn(b" 413 ", await self.ask(POST % b"web"))
        self.assertEqual(self.describe().name, "shop")
        asked = b"".join(c.received for c in service.connections)
        self.assertNotIn(b"heroservice.json", asked)

    async def test_file_that_cannot_be_read_closes_the_route(self) -> None:
        """Also where the service itself says that it is public."""
        self.write_file('{"access": "public", "limits": {"body": -1}}')
        self.serve(H11Service({"access": "public"}))
        self.assertIn(b" 401 ", await self.ask(GET_AND_CLOSE))
        route = self.describe()
        self.assertEqual((route.state, route.access), (RouteState.UP, "cluster"))
        self.assertIn("$.limits.body", route.reason or "")

    async def test_file_that_comes_changes_and_goes(self) -> None:
        self.serve(H11Service({"access": "public"}))
        self.assertIn(b" 200 ", await self.ask(GET_AND_CLOSE))
        path = self.write_file({"access": "cluster"})
        self.assertIn(b" 401 ", await self.ask(GET_AND_CLOSE))
        self.write_file({"access": "public", "limits": {"body": 4}})
        self.assertIn(b" 413 ", await self.ask(POST % b"web"))
        path.unlink()
        self.look()
        self.assertIn(b" 200 ", await self.ask(POST % b"web"))

    async def test_nobody_listening_is_a_503_and_back_at_once(self) -> None:
        self.write_file({"access": "public"})
        path = self.directory / "demo/web.sock"
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(path))
        dead.close()
        self.look()
        self.assertIn(b"upstream_refused", await self.ask(GET_AND_CLOSE))
        self.assertEqual(self.describe().state, RouteState.DOWN)
        path.unlink()
        self.serve(H11Service())
        self.assertIn(b" 200 ", await self.ask(GET_AND_CLOSE))
        self.assertEqual(self.describe().state, RouteState.UP)
