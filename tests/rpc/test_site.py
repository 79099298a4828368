"""`hero.rpc.site`, `hero.rpc.unix` and `hero.rpc.body`, over real UNIX sockets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from hero.errors import InvalidConfiguration, SocketPathTooLong
from hero.rpc.body import MAX_BODY
from hero.rpc.site import UnixService, listen_unix, service_site
from tests.rpc.pets import DatabaseTestCase, PetService


class Conversation(Protocol):
    """A client that says what it is told, and remembers what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.closed: Deferred[None] = Deferred()
        self._awaited: list[tuple[bytes, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        for words, waiter in self._awaited[:]:
            if words in self.heard:
                self._awaited.remove((words, waiter))
                waiter.callback(None)

    def connectionLost(self, reason: Any) -> None:
        self.closed.callback(None)

    def hear(self, words: bytes) -> Deferred[None]:
        """Fires when *words* have come."""
        waiter: Deferred[None] = Deferred()
        if words in self.heard:
            waiter.callback(None)
        else:
            self._awaited.append((words, waiter))
        return waiter.addTimeout(20, reactor)


class SiteTestCase(DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / "svc" / "rpc.sock"
        self.state = {"status": "ok", "pets": 1}
        self.service = self.make_service()
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def health(self) -> dict[str, Any]:
        if not self.state:
            raise RuntimeError("hunter2")
        return self.state

    def make_service(self) -> UnixService:
        site = service_site(
            reactor=reactor,
            name="hero_pets",
            description="Animals",
            access="cluster",
            rpc={"zoo": {PetService: self.pets}},
            registry=CollectorRegistry(),
            events=self.events,
            health=self.health,
        )
        return UnixService(reactor, self.path, site)

    async def connect(self) -> Conversation:
        talk = Conversation()
        await connectProtocol(UNIXClientEndpoint(reactor, str(self.path)), talk)
        self.addCleanup(talk.transport.abortConnection)
        return talk

    async def ask(self, head: str, body: bytes = b"") -> tuple[int, bytes, bytes]:
        """Status, header and body of the answer to the request *head*, which ends it."""
        talk = await self.connect()
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        talk.transport.write(
            f"{head}\r\nHost: x\r\nConnection: close\r\n{length}\r\n".encode() + body
        )
        await talk.closed
        header, _, rest = talk.heard.partition(b"\r\n\r\n")
        return int(header.split()[1]), header, rest

    async def post(self, path: str, value: Any, headers: str = "") -> tuple[int, Any]:
        status, _, body = await self.ask(
            f"POST {path} HTTP/1.1\r\nContent-Type: application/json{headers}",
            json.dumps(value).encode(),
        )
        return status, json.loads(body)


HELLO = {"jsonrpc": "2.0", "id": 1, "method": "PetService.hello"}


class SiteTests(SiteTestCase):
    async def test_api_is_found_by_context_and_kind(self) -> None:
        status, answer = await self.post("/api/root/zoo/rpc", HELLO)
        self.assertEqual((status, answer["result"]), (200, "hello local"))

    async def test_context_of_the_path_decides_the_rights(self) -> None:
        headers = "\r\nX-Hero-User: user:alice\r\nX-Hero-Claims: operator@dev"
        call = {"jsonrpc": "2.0", "id": 1, "method": "PetService.get_pet", "params": ["rex"]}
        status, _ = await self.post("/api/root/zoo/rpc", call, headers)
        self.assertEqual(status, 403)
        status, _ = await self.post("/api/dev/zoo/rpc", call, headers)
        self.assertEqual(status, 200)

    async def test_paths_that_are_not_there(self) -> None:
        for path in (
            "/",
            "/api",
            "/api/root",
            "/api/root/zoo",
            "/api/root/zoo/rpc/",
            "/api/root/zoo/rpc/x",
            "/api/root/circus/rpc",
            "/api/..%2f/zoo/rpc",
            "/api/-x/zoo/rpc",
            "/api/%ff/zoo/rpc",
            "/api/" + "x" * 64 + "/zoo/rpc",
            "/.well-known",
            "/health/x",
        ):
            status, answer = await self.post(path, HELLO)
            self.assertEqual((status, answer["reason"]), (404, "not_found"), path)

    async def test_documents(self) -> None:
        for path, member, value in (
            ("/.well-known/heroservice.json", "name", "hero_pets"),
            ("/.well-known/heroservice.json", "protocol", "jsonrpc"),
            ("/.well-known/heroservice.json", "access", "cluster"),
            ("/openrpc.json", "openrpc", "1.3.2"),
            ("/health", "pets", 1),
        ):
            status, header, body = await self.ask(f"GET {path} HTTP/1.0")
            self.assertEqual(status, 200)
            self.assertIn(b"Content-Type: application/json", header)
            self.assertEqual(json.loads(body)[member], value)

    async def test_documents_answer_get_only(self) -> None:
        status, header, _ = await self.ask("POST /health HTTP/1.1")
        self.assertEqual(status, 405)
        self.assertIn(b"Allow: GET", header)

    async def test_head_has_no_body(self) -> None:
        status, _, body = await self.ask("HEAD /openrpc.json HTTP/1.1")
        self.assertEqual((status, body), (200, b""))

    async def test_ill_health_is_503(self) -> None:
        self.state = {"status": "starting"}
        status, _, body = await self.ask("GET /health HTTP/1.0")
        self.assertEqual((status, json.loads(body)["status"]), (503, "starting"))

    async def test_broken_health_check_is_503_and_leaks_nothing(self) -> None:
        self.state = {}
        status, _, body = await self.ask("GET /health HTTP/1.0")
        self.assertEqual((status, json.loads(body)["status"]), (503, "failed"))
        self.assertNotIn(b"hunter2", body)
        self.flushLoggedErrors(RuntimeError)

    async def test_calls_are_counted(self) -> None:
        await self.post("/api/root/zoo/rpc", HELLO)
        call = {"jsonrpc": "2.0", "id": 1, "method": "PetService.get_pet", "params": ["tom"]}
        await self.post("/api/root/zoo/rpc", call)
        _, _, body = await self.ask("GET /metrics HTTP/1.0")
        self.assertIn(b'hero_rpc_calls_total{method="PetService.hello",outcome="ok"} 1.0', body)
        self.assertIn(
            b'hero_rpc_calls_total{method="PetService.get_pet",outcome="not_found"} 1.0', body
        )

    async def test_form_is_not_parsed(self) -> None:
        for media_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            status, _, _ = await self.ask(
                f"POST /api/root/zoo/rpc HTTP/1.1\r\nContent-Type: {media_type}", b"a=1&b=2"
            )
            self.assertEqual(status, 415)

    async def test_headers_that_are_not_text(self) -> None:
        """They do no harm: the call is answered, under a request id that can be shown."""
        talk = await self.connect()
        body = json.dumps(HELLO).encode()
        talk.transport.write(
            b"POST /api/root/zoo/rpc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json; x=\xff\r\nX-Request-ID: \xff\xfe\r\n"
            b"X-Hero-User: user:\xff\r\nX-Hero-Claims: \xff\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await talk.closed
        self.assertIn("hello user:\ufffd".encode(), talk.heard)
        self.assertNotIn(b"\xff", talk.heard)

    async def test_client_that_goes_away_ends_what_is_only_read(self) -> None:
        talk = await self.connect()
        body = b'{"jsonrpc":"2.0","id":1,"method":"PetService.sleep"}'
        talk.transport.write(
            b"POST /api/root/zoo/rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        while not self.pets.calls:
            await deferLater(reactor, 0.005)
        talk.transport.abortConnection()
        while not self.pets.cancelled:
            await deferLater(reactor, 0.005)
        _, _, metrics = await self.ask("GET /metrics HTTP/1.0")
        self.assertIn(b'{method="PetService.sleep",outcome="cancelled"} 1.0', metrics)

    async def test_client_that_goes_away_does_not_stop_an_operation(self) -> None:
        talk = await self.connect()
        body = b'{"jsonrpc":"2.0","id":1,"method":"PetService.train","params":["rex","wait"]}'
        talk.transport.write(
            b"POST /api/root/zoo/rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        while not self.pets.calls:
            await deferLater(reactor, 0.005)
        talk.transport.abortConnection()
        await talk.closed
        self.pets.woken.callback(None)
        operation = (await self.log.list())[0]
        while not operation.state.ended:
            await deferLater(reactor, 0.005)
            operation = await self.log.get(operation.sid)
        self.assertEqual(operation.state, "succeeded")


class BodyTests(SiteTestCase):
    async def test_declared_length_is_refused_before_the_body(self) -> None:
        talk = await self.connect()
        talk.transport.write(
            b"POST /api/root/zoo/rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n"
        )
        await talk.hear(b'"reason":"body_too_large"')
        self.assertTrue(talk.heard.startswith(b"HTTP/1.1 413 "))

    async def test_refused_body_is_not_asked_for(self) -> None:
        """A client that waits for 100 (Continue) gets the refusal, and nothing after it."""
        talk = await self.connect()
        talk.transport.write(
            b"POST /api/root/zoo/rpc HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 104857600\r\n\r\n"
        )
        await talk.hear(b"body_too_large")
        self.assertEqual(talk.heard.count(b"HTTP/1.1"), 1)

    async def test_large_body_is_not_kept(self) -> None:
        """100 MB are read and thrown away, so that the client sees the answer."""
        talk = await self.connect()
        megabyte = b"x" * 1_000_000
        talk.transport.write(
            b"POST /api/root/zoo/rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
        )
        for _ in range(100):
            talk.transport.write(megabyte)
        await talk.closed
        self.assertTrue(talk.heard.startswith(b"HTTP/1.1 413 "))
        self.assertEqual(talk.heard.count(b"HTTP/1.1"), 1)

    async def test_chunked_body_is_refused_at_the_bound(self) -> None:
        talk = await self.connect()
        talk.transport.write(
            b"POST /api/root/zoo/rpc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(MAX_BODY // 65536 + 1):
            talk.transport.write(chunk)
        await talk.hear(b'"reason":"body_too_large"')
        talk.transport.write(b"0\r\n\r\n")
        await talk.closed

    async def test_largest_body_is_taken(self) -> None:
        body = json.dumps(HELLO).encode()
        status, _, answer = await self.ask(
            "POST /api/root/zoo/rpc HTTP/1.1\r\nContent-Type: application/json",
            body + b" " * (MAX_BODY - len(body)),
        )
        self.assertEqual((status, json.loads(answer)["result"]), (200, "hello local"))


class EventStreamTests(SiteTestCase):
    async def follow(self, headers: bytes = b"") -> Conversation:
        talk = await self.connect()
        talk.transport.write(b"GET /events HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        await talk.hear(b"retry: 2000\nid: ")
        return talk

    async def test_events_arrive(self) -> None:
        talk = await self.follow()
        number = self.events.publish("vm", {"sid": "vm-1", "context": "root"})
        await talk.hear(b'id: %d\nevent: vm\ndata: {"sid":"vm-1","context":"root"}\n\n' % number)

    async def test_reader_resumes_after_the_last_event_it_saw(self) -> None:
        first = self.events.publish("vm", {"n": 1})
        self.events.publish("vm", {"n": 2})
        talk = await self.follow(b"Last-Event-ID: %d\r\n" % first)
        await talk.hear(b'data: {"n":2}')
        self.assertNotIn(b'data: {"n":1}', talk.heard)

    async def test_reader_that_was_cut_off_before_its_first_event_resumes(self) -> None:
        talk = await self.follow()
        await talk.hear(b"\n\n")
        position = talk.heard.partition(b"id: ")[2].split()[0]
        talk.transport.abortConnection()
        self.events.publish("vm", {"n": 1})
        talk = await self.follow(b"Last-Event-ID: " + position + b"\r\n")
        await talk.hear(b'data: {"n":1}')

    async def test_head_ends(self) -> None:
        talk = await self.connect()
        talk.transport.write(b"HEAD /events HTTP/1.1\r\nHost: x\r\n\r\n")
        talk.transport.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await talk.hear(b'"status":"ok"')
        self.assertIn(b"text/event-stream", talk.heard)

    async def test_reader_that_missed_events_is_reset(self) -> None:
        self.events.publish("vm", {"n": 1})
        talk = await self.follow(b"Last-Event-ID: 17\r\n")
        await talk.hear(b"event: reset\ndata: {}\n\n")

    async def test_unusable_position_is_now(self) -> None:
        self.events.publish("vm", {"n": 1})
        talk = await self.follow(b"Last-Event-ID: x\r\n")
        self.events.publish("vm", {"n": 2})
        await talk.hear(b'data: {"n":2}')
        self.assertNotIn(b'data: {"n":1}', talk.heard)

    async def test_events_of_other_contexts_are_not_shown(self) -> None:
        talk = await self.follow(b"X-Hero-User: user:bob\r\nX-Hero-Claims: viewer@root\r\n")
        self.events.publish("vm", {"context": "dev"})
        self.events.publish("vm", {"context": "root"})
        await talk.hear(b'data: {"context":"root"}')
        self.assertNotIn(b"dev", talk.heard)

    async def test_anonymous_reader_is_refused(self) -> None:
        status, _, _ = await self.ask("GET /events HTTP/1.1\r\nX-Hero-Claims: anonymous")
        self.assertEqual(status, 401)


class UnixTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "svc" / "rpc.sock"
        self.site = service_site(reactor=reactor, name="x", description="", access="x", rpc={})

    async def test_modes(self) -> None:
        port = await listen_unix(reactor, self.path, self.site)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.path.parent.stat().st_mode), 0o700)
        self.assertEqual(os.listdir(self.path.parent), ["rpc.sock"])
        await port.stopListening()
        self.assertEqual(os.listdir(self.path.parent), [])

    async def test_stale_socket_is_replaced(self) -> None:
        self.path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(str(self.path))
        port = await listen_unix(reactor, self.path, self.site)
        await port.stopListening()

    async def test_live_socket_is_left_alone(self) -> None:
        port = await listen_unix(reactor, self.path, self.site)
        inode = self.path.stat().st_ino
        with self.assertRaises(InvalidConfiguration) as caught:
            await listen_unix(reactor, self.path, self.site)
        self.assertIn(str(self.path), caught.exception.detail)
        self.assertEqual(self.path.stat().st_ino, inode)
        await port.stopListening()

    async def test_file_is_left_alone(self) -> None:
        self.path.parent.mkdir()
        self.path.write_text("precious")
        with self.assertRaises(InvalidConfiguration):
            await listen_unix(reactor, self.path, self.site)
        self.assertEqual(self.path.read_text(), "precious")

    async def test_socket_of_a_successor_is_not_unlinked(self) -> None:
        port = await listen_unix(reactor, self.path, self.site)
        self.path.unlink()
        successor = await listen_unix(reactor, self.path, self.site)
        await port.stopListening()
        self.assertTrue(self.path.exists())
        await successor.stopListening()

    async def test_path_that_does_not_fit(self) -> None:
        with self.assertRaises(SocketPathTooLong):
            await listen_unix(reactor, self.directory / ("x" * 108), self.site)

    async def test_service_closes_connections(self) -> None:
        service = UnixService(reactor, self.path, self.site)
        service.startService()
        talk = Conversation()
        await connectProtocol(UNIXClientEndpoint(reactor, str(self.path)), talk)
        talk.transport.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await talk.hear(b'"status":"ok"')
        await service.stopService()
        await talk.closed
        self.assertFalse(self.path.exists())
