"""A master and a worker on one machine, each behind its own router, over real TLS."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
from datetime import UTC, datetime
from pathlib import Path

import trustme
from twisted.trial.unittest import SynchronousTestCase

from tests.functional.cluster import (
    CLOUD,
    COMPUTE,
    EXPLORER,
    CommandFailed,
    Node,
    console,
    eventually,
    give_images,
    guests_running,
    join,
    node_state,
    once,
)


def start_cluster() -> tuple[Node, Node]:
    """A master and a worker that has joined it."""
    master, worker = Node("master", "127.0.0.12"), Node("worker", "127.0.0.13")
    give_images(master.home)
    give_images(worker.home)
    master.up("master", "--heartbeat-interval", "1")
    join(master, worker)
    return master, worker


class TwoNodesTests(SynchronousTestCase):
    """What a cluster of two does when all is well, and whom it refuses."""

    def setUp(self) -> None:
        self.master, self.worker = once(start_cluster)

    def test_guest_lives_on_the_worker_and_obeys_the_master(self) -> None:
        """A VM is deployed, seen, read, stopped, started and deleted from the master."""
        vm = self.master.hero("vm", "create", "far", "--node", "worker")
        self.assertEqual((vm["node_name"], vm["state"]), ("worker", "running"))
        self.assertEqual(len(guests_running(self.worker)), 1)
        self.assertEqual(guests_running(self.master), [])
        eventually("the guest's first line", lambda: "far" in console(self.master, "far"))
        self.assertIn("far", [item["name"] for item in self.master.hero("vm", "list")["items"]])
        self.assertEqual(self.master.hero("vm", "stop", "far")["state"], "stopped")
        self.assertEqual(guests_running(self.worker), [])
        self.assertEqual(self.master.hero("vm", "start", "far")["state"], "running")
        self.master.hero("vm", "delete", "far", "--force")
        self.assertEqual(self.master.hero("vm", "list")["items"], [])
        self.assertEqual(guests_running(self.worker), [])
        self.assertEqual(list((self.worker.home / "var/vms").iterdir()), [])

    def test_nobody_without_an_identity_reaches_a_service(self) -> None:
        """Default is deny: 401 at the worker, at the master, for compute and explorer alike."""
        for node, route, method in (
            (self.worker, COMPUTE, "ComputeService.list_vms"),
            (self.master, COMPUTE, "ComputeService.list_vms"),
            (self.master, CLOUD, "ComputeService.list_vms"),
            (self.master, EXPLORER, "ExplorerService.list_nodes"),
            (self.master, EXPLORER, "ExplorerService.create_token"),
        ):
            status, _ = node.rpc(route, method)
            self.assertEqual(status, 401, f"{node.name} {method}")

    def test_forged_identity_headers_are_not_believed(self) -> None:
        """X-Hero-* from outside never survives."""
        for name in ("X-Hero-Claims", "x-hero-claims", "X_Hero_Claims"):
            status, _ = self.worker.rpc(
                COMPUTE,
                "ComputeService.list_vms",
                headers={name: "admin", "X-Hero-User": "local"},
            )
            self.assertIn(status, (400, 401), name)

    def test_a_nodes_certificate_opens_no_other_nodes_compute(self) -> None:
        """The role node may heartbeat as itself, no more."""
        context = self.master.tls_context(certificate_of=self.worker)
        for method in ("list_vms", "deploy_vm", "node_status"):
            status, _ = self.master.rpc(COMPUTE, f"ComputeService.{method}", {}, context=context)
            self.assertEqual(status, 403, method)
        status, _ = self.master.rpc(EXPLORER, "ExplorerService.create_join_token", context=context)
        self.assertEqual(status, 403)

    def test_a_node_names_no_user_it_acts_for(self) -> None:
        """Only an explorer may say on whose behalf it calls."""
        status, _ = self.master.rpc(
            COMPUTE,
            "ComputeService.list_vms",
            headers={"Hero-On-Behalf-Of": "user:admin"},
            context=self.master.tls_context(certificate_of=self.worker),
        )
        self.assertEqual(status, 403)

    def test_the_explorers_certificate_opens_the_worker(self) -> None:
        """The master's own certificate has the role explorer."""
        status, answer = self.worker.rpc(
            COMPUTE,
            "ComputeService.list_vms",
            context=self.worker.tls_context(certificate_of=self.master),
        )
        self.assertEqual((status, "result" in answer), (200, True))

    def test_a_certificate_of_another_authority_is_refused(self) -> None:
        """The TLS handshake fails, whatever the certificate says of itself."""
        stranger = trustme.CA().issue_cert("127.0.0.13")
        context = self.worker.tls_context()
        stranger.configure_cert(context)
        with self.assertRaises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            self.worker.http("GET", "/hero_compute/rpc/health", context=context)

    def test_an_administrators_token_works_at_every_door_until_revoked(self) -> None:
        """A bearer token opens the explorer at once and the workers within a heartbeat."""
        token = self.master.hero("token", "admin")
        header = {"Authorization": f"Bearer {token['token']}"}
        status, _ = self.master.rpc(CLOUD, "ComputeService.list_vms", headers=header)
        self.assertEqual(status, 200)

        def at_worker() -> int:
            return self.worker.rpc(COMPUTE, "ComputeService.list_vms", headers=header)[0]

        eventually("the worker to know the token", lambda: at_worker() == 200)
        self.master.hero("token", "revoke", token["sid"])
        status, _ = self.master.rpc(CLOUD, "ComputeService.list_vms", headers=header)
        self.assertEqual(status, 401)
        eventually("the worker to forget the token", lambda: at_worker() == 401)

    def test_a_wrong_token_is_refused(self) -> None:
        """A bearer token that nobody made is no identity."""
        status, _ = self.worker.rpc(
            COMPUTE,
            "ComputeService.list_vms",
            headers={"Authorization": "Bearer hero_tok-0000000000_" + "x" * 43},
        )
        self.assertEqual(status, 401)

    def test_paths_that_try_to_get_around_the_routing_are_refused(self) -> None:
        """Encoded separators and dot segments in the routing part are an error, never decoded."""
        for path in (
            "/hero_compute%2frpc/health",
            "/hero_compute/rpc%2Fhealth",
            "/hero_compute/../hero_router/rpc/health",
            "/hero_compute/%2e%2e/rpc/health",
            "/hero_compute/rpc%00/health",
            "/hero_compute/rpc%5chealth",
            "/hero_compute/rpc%252f/health",
        ):
            status, headers, _ = self.master.http("GET", path)
            self.assertEqual(status, 400, path)
            self.assertEqual(headers["Content-Type"], "application/problem+json", path)

    def test_a_body_of_100_megabytes_is_refused(self) -> None:
        """413, and the sender need not send it all."""
        token = self.master.hero("token", "admin")["token"]
        connection = http.client.HTTPSConnection(
            self.master.address, 9998, timeout=30, context=self.master.tls_context()
        )
        self.addCleanup(connection.close)
        connection.putrequest("POST", CLOUD)
        connection.putheader("Authorization", f"Bearer {token}")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(100 * 1024 * 1024))
        connection.endheaders()
        try:
            for _ in range(100):
                connection.send(b" " * 1024 * 1024)
        except (ConnectionError, ssl.SSLError):
            pass
        self.assertEqual(connection.getresponse().status, 413)

    def test_bad_calls_are_told_what_was_wrong(self) -> None:
        """Malformed JSON and wrong parameter types have the standard codes and name the fault."""
        token = self.master.hero("token", "admin")["token"]
        header = {"Authorization": f"Bearer {token}"}
        _, answer = self.master.rpc(CLOUD, "ComputeService.deploy_vm", {"name": 7}, headers=header)
        self.assertEqual(answer["error"]["code"], -32602)
        self.assertIn("name", answer["error"]["message"] + str(answer["error"].get("data")))
        _, answer = self.master.rpc(CLOUD, "ComputeService.nonsense", headers=header)
        self.assertEqual(answer["error"]["code"], -32601)
        connection = http.client.HTTPSConnection(
            self.master.address, 9998, timeout=30, context=self.master.tls_context()
        )
        self.addCleanup(connection.close)
        connection.request(
            "POST", CLOUD, b"{not json", {**header, "Content-Type": "application/json"}
        )
        self.assertIn(b"-32700", connection.getresponse().read())

    def test_join_tokens_that_do_not_work_say_why(self) -> None:
        """Unknown, used, expired, and a CA that is not the one the token names, told apart."""
        spare = Node("spare", "127.0.0.4")
        self.addCleanup(spare.destroy)

        def refusal(token: str) -> str:
            done = spare.run(
                "--json", "join", token, "--advertise-address", spare.url, "--no-start"
            )
            self.assertNotEqual(done.returncode, 0)
            self.assertNotIn("Traceback", done.stderr)
            return done.stderr

        from hero.identity.join_token import JoinTokenString

        good = self.master.hero("token", "create")["token"]
        parsed = JoinTokenString.parse(good)
        values = {
            "cluster_id": parsed.cluster_id,
            "explorer_urls": parsed.explorer_urls,
            "ca_sha256": parsed.ca_sha256,
            "secret": parsed.secret,
        }
        unknown = JoinTokenString(**{**values, "secret": "A" * 43}).encode()
        mismatch = JoinTokenString(**{**values, "ca_sha256": "0" * 64}).encode()
        self.assertIn("ca_mismatch", refusal(mismatch))
        self.assertIn("join_token_unknown", refusal(unknown))
        self.assertIn("join_token_invalid", refusal("nonsense"))
        short = self.master.hero("token", "create", "--lifetime", "0.001")["token"]
        self.assertIn("join_token_expired", refusal(short))
        spare.hero("join", good, "--advertise-address", spare.url, "--no-start")
        other = Node("other", "127.0.0.5")
        self.addCleanup(other.destroy)
        done = other.run("--json", "join", good, "--advertise-address", other.url, "--no-start")
        self.assertIn("join_token_used", done.stderr)
        self.master.hero("node", "remove", "spare", "--force")

    def test_heartbeats_are_believed_only_from_the_node_itself_and_in_order(self) -> None:
        """Another node's identity, an unknown node, and a number seen before are refused."""
        node = self.master.hero("node", "show", "worker")
        token = self.master.hero("token", "admin")["token"]
        _, answer = self.master.rpc(
            CLOUD,
            "ComputeService.node_status",
            {"node": "worker"},
            headers={"Authorization": f"Bearer {token}"},
        )
        master_sid = self.master.hero("node", "show", "master")["sid"]
        context = self.master.tls_context(certificate_of=self.worker)
        heartbeat = {
            "node_sid": node["sid"],
            "boot_id": answer["result"]["boot_id"],
            "seq": 1,
            "sent_at": datetime.now(UTC).isoformat(),
            "advertise_address": node["advertise_address"],
            "name": "worker",
            "version": "0",
            "capacity": node["capacity"],
            "load": 0.0,
            "vms_digest": "",
        }

        def kind(**changes: object) -> str:
            _, answer = self.master.rpc(
                EXPLORER,
                "ExplorerService.heartbeat",
                {"heartbeat": {**heartbeat, **changes}},
                context=context,
            )
            return str(answer["error"]["data"]["kind"])

        self.assertEqual(kind(node_sid=master_sid), "forbidden")
        self.assertEqual(kind(node_sid="node-0000000000"), "forbidden")
        self.assertEqual(kind(), "heartbeat_stale")

    def test_names_images_and_slices_have_their_limits(self) -> None:
        """A name used twice, an unknown image, and more slices than there are, are told apart."""
        self.master.hero("vm", "create", "taken", "--node", "master", "--no-start")
        self.addCleanup(self.master.hero, "vm", "delete", "taken", "--force")
        for arguments, kind in (
            (("taken", "--node", "worker"), "name_taken"),
            (("fresh", "--image", "no-such-image"), "not_found"),
            (("huge", "--slices", "1024"), "no_capacity"),
            (("bad/name",), "name"),
        ):
            with self.assertRaises(CommandFailed) as caught:
                self.master.hero("vm", "create", *arguments)
            self.assertIn(kind, caught.exception.stderr)
            self.assertNotIn("Traceback", caught.exception.stderr)
        self.assertEqual([vm["name"] for vm in self.master.hero("vm", "list")["items"]], ["taken"])

    def test_guests_and_heartbeats_survive_the_explorer(self) -> None:
        """kill -9 of the explorer costs no guest, and the node is online again by itself."""
        self.master.hero("vm", "create", "steady", "--node", "worker")
        self.addCleanup(self.master.hero, "vm", "delete", "steady", "--force")
        before = guests_running(self.worker)
        for pid in self.master.processes("hero-explorer"):
            os.kill(pid, signal.SIGKILL)
        eventually(
            "the worker to be online again",
            lambda: node_state(self.master, self.worker) == "online",
        )
        self.assertEqual(guests_running(self.worker), before)
        self.assertEqual(self.master.hero("vm", "show", "steady")["state"], "running")

    def test_guests_survive_their_compute_service(self) -> None:
        """kill -9 of compute: the same guest goes on, is adopted, and still obeys."""
        self.master.hero("vm", "create", "orphan", "--node", "worker")
        before = guests_running(self.worker)
        for pid in self.worker.processes("hero-compute"):
            os.kill(pid, signal.SIGKILL)
        stopped = eventually(
            "the adopted guest to be stopped", lambda: self.master.hero("vm", "stop", "orphan")
        )
        self.assertEqual(stopped["state"], "stopped")
        self.assertEqual(len(before), 1)
        self.assertEqual(guests_running(self.worker), [])
        self.master.hero("vm", "delete", "orphan")

    def test_a_worker_that_vanishes_in_a_deploy_leaves_no_half_vm(self) -> None:
        """The caller is told which node and what to do; the node cleans up when it is back."""
        frozen = self.worker.processes("hero-compute") + self.worker.processes("hero-router")
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            done = self.master.run(
                "--json", "vm", "create", "lost", "--node", "worker", "--timeout", "60"
            )
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("worker", done.stderr)
        self.assertIn("node_unreachable", done.stderr)
        eventually(
            "the worker to be online again",
            lambda: node_state(self.master, self.worker) == "online",
        )
        eventually("no half VM", lambda: not list((self.worker.home / "var/vms").iterdir()))
        self.assertEqual(guests_running(self.worker), [])
        free = [s["state"] for s in self._slices("worker")]
        self.assertEqual(set(free), {"free"})

    def test_a_removed_machine_can_join_again(self) -> None:
        """It is told to stop first; then it is a new node, with a certificate that counts."""
        before = self.master.hero("node", "show", "worker")["sid"]
        self.master.hero("node", "remove", "worker", "--force")
        token = self.master.hero("token", "create")["token"]
        refused = self.worker.run("join", token, "--no-start")
        self.assertIn("hero down", refused.stderr)
        self.worker.down()
        joined = self.worker.hero("join", token, "--no-start")
        self.assertFalse(joined["repeated"])
        self.assertEqual(joined["advertise_address"], self.worker.url)
        self.assertNotEqual(joined["node_sid"], before)
        self.assertTrue(self.worker.hero("join", token, "--no-start")["repeated"])
        self.worker.up("worker")
        eventually(
            "the worker to be online again",
            lambda: node_state(self.master, self.worker) == "online",
        )

    def test_secrets_are_kept_from_other_users(self) -> None:
        """Keys, tokens and databases cannot be read by others, nor the directories entered."""
        for home in (self.master.home, self.worker.home):
            for path in (home / "cfg", home / "var"):
                self.assertEqual(path.stat().st_mode & 0o077, 0, path)
            for key in Path(home / "cfg/tls").glob("*.key"):
                self.assertEqual(key.stat().st_mode & 0o077, 0, key)

    def _slices(self, node: str) -> list[dict[str, object]]:
        context = self.worker.tls_context(certificate_of=self.master)
        _, answer = self.worker.rpc(COMPUTE, "ComputeService.list_slices", context=context)
        items: list[dict[str, object]] = answer["result"]["items"]
        return items
