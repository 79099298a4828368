"""Who gets in, and as whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hero.identity.certificates import PeerIdentity
from hero.router.door import Door
from tests.router.backend import H11Service
from tests.router.harness import RouterCase


def get(path: bytes, *fields: bytes) -> bytes:
    lines = [b"GET " + path + b" HTTP/1.1", b"Host: a", b"Connection: close", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class AccessTests(RouterCase):
    default_access = "cluster"

    async def test_anonymous_may_call_public_services_only(self) -> None:
        self.serve(H11Service({"access": "public"}), "open", "web")
        self.serve(H11Service({"access": "cluster"}), "closed", "web")
        self.serve(H11Service(), "silent", "web")
        self.assertIn(b" 200 OK\r\n", await self.ask(get(b"/open/web/")))
        for path in (b"/closed/web/", b"/silent/web/", b"/closed/web/health/../x"):
            answer = await self.ask(get(path))
            self.assertNotIn(b" 200 OK\r\n", answer)
        answer = await self.ask(get(b"/closed/web/"))
        self.assertIn(b" 401 Unauthorized\r\n", answer)
        self.assertIn(b"WWW-Authenticate: Bearer", answer)
        self.assertIn(b" 200 OK\r\n", await self.ask(get(b"/closed/web/health")))
        posted = get(b"/closed/web/health").replace(b"GET", b"POST")
        self.assertIn(b" 401 Unauthorized\r\n", await self.ask(posted))

    async def test_health_is_public(self) -> None:
        self.serve(H11Service({"access": "cluster"}))
        self.assertIn(b" 200 OK\r\n", await self.ask(get(b"/demo/web/health")))
        self.assertIn(b" 401 ", await self.ask(get(b"/demo/web/health/x")))

    async def test_token_names_the_caller_and_is_not_passed_on(self) -> None:
        service = H11Service({"access": "cluster"})
        self.serve(service)
        self.tokens.add("hero_good", "alice", "operator@blue", context="blue")
        answer = await self.ask(get(b"/demo/web/", b"Authorization: Bearer hero_good"))
        self.assertIn(b" 200 OK\r\n", answer)
        seen = service.seen[0]
        self.assertEqual(seen.values(b"x-hero-user"), [b"user:alice"])
        self.assertEqual(seen.values(b"x-hero-claims"), [b"operator@blue"])
        self.assertEqual(seen.values(b"x-hero-context"), [b"blue"])
        self.assertEqual(seen.values(b"authorization"), [])

    async def test_authorization_that_is_not_ours_is_passed_on(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        await self.ask(get(b"/demo/web/", b"Authorization: Basic eDp5"))
        self.assertEqual(service.seen[0].values(b"authorization"), [b"Basic eDp5"])
        self.assertEqual(service.seen[0].values(b"x-hero-user"), [b"anonymous"])

    async def test_bad_token_is_refused_even_where_nobody_needs_one(self) -> None:
        self.serve(H11Service({"access": "public"}))
        answer = await self.ask(get(b"/demo/web/", b"Authorization: Bearer hero_bad"))
        self.assertIn(b" 401 Unauthorized\r\n", answer)
        self.assertNotIn(b"hero_bad", answer)

    async def test_manifest_that_cannot_be_read_closes_the_route(self) -> None:
        service = H11Service({"access": "everybody"})
        self.default_access = "public"
        self.serve(service)
        self.assertIn(b" 401 ", await self.ask(get(b"/demo/web/")))

    async def test_manifest_that_an_editor_marked_as_utf_8_counts(self) -> None:
        service = H11Service()
        good = service.answer
        body = b'\xef\xbb\xbf{"access": "cluster"}'

        def marked(request: Any) -> bytes:
            good(request)
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

        service.answer = marked  # type: ignore[method-assign]
        self.default_access = "public"
        self.serve(service)
        self.assertIn(b" 401 ", await self.ask(get(b"/demo/web/")))

    async def test_manifest_that_cannot_be_had_yet_is_asked_for_again(self) -> None:
        service = H11Service({"access": "public"})
        good = service.answer
        self.default_access = "public"

        def broken(request: Any) -> bytes:
            good(request)
            return b"HTTP/1.1 503 Starting\r\nContent-Length: 0\r\n\r\n"

        service.answer = broken  # type: ignore[method-assign]
        self.serve(service)
        self.assertIn(b" 401 ", await self.ask(get(b"/demo/web/")))
        service.answer = good  # type: ignore[method-assign]
        self.routes.probe()
        while b" 200 OK" not in await self.ask(get(b"/demo/web/")):
            await self.pause()


class CertificateTests(RouterCase):
    """As if the client had shown a certificate; `test_tls` has real ones."""

    def make_door(self) -> Door:
        self.roles = frozenset({"node"})
        self.removed: set[str] = set()
        self.not_after = datetime.now(UTC) + timedelta(days=1)

        def peer(transport: Any) -> PeerIdentity:
            return PeerIdentity(
                cluster_id="c", node_sid="node-1", roles=self.roles, not_after=self.not_after
            )

        door = Door(self.tokens, removed=self.removed, peer_identity=peer)
        identify = door.identify

        def identify_as_secure(connection: Any, *more: Any) -> Any:
            connection.secure = True
            return identify(connection, *more)

        door.identify = identify_as_secure  # type: ignore[method-assign]
        return door

    async def test_node_is_a_node(self) -> None:
        service = H11Service({"access": "cluster"})
        self.serve(service)
        await self.ask(get(b"/demo/web/", b"Hero-On-Behalf-Of: user:alice"))
        seen = service.seen[0]
        self.assertEqual(seen.values(b"x-hero-user"), [b"node:node-1"])
        self.assertEqual(seen.values(b"x-hero-claims"), [b"node"])
        self.assertEqual(seen.values(b"x-hero-on-behalf-of"), [])

    async def test_explorer_may_name_the_user_it_acts_for(self) -> None:
        self.roles = frozenset({"node", "explorer"})
        service = H11Service({"access": "cluster"})
        self.serve(service)
        await self.ask(get(b"/demo/web/", b"Hero-On-Behalf-Of: user:alice"))
        seen = service.seen[0]
        self.assertEqual(seen.values(b"x-hero-claims"), [b"explorer, node"])
        self.assertEqual(seen.values(b"x-hero-on-behalf-of"), [b"user:alice"])

    async def test_removed_node_is_refused(self) -> None:
        self.removed.add("node-1")
        self.serve(H11Service({"access": "public"}))
        self.assertIn(b"node_removed", await self.ask(get(b"/demo/web/")))

    async def test_certificate_that_expired_on_its_connection_is_refused(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        self.not_after = datetime.now(UTC) - timedelta(seconds=1)
        answer = await self.ask(get(b"/demo/web/").replace(b"Connection: close\r\n", b""))
        self.assertIn(b" 401 Unauthorized\r\n", answer)
        self.assertIn(b"certificate_expired", answer)
        self.assertEqual(service.seen, [])
