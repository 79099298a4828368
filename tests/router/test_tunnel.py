"""Byte tunnels through the router to sockets that speak no HTTP."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from hero.router.limits import Limits
from hero.router.model import Route, RouteState
from tests.router.backend import H11Service, ScriptedService
from tests.router.harness import RouterCase, Wire
from tests.router.http2.client import Http2Case

ASK = b"GET /demo/ssh/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: hero-tunnel\r\n%b\r\n"
AS_OPERATOR = b"Authorization: Bearer hero_operator\r\n"
PIECE = b"0123456789abcdef" * 4096


def echo(connection: Any, data: bytes) -> None:
    connection.transport.write(data)


@implementer(IPullProducer)
class Source:
    """Sends *pieces* pieces as they are taken, then half-closes."""

    def __init__(self, transport: Any, pieces: int) -> None:
        self.left = pieces
        self._transport = transport
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.left:
            self.left -= 1
            self._transport.write(PIECE)
        else:
            self._transport.unregisterProducer()
            self._transport.loseWriteConnection()

    def stopProducing(self) -> None:
        """The connection is lost."""


@implementer(IHalfCloseableProtocol)
class Bulk(Protocol):
    """An end of a tunnel that keeps nothing of what it reads but its length and digest."""

    def connectionMade(self) -> None:
        self.count = 0
        self.digest = hashlib.sha256()
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)
        self.digest.update(data)

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        """Nothing to do."""


class BulkService(Factory):
    """Has one connection, ``end``."""

    noisy = False
    end: Bulk

    def buildProtocol(self, addr: Any) -> Protocol:
        self.end = Bulk()
        return self.end


class TunnelCase(RouterCase):
    default_access = "cluster"
    manifest: Any = {"protocol": "tunnel", "name": "shell"}  # noqa: RUF012

    def setUp(self) -> None:
        super().setUp()
        self.tokens.add("hero_operator", "olga", "operator@root")
        self.tokens.add("hero_admin", "ada", "admin")
        self.tokens.add("hero_viewer", "vera", "viewer@root")
        self.tokens.add("hero_other", "otto", "operator@blue")

    def serve_tunnel(self) -> ScriptedService:
        """Run an echo behind a tunnel."""
        service = ScriptedService(echo, manifest=False)
        service.half_closes = True
        self.write_manifest(self.manifest)
        self.service_port = self.serve(service, socket="ssh")
        return service

    async def happens(self, condition: Callable[[], Any]) -> None:
        """Wait until *condition* is true."""
        while not condition():
            await self.pause(0.005)

    def write_manifest(self, manifest: Any, name: str = "ssh") -> Path:
        path = self.directory / "demo" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(manifest))
        return path

    async def open(self, fields: bytes = AS_OPERATOR, early: bytes = b"") -> Wire:
        """A client whose tunnel is open."""
        wire = await self.connect()
        wire.half_closes = True
        wire.send(ASK % fields + early)
        head = await wire.get(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        self.assertIn(b"Connection: Upgrade\r\nUpgrade: hero-tunnel\r\n", head)
        del wire.received[: head.index(b"\r\n\r\n") + 4]
        return wire

    async def open_bulk(self) -> tuple[Bulk, Bulk]:
        """Both ends of a tunnel for much data: the client's, and the service's."""
        service = BulkService()
        self.write_manifest(self.manifest)
        self.serve(service, socket="ssh")
        wire = await self.open()
        client = Bulk()
        wire.transport.protocol = client
        client.makeConnection(wire.transport)
        self.addCleanup(lambda: service.end.transport.abortConnection())
        return client, service.end

    async def refusal(self, request: bytes) -> tuple[bytes, str]:
        """The status and the reason of a request that gets no tunnel."""
        wire = await self.connect()
        wire.send(request)
        answer = bytes(await wire.get(b'"request_id"'))
        wire.transport.abortConnection()
        return answer[9:12], json.loads(answer.partition(b"\r\n\r\n")[2])["reason"]

    def describe(self) -> Route:
        """The route as list_services shows it."""
        (route,) = [r for r in self.routes.describe() if r.socket == "ssh"]
        return route


class TunnelTests(TunnelCase):
    async def test_bytes_pass_both_ways_and_no_request_does(self) -> None:
        service = self.serve_tunnel()
        wire = await self.open()
        wire.send(b"\x00\xffSSH-2.0-x\r\n\r\n")
        await wire.get(b"\x00\xffSSH-2.0-x\r\n\r\n")
        (connection,) = service.connections
        self.assertEqual(connection.received, b"\x00\xffSSH-2.0-x\r\n\r\n")

    async def test_what_is_sent_ahead_of_the_answer_is_passed_on(self) -> None:
        self.serve_tunnel()
        wire = await self.open(early=b"at once")
        await wire.get(b"at once")

    async def test_service_may_speak_first(self) -> None:
        self.serve_tunnel()
        connected = ScriptedService.buildProtocol

        def greet(service: ScriptedService, addr: Any) -> Any:
            protocol = connected(service, addr)
            protocol.connectionMade = lambda: protocol.transport.write(b"SSH-2.0-y\r\n")
            return protocol

        self.patch(ScriptedService, "buildProtocol", greet)
        wire = await self.open()
        await wire.get(b"SSH-2.0-y\r\n")

    async def test_client_that_has_ended_still_reads(self) -> None:
        service = self.serve_tunnel()
        wire = await self.open()
        wire.send(b"question")
        wire.transport.loseWriteConnection()
        (connection,) = service.connections
        await self.happens(lambda: connection.ended)
        connection.transport.write(PIECE * 8 + b"the last")
        connection.transport.loseConnection()
        await self.happens(lambda: wire.ended)
        self.assertEqual(bytes(wire.received), b"question" + PIECE * 8 + b"the last")

    async def test_service_that_has_ended_still_reads(self) -> None:
        service = self.serve_tunnel()
        wire = await self.open()
        (connection,) = service.connections
        connection.transport.loseWriteConnection()
        await self.happens(lambda: wire.ended)
        wire.send(PIECE * 8 + b"the last")
        wire.transport.loseWriteConnection()
        await self.happens(lambda: connection.ended)
        self.assertEqual(connection.received, PIECE * 8 + b"the last")

    async def test_much_data_passes_whole_both_ways_at_once(self) -> None:
        pieces = 256  # 16 MiB
        client, service = await self.open_bulk()
        Source(client.transport, pieces)
        Source(service.transport, pieces)
        await self.happens(lambda: client.ended and service.ended)
        whole = hashlib.sha256(PIECE * pieces).digest()
        for end in (client, service):
            self.assertEqual((end.count, end.digest.digest()), (pieces * len(PIECE), whole))

    async def test_slow_readers_hold_up_who_sends_to_them(self) -> None:
        pieces = 1024  # 64 MiB
        client, service = await self.open_bulk()
        for reader, sender in ((client, service), (service, client)):
            reader.transport.pauseProducing()
            source = Source(sender.transport, pieces)
            before = -1
            while source.left != before:
                before = source.left
                await self.pause(0.1)
            # What is on its way is in the buffers of sockets, and one of the router's.
            self.assertGreater(source.left, pieces * 3 // 4)
            reader.transport.resumeProducing()
            await self.happens(lambda reader=reader: reader.ended)
            self.assertEqual(reader.count, pieces * len(PIECE))

    async def test_each_tunnel_has_a_connection_of_its_own(self) -> None:
        service = self.serve_tunnel()
        first, second = await self.open(), await self.open()
        first.send(b"one")
        second.send(b"two")
        await first.get(b"one")
        await second.get(b"two")
        first.transport.loseConnection()
        await self.happens(lambda: service.connections[0].ended)
        service.connections[0].transport.loseConnection()
        await self.open()
        self.assertEqual(len(service.connections), 3)

    async def test_tunnel_is_counted_and_logged_as_one(self) -> None:
        service = self.serve_tunnel()
        wire = await self.open()
        wire.send(b"hello")
        await wire.get(b"hello")
        pool = self.describe().pool
        assert pool is not None
        self.assertEqual((pool.tunnels, pool.busy), (1, 0))
        (connection,) = self.gateway.connections
        self.assertTrue(connection.describe(reactor.seconds()).tunnel)
        service.connections[0].transport.loseConnection()
        await self.happens(lambda: wire.ended)
        wire.transport.loseConnection()
        await self.happens(lambda: self.log)
        (record,) = self.log
        self.assertEqual(
            (record["status"], record["reason"], record["route"], record["user"], record["tunnel"]),
            (101, None, "/demo/ssh", "user:olga", True),
        )

    async def test_tunnel_lives_on_when_its_route_goes(self) -> None:
        self.serve_tunnel()
        wire = await self.open()
        (self.directory / "demo/ssh.json").unlink()
        await self.service_port.stopListening()
        self.look()
        self.assertIsNone(self.routes.lookup("demo", "ssh"))
        wire.send(b"still here")
        await wire.get(b"still here")
        self.assertEqual(await self.refusal(ASK % AS_OPERATOR), (b"404", "no_route"))


class RefusalTests(TunnelCase):
    async def test_request_that_asks_for_something_else_is_a_426(self) -> None:
        service = self.serve_tunnel()
        for fields in (
            b"",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
            b"Connection: Upgrade\r\nUpgrade: hero-tunnel, websocket\r\n",
            b"Upgrade: hero-tunnel\r\n",
            b"Connection: Upgrade\r\nUpgrade: hero-tunnel\r\nContent-Length: 1\r\n",
        ):
            request = b"GET /demo/ssh/ HTTP/1.1\r\nHost: a\r\n" + AS_OPERATOR + fields + b"\r\n"
            wire = await self.connect()
            wire.send(request)
            answer = await wire.get(b"upgrade_required")
            self.assertTrue(answer.startswith(b"HTTP/1.1 426 "), fields)
            self.assertIn(b"\r\nUpgrade: hero-tunnel\r\n", answer)
            self.assertIn(b"\r\nConnection: upgrade\r\n", answer)
            wire.transport.abortConnection()
        self.assertEqual(service.connections, [])

    async def test_only_operators_and_admins_get_through(self) -> None:
        service = self.serve_tunnel()
        for token, expected in (
            (b"", (b"401", "unauthenticated")),
            (b"Authorization: Bearer hero_viewer\r\n", (b"403", "forbidden")),
            (b"Authorization: Bearer hero_other\r\n", (b"403", "forbidden")),
            (b"Authorization: Bearer hero_unknown\r\n", (b"401", "bad_token")),
        ):
            self.assertEqual(await self.refusal(ASK % token), expected)
        # The path is the service's: a context in it is nobody's right.
        elsewhere = ASK.replace(b"/demo/ssh/ ", b"/demo/ssh/api/blue/ ")
        other = b"Authorization: Bearer hero_other\r\n"
        self.assertEqual(await self.refusal(elsewhere % other), (b"403", "forbidden"))
        # A path that everybody may ask services for.
        health = ASK.replace(b"/demo/ssh/ ", b"/demo/ssh/health ") % b""
        self.assertEqual(await self.refusal(health), (b"401", "unauthenticated"))
        self.assertEqual(service.connections, [])
        await self.open(b"Authorization: Bearer hero_admin\r\n")
        self.assertEqual(self.describe().access, "operator")

    async def test_router_that_is_public_has_no_public_tunnels(self) -> None:
        self.default_access = "public"
        self.serve_tunnel()
        self.assertEqual(await self.refusal(ASK % b""), (b"401", "unauthenticated"))

    async def test_file_can_let_everybody_through(self) -> None:
        self.manifest = {"protocol": "tunnel", "access": "public"}
        self.serve_tunnel()
        await self.open(b"")

    async def test_service_cannot_make_itself_a_tunnel(self) -> None:
        """It may know its callers by fields that a tunnel would let them write."""
        service = H11Service({"protocol": "tunnel", "access": "public"})
        self.serve(service, socket="ssh")
        wire = await self.connect()
        wire.send(ASK % AS_OPERATOR)
        self.assertTrue((await wire.get(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 "))
        (seen,) = service.seen
        self.assertEqual(seen.values(b"x-hero-user"), [b"user:olga"])

    async def test_file_that_cannot_be_read_makes_no_tunnel(self) -> None:
        self.manifest = {"protocol": "tunnel", "access": "everybody"}
        service = self.serve_tunnel()
        wire = await self.connect()
        wire.send(ASK % AS_OPERATOR)
        await self.happens(lambda: any(c.received for c in service.connections))
        self.assertIn(b"X-Hero-User: user:olga\r\n", service.connections[0].received)
        self.assertNotIn(b"101 Switching", wire.received)
        route = self.describe()
        self.assertEqual(route.access, "cluster")
        self.assertIn("$.access", route.reason or "")

    async def test_nobody_is_connected_to_see_whether_somebody_listens(self) -> None:
        service = self.serve_tunnel()
        self.assertEqual(self.describe().state, RouteState.UP)
        for _ in range(3):
            self.routes.probe()
            await self.pause()
        self.assertEqual(service.connections, [])

    async def test_nobody_listening_is_a_503_and_back_at_once(self) -> None:
        self.serve_tunnel()
        await self.service_port.stopListening()
        path = self.directory / "demo/ssh.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        self.look()
        refused = (b"503", "upstream_refused")
        self.assertEqual(await self.refusal(ASK % AS_OPERATOR), refused)
        self.assertEqual(self.describe().state, RouteState.DOWN)
        self.assertEqual(await self.refusal(ASK % AS_OPERATOR), refused)
        path.unlink()
        self.serve_tunnel()
        await self.open()
        self.assertEqual(self.describe().state, RouteState.UP)

    async def test_as_many_at_one_time_as_the_manifest_allows(self) -> None:
        self.manifest = {"protocol": "tunnel", "limits": {"connections": 1}}
        service = self.serve_tunnel()
        wire = await self.open()
        self.assertEqual(await self.refusal(ASK % AS_OPERATOR), (b"503", "upstream_busy"))
        service.connections[0].transport.abortConnection()
        wire.transport.abortConnection()
        await self.happens(lambda: not self.gateway.connections)
        await self.open()


class Http2Tests(TunnelCase, Http2Case):
    async def test_request_over_http2_is_a_426_without_fields_of_a_connection(self) -> None:
        """RFC 9113 section 8.2.2; HTTP/2 has no other way to ask for a tunnel."""
        service = self.serve_tunnel()
        client = await self.http2()
        token = (b"authorization", b"Bearer hero_operator")
        answer = await client.answer(client.get(b"/demo/ssh/", token))
        self.assertEqual((answer.status, answer.ended), (b"426", True))
        self.assertIn(b"upgrade_required", answer.body)
        self.assertEqual(answer.values(b"upgrade") + answer.values(b"connection"), [])
        self.assertEqual(service.connections, [])


class IdleTests(TunnelCase):
    limits = Limits(linger_time=60)
    manifest: Any = {"protocol": "tunnel", "timeouts": {"tunnel": 30}}  # noqa: RUF012

    def make_clock(self) -> Clock:
        return Clock()

    async def test_tunnel_without_a_byte_is_closed(self) -> None:
        self.serve_tunnel()
        wire = await self.open()
        for _ in range(2):
            self.clock.pump([1.0] * 20)
            wire.send(b"ping")
            await wire.until(lambda w: len(w.received) % 4 == 0)
            await wire.get(b"ping")
            wire.received.clear()
        self.clock.pump([1.0] * 31)
        await wire.rest()
        self.assertEqual(self.log[0]["reason"], "tunnel_idle")
