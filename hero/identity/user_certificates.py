"""Certificates for people: how a browser, or a script without a token, shows who it is.

Besides ``hero://<cluster-id>/user/<name>`` a certificate holds a name for each claim:
``hero://<cluster-id>/admin/<name>``, ``hero://<cluster-id>/viewer@<context>/<name>``. It is good
for the client's end of a connection only, and where a node's is asked for it counts for nothing.
"""

from __future__ import annotations

import re
from datetime import datetime

import attrs
from cryptography import x509

from hero.identity.certificates import PeerIdentity, read_identity, uris_of
from hero.identity.claims import DEFAULT_CONTEXT, Claim, check_name

USER = "user"

_NAME = re.compile(
    r"hero://(?P<cluster>[A-Za-z0-9-]{1,63})"
    r"/(?P<claim>user|admin|(?:operator|viewer)@[A-Za-z0-9._-]{1,63})"
    r"/(?P<user>[A-Za-z0-9][A-Za-z0-9._-]{0,62})\Z"
)


@attrs.frozen(kw_only=True)
class UserIdentity:
    """Whom a person's certificate names, with which rights, and until when."""

    cluster_id: str
    user: str
    claims: frozenset[Claim]
    not_after: datetime

    @property
    def context(self) -> str:
        """The context of the caller's rights, where there is one."""
        return next((claim.context for claim in self.claims if claim.context), DEFAULT_CONTEXT)


Peer = PeerIdentity | UserIdentity


def read_user(certificate: x509.Certificate) -> UserIdentity | None:
    """The person that *certificate* names; None where it is not a well-formed one of a person.

    Says nothing about who signed it.
    """
    uris = uris_of(certificate)
    names = [match for uri in uris if (match := _NAME.match(uri))]
    claims = frozenset(match["claim"] for match in names)
    whose = {(match["cluster"], match["user"]) for match in names}
    if len(names) != len(uris) or len(whose) != 1 or USER not in claims:
        return None
    [(cluster_id, user)] = whose
    return UserIdentity(
        cluster_id=cluster_id,
        user=user,
        claims=frozenset(Claim.parse(claim) for claim in claims - {USER}),
        not_after=certificate.not_valid_after_utc,
    )


def read_peer(certificate: x509.Certificate) -> Peer | None:
    """The node or the person that *certificate* names."""
    return read_identity(certificate) or read_user(certificate)


def user_names(cluster_id: str, user: str, claim: Claim) -> list[str]:
    """The names for a certificate of *user* with *claim*. Raises `InvalidConfiguration`."""
    check_name(user, "a user")
    if claim.context is not None:
        check_name(claim.context, "a context")
    return [f"hero://{cluster_id}/{role}/{user}" for role in (USER, str(claim))]
