"""Bearer tokens and the file of them; removed nodes and theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
from twisted.trial.unittest import SynchronousTestCase

from hero.explorer.model import TokenRecord
from hero.identity.revocation import RevokedNodes
from hero.identity.tokens import TokenFile, hash_secret, new_token, records_digest
from tests.identity.cluster import new_home

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def record(secret: str, **members) -> TokenRecord:
    return attrs.evolve(
        TokenRecord(
            sid="token-" + secret[-4:].lower(),
            hash=hash_secret(secret),
            user="alice",
            claims="operator@root",
            context="root",
        ),
        **members,
    )


class TokenTests(SynchronousTestCase):
    """New tokens."""

    def test_looks(self) -> None:
        """A token has a name, and a secret that can be told from other secrets."""
        sid, secret = new_token()
        self.assertRegex(sid, r"^token-[0-9a-z]{10}\Z")
        self.assertRegex(secret, r"^hero_[A-Za-z0-9_-]{43}\Z")
        self.assertNotEqual(new_token(), new_token())
        self.assertRegex(hash_secret(secret), r"^[0-9a-f]{64}\Z")


class TokenFileTests(SynchronousTestCase):
    """`TokenFile`."""

    def setUp(self) -> None:
        self.path = new_home(self).tokens_file
        self.now = NOW
        self.file = TokenFile(self.path, now=lambda: self.now)

    def test_lookup(self) -> None:
        """A token is found by its secret, and by nothing else."""
        known = record("hero_known")
        self.file.write([known])
        self.assertEqual(self.file.lookup("hero_known"), known)
        for other in ("hero_other", known.hash, known.sid, "", "\ud800"):
            self.assertIsNone(self.file.lookup(other))

    def test_no_file(self) -> None:
        """Without a file there are no tokens."""
        self.assertIsNone(self.file.lookup("hero_known"))
        self.assertEqual(self.file.digest(), records_digest([]))

    def test_expiry(self) -> None:
        """A token counts until its time has come."""
        self.file.write([record("hero_known", expires_at=NOW + timedelta(seconds=1))])
        self.assertIsNotNone(self.file.lookup("hero_known"))
        self.now += timedelta(seconds=1)
        self.assertIsNone(self.file.lookup("hero_known"))

    def test_revoked_at_once(self) -> None:
        """A token that another process takes out of the file is refused from then on."""
        self.file.write([record("hero_one"), record("hero_two")])
        self.assertIsNotNone(self.file.lookup("hero_one"))
        TokenFile(self.path).write([record("hero_two")])
        self.assertIsNone(self.file.lookup("hero_one"))
        self.assertIsNotNone(self.file.lookup("hero_two"))
        self.path.unlink()
        self.assertIsNone(self.file.lookup("hero_two"))

    def test_secrets_stay_out(self) -> None:
        """The file is its owner's, and holds no secret."""
        self.file.write([record("hero_known")])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertNotIn(b"hero_known", self.path.read_bytes())

    def test_garbage(self) -> None:
        """A file that cannot be read holds no tokens, until it can."""
        for garbage in (b'[{"sid":', b"[]x", b'[{"sid":"\xff"}]', b"\x00" * 100, b""):
            self.file.write([record("hero_known")])
            self.assertIsNotNone(self.file.lookup("hero_known"))
            self.path.write_bytes(garbage)
            self.assertIsNone(self.file.lookup("hero_known"))

    def test_digest(self) -> None:
        """Both sides work out the same digest, in whatever order they have the records."""
        one, two = record("hero_one"), record("hero_two")
        self.file.write([one, two])
        self.assertEqual(self.file.digest(), records_digest([two, one]))
        self.assertNotEqual(self.file.digest(), records_digest([one]))


class RevokedNodesTests(SynchronousTestCase):
    """`RevokedNodes`."""

    def setUp(self) -> None:
        self.path = new_home(self).state / "revoked.json"
        self.nodes = RevokedNodes(self.path)

    def test_followed(self) -> None:
        """What another process writes counts at once."""
        self.assertNotIn("node-a", self.nodes)
        other = RevokedNodes(self.path)
        other.add("node-a")
        other.add("node-b")
        self.assertEqual(self.nodes.sids(), {"node-a", "node-b"})
        other.write(["node-b"])
        self.assertNotIn("node-a", self.nodes)

    def test_garbage(self) -> None:
        """A file that cannot be read lets nobody back in."""
        self.nodes.add("node-a")
        self.assertIn("node-a", self.nodes)
        for garbage in (b"garbage", b'["\xff"]', b""):
            self.path.write_bytes(garbage)
            self.assertIn("node-a", self.nodes)
