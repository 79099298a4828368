"""Connections to a service: reused, bounded, and waited for in order."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from hero.router.limits import Limits
from tests.router.backend import ANSWER, ScriptedService
from tests.router.harness import RouterCase

GET = b"GET /demo/web/%d HTTP/1.1\r\nHost: a\r\n\r\n"


class Holding(ScriptedService):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, bytes]] = []
        super().__init__(self._take)

    def _take(self, connection: Any, data: bytes) -> None:
        self.asked.append((connection, data.split(b" ", 2)[1]))

    def answer(self, number: int) -> None:
        connection, path = self.asked[number]
        connection.transport.write(
            ANSWER.replace(b"\r\n\r\n", b"\r\nX-Path: " + path + b"\r\n\r\n")
        )


class PoolTests(RouterCase):
    limits = Limits(upstreams=2, waiting=2, wait_time=5.0, linger_time=0.5, stop_time=1.0)

    def make_clock(self) -> Any:
        """Deadlines, and the time for which one waits, pass when the test says so."""
        return Clock()

    async def _ask(self, count: int) -> list[Any]:
        self.service = Holding()
        self.serve(self.service)
        wires = []
        for number in range(count):
            wire = await self.connect()
            wire.send(GET % number)
            wires.append(wire)
            if number < self.limits.upstreams:
                while len(self.service.asked) <= number:
                    await self.pause(0.005)
            else:
                waiting = number + 1 - self.limits.upstreams
                while self.pool.stats().waiting != waiting and not wire.received:
                    await self.pause(0.005)
        return wires

    @property
    def pool(self) -> Any:
        route = self.routes.lookup("demo", "web")
        assert route is not None
        return route.pool

    async def _until(self, condition: Any) -> None:
        while not condition():
            await self.pause(0.005)

    async def test_requests_over_the_bound_wait_in_order(self) -> None:
        wires = await self._ask(4)
        self.assertEqual([path for _, path in self.service.asked], [b"/0", b"/1"])
        for number in range(4):
            await self._until(lambda number=number: len(self.service.asked) > number)
            self.service.answer(number)
            self.assertIn(b"X-Path: /%d\r\n" % number, await wires[number].get(b"\r\n\r\nok"))
        stats = self.pool.stats()
        self.assertEqual((stats.idle, stats.busy, stats.waiting), (2, 0, 0))
        self.assertEqual(len({id(connection) for connection, _ in self.service.asked}), 2)

    async def test_more_than_may_wait_are_turned_away(self) -> None:
        wires = await self._ask(5)
        answer = await wires[4].get(b"upstream_busy")
        self.assertIn(b" 503 ", answer)
        self.assertIn(b"Retry-After: 1\r\n", answer)
        self.assertEqual(wires[2].received, b"")

    async def test_one_who_waited_for_long_is_turned_away(self) -> None:
        wires = await self._ask(3)
        self.pool.tend()
        self.assertEqual(wires[2].received, b"")
        clock = Clock()
        pool = self.pool
        clock.advance(pool.clock.seconds() + 5.0)
        self.patch(pool, "clock", clock)
        pool.tend()
        self.assertIn(b" 503 ", await wires[2].get(b"upstream_busy"))

    async def test_one_who_waits_and_goes_is_forgotten(self) -> None:
        wires = await self._ask(3)
        pool = self.pool
        wires[2].transport.abortConnection()
        await self._until(lambda: pool.stats().waiting == 0)
        self.service.answer(0)
        await wires[0].get(b"\r\n\r\nok")
        self.assertEqual(len(self.service.asked), 2)

    async def test_connection_that_dies_makes_room_and_its_request_is_tried_again(self) -> None:
        wires = await self._ask(3)
        self.service.asked[0][0].transport.abortConnection()
        await self._until(lambda: len(self.service.asked) == 3)
        self.service.answer(2)
        self.assertIn(b"X-Path: /2\r\n", await wires[2].get(b"\r\n\r\nok"))
        await self._until(lambda: len(self.service.asked) == 4)
        self.service.answer(3)
        self.assertIn(b"X-Path: /0\r\n", await wires[0].get(b"\r\n\r\nok"))


class ClientBoundTests(RouterCase):
    limits = Limits(address_connections=2, linger_time=0.5, stop_time=1.0)

    async def test_one_address_has_so_many_connections(self) -> None:
        first, _ = await self.connect(), await self.connect()
        refused = await self.connect()
        self.assertEqual(await refused.rest(), b"")
        self.assertEqual(self.metrics.rejections["too_many_from_address"], 1)
        first.transport.abortConnection()
        while len(self.gateway.connections) == 2:
            await self.pause(0.005)
        again = await self.connect()
        again.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(b" 404 ", await again.get(b"no_route"))
