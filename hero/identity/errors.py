"""What can go wrong with identities: joining, certificates, and peers that are not who they say."""

from __future__ import annotations

from hero.errors import HeroError, InvalidConfiguration


class InvalidJoinToken(HeroError):
    """The text is not a join token, or not a whole one. Copy it again, or make a new one."""

    kind = "join_token_invalid"
    code = -32020


class JoinTokenUnknown(HeroError):
    """The cluster never made this join token, or has forgotten it. Make a new one."""

    kind = "join_token_unknown"
    code = -32021


class JoinTokenUsed(HeroError):
    """Another machine has joined with this token. Each machine needs a token of its own."""

    kind = "join_token_used"
    code = -32022


class JoinTokenExpired(HeroError):
    """The join token is too old. Make a new one."""

    kind = "join_token_expired"
    code = -32023


class JoinTokenOtherCluster(HeroError):
    """The join token was made by another cluster than the one that was asked."""

    kind = "join_token_other_cluster"
    code = -32024


class CaMismatch(HeroError):
    """The server does not present the cluster CA that was pinned, so it was told nothing.

    Either the address belongs to another machine, or somebody is in between.
    """

    kind = "ca_mismatch"
    code = -32025


class PeerRefused(HeroError):
    """A TLS peer is not the one that was wanted, so it was told nothing."""

    kind = "peer_refused"
    code = -32026


class CertificateRefused(HeroError):
    """The CA does not sign this: the request or the proof that comes with it is not good."""

    kind = "certificate_refused"
    code = -32027


class NoIdentity(InvalidConfiguration):
    """This machine has no certificate: it is not a member of a cluster yet."""

    kind = "no_identity"
    code = -32028
