"""`hero.rpc.client` against a real service, and against servers that misbehave, on UNIX sockets."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from hero.errors import (
    Conflict,
    Forbidden,
    HeroError,
    InvalidConfiguration,
    LimitExceeded,
    NotFound,
    RemoteError,
    SocketPathTooLong,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from hero.identity.tls import ClusterTlsPolicy, ServerTls
from hero.operations import Operation, OperationState
from hero.rpc import client as client_module
from hero.rpc.client import RpcClient
from hero.rpc.connection_errors import ConnectionLost
from hero.rpc.errors import InvalidParams, MethodNotFound
from hero.rpc.site import UnixService, service_site
from hero.rpc.urls import parse_url, router_url, unix_url
from tests.identity.cluster import new_master, new_worker
from tests.rpc.pets import DatabaseTestCase, Pet, PetService


class ServedTestCase(DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        path = self.directory / "rpc.sock"
        site = service_site(
            reactor=reactor,
            name="pets",
            description="",
            access="cluster",
            rpc={"zoo": {PetService: self.pets}},
        )
        service = UnixService(reactor, path, site)
        service.startService()
        self.addCleanup(service.stopService)
        self.client = RpcClient(reactor, unix_url(path, "root", "zoo"))
        self.proxy = self.client.proxy(PetService)


class ClientTests(ServedTestCase):
    async def test_call(self) -> None:
        value = await self.client.call("PetService.get_pet", {"name": "rex"})
        self.assertEqual(value, {"name": "rex", "legs": 4})

    async def test_proxy_converts_to_the_declared_type(self) -> None:
        self.assertEqual(await self.proxy.get_pet(name="rex"), Pet(name="rex"))

    async def test_operation(self) -> None:
        operation = await self.proxy.train(name="rex")
        self.assertIsInstance(operation, Operation)
        self.assertEqual(operation.state, OperationState.SUCCEEDED)
        self.assertEqual(operation.result, {"name": "rex", "legs": 4})

    async def test_operation_under_way(self) -> None:
        operation = await self.proxy.train(name="rex", trick="wait", wait=False)
        self.assertFalse(operation.state.ended)
        self.pets.woken.callback(None)
        ended = await self.proxy.get_operation(sid=operation.sid, wait=60.0)
        self.assertEqual(ended.state, OperationState.SUCCEEDED)

    async def test_error_comes_back_as_its_class(self) -> None:
        with self.assertRaises(NotFound) as caught:
            await self.proxy.get_pet(name="tom")
        self.assertEqual(caught.exception.hint, "add_pet adds one")
        self.assertTrue(caught.exception.data["request_id"])

    async def test_failed_operation_names_itself(self) -> None:
        with self.assertRaises(NotFound) as caught:
            await self.proxy.train(name="tom")
        self.assertTrue(caught.exception.data["operation"].startswith("op-"))

    async def test_standard_errors(self) -> None:
        with self.assertRaises(MethodNotFound):
            await self.client.call("PetService.fly")
        with self.assertRaises(InvalidParams):
            await self.client.call("PetService.get_pet", {"name": 5})

    async def test_unknown_keyword_is_found_before_the_call(self) -> None:
        with self.assertRaises(TypeError):
            await self.proxy.get_pet(nmae="rex")
        with self.assertRaises(AttributeError):
            await self.proxy.fly()

    async def test_headers_identify(self) -> None:
        headers = {"X-Hero-User": "user:bob", "X-Hero-Claims": "viewer@root"}
        proxy = self.client.proxy(PetService, headers=headers)
        self.assertEqual(await proxy.hello(), "hello user:bob")
        with self.assertRaises(Forbidden):
            await proxy.add_pet(name="tom")
        proxy = self.client.proxy(PetService, headers={"X-Hero-Claims": "anonymous"})
        with self.assertRaises(Unauthenticated):
            await proxy.get_pet(name="rex")

    async def test_request_id_is_kept(self) -> None:
        await self.proxy.add_pet(name="tom", request_id="r1")
        await self.proxy.add_pet(name="tom", request_id="r1")
        with self.assertRaises(Conflict):
            await self.proxy.add_pet(name="tom")
        self.assertEqual(self.pets.calls, ["add_pet tom"] * 2)

    async def test_no_answer_in_time(self) -> None:
        with self.assertRaises(Timeout) as caught:
            await self.proxy.sleep(timeout=0.05)
        self.assertIn("PetService.sleep", caught.exception.detail)


class HttpsTests(DatabaseTestCase):
    """Over TLS, where connections are kept."""

    async def serve(self, tls: ServerTls, port: int = 0) -> int:
        rpc = {"zoo": {PetService: self.pets}}
        site = service_site(reactor=reactor, name="x", description="", access="cluster", rpc=rpc)
        self.door = WrappingFactory(TLSMemoryBIOFactory(tls, False, site))
        self.port = reactor.listenTCP(port, self.door, interface="127.0.0.1")
        return self.port.getHost().port

    async def stop(self) -> None:
        await self.port.stopListening()
        for connection in list(self.door.protocols):
            connection.transport.abortConnection()

    async def test_connection_is_used_again_and_a_restart_is_not_noticed(self) -> None:
        master = new_master(self)
        tls = ServerTls(new_worker(self, master, "127.0.0.1").tls)
        number = await self.serve(tls)
        url = f"https://127.0.0.1:{number}/api/root/zoo/rpc"
        client = RpcClient(reactor, url, tls=ClusterTlsPolicy(master.tls, expect_role="node"))
        proxy = client.proxy(PetService)
        for _ in range(3):
            await proxy.get_pet(name="rex")
        self.assertEqual(len(self.door.protocols), 1)
        await self.stop()
        await self.serve(tls, number)
        await proxy.add_pet(name="tom")
        self.assertEqual(self.pets.calls, ["add_pet tom"])
        await client.close()
        await self.stop()


class Scripted(Protocol):
    """Answers each connection with the next of the factory's *answers*, None to say nothing."""

    def dataReceived(self, data: bytes) -> None:
        if b"\r\n\r\n" not in data and not self.factory.heard:
            return
        self.factory.heard.append(data)
        answer = self.factory.answers.pop(0) if self.factory.answers else None
        if answer is not None:
            self.transport.write(answer)
        self.transport.loseConnection()


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class MisbehavingServerTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "rpc.sock"
        self.factory = Factory.forProtocol(Scripted)
        self.factory.heard = []
        port = reactor.listenUNIX(str(self.path), self.factory)
        self.addCleanup(port.stopListening)
        self.client = RpcClient(reactor, unix_url(self.path, "root", "zoo"))

    async def answer(self, *answers: bytes | None, **options: Any) -> HeroError:
        self.factory.answers = list(answers)
        try:
            await self.client.call("PetService.hello", **options)
        except HeroError as error:
            return error
        self.fail("the call succeeded")

    async def test_answers_that_are_no_answer(self) -> None:
        for body in (
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b"NaN",
            b"[" * 10_000,
            b'{"jsonrpc":"2.0","id":1}',
            b'{"jsonrpc":"2.0","id":99,"result":1}',
        ):
            error = await self.answer(http("200 OK", body))
            self.assertIsInstance(error, RemoteError, body)

    async def test_foreign_errors(self) -> None:
        error = await self.answer(
            http("200 OK", b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}')
        )
        self.assertIsInstance(error, MethodNotFound)
        for value in (b"1", b'"x"', b'{"code":[],"message":"x"}', b'{"code":5,"message":"x"}'):
            error = await self.answer(
                http("200 OK", b'{"jsonrpc":"2.0","id":1,"error":' + value + b"}")
            )
            self.assertIsInstance(error, RemoteError)

    async def test_problem_documents_of_the_router(self) -> None:
        for status, cls in (
            (401, Unauthenticated),
            (403, Forbidden),
            (404, Unavailable),
            (413, LimitExceeded),
            (502, Unavailable),
            (503, Unavailable),
            (504, Timeout),
            (500, RemoteError),
        ):
            body = json.dumps({"status": status, "reason": "r", "detail": "what happened"})
            error = await self.answer(
                http(f"{status} X", body.encode(), "application/problem+json")
            )
            self.assertIs(type(error), cls)
            self.assertEqual((error.detail, error.data["reason"]), ("what happened", "r"))

    async def test_redirect_is_not_followed(self) -> None:
        answer = b"HTTP/1.1 307 X\r\nLocation: http://example.com/\r\nContent-Length: 0\r\n\r\n"
        self.assertIsInstance(await self.answer(answer), RemoteError)

    async def test_lost_connection(self) -> None:
        self.assertIsInstance(await self.answer(None), ConnectionLost)
        self.assertEqual(len(self.factory.heard), 1)

    async def test_cut_off_answer(self) -> None:
        answer = http("200 OK", b'{"jsonrpc":"2.0","id":1,"result":1}')[:-5]
        self.assertIsInstance(await self.answer(answer), ConnectionLost)

    async def test_answer_that_is_not_http(self) -> None:
        self.assertIsInstance(await self.answer(b"SSH-2.0-OpenSSH\r\n\r\n"), Unavailable)

    async def test_repeatable_call_is_repeated_once(self) -> None:
        self.factory.answers = [None, http("200 OK", b'{"jsonrpc":"2.0","id":1,"result":7}')]
        self.assertEqual(await self.client.call("PetService.hello", repeatable=True), 7)
        self.assertIsInstance(await self.answer(None, None, None, repeatable=True), ConnectionLost)
        self.assertEqual(len(self.factory.heard), 4)

    async def test_answer_is_bounded(self) -> None:
        self.patch(client_module, "MAX_ANSWER", 1000)
        self.assertIsInstance(await self.answer(http("200 OK", b" " * 2000)), LimitExceeded)

    async def test_head_of_an_answer_is_bounded(self) -> None:
        for endless in (
            b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000 + b"\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
        ):
            error = await self.answer(endless)
            self.assertIsInstance(error, LimitExceeded)
            self.assertIn("head", error.detail)

    async def test_ipv6(self) -> None:
        try:
            port = reactor.listenTCP(0, self.factory, interface="::1")
        except CannotListenError:
            raise SkipTest("no IPv6 here") from None
        self.addCleanup(port.stopListening)
        place = f"[::1]:{port.getHost().port}"
        self.client = RpcClient(reactor, f"http://{place}/api")
        self.factory.answers = [http("200 OK", b'{"jsonrpc":"2.0","id":1,"result":7}')]
        self.assertEqual(await self.client.call("PetService.hello"), 7)
        await self.client.close()
        self.assertIn(f"\r\nHost: {place}\r\n".encode(), self.factory.heard[0])

    async def test_nobody_listens(self) -> None:
        for url in ("unix:///nowhere.sock:/api", "http://127.0.0.1:1/", "https://127.0.0.1:1/"):
            self.client = RpcClient(reactor, url)
            error = await self.answer()
            self.assertIs(type(error), Unavailable)
            self.assertIn(url, error.detail)


class UrlTests(SynchronousTestCase):
    def test_unix(self) -> None:
        url = unix_url(Path("/run/hero/a b/rpc.sock"), "root", "cloud")
        self.assertEqual(url, "unix:///run/hero/a b/rpc.sock:/api/root/cloud/rpc")
        parsed = parse_url(url)
        self.assertEqual(parsed.socket, Path("/run/hero/a b/rpc.sock"))
        self.assertEqual(parsed.http, "http://localhost/api/root/cloud/rpc")

    def test_router(self) -> None:
        url = router_url("https://master:9998/", "hero_compute/explorer_rpc", "root", "explorer")
        self.assertEqual(url, "https://master:9998/hero_compute/explorer_rpc/api/root/explorer/rpc")
        self.assertEqual(parse_url(url).http, url)

    def test_others_are_refused(self) -> None:
        for url in ("", "master:9998", "unix://relative.sock:/x", "unix:///x.sock", "ftp://x/"):
            self.assertRaises(InvalidConfiguration, parse_url, url)
        for place in ("[::1", "h:abc", "h:99999", "h:0", "a b", "h\n", "..", "[fe80::1%25lo]", ""):
            self.assertRaises(InvalidConfiguration, parse_url, f"https://{place}/x")

    def test_password_is_refused_and_not_repeated(self) -> None:
        with self.assertRaises(InvalidConfiguration) as caught:
            parse_url("https://alice:hunter2@master/x")
        self.assertNotIn("hunter2", str(caught.exception.to_data()))

    def test_socket_that_does_not_fit_an_address(self) -> None:
        with self.assertRaises(SocketPathTooLong):
            parse_url("unix:///" + "x" * 107 + ":/api")
