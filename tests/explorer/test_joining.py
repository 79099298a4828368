"""Tests for joining, certificates, and removal, through the explorer's own socket."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hero.errors import (
    Conflict,
    Forbidden,
    HeroError,
    InvalidConfiguration,
    NameTaken,
    NotFound,
    Unauthenticated,
)
from hero.explorer.joining import Advertised
from hero.identity.certificates import build_request, new_key
from hero.identity.errors import (
    CertificateRefused,
    JoinTokenExpired,
    JoinTokenOtherCluster,
    JoinTokenUnknown,
    JoinTokenUsed,
)
from hero.identity.join_token import JoinTokenString
from hero.identity.node import install_certificate, make_key_and_csr
from hero.identity.revocation import RevokedNodes
from hero.rpc.errors import InvalidParams
from tests.explorer.builders import a_heartbeat, later, temporary_directory
from tests.explorer.fake_cluster import FakeCluster

NOBODY = {"X-Hero-User": "anonymous", "X-Hero-Claims": "anonymous"}


class JoinTestCase(TestCase):
    """A master, and people who want in."""

    async def setUp(self) -> None:
        self.cluster = FakeCluster(self)
        await self.cluster.start()
        self.admin = self.cluster.explorer()
        self.stranger = self.cluster.explorer(NOBODY)

    async def token(self, **params: Any) -> JoinTokenString:
        """A new join token."""
        return JoinTokenString.parse((await self.admin.create_join_token(**params)).token)

    async def join(self, token: JoinTokenString, csr: str, name: str = "w1", **changes: Any) -> Any:
        """Join as a stranger."""
        params = {
            "cluster_id": token.cluster_id,
            "secret": token.secret.reveal(),
            "csr": csr,
            "name": name,
            "advertise_address": "https://10.0.0.7:9998",
        }
        return await self.stranger.join(**{**params, **changes})

    async def assert_refused(self, kind: type[HeroError], call: Any) -> Any:
        """The error with which *call* fails."""
        return await self.assertFailure(Deferred.fromCoroutine(call), kind)


class JoinTests(JoinTestCase):
    """Becoming a node."""

    async def test_whole_way(self) -> None:
        """From the token to the first heartbeat with the certificate that came of it."""
        tls = temporary_directory(self)
        token = await self.token()
        self.assertEqual(token.explorer_urls, ["https://10.0.0.1:9998"])
        membership = await self.join(token, make_key_and_csr(tls))
        identity = install_certificate(
            tls, membership.certificate, membership.ca, ca_sha256=token.ca_sha256
        )
        self.assertEqual(identity.node_sid, membership.node_sid)
        self.assertEqual(identity.roles, {"node"})
        self.assertIn("10.0.0.7", identity.addresses)
        node = await self.admin.get_node(node="w1")
        self.assertEqual(node.state, "joining")
        headers = {"X-Hero-User": f"node:{identity.node_sid}", "X-Hero-Claims": "node"}
        reply = await self.cluster.explorer(headers).heartbeat(
            heartbeat=a_heartbeat(node_sid=identity.node_sid)
        )
        self.assertEqual((reply.state, reply.interval), ("online", 5.0))
        self.assertEqual(reply.explorer_addresses, ["https://10.0.0.1:9998"])

    async def test_repeated(self) -> None:
        """A join whose answer was lost can be repeated: the same node."""
        token, csr = await self.token(), build_request(new_key())
        first = await self.join(token, csr)
        second = await self.join(token, csr)
        self.assertEqual(first.node_sid, second.node_sid)
        self.assertEqual(len((await self.admin.list_nodes()).items), 1)

    async def test_used(self) -> None:
        """A second machine is told that the token was used."""
        token = await self.token()
        await self.join(token, build_request(new_key()))
        await self.assert_refused(JoinTokenUsed, self.join(token, build_request(new_key()), "w2"))

    async def test_used_at_the_same_time(self) -> None:
        """Of two machines with one token, one gets in, and nothing is left of the other."""
        token = await self.token()
        joins = [
            Deferred.fromCoroutine(self.join(token, build_request(new_key()), name))
            for name in ("w1", "w2")
        ]
        for each in joins:
            each.addErrback(lambda failure: failure.trap(JoinTokenUsed) and None)
        outcomes = await gatherResults(joins)
        self.assertEqual(len([o for o in outcomes if o is not None]), 1)
        self.assertEqual(len((await self.admin.list_nodes()).items), 1)

    async def test_repeated_before_the_answer(self) -> None:
        """A machine that asks again while it is let in is that node, once; nothing is undone."""
        token, csr = await self.token(), build_request(new_key())
        joins = [Deferred.fromCoroutine(self.join(token, csr)) for _ in range(3)]
        for each in joins:
            each.addErrback(lambda failure: failure.trap(JoinTokenUsed) and None)
        sids = {membership.node_sid for membership in await gatherResults(joins) if membership}
        sids.add((await self.join(token, csr)).node_sid)
        nodes = (await self.admin.list_nodes()).items
        self.assertEqual({node.sid for node in nodes}, sids)

    async def test_unknown(self) -> None:
        """A secret that was never made here."""
        token = await self.token()
        call = self.join(token, build_request(new_key()), secret="x" * 43)
        await self.assert_refused(JoinTokenUnknown, call)

    async def test_other_cluster(self) -> None:
        """A token that belongs to another cluster."""
        token = await self.token()
        call = self.join(token, build_request(new_key()), cluster_id="cluster-of-another")
        await self.assert_refused(JoinTokenOtherCluster, call)

    async def test_expired(self) -> None:
        """A token that is too old."""
        token = await self.token(lifetime=60)
        self.cluster.pass_time(61)
        await self.assert_refused(JoinTokenExpired, self.join(token, build_request(new_key())))

    async def test_name_taken(self) -> None:
        """The name of a node that reports is taken; the token is not used up by that."""
        await self.cluster.add_node(1)
        token, csr = await self.token(), build_request(new_key())
        error = await self.assert_refused(NameTaken, self.join(token, csr, "n1"))
        self.assertIn("--name", error.hint)
        await self.join(token, csr, "other")

    async def test_leftovers_are_in_nobodys_way(self) -> None:
        """A join that was given up half-way does not hold the name."""
        csr = build_request(new_key())
        first = await self.join(await self.token(), csr)
        again = await self.join(await self.token(), csr)
        nodes = (await self.admin.list_nodes()).items
        self.assertEqual([n.sid for n in nodes], [again.node_sid])
        self.assertIn(first.node_sid, RevokedNodes(self.cluster.paths.state / "revoked.json"))

    async def test_another_machine_of_the_same_name(self) -> None:
        """One that has joined and is about to report is not thrown out by its namesake."""
        await self.join(await self.token(), build_request(new_key()))
        call = self.join(await self.token(), build_request(new_key()))
        error = await self.assert_refused(NameTaken, call)
        self.assertIn("hero node remove", error.hint)
        self.assertEqual([n.name for n in (await self.admin.list_nodes()).items], ["w1"])

    async def test_bad_request_for_a_certificate(self) -> None:
        """What is no signing request uses up nothing."""
        token = await self.token()
        await self.assert_refused(CertificateRefused, self.join(token, "not a request"))
        await self.join(token, build_request(new_key()))

    async def test_bad_address(self) -> None:
        """An address that is none uses up nothing, and no node is left of it."""
        token, csr = await self.token(), build_request(new_key())
        for bad in ("https://[bad", "https://*", "https://h:99999", "https://me@host"):
            call = self.join(token, csr, advertise_address=bad)
            await self.assert_refused(InvalidConfiguration, call)
        self.assertEqual((await self.admin.list_nodes()).items, [])
        await self.join(token, csr)

    async def test_strangers_get_no_tokens(self) -> None:
        """Only administrators let machines in."""
        await self.assert_refused(HeroError, self.stranger.create_join_token())

    async def test_local_mode(self) -> None:
        """A cluster of one machine has no tokens, and says how to get some."""
        alone = FakeCluster(self, mode="local")
        await alone.start()
        error = await self.assert_refused(Conflict, alone.explorer().create_join_token())
        self.assertIn("--mode master", error.hint)


class RenewTests(JoinTestCase):
    """Keeping the certificate fresh."""

    async def setUp(self) -> None:
        await super().setUp()
        self.tls = temporary_directory(self)
        membership = await self.join(await self.token(), make_key_and_csr(self.tls))
        self.identity = install_certificate(self.tls, membership.certificate, membership.ca)

    async def renew(self, csr: str) -> Any:
        """Ask for a new certificate, without any identity."""
        return await self.stranger.renew_certificate(
            certificate=self.identity.certificate_pem, csr=csr
        )

    async def test_renewed(self) -> None:
        """The old key is proof enough; name, role and addresses stay."""
        renewed = await self.renew(self.identity.renewal_request())
        after = install_certificate(self.tls, renewed.certificate, renewed.ca)
        self.assertEqual(after.node_sid, self.identity.node_sid)
        self.assertEqual(after.roles, {"node"})
        self.assertIn("10.0.0.7", after.addresses)
        self.assertEqual(after.not_after, renewed.expires_at)

    async def test_other_key(self) -> None:
        """A certificate is public; without its key it proves nothing."""
        await self.assert_refused(CertificateRefused, self.renew(build_request(new_key())))

    async def test_removed(self) -> None:
        """A removed node stays out."""
        await self.admin.remove_node(node="w1")
        error = await self.assert_refused(
            CertificateRefused, self.renew(self.identity.renewal_request())
        )
        self.assertIn("removed", error.detail)


class RemoveTests(JoinTestCase):
    """Taking a node out."""

    async def test_removed(self) -> None:
        """Its certificate is refused at the door, its heartbeats are, and its VMs are forgotten."""
        node = await self.cluster.add_node(1)
        await self.cluster.cloud().deploy_vm(name="web")
        error = await self.assert_refused(Conflict, self.admin.remove_node(node="n1"))
        self.assertIn("--force", error.hint)
        removed = await self.admin.remove_node(node="n1", force=True)
        self.assertEqual(removed.state, "removed")
        self.assertIn(node.sid, RevokedNodes(self.cluster.paths.state / "revoked.json"))
        self.assertEqual((await self.cluster.cloud().list_vms()).items, [])
        self.assertEqual((await self.admin.list_nodes()).items, [])
        with self.assertRaises(HeroError) as caught:
            await self.cluster.report(node)
        self.assertEqual(caught.exception.kind, "node_unknown")

    async def test_lost_node_can_be_removed(self) -> None:
        """Removal does not wait for the node."""
        node = await self.cluster.add_node(1)
        await node.stop()
        self.cluster.pass_time(60)
        self.assertEqual((await self.admin.remove_node(node="n1")).state, "removed")

    async def test_own_machine(self) -> None:
        """The explorer's own machine is not to be removed."""
        sid = self.cluster.daemon.identity.node_sid
        await self.admin.heartbeat(heartbeat=a_heartbeat(node_sid=sid, name="master"))
        node = await self.admin.get_node(node="master")
        self.assertTrue(node.local)
        self.assertTrue(node.advertise_address.startswith("unix://"))
        await self.assert_refused(Conflict, self.admin.remove_node(node="master"))

    async def test_cordoned(self) -> None:
        """A cordoned node gets no new VM until it is activated."""
        await self.cluster.add_node(1)
        self.assertEqual((await self.admin.cordon_node(node="n1")).state, "cordoned")
        explained = await self.admin.explain_placement()
        self.assertEqual(explained.candidates[0].reasons, ["the node is cordoned"])
        self.assertEqual((await self.admin.activate_node(node="n1")).state, "online")
        self.assertIsNotNone((await self.admin.explain_placement()).chosen)

    async def test_operators_may_not(self) -> None:
        """Nodes are administrators' business."""
        await self.cluster.add_node(1)
        operator = self.cluster.explorer(
            {"X-Hero-User": "user:o", "X-Hero-Claims": "operator@root"}
        )
        await self.assert_refused(Forbidden, operator.cordon_node(node="n1"))


class HeartbeatTests(JoinTestCase):
    """What a heartbeat does, and what its answer asks for."""

    async def test_records_are_asked_for_when_they_differ(self) -> None:
        """VM records travel once for each change."""
        node = await self.cluster.add_node(1)
        reply = await self.cluster.report(node, records=False)
        self.assertFalse(reply.send_vms)
        await self.cluster.cloud().deploy_vm(name="web")
        reply = await self.cluster.report(node, records=False)
        self.assertTrue(reply.send_vms)
        self.assertFalse((await self.cluster.report(node)).send_vms)

    async def test_other_node(self) -> None:
        """A node cannot report for another."""
        one, two = await self.cluster.add_node(1), await self.cluster.add_node(2)
        await self.assert_refused(Forbidden, self.cluster.beat(one, two.heartbeat()))

    async def test_values_that_cannot_be_kept(self) -> None:
        """A time without its zone, here or in a VM, or a number too large, is named and refused."""
        node = await self.cluster.add_node(1)
        await self.cluster.cloud().deploy_vm(name="web", node="n1")
        beat = msgspec.to_builtins(node.heartbeat(sent_at=9))
        naive = "2026-03-01T12:00:05"
        headers = {"X-Hero-User": f"node:{node.sid}", "X-Hero-Claims": "node"}
        client = self.cluster.explorer(headers)._client
        for changed in (
            {"sent_at": naive},
            {"seq": 1 << 70},
            {"vms": [{**beat["vms"][0], "observed_at": naive}]},
        ):
            call = client.call("ExplorerService.heartbeat", {"heartbeat": {**beat, **changed}})
            error = await self.assert_refused(InvalidParams, call)
            self.assertIn("heartbeat", error.detail)
        self.assertEqual(len((await self.cluster.cloud().list_vms()).items), 1)

    async def test_status(self) -> None:
        """The cluster at a glance names who is silent."""
        one, _ = await self.cluster.add_node(1), await self.cluster.add_node(2)
        self.cluster.pass_time(60)
        await self.cluster.report(one)
        status = await self.admin.cluster_status()
        self.assertEqual((status.nodes, status.nodes_online), (2, 1))
        self.assertEqual(status.unreachable, ["n2"])
        self.assertEqual((status.slices, status.slices_free), (8, 4))

    async def test_events(self) -> None:
        """A node that falls silent is an event, once, and so is its return."""
        node = await self.cluster.add_node(1)
        events = self.cluster.daemon.events.subscribe()
        self.cluster.pass_time(60)
        self.cluster.pass_time(60)
        await self.cluster.report(node)
        states = [(await events.__anext__()).data["state"] for _ in range(2)]
        self.assertEqual(states, ["unreachable", "online"])


class TokenTests(JoinTestCase):
    """Bearer tokens and sessions."""

    async def test_token_life(self) -> None:
        """Known to the local router at once, sent to workers, and gone when revoked."""
        node = await self.cluster.add_node(1)
        file = self.cluster.daemon.tokens
        made = await self.admin.create_token(user="alice", role="operator", context="web")
        self.assertEqual((made.user, made.claims), ("user:alice", "operator@web"))
        reply = await self.cluster.beat(node, node.heartbeat(), tokens_digest="old")
        self.assertEqual([t.sid for t in reply.tokens], [made.sid])
        self.assertNotIn(made.token, str(reply.tokens))
        reply = await self.cluster.beat(node, node.heartbeat(), tokens_digest=file.digest)
        self.assertIsNone(reply.tokens)
        listed = (await self.admin.list_tokens()).items
        self.assertEqual([(t.sid, t.token) for t in listed], [(made.sid, None)])
        for _ in range(2):
            self.assertEqual((await self.admin.revoke_token(sid=made.sid)).sid, made.sid)
        await self.assert_refused(NotFound, self.admin.revoke_token(sid="token-none"))
        self.assertEqual(file.records, [])
        self.assertEqual((await self.admin.list_tokens()).items, [])

    async def test_session_life(self) -> None:
        """A code is good once; the session has its maker's rights, until it is ended."""
        viewer = self.cluster.explorer({"X-Hero-User": "user:v", "X-Hero-Claims": "viewer@root"})
        code = (await viewer.create_login_code()).code
        session = await self.stranger.redeem_login_code(code=code)
        self.assertEqual((session.user, session.claims), ("user:v", "viewer@root"))
        await self.assert_refused(HeroError, self.stranger.redeem_login_code(code=code))
        again = await self.stranger.get_session(secret=session.secret)
        self.assertEqual(again.user, "user:v")
        await self.stranger.end_session(secret=session.secret)
        await self.assert_refused(HeroError, self.stranger.get_session(secret=session.secret))
        await self.stranger.end_session(secret=session.secret)

    async def test_machine_has_no_session(self) -> None:
        """A node's certificate is for heartbeats, not for the web console."""
        worker = self.cluster.explorer({"X-Hero-User": "node:w", "X-Hero-Claims": "node"})
        await self.assert_refused(Forbidden, worker.create_login_code())

    async def test_revoking_ends_sessions(self) -> None:
        """What was opened with a token ends with it, and nobody else's."""
        made: dict[str, Any] = {}
        for name in ("ada", "bob"):
            token = await self.admin.create_token(user=name)
            client = self.cluster.explorer({"X-Hero-User": token.user, "X-Hero-Claims": "admin"})
            code = (await client.create_login_code()).code
            session = await self.stranger.redeem_login_code(code=code)
            made[name] = token, session.secret, (await client.create_login_code()).code
        await self.admin.revoke_token(sid=made["ada"][0].sid)
        _, secret, code = made["ada"]
        await self.assert_refused(Unauthenticated, self.stranger.get_session(secret=secret))
        await self.assert_refused(Unauthenticated, self.stranger.redeem_login_code(code=code))
        _, secret, code = made["bob"]
        self.assertEqual((await self.stranger.get_session(secret=secret)).user, "user:bob")
        await self.stranger.redeem_login_code(code=code)

    async def test_old_code_and_session(self) -> None:
        """Both are good for a while only."""
        late = (await self.admin.create_login_code()).code
        good = (await self.admin.create_login_code()).code
        session = await self.stranger.redeem_login_code(code=good)
        self.cluster.pass_time(13 * 3600)
        await self.assert_refused(HeroError, self.stranger.redeem_login_code(code=late))
        await self.assert_refused(HeroError, self.stranger.get_session(secret=session.secret))
        self.assertEqual(session.expires_at, later(12 * 3600))


class AdvertisedTests(SynchronousTestCase):
    """By which URLs other machines reach this one."""

    def urls(self, configured: str, *listening: str) -> list[str]:
        return Advertised(configured, lambda: listening, lambda: ["192.0.2.1"]).urls()

    def test_configured(self) -> None:
        """URLs as they are; hosts with the port on which the router listens."""
        for configured, listening, expected in (
            ("https://a:1, https://b/", (), ["https://a:1", "https://b"]),
            ("a", ("https://0.0.0.0:9998",), ["https://a:9998"]),
            ("a", ("https://0.0.0.0:443",), ["https://a"]),
            ("a", ("https://[::]:9998",), ["https://a:9998"]),
            ("a:7", ("https://0.0.0.0:9998",), ["https://a:7"]),
            ("2001:db8::1", ("https://0.0.0.0:9998",), ["https://[2001:db8::1]:9998"]),
            ("[2001:db8::1]:7", (), ["https://[2001:db8::1]:7"]),
        ):
            self.assertEqual(self.urls(configured, *listening), expected)

    def test_not_configured(self) -> None:
        """The machine's own addresses, with the router's port."""
        self.assertEqual(self.urls("", "https://0.0.0.0:9998"), ["https://192.0.2.1:9998"])
