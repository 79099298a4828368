"""RouterService, in front of a router that runs."""

from __future__ import annotations

from typing import Any

from hero.errors import NotFound
from hero.identity.claims import Caller
from hero.router.management import GatewayView, RouterApi
from hero.rpc.declare import Call
from tests.router.backend import H11Service
from tests.router.harness import RouterCase

GET = b"GET /demo/web/path?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n"
CALL = Call(caller=Caller.anonymous())


class Listening:
    """Says where the router listens."""

    urls = ["https://[::1]:443"]  # noqa: RUF012


class ManagementTests(RouterCase):
    def setUp(self) -> None:
        super().setUp()
        self.api = RouterApi(GatewayView(self.gateway), Listening())

    async def ask_twice(self) -> Any:
        """A connection on which two requests were answered."""
        wire = await self.connect()
        for count in (1, 2):
            wire.send(GET)
            await wire.until(lambda w, count=count: w.received.count(b"\r\n\r\nok") == count)
        return wire

    async def test_services(self) -> None:
        """Entries that are no routes come with the reason."""
        self.serve(H11Service({"access": "public"}))
        (self.directory / "demo" / "odd.sock").symlink_to("/nowhere")
        self.look()
        await self.ask_twice()
        odd, web = (await self.api.list_services(CALL)).items
        self.assertEqual((web.prefix, web.state, web.requests), ("/demo/web", "up", 2))
        assert web.pool is not None and web.limits is not None
        self.assertEqual((web.pool.idle, web.pool.busy, web.pool.reused), (1, 0, 2))
        self.assertEqual(web.limits.answer_time, self.limits.answer_time)
        self.assertEqual(odd.state, "refused")
        self.assertIn("symbolic link", odd.reason or "")
        found = await self.api.get_service(CALL, service="demo", socket="web")
        self.assertEqual(found.prefix, "/demo/web")
        with self.assertRaises(NotFound):
            await self.api.get_service(CALL, service="demo", socket="none")

    async def test_connections(self) -> None:
        self.serve(H11Service({"access": "public"}))
        await self.ask_twice()
        (connection,) = (await self.api.list_connections(CALL)).items
        self.assertEqual((connection.peer, connection.user), ("127.0.0.1", "anonymous"))
        self.assertEqual((connection.protocol, connection.secure), ("HTTP/1.1", False))
        self.assertEqual(connection.requests, 2)
        self.assertEqual(connection.bytes_in, 2 * len(GET))
        self.assertIsNone(connection.request)

    async def test_request_under_way_is_shown_without_its_query(self) -> None:
        self.serve(H11Service({"access": "public"}))
        wire = await self.connect()
        wire.send(b"POST /demo/web/up?secret=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        await self.pause(0.1)
        (connection,) = (await self.api.list_connections(CALL)).items
        self.assertEqual(connection.request, "POST /demo/web/up")

    async def test_stats(self) -> None:
        self.serve(H11Service({"access": "public"}))
        await self.ask_twice()
        await self.ask(b"GET /none/web/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await self.pause()
        stats = await self.api.stats(CALL)
        self.assertEqual(stats.requests, 3)
        self.assertEqual(stats.responses, {"200": 2, "404": 1})
        self.assertEqual(stats.rejections, {"no_route": 1})
        self.assertEqual((stats.connections, stats.connections_total), (1, 2))
        self.assertEqual((stats.routes, stats.workers), (1, 1))
        self.assertEqual(stats.listening, Listening.urls)
        self.assertGreaterEqual(stats.uptime, 0.0)
        self.assertEqual([route.prefix for route in stats.per_route], ["-", "/demo/web"])
        web = stats.per_route[1]
        self.assertEqual((web.requests, web.errors), (2, 0))
        self.assertEqual(web.bytes_in, 2 * len(GET))
        assert web.total is not None and stats.total is not None
        self.assertGreater(web.total.p50, 0.0)
        self.assertLessEqual(web.total.p50, web.total.p99)

    async def test_stats_of_a_router_that_nobody_used(self) -> None:
        stats = await self.api.stats(CALL)
        self.assertEqual((stats.requests, stats.total, stats.per_route), (0, None, []))
