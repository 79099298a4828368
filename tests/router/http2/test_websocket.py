"""WebSocket over HTTP/2 (RFC 8441) to services that know it over HTTP/1.1."""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from twisted.internet import reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Message, Request
from zope.interface import directlyProvides

from hero.router.fast.eager import EagerUNIXClient
from hero.router.limits import Limits
from tests.router.backend import ScriptedService
from tests.router.http2.client import Http2Case, Http2Client, Pair, request


def ask(*more: Pair, protocol: bytes = b"websocket") -> list[Pair]:
    """The field list that asks for a WebSocket."""
    pairs = [(b":protocol", protocol), (b"sec-websocket-version", b"13"), *more]
    return request(b"CONNECT", b"/demo/web/echo", *pairs)


class EchoService(Factory):
    """A WebSocket server that sends back what it gets."""

    noisy = False

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.lost = 0

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Echo(self)


class _Echo(Protocol):
    def __init__(self, service: EchoService) -> None:
        self._service = service
        self._websocket = WSConnection(ConnectionType.SERVER)

    def dataReceived(self, data: bytes) -> None:
        if data.startswith(b"GET /.well-known/"):
            answer = b'{"access": "public"}'
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
            )
            return
        self._websocket.receive_data(data)
        for event in self._websocket.events():
            if isinstance(event, Request):
                self._service.requests.append(event)
                chosen = event.subprotocols[0] if event.subprotocols else None
                self.transport.write(self._websocket.send(AcceptConnection(subprotocol=chosen)))
            elif isinstance(event, Message):
                back = type(event)(data=event.data, message_finished=event.message_finished)
                self.transport.write(self._websocket.send(back))
            elif isinstance(event, CloseConnection):
                self.transport.write(self._websocket.send(event.response()))
                self.transport.loseConnection()

    def connectionLost(self, reason: Any) -> None:
        self._service.lost += 1


class EchoTests(Http2Case):
    async def _open(self, *more: Pair) -> tuple[Http2Client, int, EchoService]:
        service = EchoService()
        self.serve(service)
        client = await self.http2()
        number = client.ask(ask(*more), end=False)
        await client.until(lambda wire: wire.answers[number].fields or wire.closed)
        self.assertEqual(client.answers[number].status, b"200")
        return client, number, service

    async def test_messages_come_back(self) -> None:
        client, number, service = await self._open((b"sec-websocket-protocol", b"chat"))
        answer = client.answers[number]
        self.assertEqual(answer.values(b"sec-websocket-protocol"), [b"chat"])
        hidden = {b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-key"}
        self.assertEqual(hidden & {name for name, _ in answer.fields or []}, set())
        self.assertEqual(service.requests[0].target, "/echo")
        websocket = Connection(ConnectionType.CLIENT)
        for size in (3, 100_000, 0):
            answer.body.clear()
            message = BytesMessage(data=b"x" * size)
            await client.data(number, websocket.send(message), end=False)
            got = await self._message(client, number, websocket)
            self.assertEqual(got, message.data)
        await client.data(number, websocket.send(CloseConnection(code=1000)), end=False)
        await client.answer(number)
        self.assertTrue(answer.ended)
        client.h2.end_stream(number)
        client.flush()
        while not service.lost or self.gateway.connections[0].streams:
            await self.pause(0.005)
        line = self.log[0]
        self.assertEqual((line["status"], line.get("reason")), (200, None))

    async def _message(self, client: Http2Client, number: int, websocket: Connection) -> bytes:
        answer, got = client.answers[number], b""
        while True:
            await client.until(lambda wire: answer.body)
            websocket.receive_data(bytes(answer.body))
            answer.body.clear()
            for event in websocket.events():
                got += event.data
                if event.message_finished:
                    return got

    async def test_connection_announces_that_it_can(self) -> None:
        client = await self.http2()
        await client.until(lambda wire: wire.events)
        self.assertEqual(client.h2.remote_settings.enable_connect_protocol, 1)

    async def test_many_share_a_connection_with_requests(self) -> None:
        client, first, _ = await self._open()
        second = client.ask(ask(), end=False)
        await client.until(lambda wire: wire.answers[second].fields)
        for number in (second, first):
            websocket = Connection(ConnectionType.CLIENT)
            await client.data(number, websocket.send(BytesMessage(data=b"%d" % number)), end=False)
            got = await self._message(client, number, websocket)
            self.assertEqual(got, b"%d" % number)
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")

    async def test_reset_ends_it_at_the_service(self) -> None:
        client, number, service = await self._open()
        client.h2.reset_stream(number, ErrorCodes.CANCEL)
        client.flush()
        while not service.lost:
            await self.pause(0.005)


class HandshakeTests(Http2Case):
    """What else a service may make of it, and a client."""

    async def _answered(self, wire: bytes, pairs: list[Pair], *, end: bool = False) -> Any:
        service = ScriptedService(lambda connection, data: connection.transport.write(wire))
        self.serve(service)
        client = await self.http2()
        answer = await client.answer(client.ask(pairs, end=end))
        await self.pause()
        self.assertFalse(any(connection.connected_ for connection in service.connections[1:]))
        return answer

    async def test_service_that_answers_otherwise_opens_nothing(self) -> None:
        answer = await self._answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ask())
        self.assertEqual(answer.status, b"502")
        self.assertIn(b"upstream_bad_answer", answer.body)

    async def test_service_that_accepts_another_key_opens_nothing(self) -> None:
        answer = await self._answered(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            ask((b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")),
        )
        self.assertEqual(answer.status, b"502")

    async def test_refusal_is_passed_on(self) -> None:
        answer = await self._answered(
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", ask()
        )
        self.assertEqual((answer.status, answer.body), (b"403", b"no"))

    async def test_other_protocols_are_not_offered(self) -> None:
        answer = await self._answered(b"", ask(protocol=b"connect-udp"))
        self.assertEqual(answer.status, b"501")

    async def test_plain_connect_is_not_offered(self) -> None:
        client = await self.http2()
        number = client.ask([(b":method", b"CONNECT"), (b":authority", b"a:22")], end=False)
        answer = await client.answer(number)
        self.assertEqual(answer.status, b"501")
        self.assertIn(b"no_connect", answer.body)


class TunnelTests(Http2Case):
    """Half-close, and what comes before its time; the service needs no frames for these."""

    limits = Limits(linger_time=0.5, stop_time=1.0, stall_time=1.0)

    def _service(self, then: Any) -> ScriptedService:
        def script(connection: Any, data: bytes) -> None:
            if b"Upgrade: websocket" in data:
                websocket = WSConnection(ConnectionType.SERVER)
                websocket.receive_data(data)
                list(websocket.events())
                connection.transport.write(websocket.send(AcceptConnection()))
            then(connection, data)

        service = ScriptedService(script)
        self.serve(service)
        return service

    async def test_service_that_closes_ends_the_stream_after_its_last_byte(self) -> None:
        def then(connection: Any, data: bytes) -> None:
            connection.transport.write(b"y" * 1_000_000)
            connection.transport.loseConnection()

        self._service(then)
        client = await self.http2()
        number = client.ask(ask(), end=False)
        answer = await client.answer(number)
        self.assertEqual((len(answer.body), answer.ended), (1_000_000, True))
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")

    async def test_client_that_ends_still_gets_what_the_service_sends(self) -> None:
        def then(connection: Any, data: bytes) -> None:
            connection.readConnectionLost = lambda: connection.transport.write(b"got it")
            directlyProvides(connection, IHalfCloseableProtocol)

        service = self._service(then)
        client = await self.http2()
        number = client.ask(ask(), end=False)
        await client.until(lambda wire: wire.answers[number].fields)
        await client.data(number, b"last")
        await client.until(lambda wire: wire.answers[number].body == b"got it")
        self.assertTrue(service.connections[-1].received.endswith(b"last"))
        self.assertFalse(client.answers[number].over)
        service.connections[-1].transport.loseConnection()
        self.assertTrue((await client.answer(number)).ended)

    async def test_what_is_sent_before_the_answer_waits_for_it(self) -> None:
        service = self._service(lambda connection, data: None)
        client = await self.http2()
        number = client.ask(ask(), end=False)
        await client.data(number, b"early", end=False)
        await client.until(lambda wire: wire.answers[number].fields)
        while not service.connections[-1].received.endswith(b"\r\n\r\nearly"):
            await self.pause(0.005)

    async def test_service_that_does_not_read_stops_the_client(self) -> None:
        self._service(lambda connection, data: connection.transport.pauseProducing())
        client = await self.http2()
        number = client.ask(ask(), end=False)
        await client.until(lambda wire: wire.answers[number].fields)
        sent, before = 0, -1
        while sent != before:
            before = sent
            for _ in range(40):
                room = min(client.h2.local_flow_control_window(number), 16384)
                if room:
                    client.h2.send_data(number, b"x" * room)
                    client.flush()
                    sent += room
                await self.pause(0.005)
        self.assertLess(sent, 3_000_000)
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")
        client.transport.abortConnection()
        # The service is never told; the router is to give up, all the same.
        while any(isinstance(writer, EagerUNIXClient) for writer in reactor.getWriters()):
            await self.pause(0.01)
