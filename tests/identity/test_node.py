"""A node's certificate and key: made once, replaced as one, whatever dies in between."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from hero.errors import InvalidConfiguration
from hero.identity.authority import Authority, utc_now
from hero.identity.certificates import certificates_from_pem, same_key
from hero.identity.errors import CaMismatch, CertificateRefused, NoIdentity
from hero.identity.node import (
    NodeIdentity,
    ensure_master_identity,
    install_certificate,
    make_key_and_csr,
)
from tests.identity.cluster import ago, join, new_home, new_master, new_worker

ENSURE = """
import sys
from pathlib import Path
from hero.identity.authority import Authority
from hero.identity.node import ensure_master_identity
from hero.paths import HeroPaths
paths = HeroPaths(home=Path(sys.argv[1]), sockets=Path(sys.argv[1]) / "s")
sys.stdin.read()
identity = ensure_master_identity(paths, [sys.argv[2]])
print(Authority.load(paths.tls).fingerprint, identity.node_sid)
"""


def mode(path) -> int:
    return path.stat().st_mode & 0o777


class MasterTests(SynchronousTestCase):
    """`ensure_master_identity`."""

    def test_first_time(self) -> None:
        """An authority and a certificate come to be; the keys are for their owner only."""
        paths = new_master(self, "10.1.2.3", "Master.Example.")
        identity = NodeIdentity.load(paths.tls)
        self.assertEqual(identity.roles, {"node", "explorer"})
        self.assertEqual(identity.cluster_id, Authority.load(paths.tls).cluster_id)
        self.assertRegex(identity.node_sid, r"^node-[0-9a-z]{10}\Z")
        self.assertEqual(
            set(identity.addresses),
            {"localhost", "127.0.0.1", "::1", "10.1.2.3", "master.example"},
        )
        for name in ("ca.key", "node.key"):
            self.assertEqual(mode(paths.tls / name), 0o600)
        self.assertEqual(
            {path.name for path in paths.tls.iterdir()},
            {".lock", "ca.crt", "ca.key", "node.crt", "node.key"},
        )
        self.assertEqual(len(certificates_from_pem((paths.tls / "node.crt").read_bytes(), "")), 2)

    def test_again(self) -> None:
        """What is good stays as it is."""
        paths = new_master(self, "10.1.2.3")
        before = (paths.tls / "node.crt").read_bytes()
        ensure_master_identity(paths, ["10.1.2.3"])
        ensure_master_identity(paths, [])
        self.assertEqual((paths.tls / "node.crt").read_bytes(), before)

    def test_new_address(self) -> None:
        """An address that is missing is added; name and key stay."""
        paths = new_master(self, "10.1.2.3")
        before = NodeIdentity.load(paths.tls)
        after = ensure_master_identity(paths, ["10.1.2.4"])
        self.assertLessEqual({"10.1.2.3", "10.1.2.4"}, set(after.addresses))
        self.assertEqual(after.node_sid, before.node_sid)
        self.assertTrue(same_key(after.key.public_key(), before.key.public_key()))

    def test_renewal(self) -> None:
        """After two thirds of its life it is replaced, and old addresses go."""
        paths = new_master(self, "10.1.2.3", now=ago(days=5))
        before = NodeIdentity.load(paths.tls)
        self.assertTrue(before.renewal_due(utc_now()))
        after = ensure_master_identity(paths, ["10.1.2.4"])
        self.assertFalse(after.renewal_due(utc_now()))
        self.assertNotIn("10.1.2.3", after.addresses)
        self.assertEqual(after.node_sid, before.node_sid)

    def test_after_expiry(self) -> None:
        """A master that was off for a year comes back."""
        paths = new_master(self, now=ago(days=365))
        self.assertFalse(NodeIdentity.load(paths.tls).valid_at(utc_now()))
        self.assertTrue(ensure_master_identity(paths, []).valid_at(utc_now()))

    def test_clock_was_ahead(self) -> None:
        """A certificate from a clock that was wrong is replaced once the clock is right."""
        paths = new_home(self)
        Authority.create(paths.tls)
        ensure_master_identity(paths, [], now=ago(days=-400))
        self.assertFalse(NodeIdentity.load(paths.tls).valid_at(utc_now()))
        self.assertTrue(ensure_master_identity(paths, []).valid_at(utc_now()))

    def test_lifetime(self) -> None:
        """The certificate lives as long as it is told, and starts a little early."""
        identity = ensure_master_identity(new_home(self), [], lifetime=timedelta(hours=1))
        self.assertEqual(identity.not_after - identity.not_before, timedelta(minutes=65))

    def test_worker_is_no_master(self) -> None:
        """A member of a cluster does not start one of its own by the way."""
        worker = new_worker(self, new_master(self), "10.1.2.3")
        with self.assertRaises(InvalidConfiguration) as caught:
            ensure_master_identity(worker, [])
        self.assertIn("whose authority is elsewhere", caught.exception.detail)

    def test_bad_address(self) -> None:
        """An address that cannot stand in a certificate is named."""
        with self.assertRaises(InvalidConfiguration) as caught:
            ensure_master_identity(new_home(self), ["no such host"])
        self.assertIn("'no such host'", caught.exception.detail)

    def test_several_processes_at_once(self) -> None:
        """Several processes that start together make one cluster."""
        paths = new_home(self)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", ENSURE, str(paths.home), f"10.0.0.{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
            for number in range(3)
        ]
        for process in processes:
            process.stdin.close()
        outputs = set()
        for process in processes:
            with process:
                outputs.add(process.stdout.read())
                self.assertEqual(process.wait(60), 0)
        self.assertEqual(len(outputs), 1)
        addresses = NodeIdentity.load(paths.tls).addresses
        self.assertLessEqual({f"10.0.0.{number}" for number in range(3)}, set(addresses))


class KilledTests(SynchronousTestCase):
    """A process that dies at any moment leaves an identity that can be used, or none."""

    def killed(self, step: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-m", "tests.identity.killed", step, str(new_home(self).home)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertGreater(len(lines), 10)
        return lines

    def test_first_start(self) -> None:
        """While a cluster is made, there is no identity or a whole one."""
        for line in self.killed("create"):
            self.assertRegex(line, r"^(no_identity|cluster-\w+ node-\w+ 4)$")

    def test_replacing(self) -> None:
        """While a certificate is replaced, there is the old one or the new one."""
        for line in self.killed("reissue"):
            self.assertRegex(line, r"^cluster-\w+ node-\w+ [45]$")

    def test_joining_another_cluster(self) -> None:
        """While a machine moves to another cluster, it is a member of one of the two."""
        for line in self.killed("join"):
            self.assertIn(
                line, {"cluster-first node-first00000 1", "cluster-second node-second0000 1"}
            )


class JoiningTests(SynchronousTestCase):
    """`make_key_and_csr` and `install_certificate`."""

    def setUp(self) -> None:
        self.authority = Authority.load(new_master(self).tls)

    def issue(self, csr: str, **options) -> str:
        return self.authority.issue(
            csr, node_sid="node-worker0000", addresses=["10.0.0.1"], **options
        )

    def test_join(self) -> None:
        """A machine gets a certificate for a key that it keeps to itself."""
        paths = new_home(self)
        self.assertRaises(NoIdentity, NodeIdentity.load, paths.tls)
        certificate = self.issue(make_key_and_csr(paths.tls))
        identity = install_certificate(
            paths.tls, certificate, self.authority.ca_pem, ca_sha256=self.authority.fingerprint
        )
        self.assertEqual(identity.node_sid, "node-worker0000")
        self.assertEqual(identity.roles, {"node"})
        self.assertEqual(identity.addresses, ["10.0.0.1"])
        self.assertEqual(identity.ca_pem, self.authority.ca_pem)
        self.assertEqual(mode(paths.tls / "node.key"), 0o600)
        self.assertFalse((paths.tls / "node.key.new").exists())
        self.assertEqual(NodeIdentity.load(paths.tls).node_sid, identity.node_sid)

    def test_repeated_request(self) -> None:
        """A join that is tried again uses the same key, so that the token still counts."""
        paths = new_home(self)
        first, second = make_key_and_csr(paths.tls), make_key_and_csr(paths.tls)
        install_certificate(paths.tls, self.issue(first), self.authority.ca_pem)
        install_certificate(paths.tls, self.issue(second), self.authority.ca_pem)

    def test_renewal(self) -> None:
        """A renewed certificate, for the same key, takes the place of the old one."""
        paths = new_home(self)
        join_pem = self.issue(make_key_and_csr(paths.tls))
        before = install_certificate(paths.tls, join_pem, self.authority.ca_pem)
        peer = self.authority.check_renewal(before.certificate_pem, before.renewal_request())
        self.assertEqual(peer.node_sid, before.node_sid)
        after = install_certificate(
            paths.tls, self.issue(before.renewal_request()), self.authority.ca_pem
        )
        self.assertNotEqual(after.certificate, before.certificate)

    def test_other_ca_than_pinned(self) -> None:
        """A CA that the join token does not name is not installed."""
        paths = new_home(self)
        certificate = self.issue(make_key_and_csr(paths.tls))
        with self.assertRaises(CaMismatch):
            install_certificate(paths.tls, certificate, self.authority.ca_pem, ca_sha256="0" * 64)
        self.assertFalse((paths.tls / "ca.crt").exists())

    def test_parts_that_do_not_belong_together(self) -> None:
        """Another CA, another key, no certificate at all: refused, and nothing changes."""
        paths = new_home(self)
        certificate = self.issue(make_key_and_csr(paths.tls))
        other = Authority.load(new_master(self).tls)
        foreign_key = self.issue(make_key_and_csr(new_home(self).tls))
        for wrong, ca in [
            (certificate, other.ca_pem),
            (foreign_key, self.authority.ca_pem),
            (self.authority.ca_pem, self.authority.ca_pem),
            ("nothing", self.authority.ca_pem),
            (certificate, ""),
        ]:
            with self.assertRaises(CertificateRefused):
                install_certificate(paths.tls, wrong, ca)
        self.assertRaises(NoIdentity, NodeIdentity.load, paths.tls)

    def test_master_does_not_join(self) -> None:
        """A machine with an authority of its own does not become another cluster's node."""
        master = new_master(self)
        certificate = self.issue(make_key_and_csr(master.tls))
        with self.assertRaises(CertificateRefused) as caught:
            install_certificate(master.tls, certificate, self.authority.ca_pem)
        self.assertIn("master of a cluster of its own", caught.exception.detail)


class LoadTests(SynchronousTestCase):
    """`NodeIdentity.load` says what is wrong with the files."""

    def setUp(self) -> None:
        self.tls = new_master(self).tls

    def problem(self) -> str:
        with self.assertRaises(InvalidConfiguration) as caught:
            NodeIdentity.load(self.tls)
        return caught.exception.detail

    def test_no_directory(self) -> None:
        """A directory that is not there holds no identity, and is not made."""
        absent = self.tls / "absent"
        self.assertRaises(NoIdentity, NodeIdentity.load, absent)
        self.assertFalse(absent.exists())

    def test_key_for_all(self) -> None:
        """A key that others can read is not used."""
        (self.tls / "node.key").chmod(0o640)
        self.assertIn("others than its owner", self.problem())

    def test_no_key(self) -> None:
        """A missing key is named."""
        (self.tls / "node.key").unlink()
        self.assertIn("node.key is missing", self.problem())

    def test_key_of_another(self) -> None:
        """A key that is not the certificate's is found out."""
        other = new_master(self).tls
        (self.tls / "node.key").write_bytes((other / "node.key").read_bytes())
        self.assertIn("is not the key of", self.problem())

    def test_ca_of_another(self) -> None:
        """So is a CA that did not issue it."""
        other = new_master(self).tls
        (self.tls / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
        self.assertIn("was not issued by the CA", self.problem())

    def test_garbage(self) -> None:
        """So is a file that holds something else."""
        for name, text in [("node.key", "no private key"), ("node.crt", "no certificate")]:
            (self.tls / name).write_bytes(b"garbage")
            self.assertIn(text, self.problem())

    def test_key_is_not_printed(self) -> None:
        """Neither an identity nor an authority shows its key."""
        for thing in (NodeIdentity.load(self.tls), Authority.load(self.tls)):
            self.assertNotIn("PrivateKey", repr(thing))

    def test_worker(self) -> None:
        """A worker's identity has no authority beside it."""
        worker = new_home(self)
        join(new_paths := new_master(self), worker, "10.0.0.1")
        self.assertEqual(
            NodeIdentity.load(worker.tls).cluster_id, NodeIdentity.load(new_paths.tls).cluster_id
        )
        self.assertRaises(InvalidConfiguration, Authority.load, worker.tls)
