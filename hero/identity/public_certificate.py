"""A certificate from elsewhere, such as a public CA's, for names by which people call this router.

The node's own certificate goes on to serve everybody who calls by another name, or by address, and
so the other nodes of a cluster, which trust nothing else.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from OpenSSL import SSL

from hero.errors import InvalidConfiguration
from hero.identity.addresses import normalize_address
from hero.identity.certificates import certificates_from_pem
from hero.identity.files import Fingerprint, fingerprint

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@attrs.frozen(kw_only=True)
class PublicFiles:
    """Where the certificate, followed by those of its issuers, and its key are (PEM).

    They can be one file.
    """

    certificate: Path
    key: Path

    def fingerprint(self) -> Fingerprint:
        """A value that changes when the files do."""
        return fingerprint(self.certificate, self.key)


@attrs.frozen(kw_only=True)
class PublicCertificate:
    """The certificate and what goes with it. ``names`` are host names, in lower case."""

    chain: list[x509.Certificate]
    names: frozenset[str]
    key: Key = attrs.field(repr=False)

    @classmethod
    def load(cls, files: PublicFiles) -> PublicCertificate:
        """What *files* hold. Raises `InvalidConfiguration` where they are of no use."""
        try:
            chain = certificates_from_pem(files.certificate.read_bytes(), str(files.certificate))
            key = _read_key(files.key)
        except OSError as error:
            raise InvalidConfiguration(f"{error.filename}: {error.strerror}") from error
        leaf = chain[0]
        if _public_bytes(key.public_key()) != _public_bytes(leaf.public_key()):
            raise InvalidConfiguration(
                f"{files.key} is not the key of the first certificate in {files.certificate}"
            )
        names = _host_names(leaf)
        if not names:
            raise InvalidConfiguration(
                f"{files.certificate} names no host",
                hint="it needs a subject alternative name of the kind DNS (RFC 9525)",
            )
        return cls(chain=chain, names=names, key=key)

    def covers(self, host: str) -> bool:
        """Whether *host* is one of the names. ``*.`` stands for one label (RFC 9525, 6.3)."""
        name = host.lower().rstrip(".")
        _, dot, parent = name.partition(".")
        return name in self.names or bool(dot and f"*.{parent}" in self.names)

    def refuse_addresses(self, addresses: Iterable[str]) -> None:
        """Raise `InvalidConfiguration` where *addresses*, by which nodes call, are covered."""
        for address in addresses:
            if self.covers(normalize_address(address)):
                raise InvalidConfiguration(
                    f"--certificate is for {address}, by which other nodes call this one",
                    hint="nodes believe their cluster's certificates only: advertise an IP address "
                    "or another name",
                )

    def present(self, context: SSL.Context) -> None:
        """Let *context* show it."""
        context.use_certificate(self.chain[0])
        for issuer in self.chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(self.key)
        context.check_privatekey()


def _read_key(path: Path) -> Key:
    if stat.S_IMODE(path.stat().st_mode) & 0o007:
        raise InvalidConfiguration(
            f"everybody on this machine can use the key {path}", hint=f"chmod o= {path}"
        )
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidConfiguration(
            f"{path} holds no private key in PEM, or one under a password"
        ) from error
    if not isinstance(key, Key):
        raise InvalidConfiguration(f"{path} is neither an RSA key nor an elliptic-curve one")
    return key


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _host_names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return frozenset()
    return frozenset(name.lower() for name in found.get_values_for_type(x509.DNSName))
