"""`hero.rpc.identity`: who is believed to have sent a request."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hero.identity.claims import Access, Caller
from hero.rpc.identity import caller_from_headers


def caller(**headers: str) -> Caller:
    """The caller with *headers*, ``x_hero_user`` for ``X-Hero-User``."""
    raw = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return caller_from_headers(Headers(raw), "root")


class CallerTests(SynchronousTestCase):
    def test_without_claims_it_is_the_local_administrator(self) -> None:
        self.assertEqual(caller(), Caller.local_administrator())
        self.assertTrue(caller(x_hero_user="user:alice").may(Access.ADMIN))

    def test_with_claims_it_is_who_the_router_says(self) -> None:
        alice = caller(x_hero_user="user:alice", x_hero_claims="operator@root, viewer@dev")
        self.assertEqual(alice.user, "user:alice")
        self.assertTrue(alice.may(Access.OPERATOR))
        self.assertFalse(alice.may(Access.ADMIN))

    def test_no_claims_at_all_are_no_rights(self) -> None:
        alice = caller(x_hero_user="user:alice", x_hero_claims="")
        self.assertFalse(alice.may(Access.VIEWER))
        self.assertTrue(alice.may(Access.CLUSTER))

    def test_without_a_user_it_is_anonymous(self) -> None:
        for headers in (
            {"x_hero_claims": "admin"},
            {"x_hero_claims": "admin", "x_hero_user": ""},
            {"x_hero_claims": "admin", "x_hero_user": "anonymous"},
            {"x_hero_claims": "anonymous", "x_hero_user": "anonymous"},
        ):
            self.assertEqual(caller(**headers), Caller.anonymous())

    def test_only_an_explorer_acts_for_others(self) -> None:
        for claims, expected in (
            ("explorer, node", "user:alice"),
            ("node", None),
            ("admin", None),
            ("operator@root", None),
        ):
            found = caller(
                x_hero_user="node:node-1",
                x_hero_claims=claims,
                x_hero_on_behalf_of="user:alice",
            )
            self.assertEqual(found.on_behalf_of, expected)
        self.assertIsNone(caller(x_hero_on_behalf_of="user:alice").on_behalf_of)
