"""A certificate from elsewhere, beside the node's own."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

import trustme
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hero.errors import InvalidConfiguration
from hero.identity.certificates import key_to_pem, new_key
from hero.identity.node import NodeIdentity
from hero.identity.public_certificate import PublicCertificate, PublicFiles
from hero.identity.tls import ServerTls, client_tls
from tests.identity.cluster import call, new_home, new_master, new_worker, serve


def write(files: PublicFiles, issued: trustme.LeafCert, mode: int = 0o600) -> None:
    """Put *issued* into *files*, each replaced in one step."""
    contents = {
        files.certificate: b"".join(pem.bytes() for pem in issued.cert_chain_pems),
        files.key: issued.private_key_pem.bytes(),
    }
    for path, content in contents.items():
        draft = path.with_suffix(".new")
        draft.write_bytes(content)
        draft.chmod(mode)
        draft.replace(path)


def files_in(directory: Path) -> PublicFiles:
    return PublicFiles(certificate=directory / "public.crt", key=directory / "public.key")


class PublicCertificateTests(SynchronousTestCase):
    """Reading the files."""

    def setUp(self) -> None:
        self.files = files_in(new_home(self).home)
        self.ca = trustme.CA()

    def load(self, *names: str, **options) -> PublicCertificate:
        write(self.files, self.ca.issue_cert(*names, **options))
        return PublicCertificate.load(self.files)

    def refusal(self) -> str:
        return self.assertRaises(InvalidConfiguration, PublicCertificate.load, self.files).detail

    def test_covers_its_names(self) -> None:
        """In any case; a wildcard stands for one label, and for no less."""
        public = self.load("www.example.org", "*.apps.example.org")
        for name in (
            "www.example.org",
            "WWW.Example.ORG",
            "a.apps.example.org",
            "www.example.org.",
        ):
            self.assertTrue(public.covers(name), name)
        for name in ("example.org", "apps.example.org", "a.b.apps.example.org", "", "org", "*"):
            self.assertFalse(public.covers(name), name)

    def test_both_kinds_of_keys(self) -> None:
        for kind in trustme.KeyType:
            self.assertTrue(self.load("www.example.org", key_type=kind).covers("www.example.org"))

    def test_one_file_can_hold_everything(self) -> None:
        issued = self.ca.issue_cert("www.example.org")
        self.files.key.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        self.files.key.chmod(0o600)
        both = PublicFiles(certificate=self.files.key, key=self.files.key)
        self.assertEqual(PublicCertificate.load(both).names, {"www.example.org"})

    def test_what_is_of_no_use_is_refused(self) -> None:
        self.assertIn("No such file", self.refusal())
        write(self.files, self.ca.issue_cert("www.example.org"), mode=0o644)
        self.assertIn("everybody on this machine can use the key", self.refusal())
        write(self.files, self.ca.issue_cert("192.0.2.1"))
        self.assertIn("names no host", self.refusal())
        write(self.files, self.ca.issue_cert("www.example.org"))
        self.files.key.write_bytes(key_to_pem(new_key()))
        self.assertIn("is not the key of", self.refusal())
        self.files.key.write_bytes(b"no key")
        self.assertIn("holds no private key in PEM", self.refusal())
        self.files.certificate.write_bytes(b"no certificate")
        self.assertIn("holds no certificate", self.refusal())

    def test_names_by_which_nodes_call_are_refused(self) -> None:
        """They would be shown a certificate that they do not believe."""
        public = self.load("www.example.org")
        public.refuse_addresses(["192.0.2.1", "node.example.org"])
        self.assertRaises(InvalidConfiguration, public.refuse_addresses, ["WWW.example.org"])


class ServerTests(TestCase):
    """Over real TLS."""

    async def setUp(self) -> None:
        self.master = new_master(self, "127.0.0.1", "node.example.org")
        self.files = files_in(self.master.home)
        self.ca = trustme.CA()
        write(self.files, self.ca.issue_cert("www.example.org"))
        self.clock = Clock()
        self.server = ServerTls(self.master.tls, public=self.files, seconds=self.clock.seconds)
        self.greeter, self.port = await serve(self, reactor, self.server)

    def visit(self, name: str, *, trusting: trustme.CA, worker=None) -> str:
        """Call the server as *name*; returns the serial number of the certificate that it shows."""
        context = ssl.create_default_context()
        trusting.configure_trust(context)
        if worker is not None:
            context.load_cert_chain(worker.tls / "node.crt", worker.tls / "node.key")
        context.set_alpn_protocols(["http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", self.port)) as tcp,
            context.wrap_socket(tcp, server_hostname=name) as wire,
        ):
            wire.sendall(b"hi")
            self.assertEqual(wire.recv(10), b"hello")
            self.assertEqual(wire.selected_alpn_protocol(), "http/1.1")
            return str(wire.getpeercert()["serialNumber"])

    async def test_browser_that_knows_a_public_authority_is_served(self) -> None:
        await deferToThread(self.visit, "www.example.org", trusting=self.ca)
        self.assertEqual(self.greeter.peers, [None])

    async def test_nodes_go_on_to_see_the_nodes_own(self) -> None:
        """By address, without a name, and by another name."""
        worker = new_worker(self, self.master, "127.0.0.2")
        for host in ("127.0.0.1", "node.example.org"):
            creator = client_tls(worker.tls, host=host, expect_role="explorer")
            await call(reactor, creator, self.port)
        self.assertEqual([peer.node_sid for peer in self.greeter.peers], ["node-worker0000"] * 2)

    async def test_client_certificates_are_asked_for_under_either_name(self) -> None:
        """Who shows one is known, whichever certificate the server shows."""
        worker = new_worker(self, self.master, "127.0.0.2")
        await deferToThread(self.visit, "www.example.org", trusting=self.ca, worker=worker)
        [peer] = self.greeter.peers
        self.assertEqual(peer.node_sid, "node-worker0000")

    async def test_client_certificate_of_another_authority_is_refused(self) -> None:
        stranger = new_worker(self, new_master(self, "127.0.0.3"), "127.0.0.2")
        try:
            await deferToThread(self.visit, "www.example.org", trusting=self.ca, worker=stranger)
        except (ssl.SSLError, ConnectionError):
            self.assertEqual(self.greeter.peers, [])
        else:
            self.fail("it was believed")

    async def test_renewed_one_serves_at_once(self) -> None:
        """A broken one does not; the old one goes on until there is a good one."""
        first = await deferToThread(self.visit, "www.example.org", trusting=self.ca)
        self.files.certificate.write_bytes(b"half a certif")
        self.clock.advance(1)
        again = await deferToThread(self.visit, "www.example.org", trusting=self.ca)
        self.assertEqual(again, first)
        self.flushLoggedErrors()
        write(self.files, self.ca.issue_cert("www.example.org"))
        self.clock.advance(1)
        renewed = await deferToThread(self.visit, "www.example.org", trusting=self.ca)
        self.assertNotEqual(renewed, first)

    def test_broken_one_prevents_the_start(self) -> None:
        os.unlink(self.files.key)
        self.assertRaises(InvalidConfiguration, ServerTls, self.master.tls, public=self.files)
        self.assertIsInstance(ServerTls(self.master.tls).identity, NodeIdentity)
