"""The cluster's certificate authority, which lives on a master."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from hero.errors import InvalidConfiguration
from hero.identity.addresses import normalize_addresses
from hero.identity.certificates import (
    EXPLORER,
    NODE,
    PeerIdentity,
    PrivateKey,
    PublicKey,
    build_authority_certificate,
    build_leaf,
    build_node_certificate,
    certificates_from_pem,
    is_issued_by,
    key_from_pem,
    key_to_pem,
    new_key,
    read_cluster_id,
    read_identity,
    same_key,
    sha256_fingerprint,
    to_pem,
)
from hero.identity.claims import Claim
from hero.identity.errors import CertificateRefused
from hero.identity.files import locked, write_atomically
from hero.identity.user_certificates import user_names
from hero.sids import new_sid

DEFAULT_LIFETIME = timedelta(days=7)


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


@attrs.frozen(kw_only=True)
class Authority:
    """The CA of one cluster: its certificate, its key, and a clock."""

    certificate: x509.Certificate
    cluster_id: str
    _key: PrivateKey = attrs.field(repr=False)
    _now: Callable[[], datetime] = utc_now

    @classmethod
    def create(
        cls,
        tls_dir: Path,
        cluster_id: str | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> Authority:
        """The authority in *tls_dir*, made when there is none yet.

        Any number of processes may call this at once, and any of them may be killed: there is one
        authority in the end. Raises `InvalidConfiguration` on a node that is a member of a
        cluster whose authority is elsewhere.
        """
        with locked(tls_dir):
            return cls.create_locked(tls_dir, cluster_id, now=now)

    @classmethod
    def create_locked(
        cls,
        tls_dir: Path,
        cluster_id: str | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> Authority:
        """`create`, for a caller that holds the lock of *tls_dir*."""
        certificate_path, key_path = tls_dir / "ca.crt", tls_dir / "ca.key"
        if certificate_path.exists():
            return cls.load(tls_dir, now=now)
        # The key comes first: without a certificate it has signed nothing, and whoever finds it
        # there later goes on with it.
        if key_path.exists():
            key = key_from_pem(key_path.read_bytes(), str(key_path))
        else:
            key = new_key()
            write_atomically(key_path, key_to_pem(key))
        certificate = build_authority_certificate(key, cluster_id or new_sid("cluster"), now())
        write_atomically(certificate_path, to_pem(certificate).encode(), mode=0o644)
        return cls.load(tls_dir, now=now)

    @classmethod
    def load(cls, tls_dir: Path, *, now: Callable[[], datetime] = utc_now) -> Authority:
        """The authority in *tls_dir*. Raises `InvalidConfiguration` where there is none."""
        certificate_path, key_path = tls_dir / "ca.crt", tls_dir / "ca.key"
        try:
            certificate = certificates_from_pem(
                certificate_path.read_bytes(), str(certificate_path)
            )[0]
        except FileNotFoundError as error:
            raise InvalidConfiguration(
                f"{tls_dir} holds no certificate authority", hint="hero up --mode master makes one"
            ) from error
        cluster_id = read_cluster_id(certificate)
        if cluster_id is None:
            raise InvalidConfiguration(f"{certificate_path} is not the CA certificate of a cluster")
        try:
            if stat.S_IMODE(key_path.stat().st_mode) & 0o077:
                raise InvalidConfiguration(
                    f"others than its owner can use the key {key_path}",
                    hint=f"chmod 600 {key_path}",
                )
            key = key_from_pem(key_path.read_bytes(), str(key_path))
        except FileNotFoundError as error:
            raise InvalidConfiguration(
                f"this machine is a member of cluster {cluster_id}, whose authority is elsewhere "
                f"({key_path} does not exist)",
                hint="run it with --mode worker, or use another HERO_HOME for a new cluster",
            ) from error
        if not same_key(key.public_key(), certificate.public_key()):
            raise InvalidConfiguration(f"{key_path} is not the key of {certificate_path}")
        return cls(certificate=certificate, cluster_id=cluster_id, key=key, now=now)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the CA certificate's DER form, in hex: what a join token pins."""
        return sha256_fingerprint(self.certificate)

    @property
    def ca_pem(self) -> str:
        """The CA certificate."""
        return to_pem(self.certificate)

    def issue(
        self,
        csr_pem: str | bytes,
        *,
        node_sid: str,
        addresses: Sequence[str],
        explorer: bool = False,
        lifetime: timedelta = DEFAULT_LIFETIME,
    ) -> str:
        """A certificate (PEM, followed by the CA's) for the key of *csr_pem*.

        Nothing but the key is taken from the request. *addresses* are host names and IP addresses.
        Raises `CertificateRefused` for a request that does not prove its key, or a kind of key
        that nodes do not use.
        """
        certificate = build_node_certificate(
            authority=self.certificate,
            authority_key=self._key,
            public_key=_proved_key(csr_pem),
            cluster_id=self.cluster_id,
            node_sid=node_sid,
            roles=[NODE, EXPLORER] if explorer else [NODE],
            addresses=normalize_addresses(addresses),
            now=self._now(),
            lifetime=lifetime,
        )
        return to_pem(certificate, self.certificate)

    def issue_to_user(
        self, public_key: PublicKey, *, user: str, claim: Claim, lifetime: timedelta
    ) -> x509.Certificate:
        """A certificate with which the person *user* has the rights of *claim*.

        Raises `InvalidConfiguration` for a name that nobody can have.
        """
        return build_leaf(
            authority=self.certificate,
            authority_key=self._key,
            public_key=public_key,
            name=user,
            uris=user_names(self.cluster_id, user, claim),
            addresses=[],
            usages=[ExtendedKeyUsageOID.CLIENT_AUTH],
            now=self._now(),
            lifetime=lifetime,
        )

    def check_renewal(self, certificate_pem: str | bytes, csr_pem: str | bytes) -> PeerIdentity:
        """Whose certificate *certificate_pem* is, once *csr_pem* has proved its key.

        The certificate must be this authority's; it may have expired. Whether the node is still
        wanted is the caller's to decide. Raises `CertificateRefused`.
        """
        try:
            certificate = certificates_from_pem(_as_bytes(certificate_pem), "the certificate")[0]
        except InvalidConfiguration as error:
            raise CertificateRefused(error.detail) from error
        if not is_issued_by(certificate, self.certificate):
            raise CertificateRefused(
                "the certificate to renew was not issued by this cluster's CA",
                hint="join the cluster again with a new join token",
            )
        identity = read_identity(certificate)
        if identity is None or identity.cluster_id != self.cluster_id:
            raise CertificateRefused("the certificate to renew is not a node's")
        if not same_key(_proved_key(csr_pem), certificate.public_key()):
            raise CertificateRefused(
                "the request is not signed by the key of the certificate to renew"
            )
        return identity


def request_key_fingerprint(csr_pem: str | bytes) -> str:
    """SHA-256, in hex, of the public key that *csr_pem* proves: the same for the same key.

    Raises `CertificateRefused`.
    """
    encoded = _proved_key(csr_pem).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()


def _proved_key(csr_pem: str | bytes) -> PublicKey:
    try:
        request = x509.load_pem_x509_csr(_as_bytes(csr_pem))
        key = request.public_key()
        proved = request.is_signature_valid
    except Exception as error:
        # cryptography has many ways to say that bytes from outside are not a request.
        raise CertificateRefused("the certificate request is not one in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in (
        "secp256r1",
        "secp384r1",
    ):
        raise CertificateRefused("the key of a node is an elliptic-curve key (P-256 or P-384)")
    if not proved:
        raise CertificateRefused("the certificate request is not signed by its own key")
    return key


def _as_bytes(pem: str | bytes) -> bytes:
    return pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
