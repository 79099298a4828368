"""`ReverseProxyResource` in somebody else's `Site`."""

from __future__ import annotations

from typing import Any

import treq
from twisted.internet import reactor
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed
from twisted.web.resource import Resource
from twisted.web.server import Site

from hero.identity.claims import Caller, Claim
from hero.router.proxy import ReverseProxyResource
from tests.router.backend import ANSWER, H11Service, ScriptedService
from tests.router.harness import RouterCase


class MountedTests(RouterCase):
    def mount(self, factory: Any, **more: Any) -> str:
        """The URL below which *factory*'s service is mounted."""
        self.service_port = self.serve(factory)
        proxy = ReverseProxyResource.for_socket(
            reactor, self.directory / "demo/web.sock", limits=self.limits, **more
        )
        root, shop = Resource(), Resource()
        root.putChild(b"shop", shop)
        shop.putChild(b"v1", proxy)
        site = Site(root)
        site.noisy = False
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(proxy.pool.close)
        pool = HTTPConnectionPool(reactor, persistent=False)
        self.addCleanup(pool.closeCachedConnections)
        self.client = treq.client.HTTPClient(Agent(reactor, pool=pool))
        return f"http://127.0.0.1:{port.getHost().port}/shop/v1"

    async def test_request_and_answer_pass(self) -> None:
        service = H11Service()
        url = self.mount(
            service, identify=lambda r: Caller(user="user:al", claims=frozenset({Claim("admin")}))
        )
        body = b"x" * 300_000
        response = await self.client.post(url + "/a%2Fb?c=d", data=body, headers={"X-Own": "1"})
        self.assertEqual((response.code, await response.content()), (200, b"ok"))
        (seen,) = service.seen
        self.assertEqual((seen.method, seen.target, seen.body), (b"POST", b"/a%2Fb?c=d", body))
        self.assertEqual(seen.values(b"x-own"), [b"1"])
        self.assertEqual(seen.values(b"x-hero-user"), [b"user:al"])

    async def test_service_that_is_down_is_a_503(self) -> None:
        url = self.mount(H11Service())
        await self.service_port.stopListening()
        response = await self.client.get(url + "/")
        self.assertEqual(response.code, 503)
        self.assertEqual((await response.json())["reason"], "upstream_refused")

    async def test_chunked_answer_passes_and_a_truncated_one_fails(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            connection.transport.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
            )
            if b"/whole" in data:
                connection.transport.write(b"0\r\n\r\n")
            else:
                connection.transport.loseConnection()

        url = self.mount(ScriptedService(script))
        self.assertEqual(await (await self.client.get(url + "/whole")).content(), b"abc")
        response = await self.client.get(url + "/part")
        with self.assertRaises(ResponseFailed):
            await response.content()

    async def test_head_and_204_do_not_hang(self) -> None:
        def script(connection: Any, data: bytes) -> None:
            head = data.startswith(b"HEAD")
            answer = ANSWER[:-2] if head else b"HTTP/1.1 204 No Content\r\n\r\n"
            connection.transport.write(answer)

        url = self.mount(ScriptedService(script))
        self.assertEqual((await self.client.head(url + "/")).code, 200)
        self.assertEqual((await self.client.get(url + "/")).code, 204)
