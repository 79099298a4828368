"""The console behind its two doors, over memory."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import attrs
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hero.errors import Unauthenticated, Unavailable
from hero.events import EventLog
from hero.explorer.model import Session
from hero.rpc.event_stream import EventsResource
from hero.rpc.tree import Tree
from hero.ui.console import Console
from hero.ui.door import Door, LoopbackDoor, RouterDoor
from hero.ui.relay import EventRelay
from hero.ui.visitor import Visitor

NOW = 1_900_000_000
CODE = "one-time-code-0123456789"
SECRET = "session-secret-0123456789"
SESSION = Session(
    secret=SECRET,
    user="user:ada",
    claims="viewer@lab",
    context="lab",
    expires_at=datetime.fromtimestamp(NOW + 3600, UTC),
)
LOOPBACK = "http://127.0.0.1:9001"
ROUTER = "https://master"


@attrs.define
class MemoryExplorer:
    """An explorer with one login code; remembers who asked for the overview."""

    codes: set[str] = attrs.field(factory=lambda: {CODE})
    sessions: set[str] = attrs.field(factory=set)
    asked_by: list[Visitor] = attrs.field(factory=list)
    down: bool = False

    async def redeem(self, code: str) -> Session:
        if code not in self.codes:
            raise Unauthenticated("the code is unknown, used or expired")
        self.codes.remove(code)
        self.sessions.add(SECRET)
        return SESSION

    async def session(self, secret: str) -> Visitor:
        if secret not in self.sessions:
            raise Unauthenticated("no such session")
        return Visitor(user="user:ada", claims="viewer@lab", context="lab", session=True)

    async def end(self, secret: str) -> None:
        self.sessions.discard(secret)

    async def overview(self, visitor: Visitor) -> dict[str, Any]:
        if self.down:
            raise Unavailable("the explorer does not answer")
        self.asked_by.append(visitor)
        return {"nodes": [], "visitor": {"user": visitor.user}}


class ConsoleTestCase(SynchronousTestCase):
    """A console with an explorer in memory."""

    def setUp(self) -> None:
        self.explorer = MemoryExplorer()
        self.clock = Clock()
        self.log = EventLog(self.clock)
        upstream = Tree()
        upstream.putChild(b"events", EventsResource(self.log, self.clock))
        self.upstream = RequestTraversalAgent(upstream)

    def client(self, door: Door) -> StubTreq:
        console = Console(
            door=door,
            explorer=self.explorer,
            events=EventRelay(self.clock, self.upstream),
            now=lambda: NOW,
        )
        root = Tree()
        for name, resource in console.resources().items():
            root.putChild(name, resource)
        return StubTreq(root)

    def loopback(self) -> StubTreq:
        return self.client(LoopbackDoor(9001))

    def router(self) -> StubTreq:
        return self.client(RouterDoor())

    def login(self, client: StubTreq, base: str = LOOPBACK, **headers: str) -> Any:
        return self.successResultOf(
            client.post(f"{base}/login", json={"code": CODE}, headers=headers)
        )

    def get(self, client: StubTreq, url: str, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.successResultOf(client.get(url, headers=sent))

    def json(self, client: StubTreq, response: Any) -> Any:
        return self.successResultOf(client.json_content(response))


class LoopbackTests(ConsoleTestCase):
    """127.0.0.1: only the cookie counts."""

    def test_nobody_sees_anything_without_a_session(self) -> None:
        """401, with the command that helps."""
        client = self.loopback()
        for path in ("overview", "events"):
            response = self.get(client, f"{LOOPBACK}/{path}")
            self.assertEqual(response.code, 401)
            self.assertIn("hero ui", self.json(client, response)["hint"])
        self.assertEqual(self.explorer.asked_by, [])

    def test_identity_headers_are_not_believed(self) -> None:
        """Any process and any user of this machine could write them."""
        client = self.loopback()
        response = self.get(
            client, f"{LOOPBACK}/overview", X_Hero_User="local", X_Hero_Claims="admin"
        )
        self.assertEqual(response.code, 401)

    def test_a_code_buys_a_session_that_acts_with_its_owners_rights(self) -> None:
        """The explorer is asked in the name of the session's user, in the user's context."""
        client = self.loopback()
        self.assertEqual(self.login(client).code, 200)
        response = self.get(client, f"{LOOPBACK}/overview", Cookie=f"hero_session={SECRET}")
        self.assertEqual(response.code, 200)
        [visitor] = self.explorer.asked_by
        self.assertEqual((visitor.user, visitor.context), ("user:ada", "lab"))
        self.assertEqual(
            visitor.headers, {"X-Hero-User": "user:ada", "X-Hero-Claims": "viewer@lab"}
        )

    def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(self) -> None:
        """Secure, HttpOnly, SameSite=Strict, and gone when the session is."""
        response = self.login(self.loopback())
        [cookie] = response.headers.getRawHeaders("Set-Cookie")
        self.assertTrue(cookie.startswith(f"hero_session={SECRET};"))
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        self.assertEqual(
            attributes, {"path=/", "max-age=3600", "secure", "httponly", "samesite=strict"}
        )

    def test_a_code_works_once(self) -> None:
        """The second time is refused and sets no cookie."""
        client = self.loopback()
        self.login(client)
        again = self.login(client)
        self.assertEqual(again.code, 401)
        self.assertIsNone(again.headers.getRawHeaders("Set-Cookie"))

    def test_nonsense_is_no_code(self) -> None:
        """Whatever is posted, the answer is 401 and the explorer is not asked."""
        client = self.loopback()
        for body in (
            b"",
            b"[]",
            b"{}",
            b'{"code": 7}',
            b'{"code": ""}',
            b"\xff",
            b'{"code":"a b"}',
        ):
            response = self.successResultOf(
                client.post(
                    f"{LOOPBACK}/login", data=body, headers={"Content-Type": "application/json"}
                )
            )
            self.assertEqual(response.code, 401, body)

    def test_other_sites_cannot_sign_anybody_in_or_out(self) -> None:
        """A page of another origin is refused, and so is what a form can send."""
        client = self.loopback()
        for headers in (
            {"Origin": "https://elsewhere.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:8080"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            self.assertEqual(self.login(client, **headers).code, 403, headers)
        form = self.successResultOf(client.post(f"{LOOPBACK}/login", data={"code": CODE}))
        self.assertEqual(form.code, 415)
        self.assertEqual(self.login(client, Origin=LOOPBACK).code, 200)

    def test_a_name_that_was_made_to_point_here_is_refused(self) -> None:
        """DNS rebinding: the request is for another host, or another port of this one."""
        client = self.loopback()
        for base in ("http://evil.example:9001", "http://127.0.0.1:9002", "http://127.0.0.1"):
            for path in ("/", "/overview", "/static/console.js"):
                self.assertEqual(self.get(client, base + path).code, 421, base + path)
        self.assertEqual(self.get(client, "http://localhost:9001/").code, 200)

    def test_signing_out_ends_the_session(self) -> None:
        """The cookie goes, and the secret that was in it is worth nothing."""
        client = self.loopback()
        self.login(client)
        response = self.successResultOf(
            client.post(f"{LOOPBACK}/logout", json={}, headers={"Cookie": f"hero_session={SECRET}"})
        )
        [cookie] = response.headers.getRawHeaders("Set-Cookie")
        self.assertIn("Max-Age=0", cookie)
        self.assertEqual(self.explorer.sessions, set())

    def test_an_explorer_that_is_down_is_said_to_be(self) -> None:
        """503 with the reason, so that the page can tell."""
        client = self.loopback()
        self.login(client)
        self.explorer.down = True
        response = self.get(client, f"{LOOPBACK}/overview", Cookie=f"hero_session={SECRET}")
        self.assertEqual(response.code, 503)
        self.assertEqual(self.json(client, response)["reason"], "unavailable")


class RouterTests(ConsoleTestCase):
    """Behind the router its headers say who visits."""

    def test_the_routers_identity_counts(self) -> None:
        """A token or certificate at the door needs no cookie."""
        client = self.router()
        response = self.get(
            client,
            f"{ROUTER}/overview",
            X_Hero_User="user:bob",
            X_Hero_Claims="operator@shop",
            X_Hero_Context="shop",
        )
        self.assertEqual(response.code, 200)
        [visitor] = self.explorer.asked_by
        self.assertEqual(visitor, Visitor(user="user:bob", claims="operator@shop", context="shop"))

    def test_an_anonymous_visitor_needs_a_session(self) -> None:
        """The cookie counts where the router knows nobody."""
        client = self.router()
        nobody = {"X_Hero_User": "anonymous", "X_Hero_Claims": "anonymous"}
        self.assertEqual(self.get(client, f"{ROUTER}/overview", **nobody).code, 401)
        self.login(client, ROUTER, **{"X-Hero-User": "anonymous", "X-Hero-Claims": "anonymous"})
        response = self.get(client, f"{ROUTER}/overview", Cookie=f"hero_session={SECRET}", **nobody)
        self.assertEqual(response.code, 200)
        self.assertEqual(self.explorer.asked_by[0].user, "user:ada")

    def test_the_page_works_below_a_prefix(self) -> None:
        """Relative links start from the prefix, and the cookie stays below it."""
        client = self.router()
        forwarded = {
            "X-Forwarded-Prefix": "/hero_compute/ui",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "master:9998",
        }
        page = self.successResultOf(client.get(f"{ROUTER}/", headers=forwarded))
        text = self.successResultOf(client.text_content(page))
        self.assertIn('<base href="/hero_compute/ui/">', text)
        response = self.login(client, ROUTER, Origin="https://master:9998", **forwarded)
        self.assertEqual(response.code, 200)
        self.assertIn("Path=/hero_compute/ui/;", response.headers.getRawHeaders("Set-Cookie")[0])

    def test_a_strange_prefix_is_left_out(self) -> None:
        """What is no plain path never gets into the page."""
        client = self.router()
        for prefix in ('"><script>', "//evil.example", "/a/../b", "javascript:"):
            page = self.get(client, f"{ROUTER}/", X_Forwarded_Prefix=prefix)
            self.assertIn('<base href="/">', self.successResultOf(client.text_content(page)))


class PageTests(ConsoleTestCase):
    """What a browser is given."""

    def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_inline(self) -> None:
        """The policy allows the console's own files alone, and the page needs no more."""
        client = self.loopback()
        page = self.get(client, f"{LOOPBACK}/")
        [policy] = page.headers.getRawHeaders("Content-Security-Policy")
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)
        text = self.successResultOf(client.text_content(page))
        self.assertEqual(re.findall(r"\son\w+=|style=|<style|https?://", text), [])
        self.assertEqual(re.findall(r"<script(?![^>]*\ssrc=)", text), [])
        for address in re.findall(r'(?:src|href)="(static/[^"]+)"', text):
            self.assertEqual(self.get(client, f"{LOOPBACK}/{address}").code, 200, address)

    def test_head_is_answered_everywhere(self) -> None:
        """Like GET, without a body; a place for POST alone is none for HEAD."""
        client = self.loopback()
        for path, status in (("/", 200), ("/static/console.js", 200), ("/login", 404)):
            answer = self.successResultOf(client.head(f"{LOOPBACK}{path}"))
            self.assertEqual(answer.code, status, path)

    def test_every_answer_is_guarded(self) -> None:
        """No answer can be framed, sniffed or kept."""
        client = self.loopback()
        for path in ("", "overview", "static/console.css"):
            headers = self.get(client, f"{LOOPBACK}/{path}").headers
            self.assertIn(
                "frame-ancestors 'none'", headers.getRawHeaders("Content-Security-Policy")[0]
            )
            self.assertEqual(headers.getRawHeaders("X-Content-Type-Options"), ["nosniff"])
            self.assertEqual(headers.getRawHeaders("Cache-Control"), ["no-store"])


class EventsTests(ConsoleTestCase):
    """Live events come from the explorer, for the visitor."""

    def follow(self, client: StubTreq, **headers: str) -> list[bytes]:
        self.login(client)
        response = self.successResultOf(
            client.get(
                f"{LOOPBACK}/events", headers={"Cookie": f"hero_session={SECRET}", **headers}
            )
        )
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["text/event-stream"])
        seen: list[bytes] = []
        client.collect(response, seen.append)
        return seen

    def flush(self, client: StubTreq) -> None:
        self.upstream.flush()
        client.flush()

    def test_events_arrive_as_they_happen(self) -> None:
        """Those of the visitor's context, and no others."""
        client = self.loopback()
        seen = self.follow(client)
        self.log.publish("vm", {"name": "mine", "context": "lab"})
        self.log.publish("vm", {"name": "theirs", "context": "shop"})
        self.flush(client)
        text = b"".join(seen)
        self.assertIn(b"event: vm", text)
        self.assertIn(b'"mine"', text)
        self.assertNotIn(b'"theirs"', text)

    def test_a_browser_that_comes_back_misses_nothing(self) -> None:
        """Last-Event-ID goes to the explorer."""
        first = self.log.publish("vm", {"name": "first", "context": "lab"})
        self.log.publish("vm", {"name": "second", "context": "lab"})
        client = self.loopback()
        seen = self.follow(client, **{"Last-Event-ID": str(first)})
        self.flush(client)
        self.assertIn(b'"second"', b"".join(seen))
        self.assertNotIn(b'"first"', b"".join(seen))

    def test_a_stream_ends_so_that_the_session_is_looked_at_again(self) -> None:
        """After a while the browser has to come back with its cookie."""
        client = self.loopback()
        self.follow(client)
        self.assertNotEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(300)
        self.flush(client)
        self.assertEqual(self.clock.getDelayedCalls(), [])
