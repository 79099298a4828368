"""The certificates of a cluster: what they say, and how they are built.

A certificate names its bearer by URI: ``hero://<cluster-id>`` for the CA,
``hero://<cluster-id>/node/<node-sid>`` for a node, and besides
``hero://<cluster-id>/explorer/<node-sid>`` for a node that runs an explorer. The profile is that
of RFC 5280: key usage and basic constraints critical, subject and authority key identifiers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hero.errors import InvalidConfiguration
from hero.identity.addresses import general_name

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

NODE = "node"
EXPLORER = "explorer"

#: Certificates count as valid from a little before they are made, for clocks that are behind.
CLOCK_SKEW = timedelta(minutes=5)
AUTHORITY_LIFETIME = timedelta(days=20 * 365)

_NAME = re.compile(
    r"hero://(?P<cluster>[A-Za-z0-9-]{1,63})(?:/(?P<role>node|explorer)/(?P<sid>[A-Za-z0-9-]{1,63}))?\Z"
)


@attrs.frozen(kw_only=True)
class PeerIdentity:
    """Whom a node's certificate names, and until when."""

    cluster_id: str
    node_sid: str
    roles: frozenset[str]
    not_after: datetime


def read_identity(certificate: x509.Certificate) -> PeerIdentity | None:
    """The node that *certificate* names; None where it is not a well-formed node certificate.

    Says nothing about who signed it.
    """
    names = [match for uri in uris_of(certificate) if (match := _NAME.match(uri))]
    if not names or len(names) != len(uris_of(certificate)):
        return None
    clusters = {match["cluster"] for match in names}
    sids = {match["sid"] for match in names}
    roles = frozenset(match["role"] for match in names)
    if len(clusters) != 1 or len(sids) != 1 or None in roles or NODE not in roles:
        return None
    return PeerIdentity(
        cluster_id=clusters.pop(),
        node_sid=sids.pop(),
        roles=roles,
        not_after=certificate.not_valid_after_utc,
    )


def read_cluster_id(certificate: x509.Certificate) -> str | None:
    """The cluster that *certificate*, a CA's or a node's, names."""
    clusters = {match["cluster"] for uri in uris_of(certificate) if (match := _NAME.match(uri))}
    return clusters.pop() if len(clusters) == 1 else None


def read_addresses(certificate: x509.Certificate) -> list[str]:
    """The host names and IP addresses in *certificate*, normalized."""
    names = _alternative_names(certificate)
    if names is None:
        return []
    return [
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]


def sha256_fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER form, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether *authority* signed *certificate*. Dates are not looked at."""
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:
        # Besides InvalidSignature, cryptography raises ValueError and TypeError for certificates
        # that do not even fit together; each of them is a no.
        return False
    return True


def new_key() -> PrivateKey:
    """A new EC P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: PrivateKey) -> bytes:
    """PKCS #8, not encrypted: for a file of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def key_from_pem(pem: bytes, what: str) -> PrivateKey:
    """The key in *pem*; *what* names it for the error."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise InvalidConfiguration(f"{what} holds no private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidConfiguration(f"{what} is not an elliptic-curve key, as Hero's keys are")
    return key


def certificates_from_pem(pem: bytes, what: str) -> list[x509.Certificate]:
    """The certificates in *pem*, one or more; *what* names it for the error."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidConfiguration(f"{what} holds no certificate in PEM") from error


def to_pem(*certificates: x509.Certificate) -> str:
    """The certificates, one PEM block after the other."""
    return "".join(
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        for certificate in certificates
    )


def same_key(one: object, other: object) -> bool:
    """Whether two public keys are the same EC key."""
    return (
        isinstance(one, ec.EllipticCurvePublicKey)
        and isinstance(other, ec.EllipticCurvePublicKey)
        and one.curve.name == other.curve.name
        and one.public_numbers() == other.public_numbers()
    )


def build_authority_certificate(
    key: PrivateKey, cluster_id: str, now: datetime
) -> x509.Certificate:
    """A self-signed CA certificate for *cluster_id*, which may sign leaves only."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Hero {cluster_id}")])
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"hero://{cluster_id}")]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def build_node_certificate(
    *,
    authority: x509.Certificate,
    authority_key: PrivateKey,
    public_key: PublicKey,
    cluster_id: str,
    node_sid: str,
    roles: Sequence[str],
    addresses: Sequence[str],
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """A certificate for a node, good for both ends of a connection."""
    uris = [f"hero://{cluster_id}/{role}/{node_sid}" for role in roles]
    return build_leaf(
        authority=authority,
        authority_key=authority_key,
        public_key=public_key,
        name=node_sid,
        uris=uris,
        addresses=addresses,
        usages=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        now=now,
        lifetime=lifetime,
    )


def build_leaf(
    *,
    authority: x509.Certificate,
    authority_key: PrivateKey,
    public_key: PublicKey,
    name: str,
    uris: Sequence[str],
    addresses: Sequence[str],
    usages: Sequence[x509.ObjectIdentifier],
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """A certificate for *public_key* that names *uris* and *addresses*, for *usages*."""
    names = [*map(general_name, addresses), *map(x509.UniformResourceIdentifier, uris)]
    issuer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + lifetime, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )


def build_request(key: PrivateKey) -> str:
    """A certificate signing request (PEM). It proves the key and asks for nothing by name."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        extensions = certificate.extensions
        return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None


def uris_of(certificate: x509.Certificate) -> list[str]:
    """The URIs among the names of *certificate*."""
    names = _alternative_names(certificate)
    if names is None:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
