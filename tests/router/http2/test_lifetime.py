"""When a connection, or a stream of it, comes to its end."""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from twisted.internet import reactor
from twisted.internet.task import Clock

from hero.router.limits import Limits
from tests.router.backend import H11Service, ScriptedService
from tests.router.http2.client import Http2Case, Http2Client, request

LATER = 2**31 - 1


class _Clock(Clock):
    """Time passes when a test says so; what is to be done in this turn is done."""

    def callLater(self, when: float, what: Any, *args: Any, **named: Any) -> Any:
        source: Any = super() if when else reactor
        return source.callLater(when, what, *args, **named)


class GoingTests(Http2Case):
    """GOAWAY, and what is under way then."""

    async def test_requests_under_way_are_finished_when_the_router_stops(self) -> None:
        service = ScriptedService(lambda connection, data: None)
        self.serve(service)
        client = await self.http2()
        number = client.get()
        while not service.connections or not service.connections[-1].received:
            await self.pause(0.005)
        stopped = reactor.callLater(0, lambda: None)
        self.gateway.connections[0].stopping()
        await client.until(lambda wire: len(wire.goaways) == 2)
        self.assertEqual([last for last, _ in client.goaways], [LATER, number])
        self.assertEqual({code for _, code in client.goaways}, {ErrorCodes.NO_ERROR})
        service.connections[-1].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual((await client.answer(number)).body, b"ok")
        await client.rest()
        self.assertFalse(stopped.active())

    async def test_request_that_crosses_the_announcement_is_answered(self) -> None:
        self.serve(H11Service({"access": "public"}))
        client = await self.http2()
        await client.answer(client.get())
        self.gateway.connections[0].stopping()
        number = client.get()
        self.assertEqual((await client.answer(number)).status, b"200")
        await client.rest()
        self.assertEqual([last for last, _ in client.goaways], [LATER, number])

    async def test_request_after_the_last_word_may_be_sent_elsewhere(self) -> None:
        service = ScriptedService(lambda connection, data: None)
        self.serve(service)
        client = await self.http2()
        number = client.get()
        while not service.connections or not service.connections[-1].received:
            await self.pause(0.005)
        self.gateway.connections[0].stopping()
        await client.until(lambda wire: len(wire.goaways) == 2)
        late = client.get()
        self.assertEqual((await client.answer(late)).reset, ErrorCodes.REFUSED_STREAM)
        self.assertFalse(client.answers[number].over)

    async def test_router_that_stops_closes_what_is_idle(self) -> None:
        client = await self.http2()
        await client.answer(client.get(b"/no/where"))
        self.gateway.connections[0].stopping()
        await client.rest()
        self.assertTrue(client.clean)

    async def test_client_that_goes_still_gets_its_answers(self) -> None:
        service = ScriptedService(lambda connection, data: None)
        self.serve(service)
        client = await self.http2()
        number = client.get()
        while not service.connections or not service.connections[-1].received:
            await self.pause(0.005)
        # A frame past the library, which would take nothing more itself.
        client.send(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8))
        await self.pause()
        service.connections[-1].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual((await client.answer(number)).body, b"ok")
        await client.rest()


class OldTests(Http2Case):
    """Every connection is too old for another request."""

    limits = Limits(linger_time=0.5, stop_time=1.0, connection_time=0.0)

    async def test_old_connection_answers_once_more_and_goes(self) -> None:
        self.serve(H11Service({"access": "public"}))
        client = await self.http2()
        self.assertEqual((await client.answer(client.get())).status, b"200")
        await client.rest()
        self.assertEqual(client.goaways[0], (LATER, ErrorCodes.NO_ERROR))


class TimeTests(Http2Case):
    limits = Limits(stop_time=1.0)

    def make_clock(self) -> Clock:
        return _Clock()

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds) + 1):
            self.clock.advance(1)

    async def _silent(self) -> tuple[Http2Client, ScriptedService]:
        service = ScriptedService(lambda connection, data: None)
        self.serve(service)
        return await self.http2(), service

    async def _asked(self, service: ScriptedService) -> None:
        while not service.connections or not service.connections[-1].received:
            await self.pause(0.005)

    async def test_connection_that_is_not_used_goes(self) -> None:
        client = await self.http2()
        await client.answer(client.get(b"/no/where"))
        self.pass_time(self.limits.idle_time - 2)
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")
        self.pass_time(self.limits.idle_time)
        await client.rest()

    async def test_client_that_does_not_begin_goes(self) -> None:
        class Hesitant(Http2Client):
            def connectionMade(self) -> None:
                self.h2.initiate_connection()
                self.send(self.h2.data_to_send()[:10])

        client = await self.speaking([b"h2"], Hesitant())
        while not self.gateway.connections:
            await self.pause(0.005)
        self.pass_time(self.limits.head_time + self.limits.linger_time)
        await client.rest()

    async def test_pings_do_not_keep_an_unused_connection(self) -> None:
        client = await self.http2()
        await client.answer(client.get(b"/no/where"))
        for _ in range(4):
            self.pass_time(self.limits.idle_time / 4)
            client.events.clear()
            client.h2.ping(b"12345678")
            client.flush()
            await client.until(lambda wire: wire.events)
        self.pass_time(self.limits.idle_time / 4 + self.limits.linger_time)
        await client.rest()

    async def test_head_that_never_ends_is_given_up(self) -> None:
        client = await self.http2()
        await client.answer(client.get(b"/no/where"))
        connection = self.gateway.connections[0]
        before = connection.bytes_in
        client.send(b"\x00\x00\x01\x01\x00\x00\x00\x00\x03\x82")
        while connection.bytes_in < before + 10:
            await self.pause(0.005)
        self.pass_time(self.limits.head_time)
        await client.rest()
        self.assertEqual(self.metrics.rejections["head_timeout"], 1)

    async def test_service_that_does_not_answer_is_a_504(self) -> None:
        client, service = await self._silent()
        number = client.get()
        await self._asked(service)
        self.pass_time(self.limits.answer_time)
        self.assertEqual((await client.answer(number)).status, b"504")
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")

    async def test_body_that_does_not_come_is_a_408(self) -> None:
        client, service = await self._silent()
        number = client.ask(request(b"POST", b"/demo/web/"), end=False)
        await self._asked(service)
        await client.data(number, b"abc", end=False)
        while not service.connections[-1].received.endswith(b"abc\r\n"):
            await self.pause(0.005)
        self.pass_time(self.limits.stall_time)
        self.assertEqual((await client.answer(number)).status, b"408")

    async def test_answer_that_stalls_is_reset(self) -> None:
        client, service = await self._silent()
        number = client.get()
        await self._asked(service)
        service.connections[-1].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
        await client.until(lambda wire: wire.answers[number].body)
        self.pass_time(self.limits.stall_time)
        self.assertEqual((await client.answer(number)).reset, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(self.log[0]["reason"], "upstream_timeout")

    async def test_client_that_never_opens_its_window_is_given_up(self) -> None:
        client, service = await self._silent()
        client.greedy = False
        number = client.get()
        await self._asked(service)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000
        service.connections[-1].transport.write(answer)
        await client.until(lambda wire: len(wire.answers[number].body) == 65535)
        self.pass_time(self.limits.stall_time)
        self.assertEqual((await client.answer(number)).reset, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(self.log[0]["reason"], "client_timeout")
        while service.connections[-1].connected_:
            await self.pause(0.005)
