"""Identity at the door: who is calling, and whether that is enough to pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from hero.explorer.model import TokenRecord
from hero.identity.authority import utc_now
from hero.identity.certificates import PeerIdentity
from hero.identity.claims import DEFAULT_CONTEXT, Caller, Claim, parse_claims
from hero.router.errors import Rejection
from hero.router.head import RequestHead
from hero.router.target import Target

_TOKEN_PREFIX = b"hero_"
_USER = re.compile(r"[!-~]{1,200}")
_CHALLENGE = {b"WWW-Authenticate": b'Bearer realm="hero"'}
_NOTHING: frozenset[bytes] = frozenset()
_AUTHORIZATION = frozenset({b"authorization"})


class TokenLookup(Protocol):
    """The bearer tokens that are accepted; `hero.identity.tokens.TokenFile` is one."""

    def lookup(self, secret_text: str) -> TokenRecord | None: ...


class RemovedNodes(Protocol):
    """The nodes that were removed; `hero.identity.revocation.RevokedNodes` is one."""

    def __contains__(self, node_sid: str, /) -> bool: ...


class Door:
    """Tells who sent a request, by the client's certificate or its bearer token.

    *removed* holds the sids of nodes whose certificates count no longer. *peer_identity* reads
    the identity from a transport that is TLS.
    """

    def __init__(
        self,
        tokens: TokenLookup,
        *,
        removed: RemovedNodes = frozenset(),
        peer_identity: Callable[[Any], PeerIdentity | None] = lambda transport: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._removed = removed
        self._peer_identity = peer_identity

    def identify(
        self, transport: Any, secure: bool, head: RequestHead, target: Target
    ) -> tuple[Caller, frozenset[bytes]]:
        """The caller, and the fields that are not passed on because they were for the door.

        Raises `Rejection` for a proof that does not hold: a bad token is not nobody.
        """
        authorization = head.values(b"authorization")
        if len(authorization) > 1:
            raise Rejection(400, "bad_authorization", "more than one Authorization field")
        token = _hero_token(authorization[0]) if authorization else None
        if token is not None:
            return self._by_token(token, target), _AUTHORIZATION
        peer = self._peer_identity(transport) if secure else None
        if peer is not None:
            return self._by_certificate(peer, head, target), _NOTHING
        return Caller.anonymous(target.context or DEFAULT_CONTEXT), _NOTHING

    def admit(self, caller: Caller, access: str, target: Target) -> None:
        """Raise `Rejection` unless *caller* may call a service of that *access*."""
        if access == "public" or not caller.is_anonymous or target.path == b"/health":
            return
        raise Rejection(
            401,
            "unauthenticated",
            f"{target.prefix} needs an identity: send a bearer token or a node's certificate",
            headers=_CHALLENGE,
        )

    def _by_token(self, token: str, target: Target) -> Caller:
        record = self._tokens.lookup(token)
        if record is None:
            raise Rejection(
                401,
                "bad_token",
                "the bearer token is unknown, revoked or expired",
                headers={b"WWW-Authenticate": b'Bearer realm="hero", error="invalid_token"'},
            )
        user = record.user if record.user.startswith("user:") else f"user:{record.user}"
        return Caller(
            user=user,
            claims=parse_claims(record.claims),
            context=target.context or record.context or DEFAULT_CONTEXT,
        )

    def _by_certificate(self, peer: PeerIdentity, head: RequestHead, target: Target) -> Caller:
        if peer.node_sid in self._removed:
            raise Rejection(
                403, "node_removed", f"{peer.node_sid} was removed from the cluster", close=True
            )
        if peer.not_after <= self._now():
            # It was good when the connection was made, and can have expired since.
            raise Rejection(
                401,
                "certificate_expired",
                f"the certificate of {peer.node_sid} has expired",
                headers=_CHALLENGE,
                close=True,
            )
        behalf = head.values(b"hero-on-behalf-of") if "explorer" in peer.roles else []
        named = behalf[0].decode("latin-1") if len(behalf) == 1 else None
        if behalf and (named is None or not _USER.fullmatch(named)):
            raise Rejection(400, "bad_on_behalf_of", "Hero-On-Behalf-Of names no user")
        return Caller(
            user=f"node:{peer.node_sid}",
            claims=frozenset(Claim(role) for role in peer.roles),
            context=target.context or DEFAULT_CONTEXT,
            on_behalf_of=named,
        )


def _hero_token(authorization: bytes) -> str | None:
    """The bearer token of ours in an Authorization field (RFC 6750 section 2.1).

    Anything else in it is between the client and the service.
    """
    scheme, _, rest = authorization.partition(b" ")
    token = rest.strip(b" ")
    if scheme.lower() != b"bearer" or not token.startswith(_TOKEN_PREFIX):
        return None
    return token.decode("latin-1")
