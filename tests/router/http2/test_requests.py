"""Requests over HTTP/2, answered by services that speak HTTP/1.1."""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from hero.router.limits import Limits
from tests.router.backend import H11Service, ScriptedService
from tests.router.http2.client import Http2Case, request

HEAD = b"HTTP/1.1 200 OK\r\n"


class RequestTests(Http2Case):
    async def test_get_is_answered(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        client = await self.http2()
        answer = await client.answer(client.get(b"/demo/web/a?b"))
        self.assertEqual((answer.status, answer.body, answer.ended), (b"200", b"ok", True))
        self.assertEqual(answer.values(b"content-type"), [b"text/plain"])
        seen = service.seen[0]
        self.assertEqual((seen.method, seen.target, seen.body), (b"GET", b"/a?b", b""))
        self.assertEqual(seen.values(b"host"), [b"a"])
        self.assertEqual(seen.values(b"x-forwarded-proto"), [b"https"])
        self.assertEqual(answer.values(b"x-request-id"), seen.values(b"x-request-id"))
        line = self.log[0]
        self.assertEqual((line["status"], line["route"]), (200, "/demo/web"))
        self.assertGreater(line["bytes_in"], 20)
        self.assertGreater(line["bytes_out"], 20)

    async def test_client_that_prefers_http_1_gets_it(self) -> None:
        self.serve(H11Service({"access": "public"}))
        wire: Any = await self.secure(with_certificate=False)
        wire.send(b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.assertTrue((await wire.rest()).startswith(b"HTTP/1.1 200 "))

    async def test_answers_come_as_the_services_give_them(self) -> None:
        held: list[Any] = []

        def script(connection: Any, data: bytes) -> None:
            if b"GET /slow" in data:
                held.append(connection)
            else:
                connection.transport.write(HEAD + b"Content-Length: 4\r\n\r\nfast")

        self.serve(ScriptedService(script))
        client = await self.http2()
        slow, fast = client.get(b"/demo/web/slow"), client.get()
        self.assertEqual((await client.answer(fast)).body, b"fast")
        self.assertFalse(client.answers[slow].over)
        held[0].transport.write(HEAD + b"Content-Length: 4\r\n\r\nslow")
        self.assertEqual((await client.answer(slow)).body, b"slow")

    async def test_hundred_requests_at_once(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        client = await self.http2()
        await client.answer(client.get())
        numbers = [client.get(b"/demo/web/%d" % number) for number in range(100)]
        answers = [await client.answer(number) for number in numbers]
        self.assertEqual({answer.status for answer in answers}, {b"200"})
        self.assertEqual(
            {seen.target for seen in service.seen}, {b"/", *(b"/%d" % n for n in range(100))}
        )

    async def test_several_hosts_share_a_connection(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        client = await self.http2()
        for host in (b"a", b"b:8443"):
            await client.answer(client.ask(request(b"GET", b"/demo/web/", authority=host)))
        self.assertEqual([seen.values(b"host") for seen in service.seen], [[b"a"], [b"b:8443"]])

    async def test_caller_is_known_by_each_requests_token(self) -> None:
        service = H11Service({"access": "cluster"})
        self.serve(service)
        self.tokens.add("hero_secret", "user:alice", "viewer@root")
        client = await self.http2()
        token = (b"authorization", b"Bearer hero_secret")
        self.assertEqual((await client.answer(client.get(b"/demo/web/", token))).status, b"200")
        self.assertEqual(service.seen[0].values(b"x-hero-user"), [b"user:alice"])
        self.assertEqual(service.seen[0].values(b"authorization"), [])
        self.assertEqual((await client.answer(client.get())).status, b"401")

    async def test_fields_that_only_the_router_says_are_the_routers(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        client = await self.http2()
        posing = [
            (b"x-hero-user", b"user:root"),
            (b"x_hero_claims", b"admin"),
            (b"te", b"trailers"),
        ]
        await client.answer(client.get(b"/demo/web/", *posing))
        seen = service.seen[0]
        self.assertEqual(seen.values(b"x-hero-user"), [b"anonymous"])
        self.assertEqual(seen.values(b"x_hero_claims"), [])
        self.assertEqual(seen.values(b"te"), [])

    async def test_cookies_come_as_one(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        client = await self.http2()
        crumbs = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")]
        await client.answer(client.get(b"/demo/web/", *crumbs))
        self.assertEqual(service.seen[0].values(b"cookie"), [b"a=1; b=2"])

    async def test_what_the_router_refuses_is_explained(self) -> None:
        client = await self.http2()
        answer = await client.answer(client.get(b"/no/where"))
        self.assertEqual(answer.status, b"404")
        self.assertEqual(answer.values(b"content-type"), [b"application/problem+json"])
        self.assertIn(b'"reason": "no_route"', answer.body)
        self.assertEqual(self.log[0]["reason"], "no_route")
        asked = request(b"HEAD", b"/no/where")
        self.assertEqual((await client.answer(client.ask(asked))).body, b"")

    async def test_client_that_goes_leaves_no_request_behind(self) -> None:
        service = ScriptedService(lambda connection, data: None)
        self.serve(service)
        client = await self.http2()
        client.get()
        while not service.connections or not service.connections[-1].received:
            await self.pause(0.005)
        client.transport.abortConnection()
        while service.connections[-1].connected_ or self.gateway.connections:
            await self.pause(0.005)
        self.assertEqual(self.log[0]["reason"], "client_gone")

    async def test_reset_ends_the_request_at_the_service(self) -> None:
        service = ScriptedService(lambda connection, data: None)
        self.serve(service)
        client = await self.http2()
        number = client.get()
        while not service.connections or not service.connections[-1].received:
            await self.pause(0.005)
        client.h2.reset_stream(number, ErrorCodes.CANCEL)
        client.flush()
        while service.connections[-1].connected_:
            await self.pause(0.005)
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")

    async def test_request_that_is_reset_at_once_is_not_begun(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        client = await self.http2()
        await client.answer(client.get())
        for path in (b"/demo/web/never", b"/no/where"):
            number = client.h2.get_next_available_stream_id()
            client.h2.send_headers(number, request(b"GET", path), end_stream=True)
            client.h2.reset_stream(number, ErrorCodes.CANCEL)
        client.flush()
        self.assertEqual((await client.answer(client.get())).status, b"200")
        self.assertEqual([seen.target for seen in service.seen], [b"/", b"/"])


class AnswerTests(Http2Case):
    """What a service answers, and what the client gets."""

    async def _ask(self, wire: bytes, *, method: bytes = b"GET", close: bool = False) -> Any:
        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(wire)
            if close:
                connection.transport.loseConnection()

        self.serve(ScriptedService(script))
        client = await self.http2()
        return await client.answer(client.ask(request(method, b"/demo/web/")))

    async def test_connection_fields_stay_with_the_service(self) -> None:
        answer = await self._ask(
            HEAD + b"Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n"
            b"X-Hero-User: root\r\nServer: s\r\nContent-Length: 2\r\n\r\nok"
        )
        names = [name for name, _ in answer.fields]
        self.assertEqual(
            names, [b":status", b"server", b"content-length", b"x-request-id", b"date"]
        )

    async def test_chunked_answer_comes_without_its_chunks(self) -> None:
        answer = await self._ask(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
        )
        self.assertEqual((answer.body, answer.ended), (b"abcde", True))

    async def test_answer_until_close_ends(self) -> None:
        answer = await self._ask(HEAD + b"\r\nabc", close=True)
        self.assertEqual((answer.body, answer.ended), (b"abc", True))

    async def test_answer_that_breaks_off_is_never_complete(self) -> None:
        answer = await self._ask(HEAD + b"Content-Length: 10\r\n\r\nabc", close=True)
        self.assertFalse(answer.ended)
        self.assertEqual(answer.reset, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(self.log[0]["reason"], "upstream_closed_early")

    async def test_broken_chunks_are_never_complete(self) -> None:
        service = ScriptedService(
            lambda connection, data: connection.transport.write(
                HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
            )
        )
        self.serve(service)
        client = await self.http2()
        number = client.get()
        await client.until(lambda wire: wire.answers[number].body)
        service.connections[-1].transport.write(b"nonsense\r\n")
        answer = await client.answer(number)
        self.assertEqual((answer.ended, answer.reset), (False, ErrorCodes.INTERNAL_ERROR))

    async def test_answer_without_a_body_ends_with_its_head(self) -> None:
        answer = await self._ask(b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n")
        self.assertEqual((answer.status, answer.body, answer.ended), (b"204", b"", True))
        self.assertEqual(answer.values(b"content-length"), [])

    async def test_not_modified_ends_with_its_head(self) -> None:
        answer = await self._ask(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n")
        self.assertEqual((answer.status, answer.body, answer.ended), (b"304", b"", True))

    async def test_head_is_told_the_length_and_gets_nothing(self) -> None:
        answer = await self._ask(HEAD + b"Content-Length: 99\r\n\r\n", method=b"HEAD")
        self.assertEqual((answer.body, answer.ended), (b"", True))
        self.assertEqual(answer.values(b"content-length"), [b"99"])

    async def test_interim_answers_are_passed_on(self) -> None:
        answer = await self._ask(
            b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"
            + HEAD
            + b"Content-Length: 0\r\n\r\n"
        )
        self.assertEqual((answer.interim, answer.status), ([b"103"], b"200"))

    async def test_what_is_no_answer_is_a_502(self) -> None:
        answer = await self._ask(b"nonsense\r\n\r\n")
        self.assertEqual(answer.status, b"502")
        self.assertIn(b"upstream_bad_answer", answer.body)

    async def test_large_answer_comes_whole_through_windows(self) -> None:
        body = bytes(range(256)) * 12_000
        answer = await self._ask(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.assertEqual((answer.body == body, answer.ended), (True, True))


class BackPressureTests(Http2Case):
    async def test_client_that_takes_nothing_makes_the_service_wait(self) -> None:
        total = 8_000_000

        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(HEAD + b"Content-Length: %d\r\n\r\n" % total + b"x" * total)

        service = ScriptedService(script)
        self.serve(service)
        client = await self.http2()
        client.greedy = False
        number = client.get()
        await client.until(lambda wire: len(wire.answers[number].body) == 65535)
        held = 0
        while (stream := self._streams()[0]).outgoing.size != held or not held:
            held = stream.outgoing.size
            await self.pause(0.05)
        self.assertLess(held, 2_000_000)
        self.assertEqual(len(client.answers[number].body), 65535)
        client.greedy = True
        client.h2.acknowledge_received_data(65535, number)
        client.flush()
        self.assertEqual(len((await client.answer(number)).body), total)

    async def test_stream_that_is_not_read_does_not_hold_up_another(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            size = 500_000 if b"GET /large" in data else 5
            connection.transport.write(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)

        self.serve(ScriptedService(script))
        client = await self.http2()
        client.greedy = False
        client.h2.increment_flow_control_window(10_000_000)
        large = client.get(b"/demo/web/large")
        await client.until(lambda wire: len(wire.answers[large].body) == 65535)
        self.assertEqual((await client.answer(client.get())).body, b"xxxxx")

    async def test_large_answers_take_turns(self) -> None:
        size = 400_000

        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)

        self.serve(ScriptedService(script))
        client = await self.http2()
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
        client.flush()
        first, second = client.get(), client.get()
        await client.until(lambda wire: wire.answers[first].over or wire.answers[second].over)
        less = min(len(client.answers[number].body) for number in (first, second))
        self.assertGreater(less, size // 4)

    async def test_window_that_is_opened_by_settings_is_used(self) -> None:
        self.serve(
            ScriptedService(
                lambda connection, data: connection.transport.write(
                    HEAD + b"Content-Length: 5\r\n\r\nabcde"
                )
            )
        )
        client = await self.http2()
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2})
        client.flush()
        number = client.get()
        await client.until(lambda wire: wire.answers[number].body)
        self.assertEqual(client.answers[number].body, b"ab")
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
        client.flush()
        self.assertEqual((await client.answer(number)).body, b"abcde")

    def _streams(self) -> list[Any]:
        return [stream for c in self.gateway.connections for stream in c.streams.values()]


class BodyTests(Http2Case):
    """Bodies of requests."""

    async def _post(self, body: bytes, *more: tuple[bytes, bytes]) -> Any:
        service = H11Service({"access": "public"})
        self.serve(service)
        client = await self.http2()
        number = client.ask(request(b"POST", b"/demo/web/", *more), end=False)
        await client.data(number, body)
        self.assertEqual((await client.answer(number)).status, b"200")
        self.assertEqual(service.errors, [])
        return service.seen[0]

    async def test_body_with_a_length_goes_as_it_is(self) -> None:
        seen = await self._post(b"abc", (b"content-length", b"3"))
        self.assertEqual((seen.body, seen.values(b"content-length")), (b"abc", [b"3"]))
        self.assertEqual(seen.values(b"transfer-encoding"), [])

    async def test_body_without_a_length_goes_in_chunks(self) -> None:
        seen = await self._post(b"abc" * 40_000)
        self.assertEqual(seen.body, b"abc" * 40_000)
        self.assertEqual(seen.values(b"transfer-encoding"), [b"chunked"])

    async def test_large_body_comes_whole_through_windows(self) -> None:
        body = bytes(range(256)) * 12_000
        seen = await self._post(body, (b"content-length", b"%d" % len(body)))
        self.assertEqual(seen.body == body, True)

    async def test_body_ends_also_with_trailers(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        client = await self.http2()
        number = client.ask(request(b"POST", b"/demo/web/"), end=False)
        await client.data(number, b"abc", end=False)
        client.h2.send_headers(number, [(b"x-checksum", b"1")], end_stream=True)
        client.flush()
        self.assertEqual((await client.answer(number)).status, b"200")
        self.assertEqual(service.seen[0].body, b"abc")

    async def test_client_sends_no_more_than_the_service_takes(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            connection.transport.pauseProducing()

        service = ScriptedService(script)
        self.serve(service)
        client = await self.http2()
        number = client.ask(request(b"POST", b"/demo/web/"), end=False)
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
        other = client.get(b"/no/where")
        self.assertEqual((await client.answer(other)).status, b"404")

    async def test_answer_that_comes_before_the_body_stops_the_client(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")

        self.serve(ScriptedService(script))
        client = await self.http2()
        number = client.ask(request(b"POST", b"/demo/web/"), end=False)
        answer = await client.answer(number)
        self.assertEqual((answer.status, answer.body, answer.ended), (b"413", b"no!", True))
        self.assertEqual(answer.reset, None)
        for _ in range(4):
            client.h2.send_data(number, b"x" * 16384)
        client.flush()
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")
        self.assertEqual(client.h2.outbound_flow_control_window, 1_048_576)
        await client.until(lambda wire: answer.reset is not None)
        self.assertEqual(answer.reset, ErrorCodes.NO_ERROR)

    async def test_client_that_ends_its_body_after_the_answer_is_not_reset(self) -> None:
        client = await self.http2()
        number = client.ask(request(b"POST", b"/no/where"), end=False)
        answer = await client.answer(number)
        await client.data(number, b"abc")
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")
        self.assertEqual(self.gateway.connections[0].streams, {})
        self.assertEqual((answer.ended, answer.reset), (True, None))
        self.assertEqual([line["status"] for line in self.log], [404, 404])

    async def test_expect_continue_is_between_client_and_service(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            if b"Expect: 100-continue" in data:
                connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if data.endswith(b"abc"):
                connection.transport.write(HEAD + b"Content-Length: 0\r\n\r\n")

        self.serve(ScriptedService(script))
        client = await self.http2()
        more = [(b"content-length", b"3"), (b"expect", b"100-continue")]
        number = client.ask(request(b"POST", b"/demo/web/", *more), end=False)
        await client.until(lambda wire: wire.answers[number].interim)
        await client.data(number, b"abc")
        answer = await client.answer(number)
        self.assertEqual((answer.interim, answer.status), ([b"100"], b"200"))


class SmallBodyTests(Http2Case):
    limits = Limits(linger_time=0.5, stop_time=1.0, body=10)

    async def test_body_over_the_limit_is_a_413(self) -> None:
        self.serve(H11Service({"access": "public"}))
        client = await self.http2()
        number = client.ask(request(b"POST", b"/demo/web/"), end=False)
        await client.data(number, b"x" * 11, end=False)
        answer = await client.answer(number)
        self.assertEqual(answer.status, b"413")
        self.assertIn(b"body_too_large", answer.body)
