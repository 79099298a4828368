"""Tokens that a machine makes for its own router."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from hero.errors import InvalidConfiguration, NotFound
from hero.identity.own_tokens import OwnTokens
from hero.identity.tokens import TokenFile, TokenFiles, hash_secret
from tests.identity.cluster import new_home

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class OwnTokensTests(SynchronousTestCase):
    """`OwnTokens`, and the router's view of the same file."""

    def setUp(self) -> None:
        self.paths = new_home(self)
        self.path = self.paths.own_tokens_file
        self.now = NOW
        self.tokens = OwnTokens(self.path, now=lambda: self.now)
        self.cluster = TokenFile(self.paths.tokens_file, now=lambda: self.now)
        self.router = TokenFiles(self.cluster, TokenFile(self.path, now=lambda: self.now))

    def test_router_accepts_one_at_once(self) -> None:
        """With the rights that were given, in the context that was named."""
        made = self.tokens.create(user="alice", role="viewer", context="lab")
        found = self.router.lookup(made.token)
        self.assertEqual(
            (found.sid, found.user, found.claims, found.context),
            (made.sid, "user:alice", "viewer@lab", "lab"),
        )
        self.assertEqual(self.tokens.create(user="bob", role="admin").claims, "admin")

    def test_secret_is_not_kept(self) -> None:
        """The file is its owner's alone, and holds a hash."""
        made = self.tokens.create(user="alice", role="viewer")
        content = self.path.read_text()
        self.assertNotIn(made.token, content)
        self.assertIn(hash_secret(made.token), content)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual([token.token for token in self.tokens.records()], [None])

    def test_revoked_one_is_refused(self) -> None:
        """The others go on."""
        gone = self.tokens.create(user="alice", role="viewer")
        kept = self.tokens.create(user="bob", role="viewer")
        self.assertEqual(self.tokens.revoke(gone.sid).user, "user:alice")
        self.assertIsNone(self.router.lookup(gone.token))
        self.assertEqual(self.router.lookup(kept.token).sid, kept.sid)
        self.assertEqual([token.sid for token in self.tokens.records()], [kept.sid])
        self.assertRaises(NotFound, self.tokens.revoke, gone.sid)

    def test_lifetime_ends(self) -> None:
        """An expired one is refused, and still listed."""
        made = self.tokens.create(user="alice", role="viewer", lifetime=60)
        self.now = NOW + timedelta(seconds=59)
        self.assertIsNotNone(self.router.lookup(made.token))
        self.now = NOW + timedelta(seconds=60)
        self.assertIsNone(self.router.lookup(made.token))
        self.assertEqual(self.tokens.records()[0].expires_at, self.now)

    def test_tokens_of_the_cluster_come_and_go_beside_them(self) -> None:
        """An explorer that replaces its list takes nothing away."""
        made = self.tokens.create(user="alice", role="viewer")
        self.cluster.write([])
        self.assertEqual(self.router.lookup(made.token).sid, made.sid)
        self.assertEqual(self.cluster.records(), [])

    def test_name_that_cannot_stand_in_a_header_is_refused(self) -> None:
        for user, context in (("a b", "root"), ("", "root"), ("a", "x\r\nX-Hero-User: root")):
            self.assertRaises(
                InvalidConfiguration,
                self.tokens.create,
                user=user,
                role="viewer",
                context=context,
            )
        self.assertFalse(self.path.exists())

    def test_broken_file_is_left_alone(self) -> None:
        """Nothing is written over what cannot be read."""
        self.path.write_text("[{")
        for act in (
            self.tokens.records,
            lambda: self.tokens.create(user="a", role="viewer"),
            lambda: self.tokens.revoke("token-1"),
        ):
            self.assertRaises(InvalidConfiguration, act)
        self.assertEqual(self.path.read_text(), "[{")
