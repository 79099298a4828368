"""What clients and services see of each other through the router."""

from __future__ import annotations

import json
import socket
from typing import Any
from unittest.mock import Mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from hero.router.exchange import Exchange
from hero.router.fast.eager import EagerUNIXClient
from hero.router.front import Front, State
from hero.router.head import parse_request_head
from hero.router.limits import Limits
from tests.router.backend import ANSWER, H11Service, ScriptedService
from tests.router.harness import RouterCase

GET = b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n"
GET_AND_CLOSE = b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
_STREAM_NONBLOCK = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
POST_CHUNKED = b"POST /demo/web/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def replying(*answers: bytes) -> ScriptedService:
    """A service that gives each request without a body the next of *answers*."""
    left = list(answers)

    def script(connection: Any, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            connection.transport.write(left.pop(0) if len(left) > 1 else left[0])

    return ScriptedService(script)


def silent() -> ScriptedService:
    """A service that never answers."""
    return ScriptedService(lambda connection, data: None)


class ForwardingTests(RouterCase):
    async def test_prefix_is_stripped_and_query_kept(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        await self.ask(GET_AND_CLOSE.replace(b"/demo/web/", b"/demo/web/a%2fb?c=/d"))
        self.assertEqual(service.seen[0].target, b"/a%2fb?c=/d")

    async def test_router_fields_replace_what_the_client_claims(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        await self.ask(
            b"GET /demo/web/api/blue/cloud/rpc HTTP/1.1\r\nHost: a:1\r\n"
            b"Connection: close, x-secret\r\n"
            b"X-Hero-User: user:root\r\nX-Hero-Claims: admin\r\nX_Hero_Claims: admin\r\n"
            b"X.Hero.Claims: admin\r\nX~Hero-User: user:root\r\nX+Real+IP: 10.0.0.1\r\n"
            b"X-Hero-On-Behalf-Of: user:root\r\nHero-On-Behalf-Of: user:root\r\n"
            b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded_Proto: https\r\nForwarded: for=1.2.3.4\r\n"
            b"X-Secret: hop\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\n"
            b"X-Kept: Yes\r\n\r\n"
        )
        seen = service.seen[0]
        names = [name for name, _ in seen.headers]
        self.assertEqual(seen.values(b"x-hero-user"), [b"anonymous"])
        self.assertEqual(seen.values(b"x-hero-claims"), [b""])
        self.assertEqual(seen.values(b"x-hero-context"), [b"blue"])
        self.assertEqual(seen.values(b"x-forwarded-for"), [b"127.0.0.1"])
        self.assertEqual(seen.values(b"x-forwarded-proto"), [b"http"])
        self.assertEqual(seen.values(b"x-forwarded-host"), [b"a:1"])
        self.assertEqual(seen.values(b"x-forwarded-prefix"), [b"/demo/web"])
        self.assertEqual(seen.values(b"host"), [b"a:1"])
        self.assertEqual(seen.values(b"x-kept"), [b"Yes"])
        for gone in (b"x_hero_claims", b"x.hero.claims", b"x~hero-user", b"x+real+ip",
                     b"x-forwarded_proto", b"forwarded", b"x-secret",
                     b"keep-alive", b"te", b"proxy-connection", b"connection",
                     b"x-hero-on-behalf-of", b"hero-on-behalf-of"):  # fmt: skip
            self.assertNotIn(gone, names)

    async def test_trace_and_request_id_are_continued(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        trace = b"0af7651916cd43dd8448eb211c80319c"
        answer = await self.ask(
            b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-ID: abc-1\r\n"
            b"traceparent: 00-" + trace + b"-b7ad6b7169203331-01\r\ntracestate: a=b\r\n\r\n"
        )
        seen = service.seen[0]
        (parent,) = seen.values(b"traceparent")
        self.assertTrue(parent.startswith(b"00-" + trace))
        self.assertNotIn(b"b7ad6b7169203331", parent)
        self.assertEqual(seen.values(b"tracestate"), [b"a=b"])
        self.assertEqual(seen.values(b"x-request-id"), [b"abc-1"])
        self.assertIn(b"X-Request-ID: abc-1\r\n", answer)

    async def test_trace_is_started_and_a_bad_request_id_replaced(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        await self.ask(
            b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b'X-Request-ID: "a b"\r\ntraceparent: nonsense\r\ntracestate: a=b\r\n\r\n'
        )
        seen = service.seen[0]
        self.assertRegex(seen.values(b"traceparent")[0], rb"\A00-[0-9a-f]{32}-[0-9a-f]{16}-01\Z")
        self.assertRegex(seen.values(b"x-request-id")[0], rb"\A[0-9a-f]{16}\Z")
        self.assertEqual(seen.values(b"tracestate"), [])

    async def test_connections_to_the_service_are_reused(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        wire = await self.connect()
        for count in range(1, 4):
            wire.send(GET)
            await wire.until(lambda w, count=count: w.received.count(b"\r\n\r\nok") == count)
        self.assertEqual(service.connections, 1)

    async def test_requests_sent_ahead_are_answered_in_order(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        wire = await self.connect()
        paths = [b"/demo/web/%d" % number for number in range(50)]
        wire.send(b"".join(GET.replace(b"/demo/web/", path) for path in paths))
        await wire.until(lambda w: w.received.count(b"\r\n\r\nok") == 50)
        self.assertEqual([s.target for s in service.seen], [b"/%d" % n for n in range(50)])

    async def test_access_log_has_no_query(self) -> None:
        self.serve(H11Service({"access": "public"}))
        await self.ask(GET_AND_CLOSE.replace(b"/demo/web/", b"/demo/web/x?secret=1"))
        (event,) = self.log
        self.assertEqual(event["path"], "/demo/web/x")
        self.assertEqual((event["status"], event["route"]), (200, "/demo/web"))
        self.assertNotIn("secret", repr(event))


class AnswerTests(RouterCase):
    async def test_head_204_and_304_have_no_body(self) -> None:
        self.serve(
            replying(
                b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                b"HTTP/1.1 204 No Content\r\n\r\n",
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                ANSWER,
            )
        )
        wire = await self.connect()
        wire.send(GET.replace(b"GET", b"HEAD") + GET * 4)
        received = await wire.get(b"\r\n\r\nok")
        self.assertEqual(received.count(b"HTTP/1.1 "), 5)
        self.assertIn(b"Content-Length: 1000\r\n", received)

    async def test_length_of_a_204_is_not_passed_on(self) -> None:
        self.serve(replying(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"))
        self.assertNotIn(b"Content-Length", await self.ask(GET_AND_CLOSE))

    async def test_chunked_answer_passes_with_its_trailer(self) -> None:
        body = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n"
        self.serve(replying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
        self.assertTrue((await self.ask(GET_AND_CLOSE)).endswith(b"\r\n\r\n" + body))

    async def test_chunked_answer_is_unpacked_for_an_old_client(self) -> None:
        body = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        self.serve(replying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
        answer = await self.ask(b"GET /demo/web/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertTrue(answer.endswith(b"\r\n\r\nabcdefg"), answer)
        self.assertNotIn(b"Transfer-Encoding", answer)
        self.assertIn(b"Connection: close\r\n", answer)

    async def test_answer_that_ends_with_the_connection_is_chunked(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(b"HTTP/1.0 200 OK\r\n\r\nabc")
            connection.transport.loseConnection()

        self.serve(ScriptedService(script))
        wire = await self.connect()
        wire.send(GET)
        received = await wire.get(b"0\r\n\r\n")
        self.assertIn(b"Transfer-Encoding: chunked\r\n", received)
        self.assertTrue(received.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
        wire.send(GET)
        await wire.until(lambda w: w.received.count(b"0\r\n\r\n") == 2)

    async def test_truncated_length_is_never_complete(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            connection.transport.loseConnection()

        self.serve(ScriptedService(script))
        wire = await self.connect()
        wire.send(GET)
        await wire.rest()
        self.assertFalse(wire.clean)
        self.assertEqual(self.log[0]["reason"], "upstream_closed_early")

    async def test_truncated_chunks_are_never_complete(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
            )
            connection.transport.loseConnection()

        self.serve(ScriptedService(script))
        for request in (GET, b"GET /demo/web/ HTTP/1.0\r\n\r\n"):
            wire = await self.connect()
            wire.send(request)
            self.assertNotIn(b"0\r\n\r\n", await wire.rest())
            self.assertFalse(wire.clean)

    async def test_nonsense_from_the_service_is_a_502(self) -> None:
        for nonsense in (
            b"hello\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        ):
            service = replying(nonsense)
            port = self.serve(service)
            answer = await self.ask(GET_AND_CLOSE)
            self.assertIn(b" 502 Bad Gateway\r\n", answer, nonsense)
            self.assertIn(b"upstream_bad_answer", answer)
            await port.stopListening()
            self.look()

    async def test_bytes_after_the_answer_end_the_connection_to_the_service(self) -> None:
        service = replying(ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        self.serve(service)
        wire = await self.connect()
        wire.send(GET)
        await wire.get(b"\r\n\r\nok")
        wire.send(GET)
        await wire.until(lambda w: w.received.count(b"\r\n\r\nok") == 2)
        self.assertNotIn(b"evil", wire.received)

    async def test_interim_answers_pass(self) -> None:
        self.serve(replying(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ANSWER))
        answer = await self.ask(GET_AND_CLOSE)
        self.assertTrue(
            answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200")
        )

    async def test_own_errors_are_pages_for_browsers_and_problems_for_programs(self) -> None:
        nowhere = b"GET /no/body/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        page = await self.ask(nowhere + b"Accept: text/html,*/*;q=0.8\r\n\r\n")
        self.assertIn(b"Content-Type: text/html", page)
        self.assertIn(b"<code>404 no_route", page)
        head, _, body = (await self.ask(nowhere + b"\r\n")).partition(b"\r\n\r\n")
        self.assertIn(b"Content-Type: application/problem+json", head)
        document = json.loads(body)
        self.assertEqual((document["status"], document["reason"]), (404, "no_route"))
        self.assertIn(b"X-Request-ID: " + document["request_id"].encode(), head)


class RequestBodyTests(RouterCase):
    async def test_body_streams_before_it_is_complete(self) -> None:
        service = silent()
        self.serve(service)
        wire = await self.connect()
        wire.send(POST_CHUNKED + b"3\r\nabc\r\n")
        await self._until(lambda: service.connections[-1].received.endswith(b"3\r\nabc\r\n"))
        wire.send(b"2;ext=1\r\nde\r\n0\r\nX-Trailer: no\r\n\r\n")
        await self._until(lambda: service.connections[-1].received.endswith(b"0\r\n\r\n"))
        self.assertTrue(
            service.connections[-1].received.endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        )

    async def test_expect_continue_is_between_client_and_service(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            if b"Expect: 100-continue" in data:
                connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif data == b"abc":
                connection.transport.write(ANSWER)

        self.serve(ScriptedService(script))
        wire = await self.connect()
        wire.send(
            b"PUT /demo/web/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            b"Content-Length: 3\r\n\r\n"
        )
        await wire.get(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.send(b"abc")
        await wire.get(b"\r\n\r\nok")

    async def test_body_that_a_service_may_take_for_a_request_is_its_connections_last(self) -> None:
        smuggled = b"GET / HTTP/1.1\r\nX-Hero-Claims: admin\r\n\r\n"

        def script(connection: Any, data: bytes) -> None:
            if connection.received.endswith(smuggled):
                head = connection.received.startswith(b"HEAD")
                connection.transport.write(ANSWER[:-2] if head else ANSWER)

        service = ScriptedService(script)
        self.serve(service)
        wire = await self.connect()
        rest = b" /demo/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
        for count, method in enumerate((b"GET", b"HEAD", b"DELETE"), 1):
            wire.send(method + rest + smuggled)
            await wire.until(lambda w, count=count: w.received.count(b"HTTP/1.1 200") == count)
            connection = service.connections[-1]
            self.assertIn(b"\r\nConnection: close\r\n", connection.received)
            await self._until(lambda connection=connection: not connection.connected_)
        self.assertFalse(wire.closed)

    async def test_answer_of_a_service_that_closes_in_the_middle_of_an_upload_arrives(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            if len(connection.received) > 300_000 and connection.connected_:
                connection.transport.write(
                    b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\n\r\ntoo much"
                )
                connection.transport.loseConnection()

        self.serve(ScriptedService(script))
        for _ in range(5):
            wire = await self.connect()
            wire.send(b"PUT /demo/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n")
            wire.send(b"x" * 40_000_000)
            answer = await wire.get(b"too much")
            self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)
            self.assertIn(b"Connection: close\r\n", answer)

    async def test_answer_before_the_body_is_passed_on_and_closes(self) -> None:
        service = replying(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        self.serve(service)
        answer = await self.ask(POST_CHUNKED + b"3\r\nabc\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "))
        self.assertIn(b"Connection: close\r\n", answer)

    async def test_client_that_goes_away_ends_the_request_at_the_service(self) -> None:
        service = silent()
        self.serve(service)
        wire = await self.connect()
        wire.send(GET)
        await self._until(lambda: service.connections and service.connections[-1].received)
        connection = service.connections[-1]
        wire.transport.abortConnection()
        await self._until(lambda: not connection.connected_)

    async def test_malformed_chunk_never_completes_the_request_at_the_service(self) -> None:
        service = silent()
        self.serve(service)
        wire = await self.connect()
        wire.send(POST_CHUNKED + b"3\r\nabc\r\n")
        await self._until(lambda: service.connections and service.connections[-1].received)
        connection = service.connections[-1]
        wire.send(b"0x0\r\n\r\n")
        self.assertIn(b"bad_chunk", await wire.rest())
        await self._until(lambda: not connection.connected_)
        self.assertNotIn(b"\r\n0\r\n", connection.received)

    async def _until(self, condition: Any) -> None:
        while not condition():
            await self.pause(0.005)


class SmallBodyTests(RouterCase):
    limits = Limits(body=10, linger_time=0.5, stop_time=1.0)

    async def test_body_over_the_limit_is_a_413(self) -> None:
        self.serve(H11Service({"access": "public"}))
        for request in (
            b"POST /demo/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
            POST_CHUNKED + b"b\r\n",
        ):
            answer = await self.ask(request)
            self.assertIn(b"HTTP/1.1 413 ", answer)
            self.assertIn(b"body_too_large", answer)


class BackPressureTests(RouterCase):
    async def test_slow_reader_does_not_fill_memory(self) -> None:
        sent = 0
        total = 64 * 1024 * 1024
        piece = b"x" * 65536

        class Source:
            """Writes as long as the router takes it."""

            def __init__(self, transport: Any) -> None:
                self.transport = transport
                self.going = True

            def resumeProducing(self) -> None:
                nonlocal sent
                self.going = True
                while self.going and sent < total:
                    sent += len(piece)
                    self.transport.write(piece)
                if sent >= total:
                    self.transport.unregisterProducer()

            def pauseProducing(self) -> None:
                self.going = False

            def stopProducing(self) -> None:
                self.going = False

        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            source = Source(connection.transport)
            connection.transport.registerProducer(source, True)
            source.resumeProducing()

        self.serve(ScriptedService(script))
        wire = await self.connect()
        wire.transport.pauseProducing()
        wire.send(GET_AND_CLOSE)
        before = -1
        while sent != before or not sent:
            before = sent
            await self.pause(0.1)
        self.assertLess(sent, 16 * 1024 * 1024)  # what the kernel's buffers hold
        wire.transport.resumeProducing()
        received = await wire.rest()
        self.assertEqual(len(received.partition(b"\r\n\r\n")[2]), total)

    async def test_body_sent_ahead_by_a_slow_reader_is_read_when_it_has_read(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        wire = await self.connect()
        wire.send(GET)
        await wire.get(b"\r\n\r\nok")
        (front,) = self.gateway.connections
        front.pauseProducing()
        body = b"x" * 1_000_000
        wire.send(b"POST /demo/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + body)
        while not front._ahead_paused:
            await self.pause(0.005)
        front.resumeProducing()
        await wire.until(lambda w: w.received.count(b"\r\n\r\nok") == 2)
        self.assertEqual(service.seen[1].body, body)

    async def test_slow_service_does_not_fill_memory(self) -> None:
        service = ScriptedService(lambda connection, data: connection.transport.pauseProducing())
        self.serve(service)
        wire = await self.connect()
        total = 64 * 1024 * 1024
        wire.send(b"POST /demo/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
        piece = b"x" * 65536
        for _ in range(total // len(piece)):
            wire.send(piece)
        before = -1
        while self.gateway.connections[0].bytes_in != before or not service.connections:
            before = self.gateway.connections[0].bytes_in
            await self.pause(0.1)
        self.assertLess(before, 16 * 1024 * 1024)


class UpstreamTests(RouterCase):
    async def test_service_that_was_made_to_wait_to_the_end_is_heard_again(self) -> None:
        """The last piece of an answer was too much for its client; the connection is reused."""

        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")

        def full(front: Front, data: bytes) -> None:
            taken(front, data)
            front.pauseProducing()

        taken = Front.answer_data
        self.patch(Front, "answer_data", full)
        service = ScriptedService(script)
        self.serve(service)
        for _ in range(2):
            wire = await self.connect()
            wire.send(GET_AND_CLOSE)
            await wire.get(b"ab")
            service.connections[-1].transport.write(b"cd")
            self.assertTrue((await wire.rest()).endswith(b"abcd"))
        served = [connection for connection in service.connections if connection.received]
        self.assertEqual(len(served), 1)

    async def test_nobody_listening_is_a_503_and_back_at_once(self) -> None:
        port = self.serve(H11Service({"access": "public"}))
        path = self.directory / "demo/web.sock"
        await port.stopListening()
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(path))
        dead.close()
        self.look()
        self.assertIn(b"upstream_refused", await self.ask(GET_AND_CLOSE))
        self.assertEqual([r.state for r in self.routes.describe()], ["down"])
        path.unlink()
        self.serve(H11Service({"access": "public"}))
        self.assertIn(b"200 OK", await self.ask(GET_AND_CLOSE))
        self.assertEqual([r.state for r in self.routes.describe()], ["up"])

    async def test_service_too_busy_to_accept_is_waited_for(self) -> None:
        path = self.directory / "demo/web.sock"
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen(0)
            listening.setblocking(False)
            waiting = []
            while True:
                waiting.append(socket.socket(socket.AF_UNIX, type=_STREAM_NONBLOCK))
                self.addCleanup(waiting[-1].close)
                if waiting[-1].connect_ex(str(path)):
                    break
            self.look()
            wire = await self.connect()
            wire.send(GET_AND_CLOSE)
            await self.pause(0.05)
            service = H11Service({"access": "public"})
            port = reactor.adoptStreamPort(listening.fileno(), socket.AF_UNIX, service)
            self.addCleanup(port.stopListening)
            self.assertIn(b" 200 OK\r\n", await wire.rest())

    async def test_idempotent_request_is_retried_once_on_a_new_connection(self) -> None:
        count = 0

        def script(connection: Any, data: bytes) -> None:
            nonlocal count
            count += 1
            if count == 2:
                connection.transport.abortConnection()
            else:
                connection.transport.write(ANSWER)

        self.serve(ScriptedService(script))
        wire = await self.connect()
        wire.send(GET)
        await wire.get(b"\r\n\r\nok")
        wire.send(GET)
        await wire.until(lambda w: w.received.count(b"\r\n\r\nok") == 2)
        self.assertEqual(count, 3)

    async def test_post_is_never_sent_twice(self) -> None:
        count = 0

        def script(connection: Any, data: bytes) -> None:
            nonlocal count
            count += 1
            if count == 1:
                connection.transport.write(ANSWER)
            else:
                connection.transport.abortConnection()

        self.serve(ScriptedService(script))
        wire = await self.connect()
        wire.send(GET)
        await wire.get(b"\r\n\r\nok")
        wire.send(GET.replace(b"GET", b"POST"))
        self.assertIn(b"502 Bad Gateway", await wire.get(b"upstream_closed_early"))
        self.assertEqual(count, 2)

    async def test_connection_in_use_when_its_route_goes_is_closed_after_its_answer(self) -> None:
        service = silent()
        port = self.serve(service)
        wire = await self.connect()
        wire.send(GET)
        while not (service.connections and service.connections[-1].received):
            await self.pause(0.005)
        await port.stopListening()
        self.look()
        service.connections[-1].transport.write(ANSWER)
        await wire.get(b"\r\n\r\nok")
        while service.connections[-1].connected_:
            await self.pause(0.005)

    async def test_client_that_goes_while_the_router_connects_says_nothing_about_the_route(
        self,
    ) -> None:
        self.serve(H11Service({"access": "public"}))
        await self.ask(GET_AND_CLOSE)
        route = self.routes.lookup("demo", "web")
        assert route is not None
        head = parse_request_head(GET, self.limits)
        route.pool.close()
        exchange = Exchange(route, Mock(raw_chunks=True), head, GET, None, None)
        exchange.start()
        exchange.abandon()
        self.assertEqual(route.state, "up")

    async def test_route_that_goes_leaves_other_connections_alone(self) -> None:
        service = silent()
        self.serve(service)
        other = self.serve(H11Service({"access": "public"}), "other", "web")
        wire = await self.connect()
        wire.send(GET)
        while not (service.connections and service.connections[-1].received):
            await self.pause(0.005)
        await other.stopListening()
        self.look()
        self.assertIsNone(self.routes.lookup("other", "web"))
        service.connections[-1].transport.write(ANSWER)
        await wire.get(b"\r\n\r\nok")


class DeadlineTests(RouterCase):
    limits = Limits(linger_time=60)

    def make_clock(self) -> Clock:
        return Clock()

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds) + 1):
            self.clock.advance(1)

    async def test_slow_head_is_a_408(self) -> None:
        wire = await self.connect()
        wire.send(b"GET /demo/web/ HTTP/1.1\r\n")
        await self.pause()
        self.pass_time(self.limits.head_time)
        self.assertIn(b"head_timeout", await wire.rest())

    async def test_deadline_that_goes_wrong_leaves_the_others(self) -> None:
        wires = [await self.connect() for _ in range(2)]
        for wire in wires:
            wire.send(b"GET /demo/web/ HTTP/1.1\r\n")
        await self.pause()
        self.patch(self.gateway.connections[0], "late", lambda: 1 / 0)
        self.pass_time(self.limits.head_time)
        for wire in wires:
            await wire.rest()
        self.assertEqual([b"head_timeout" in wire.received for wire in wires], [False, True])
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    async def test_dripping_head_is_not_given_more_time(self) -> None:
        wire = await self.connect()
        wire.send(b"GET /demo/web/ HTTP/1.1\r\n")
        await self.pause()
        self.pass_time(self.limits.head_time / 2)
        wire.send(b"Host: a\r\n")
        await self.pause()
        self.pass_time(self.limits.head_time / 2)
        self.assertIn(b"408 ", await wire.rest())

    async def test_idle_connection_is_closed_silently(self) -> None:
        self.serve(H11Service({"access": "public"}))
        wire = await self.connect()
        wire.send(GET)
        await wire.get(b"\r\n\r\nok")
        self.pass_time(self.limits.idle_time)
        self.assertTrue((await wire.rest()).endswith(b"\r\n\r\nok"))

    async def test_old_connection_ends_with_its_next_answer(self) -> None:
        self.serve(H11Service({"access": "public"}))
        wire = await self.connect()
        (front,) = self.gateway.connections
        front.since -= self.limits.connection_time
        wire.send(GET)
        self.assertIn(b"Connection: close\r\n", await wire.rest())
        self.assertTrue(wire.clean)

    async def test_service_that_does_not_answer_is_a_504(self) -> None:
        service = silent()
        self.serve(service)
        wire = await self.connect()
        wire.send(GET)
        while not (service.connections and service.connections[-1].received):
            await self.pause(0.005)
        self.pass_time(self.limits.answer_time)
        answer = await wire.rest()
        self.assertIn(b" 504 Gateway Timeout\r\n", answer)
        self.assertIn(b"upstream_timeout", answer)

    async def test_body_that_stops_is_a_408(self) -> None:
        service = silent()
        self.serve(service)
        wire = await self.connect()
        wire.send(POST_CHUNKED + b"3\r\na")
        while not (service.connections and service.connections[-1].received):
            await self.pause(0.005)
        self.pass_time(self.limits.answer_time)
        self.assertIn(b"body_timeout", await wire.rest())

    async def test_answer_that_stops_is_never_complete(self) -> None:
        self.serve(replying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
        wire = await self.connect()
        wire.send(GET)
        await wire.get(b"abc")
        self.pass_time(self.limits.stall_time)
        await wire.rest()
        self.assertFalse(wire.clean)

    async def test_slow_reader_of_an_early_answer_gets_it_whole(self) -> None:
        body = b"x" * 1_000_000
        self.serve(replying(b"HTTP/1.1 413 Too Large\r\nContent-Length: 1000000\r\n\r\n" + body))
        wire = await self.connect()
        wire.transport.pauseProducing()
        wire.send(POST_CHUNKED + b"3\r\nabc\r\n")
        await self.pause()
        (front,) = self.gateway.connections
        while front.state is not State.CLOSING:
            await self.pause(0.005)
        self.pass_time(self.limits.linger_time)
        await self.pause()
        wire.transport.resumeProducing()
        self.assertTrue((await wire.rest()).endswith(body))
        self.assertTrue(wire.clean)

    async def test_stop_lets_requests_finish(self) -> None:
        service = silent()
        self.serve(service)
        idle, busy = await self.connect(), await self.connect()
        busy.send(GET)
        while not (service.connections and service.connections[-1].received):
            await self.pause(0.005)
        stopped = Deferred.fromCoroutine(self.gateway.stop())
        await idle.rest()
        service.connections[-1].transport.write(ANSWER)
        answer = await busy.rest()
        self.assertTrue(answer.endswith(b"\r\n\r\nok"))
        self.assertIn(b"Connection: close\r\n", answer)
        await stopped


class UpgradeTests(RouterCase):
    ASK = (
        b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
    )
    AGREE = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def _tunnel(self) -> ScriptedService:
        def script(connection: Any, data: bytes) -> None:
            if b"Upgrade: websocket\r\n" in data:
                connection.transport.write(self.AGREE + b"early")
            else:
                connection.transport.write(b"<" + data + b">")

        return ScriptedService(script)

    async def test_bytes_pass_both_ways_after_101(self) -> None:
        self.serve(self._tunnel())
        wire = await self.connect()
        wire.send(self.ASK)
        received = await wire.get(b"early")
        self.assertTrue(received.startswith(b"HTTP/1.1 101 "))
        self.assertIn(b"Upgrade: websocket\r\n", received)
        wire.send(b"\x00\xff\r\n\r\n")
        await wire.get(b"<\x00\xff\r\n\r\n>")

    async def test_service_that_closes_ends_the_tunnel_after_its_last_byte(self) -> None:
        service = self._tunnel()
        self.serve(service)
        wire = await self.connect()
        wire.send(self.ASK)
        await wire.get(b"early")
        service.connections[-1].transport.write(b"y" * 1_000_000)
        service.connections[-1].transport.loseConnection()
        self.assertEqual((await wire.rest()).count(b"y" * 1000), 1000)
        self.assertTrue(wire.clean)

    async def test_either_end_can_send_after_the_other_has_ended(self) -> None:
        service = self._tunnel()
        service.half_closes = True
        self.serve(service)
        wire = await self.connect()
        wire.send(self.ASK)
        await wire.get(b"early")
        wire.transport.loseWriteConnection()
        connection = service.connections[-1]
        while not connection.ended:
            await self.pause(0.005)
        connection.transport.write(b"y" * 300_000 + b"the last")
        await wire.get(b"the last")
        connection.transport.loseConnection()
        await wire.rest()
        self.assertTrue(wire.clean)

        wire = await self.connect()
        wire.half_closes = True
        wire.send(self.ASK)
        await wire.get(b"early")
        connection = service.connections[-1]
        connection.transport.loseWriteConnection()
        while not wire.ended:
            await self.pause(0.005)
        wire.send(b"z" * 300_000 + b"the last")
        while not connection.received.endswith(b"the last"):
            await self.pause(0.005)
        self.assertEqual(len(self.gateway.connections), 1)
        wire.transport.loseConnection()
        while self.gateway.connections or not connection.ended:
            await self.pause(0.005)
        connection.transport.loseConnection()

    async def test_client_that_closes_ends_the_tunnel(self) -> None:
        service = self._tunnel()
        self.serve(service)
        wire = await self.connect()
        wire.send(self.ASK)
        await wire.get(b"early")
        wire.transport.loseConnection()
        while service.connections[-1].connected_ or self.gateway.connections:
            await self.pause(0.005)
        self.assertEqual(self.log[0]["status"], 101)

    async def test_tunnel_lives_on_when_its_route_goes(self) -> None:
        port = self.serve(self._tunnel())
        wire = await self.connect()
        wire.send(self.ASK)
        await wire.get(b"early")
        await port.stopListening()
        self.look()
        wire.send(b"still")
        await wire.get(b"<still>")

    async def test_tunnel_to_a_service_that_does_not_read_is_not_kept_for_ever(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            if b"Upgrade: websocket\r\n" in data:
                connection.transport.write(self.AGREE)
                connection.transport.pauseProducing()

        self.limits = Limits(stall_time=0.2)
        self.serve(ScriptedService(script))
        wire = await self.connect()
        wire.send(self.ASK)
        await wire.get(b"101")
        stuck: list[Any] = []
        while not stuck:
            wire.send(b"x" * 4096)
            await self.pause(0.002)
            stuck = [s for s in reactor.getWriters() if isinstance(s, EagerUNIXClient)]
        wire.transport.abortConnection()
        while stuck[0].connected:
            await self.pause(0.01)

    async def test_tunnel_that_was_busy_may_be_idle_as_long_as_any(self) -> None:
        service = self._tunnel()
        self.serve(service)
        wire = await self.connect()
        wire.send(self.ASK)
        await wire.get(b"early")
        (front,) = self.gateway.connections
        front.pause_body()
        front.resume_body()
        left = front.deadline - self.clock.seconds()
        self.assertGreater(left, self.limits.tunnel_time - 60)

    async def test_refused_upgrade_is_a_normal_answer(self) -> None:
        self.serve(replying(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", ANSWER))
        wire = await self.connect()
        wire.send(self.ASK + GET)
        received = await wire.get(b"\r\n\r\nok")
        self.assertTrue(received.startswith(b"HTTP/1.1 426 "))

    async def test_upgrade_to_clear_text_http2_is_not_passed_on(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        await self.ask(
            b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        )
        self.assertEqual(service.seen[0].values(b"upgrade"), [])
        self.assertEqual(service.seen[0].values(b"http2-settings"), [])

    async def test_switch_to_another_protocol_than_asked_for_is_a_502(self) -> None:
        self.serve(replying(self.AGREE.replace(b"websocket", b"chat")))
        wire = await self.connect()
        wire.send(self.ASK)
        self.assertIn(b"502 Bad Gateway", await wire.get(b"upstream_bad_answer"))
