"""The cluster's CA, and what it signs."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.errors import InvalidConfiguration
from hero.identity.authority import Authority, request_key_fingerprint, utc_now
from hero.identity.certificates import (
    build_node_certificate,
    build_request,
    certificates_from_pem,
    new_key,
    read_identity,
    to_pem,
)
from hero.identity.errors import CertificateRefused
from tests.identity.cluster import ago, new_home


def request_by(key, *extensions) -> str:
    """A signing request by any kind of key, with anything in it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "I am the CA")])
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class AuthorityTests(SynchronousTestCase):
    """Making and loading."""

    def test_create_and_load(self) -> None:
        """An authority is made once, and is the same when loaded."""
        tls = new_home(self).tls
        made = Authority.create(tls, "cluster-0123456789")
        for again in (Authority.create(tls), Authority.load(tls)):
            self.assertEqual(again.fingerprint, made.fingerprint)
            self.assertEqual(again.cluster_id, "cluster-0123456789")
        self.assertRegex(made.fingerprint, r"^[0-9a-f]{64}\Z")

    def test_profile(self) -> None:
        """The CA may sign certificates, of leaves only, for twenty years."""
        certificate = Authority.create(new_home(self).tls).certificate
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(constraints.critical and constraints.value.ca)
        self.assertEqual(constraints.value.path_length, 0)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        self.assertTrue(usage.critical and usage.value.key_cert_sign)
        self.assertFalse(usage.value.digital_signature)
        self.assertGreater(certificate.not_valid_after_utc - utc_now(), timedelta(days=19 * 365))

    def test_none(self) -> None:
        """A machine without an authority says how to get one."""
        with self.assertRaises(InvalidConfiguration) as caught:
            Authority.load(new_home(self).tls)
        self.assertIn("--mode master", caught.exception.hint)

    def test_wrong_key(self) -> None:
        """A key that is not the CA's is found out."""
        tls, other = new_home(self).tls, new_home(self).tls
        Authority.create(tls)
        Authority.create(other)
        (tls / "ca.key").write_bytes((other / "ca.key").read_bytes())
        self.assertRaises(InvalidConfiguration, Authority.load, tls)

    def test_key_for_all(self) -> None:
        """A key that others can read, as after a careless restore, is not used."""
        tls = new_home(self).tls
        Authority.create(tls)
        (tls / "ca.key").chmod(0o644)
        with self.assertRaises(InvalidConfiguration) as caught:
            Authority.load(tls)
        self.assertIn("chmod 600", caught.exception.hint)


class IssueTests(SynchronousTestCase):
    """What the CA signs, and what it does not."""

    def setUp(self) -> None:
        self.authority = Authority.create(new_home(self).tls)

    def issue(self, csr: str, **options) -> x509.Certificate:
        pem = self.authority.issue(
            csr, **{"node_sid": "node-0123456789", "addresses": ["10.0.0.1"], **options}
        )
        leaf, ca = certificates_from_pem(pem.encode(), "")
        self.assertEqual(ca, self.authority.certificate)
        return leaf

    def test_profile(self) -> None:
        """A node's certificate is for both ends of TLS, names its bearer, and links to the CA."""
        leaf = self.issue(build_request(new_key()), addresses=["10.0.0.1", "Node.Example", "::1"])
        value = leaf.extensions.get_extension_for_class
        self.assertFalse(value(x509.BasicConstraints).value.ca)
        self.assertTrue(value(x509.KeyUsage).value.digital_signature)
        self.assertFalse(value(x509.KeyUsage).value.key_cert_sign)
        self.assertEqual(
            set(value(x509.ExtendedKeyUsage).value),
            {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH},
        )
        ca_id = self.authority.certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        ).value.digest
        self.assertEqual(value(x509.AuthorityKeyIdentifier).value.key_identifier, ca_id)
        names = value(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["node.example"])
        self.assertEqual(
            names.get_values_for_type(x509.UniformResourceIdentifier),
            [f"hero://{self.authority.cluster_id}/node/node-0123456789"],
        )
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        self.assertEqual(life, timedelta(days=7, minutes=5))

    def test_roles(self) -> None:
        """An explorer is a node too."""
        leaf = self.issue(build_request(new_key()), explorer=True)
        self.assertEqual(read_identity(leaf).roles, {"node", "explorer"})

    def test_requests_ask_for_nothing(self) -> None:
        """Names and abilities in a request are left out of the certificate."""
        wish = x509.SubjectAlternativeName(
            [
                x509.DNSName("master.example"),
                x509.UniformResourceIdentifier(
                    f"hero://{self.authority.cluster_id}/explorer/node-0123456789"
                ),
            ]
        )
        ca = x509.BasicConstraints(ca=True, path_length=None)
        leaf = self.issue(request_by(new_key(), wish, ca))
        self.assertEqual(read_identity(leaf).roles, {"node"})
        self.assertFalse(leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        self.assertNotIn(b"master.example", leaf.public_bytes(serialization.Encoding.DER))

    def test_refused_requests(self) -> None:
        """Other kinds of keys, tampered requests and other texts are refused with a reason."""
        good = build_request(new_key())
        body = good.splitlines()
        tampered = "\n".join([body[0], *body[2:]])
        for csr in (
            request_by(rsa.generate_private_key(65537, 2048)),
            request_by(ec.generate_private_key(ec.SECP256K1())),
            tampered,
            "",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            self.authority.ca_pem,
        ):
            with self.assertRaises(CertificateRefused):
                self.authority.issue(csr, node_sid="node-0123456789", addresses=[])

    def test_signature_of_request(self) -> None:
        """A request whose key did not sign it proves nothing."""
        der = x509.load_pem_x509_csr(build_request(new_key()).encode()).public_bytes(
            serialization.Encoding.DER
        )
        wrong = der[:-1] + bytes([der[-1] ^ 1])
        csr = x509.load_der_x509_csr(wrong).public_bytes(serialization.Encoding.PEM)
        with self.assertRaises(CertificateRefused):
            self.authority.issue(csr, node_sid="node-0123456789", addresses=[])

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters()))
    def test_any_text(self, text: str) -> None:
        """No text breaks the CA."""
        with self.assertRaises(CertificateRefused):
            request_key_fingerprint(text)
        with self.assertRaises(CertificateRefused):
            self.authority.check_renewal(text, text)

    def test_key_fingerprint(self) -> None:
        """The same key gives the same fingerprint in every request."""
        key = new_key()
        first, second = build_request(key), build_request(key)
        self.assertNotEqual(first, second)
        self.assertEqual(request_key_fingerprint(first), request_key_fingerprint(second))
        other = request_key_fingerprint(build_request(new_key()))
        self.assertNotEqual(request_key_fingerprint(first), other)


class RenewalTests(SynchronousTestCase):
    """Who can have a certificate renewed."""

    def setUp(self) -> None:
        self.tls = new_home(self).tls
        self.authority = Authority.create(self.tls)
        self.key = new_key()

    def certificate(self, authority: Authority | None = None) -> str:
        chain = (authority or self.authority).issue(
            build_request(self.key), node_sid="node-0123456789", addresses=["10.0.0.1"]
        )
        return to_pem(certificates_from_pem(chain.encode(), "")[0])

    def refused(self, certificate: str, csr: str) -> str:
        with self.assertRaises(CertificateRefused) as caught:
            self.authority.check_renewal(certificate, csr)
        return caught.exception.detail

    def test_own_key(self) -> None:
        """The key of a certificate proves whose it is."""
        peer = self.authority.check_renewal(self.certificate(), build_request(self.key))
        self.assertEqual(peer.node_sid, "node-0123456789")

    def test_expired(self) -> None:
        """Also when the certificate has expired."""
        old = self.certificate(Authority.load(self.tls, now=ago(days=100)))
        peer = self.authority.check_renewal(old, build_request(self.key))
        self.assertLess(peer.not_after, utc_now())

    def test_other_key(self) -> None:
        """A certificate that somebody overheard is not enough."""
        detail = self.refused(self.certificate(), build_request(new_key()))
        self.assertIn("not signed by the key", detail)

    def test_other_cluster(self) -> None:
        """A certificate of another CA is none of ours, even one that bears the same names."""
        other = Authority.create(new_home(self).tls, self.authority.cluster_id)
        detail = self.refused(self.certificate(other), build_request(self.key))
        self.assertIn("not issued by this cluster's CA", detail)

    def test_the_ca_itself(self) -> None:
        """The CA's certificate cannot be renewed into a node's."""
        self.refused(self.authority.ca_pem, build_request(self.key))


class IdentityTests(SynchronousTestCase):
    """Which certificates name a node."""

    def read(self, roles, sid="node-0123456789", cluster="cluster-0123456789"):
        authority = Authority.create(new_home(self).tls)
        return read_identity(
            build_node_certificate(
                authority=authority.certificate,
                authority_key=authority._key,
                public_key=new_key().public_key(),
                cluster_id=cluster,
                node_sid=sid,
                roles=roles,
                addresses=[],
                now=utc_now(),
                lifetime=timedelta(days=1),
            )
        )

    def test_well_formed(self) -> None:
        """A node, with or without an explorer."""
        self.assertEqual(self.read(["node"]).node_sid, "node-0123456789")
        self.assertEqual(self.read(["node", "explorer"]).roles, {"node", "explorer"})

    def test_malformed(self) -> None:
        """Anything that is not exactly that names nobody."""
        self.assertIsNone(self.read([]))
        self.assertIsNone(self.read(["explorer"]))
        self.assertIsNone(self.read(["node", "admin"]))
        self.assertIsNone(self.read(["node"], sid="a/b"))
        self.assertIsNone(self.read(["node"], cluster="x/node/y"))
        self.assertIsNone(self.read(["node"], sid=" "))
