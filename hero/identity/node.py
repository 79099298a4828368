"""This node's own certificate: its files, how they come to be, and how they are replaced.

``ca.crt`` holds the CA certificates to trust, ``node.crt`` the node's certificate and that of the
CA which signed it, ``node.key`` the key (mode 0600), which never leaves the machine. They change
together: a new set is written to the directory ``pending`` first and then moved into place, and
whoever finds a ``pending`` directory finishes the move, so a crash leaves the old set or the new.
"""

from __future__ import annotations

import secrets
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509

from hero.errors import InvalidConfiguration
from hero.identity.addresses import LOOPBACK, host_of
from hero.identity.authority import DEFAULT_LIFETIME, Authority, utc_now
from hero.identity.certificates import (
    EXPLORER,
    PrivateKey,
    build_request,
    certificates_from_pem,
    is_issued_by,
    key_from_pem,
    key_to_pem,
    new_key,
    read_addresses,
    read_identity,
    same_key,
    sha256_fingerprint,
    to_pem,
)
from hero.identity.errors import CaMismatch, CertificateRefused, NoIdentity
from hero.identity.files import (
    Fingerprint,
    fingerprint,
    locked,
    sync_directory,
    write_atomically,
)
from hero.paths import HeroPaths
from hero.sids import new_sid

CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "node.crt", "node.key"
_JOINING_KEY_FILE = "node.key.new"
_PENDING = "pending"


@attrs.frozen(kw_only=True)
class NodeIdentity:
    """Who this machine is in its cluster, with what it takes to prove it."""

    node_sid: str
    cluster_id: str
    roles: frozenset[str]
    addresses: list[str]
    not_before: datetime
    not_after: datetime
    certificate: x509.Certificate
    issuer: x509.Certificate
    trusted: list[x509.Certificate]
    key: PrivateKey = attrs.field(repr=False)

    @classmethod
    def load(cls, tls_dir: Path) -> NodeIdentity:
        """The identity in *tls_dir*.

        Raises `NoIdentity` where there is none, `InvalidConfiguration` where it is of no use.
        An expired one is returned like any other.
        """
        if not tls_dir.is_dir():
            raise _no_identity(tls_dir)
        with locked(tls_dir):
            return _load_locked(tls_dir)

    @property
    def certificate_pem(self) -> str:
        """The certificate alone, as `renew_certificate` wants it."""
        return to_pem(self.certificate)

    @property
    def ca_pem(self) -> str:
        """The CA certificates to trust."""
        return to_pem(*self.trusted)

    @property
    def renewal_time(self) -> datetime:
        """When to ask for a new certificate: at two thirds of this one's life."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3

    def renewal_due(self, now: datetime) -> bool:
        """Whether `renewal_time` has passed, or the clock was ahead when this was issued."""
        return now >= self.renewal_time or now < self.not_before

    def valid_at(self, now: datetime) -> bool:
        """Whether the certificate is good at the time *now*."""
        return self.not_before <= now <= self.not_after

    def renewal_request(self) -> str:
        """A signing request (PEM) by the same key."""
        return build_request(self.key)


def identity_fingerprint(tls_dir: Path) -> Fingerprint:
    """A value that changes when the files of the identity in *tls_dir* do."""
    return fingerprint(tls_dir / CA_FILE, tls_dir / CERTIFICATE_FILE, tls_dir / KEY_FILE)


def ensure_master_identity(
    paths: HeroPaths,
    addresses: Sequence[str],
    *,
    lifetime: timedelta = DEFAULT_LIFETIME,
    now: Callable[[], datetime] = utc_now,
) -> NodeIdentity:
    """The identity of a machine that runs an explorer; authority and certificate made as needed.

    *addresses* are hosts, with or without a port, or URLs. The certificate names their hosts and
    the loopback addresses. A new one is issued when one of them is missing from it, or two
    thirds of its life have passed. Any number of processes may call this at once. It blocks on the
    disk for some milliseconds.
    """
    with locked(paths.tls):
        _finish_replacing(paths.tls)
        authority = Authority.create_locked(paths.tls, now=now)
        wanted = list(dict.fromkeys([*LOOPBACK, *map(host_of, addresses)]))
        try:
            current = _load_locked(paths.tls)
        except NoIdentity:
            current = None
        if current is not None:
            due = current.renewal_due(now()) or EXPLORER not in current.roles
            if not due and set(wanted) <= set(current.addresses):
                return current
            if not due:
                # Another process of this machine may have asked for addresses that we do not
                # know; those it no longer asks for go at the next renewal.
                wanted = list(dict.fromkeys([*current.addresses, *wanted]))
        key = current.key if current is not None else new_key()
        certificate = authority.issue(
            build_request(key),
            node_sid=current.node_sid if current is not None else new_sid("node"),
            addresses=wanted,
            explorer=True,
            lifetime=lifetime,
        )
        files = {CERTIFICATE_FILE: certificate.encode()}
        if current is None:
            files[KEY_FILE] = key_to_pem(key)
        _replace(paths.tls, files)
        return _load_locked(paths.tls)


def make_key_and_csr(tls_dir: Path) -> str:
    """A signing request (PEM) for a machine that joins a cluster.

    The key behind it is kept until `install_certificate`; a join that is repeated uses it again.
    """
    with locked(tls_dir):
        path = tls_dir / _JOINING_KEY_FILE
        if not path.exists():
            write_atomically(path, key_to_pem(new_key()))
        return build_request(key_from_pem(path.read_bytes(), str(path)))


def install_certificate(
    tls_dir: Path, certificate: str, ca: str, *, ca_sha256: str | None = None
) -> NodeIdentity:
    """Make *certificate* (PEM), signed by one of *ca* (PEM), this machine's own.

    It must be for the key that `make_key_and_csr` made or for the present one. With *ca_sha256*
    one of *ca* must have that fingerprint, or `CaMismatch` is raised. Raises
    `CertificateRefused` when the parts do not belong together.
    """
    with locked(tls_dir):
        _finish_replacing(tls_dir)
        leaf = _parse_issued(certificate)[0]
        authorities = _parse_issued(ca)
        if ca_sha256 is not None:
            authorities = [a for a in authorities if sha256_fingerprint(a) == ca_sha256.lower()]
            if not authorities:
                raise CaMismatch("the cluster's CA is not the one that the join token names")
        issuer = _issuer(leaf, authorities)
        if issuer is None or read_identity(leaf) is None:
            raise CertificateRefused("the certificate is not a node's, issued by the CA with it")
        if (tls_dir / "ca.key").exists() and issuer not in _read_trusted(tls_dir):
            raise CertificateRefused(
                "this machine is the master of a cluster of its own",
                hint="use another HERO_HOME to join a different cluster",
            )
        files = {
            CA_FILE: to_pem(*authorities).encode(),
            CERTIFICATE_FILE: to_pem(leaf, issuer).encode(),
        }
        joining_key = tls_dir / _JOINING_KEY_FILE
        if _holds_key_of(joining_key, leaf):
            files[KEY_FILE] = joining_key.read_bytes()
        elif not _holds_key_of(tls_dir / KEY_FILE, leaf):
            raise CertificateRefused("the certificate is for a key that this machine does not have")
        _replace(tls_dir, files)
        if KEY_FILE in files:
            joining_key.unlink(missing_ok=True)
        return _load_locked(tls_dir)


def _load_locked(tls_dir: Path) -> NodeIdentity:
    _finish_replacing(tls_dir)
    certificate_path, key_path = tls_dir / CERTIFICATE_FILE, tls_dir / KEY_FILE
    if not certificate_path.exists():
        raise _no_identity(tls_dir)
    try:
        leaf = certificates_from_pem(certificate_path.read_bytes(), str(certificate_path))[0]
        trusted = _read_trusted(tls_dir)
        if stat.S_IMODE(key_path.stat().st_mode) & 0o077:
            raise InvalidConfiguration(
                f"others than its owner can use the key {key_path}", hint=f"chmod 600 {key_path}"
            )
        key = key_from_pem(key_path.read_bytes(), str(key_path))
    except FileNotFoundError as error:
        raise InvalidConfiguration(
            f"{error.filename} is missing, and {certificate_path} is of no use without it",
            hint="restore it from a backup, or remove the directory and join again",
        ) from error
    except PermissionError as error:
        raise InvalidConfiguration(f"this user may not read {error.filename}") from error
    peer = read_identity(leaf)
    issuer = _issuer(leaf, trusted)
    if peer is None:
        raise InvalidConfiguration(f"{certificate_path} is not the certificate of a node")
    if issuer is None:
        raise InvalidConfiguration(
            f"{certificate_path} was not issued by the CA in {tls_dir / CA_FILE}",
            hint="join the cluster again with a new join token",
        )
    if not same_key(key.public_key(), leaf.public_key()):
        raise InvalidConfiguration(
            f"{key_path} is not the key of {certificate_path}",
            hint="join the cluster again with a new join token",
        )
    return NodeIdentity(
        node_sid=peer.node_sid,
        cluster_id=peer.cluster_id,
        roles=peer.roles,
        addresses=read_addresses(leaf),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        certificate=leaf,
        issuer=issuer,
        trusted=trusted,
        key=key,
    )


def _replace(tls_dir: Path, files: Mapping[str, bytes]) -> None:
    draft = tls_dir / f".draft.{secrets.token_hex(4)}"
    draft.mkdir(mode=0o700)
    for name, content in files.items():
        write_atomically(draft / name, content, 0o600 if name == KEY_FILE else 0o644)
    draft.rename(tls_dir / _PENDING)
    sync_directory(tls_dir)
    _finish_replacing(tls_dir)


def _finish_replacing(tls_dir: Path) -> None:
    for draft in tls_dir.glob(".draft.*"):
        shutil.rmtree(draft, ignore_errors=True)
    pending = tls_dir / _PENDING
    if not pending.is_dir():
        return
    for name in (CA_FILE, KEY_FILE, CERTIFICATE_FILE):
        if (pending / name).exists():
            (pending / name).rename(tls_dir / name)
    sync_directory(tls_dir)
    shutil.rmtree(pending)


def _read_trusted(tls_dir: Path) -> list[x509.Certificate]:
    path = tls_dir / CA_FILE
    return certificates_from_pem(path.read_bytes(), str(path))


def _issuer(
    leaf: x509.Certificate, authorities: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    return next((a for a in authorities if is_issued_by(leaf, a)), None)


def _holds_key_of(path: Path, certificate: x509.Certificate) -> bool:
    if not path.exists():
        return False
    key = key_from_pem(path.read_bytes(), str(path))
    return same_key(key.public_key(), certificate.public_key())


def _parse_issued(pem: str) -> list[x509.Certificate]:
    try:
        return certificates_from_pem(pem.encode("utf-8", "replace"), "the answer")
    except InvalidConfiguration as error:
        raise CertificateRefused("the answer holds no certificate in PEM") from error


def _no_identity(tls_dir: Path) -> NoIdentity:
    return NoIdentity(
        f"{tls_dir} holds no certificate: this machine is not a member of a cluster yet",
        hint="hero join <token>, with a token that hero token create printed on the master",
    )
