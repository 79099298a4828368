"""Certificates of people, which make nobody a node."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hero.errors import InvalidConfiguration
from hero.identity.authority import Authority
from hero.identity.certificates import (
    build_leaf,
    build_request,
    new_key,
    read_cluster_id,
    read_identity,
    to_pem,
)
from hero.identity.claims import Claim
from hero.identity.errors import CertificateRefused
from hero.identity.node import NodeIdentity
from hero.identity.tls import ServerTls, bearer_client_policy
from hero.identity.tls_errors import explain_failure
from hero.identity.user_certificates import read_peer, read_user
from tests.identity.cluster import call, new_master, serve
from tests.identity.test_tls import PlainClient, PlainServer

HOUR = timedelta(hours=1)
VIEWER = Claim("viewer", "lab")


class UserCertificateTests(SynchronousTestCase):
    """What is in a certificate, and what is not."""

    def setUp(self) -> None:
        self.authority = Authority.load(new_master(self).tls)
        self.key = new_key()

    def issue(self, user: str = "alice", claim: Claim = VIEWER) -> x509.Certificate:
        return self.authority.issue_to_user(
            self.key.public_key(), user=user, claim=claim, lifetime=HOUR
        )

    def test_names_the_person_and_the_right(self) -> None:
        found = read_user(self.issue())
        assert found is not None
        self.assertEqual((found.user, found.claims, found.context), ("alice", {VIEWER}, "lab"))
        self.assertEqual(found.cluster_id, self.authority.cluster_id)
        admin = read_user(self.issue(claim=Claim("admin")))
        assert admin is not None
        self.assertEqual((admin.claims, admin.context), ({Claim("admin")}, "root"))

    def test_person_is_no_node_and_no_authority(self) -> None:
        """Not even by a name that looks like a node's."""
        made = self.issue("node-0123456789")
        self.assertIsNone(read_identity(made))
        self.assertIsNone(read_cluster_id(made))
        self.assertRaises(
            CertificateRefused, self.authority.check_renewal, to_pem(made), build_request(self.key)
        )

    def test_node_is_no_person(self) -> None:
        [node, _] = x509.load_pem_x509_certificates(
            self.authority.issue(
                build_request(self.key), node_sid="node-0123456789", addresses=[], explorer=True
            ).encode()
        )
        self.assertIsNone(read_user(node))
        self.assertEqual(read_peer(node), read_identity(node))

    def test_names_that_contradict_each_other_name_nobody(self) -> None:
        mine = f"hero://{self.authority.cluster_id}"
        for uris in (
            [f"{mine}/user/alice", f"{mine}/admin/bob"],
            [f"{mine}/user/alice", f"{mine}/node/node-0123456789"],
            [f"{mine}/user/alice", "hero://another/admin/alice"],
            [f"{mine}/user/alice", "https://example.org/"],
            [f"{mine}/user/alice", f"{mine}/explorer/alice"],
            [f"{mine}/admin/alice"],
            [f"{mine}/user/al ice"],
        ):
            made = build_leaf(
                authority=self.authority.certificate,
                authority_key=self.authority._key,
                public_key=self.key.public_key(),
                name="x",
                uris=uris,
                addresses=[],
                usages=[ExtendedKeyUsageOID.CLIENT_AUTH],
                now=self.authority._now(),
                lifetime=HOUR,
            )
            self.assertIsNone(read_peer(made), uris)

    def test_names_that_cannot_stand_in_a_header_are_refused(self) -> None:
        for user, claim in (
            ("a/b", VIEWER),
            ("", VIEWER),
            ("a\r\nb", VIEWER),
            ("alice", Claim("viewer", "a/b")),
        ):
            self.assertRaises(InvalidConfiguration, self.issue, user, claim)


class ConnectionTests(TestCase):
    """Over real TLS."""

    async def test_person_is_known_at_the_other_end(self) -> None:
        master = new_master(self, "127.0.0.1")
        key = new_key()
        made = Authority.load(master.tls).issue_to_user(
            key.public_key(), user="alice", claim=VIEWER, lifetime=HOUR
        )
        greeter, port = await serve(self, reactor, ServerTls(master.tls))
        await call(reactor, PlainClient(key=key, certificate=made), port)
        self.assertEqual(greeter.peers, [read_user(made)])

    async def test_person_cannot_pose_as_a_server(self) -> None:
        """Not for a client of ours that asks for no role, either."""
        master = new_master(self, "127.0.0.1")
        key = new_key()
        made = Authority.load(master.tls).issue_to_user(
            key.public_key(), user="localhost", claim=Claim("admin"), lifetime=HOUR
        )
        _, port = await serve(self, reactor, PlainServer(key, made))
        ca = NodeIdentity.load(master.tls).ca_pem
        creator = bearer_client_policy(ca_pem=ca).expecting().creatorForNetloc(b"localhost", 443)
        try:
            await call(reactor, creator, port)
        except Exception as error:
            self.assertIn("not made for this use", str(explain_failure(error)))
        else:
            self.fail("it was believed")
