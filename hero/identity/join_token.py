"""The string that ``hero token create`` prints and ``hero join`` reads.

It is ``hero-join-1.``, then base64url (RFC 4648 section 5, no padding) of a JSON array
``[cluster_id, explorer_urls, ca_sha256, secret]`` and a four-byte SHA-256 checksum of that JSON,
by which a string that was cut or mistyped is known as such.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

import attrs
import msgspec

from hero.identity.errors import InvalidJoinToken
from hero.identity.secret import Secret, as_secret
from hero.identity.tokens import TOKEN_PREFIX

_PREFIX = "hero-join-1."
_PREFIX_ANY_VERSION = re.compile(r"hero-join-\d+\.")
_CHECKSUM_LENGTH = 4
_MAX_LENGTH = 8192
_decoder = msgspec.json.Decoder(tuple[str, list[str], str, str])


@attrs.frozen
class JoinTokenString:
    """What a machine needs to know in order to join a cluster, and to know that it is the one."""

    cluster_id: str
    explorer_urls: list[str]
    ca_sha256: str
    secret: Secret = attrs.field(converter=as_secret)

    def encode(self) -> str:
        """The string, which holds the secret."""
        content = msgspec.json.encode(
            (self.cluster_id, self.explorer_urls, self.ca_sha256, self.secret.reveal())
        )
        encoded = base64.urlsafe_b64encode(content + _checksum(content))
        return _PREFIX + encoded.rstrip(b"=").decode("ascii")

    @classmethod
    def parse(cls, text: str) -> JoinTokenString:
        """Read what `encode` wrote; white space, as from a wrapped line, does not matter.

        Raises `InvalidJoinToken`, which says what is wrong.
        """
        compact = "".join(text.split())
        if len(compact) > _MAX_LENGTH:
            raise _invalid("this is too long for a join token")
        if not compact.startswith(_PREFIX):
            if compact.startswith(TOKEN_PREFIX):
                raise _invalid("this is a bearer token for the API, not a join token")
            if _PREFIX_ANY_VERSION.match(compact):
                raise _invalid("this join token is from a newer version of Hero")
            raise _invalid(f"this is not a join token, which starts with {_PREFIX}")
        encoded = compact.removeprefix(_PREFIX)
        try:
            raw = base64.b64decode(
                encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True
            )
        except (binascii.Error, ValueError) as error:
            raise _invalid("the join token is cut off or has a wrong character") from error
        content, checksum = raw[:-_CHECKSUM_LENGTH], raw[-_CHECKSUM_LENGTH:]
        if checksum != _checksum(content):
            raise _invalid("the join token is cut off or mistyped: its checksum is wrong")
        try:
            cluster_id, explorer_urls, ca_sha256, secret = _decoder.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _invalid("the join token does not hold what it should") from error
        if not cluster_id or not explorer_urls or not secret:
            raise _invalid("the join token does not hold what it should")
        if not re.fullmatch(r"[0-9a-f]{64}", ca_sha256):
            raise _invalid("the join token does not hold the SHA-256 of a CA")
        if not all(url.startswith("https://") for url in explorer_urls):
            raise _invalid("the join token names an explorer that is not reached by https")
        return cls(cluster_id, explorer_urls, ca_sha256, Secret(secret))


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECKSUM_LENGTH]


def _invalid(detail: str) -> InvalidJoinToken:
    return InvalidJoinToken(
        detail, hint="copy the whole token, or make another with hero token create on the master"
    )
