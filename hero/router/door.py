"""Identity at the door: who is calling, and whether that is enough to pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

import attrs

from hero.explorer.model import TokenRecord
from hero.identity.authority import utc_now
from hero.identity.claims import DEFAULT_CONTEXT, Access, Caller, Claim, parse_claims
from hero.identity.user_certificates import Peer, UserIdentity
from hero.router.errors import Rejection
from hero.router.head import RequestHead
from hero.router.request import Request
from hero.router.target import Target

_USER = re.compile(r"[!-~]{1,200}")
_CHALLENGE = {b"WWW-Authenticate": b'Bearer realm="hero"'}
#: Callers whose objects are kept, of each kind.
_CALLERS = 1024


class TokenLookup(Protocol):
    """The bearer tokens that are accepted; `hero.identity.tokens.TokenFile` is one."""

    def lookup(self, secret_text: str) -> TokenRecord | None: ...


class RemovedNodes(Protocol):
    """The nodes that were removed; `hero.identity.revocation.RevokedNodes` is one."""

    def __contains__(self, node_sid: str, /) -> bool: ...


class HasAccess(Protocol):
    """A route, as far as the door needs it."""

    access: str


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
        peer_identity: Callable[[Any], Peer | None] = lambda transport: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._removed = removed
        self._peer_identity = peer_identity

    def identify(self, connection: Any, request: Request, target: Target) -> Caller:
        """Who sent *request* over *connection*, an `IClientConnection`.

        The same object comes back for the same caller, as long as that is easily told. Raises
        `Rejection` for a proof that does not hold: a bad token is not nobody.
        """
        if request.token is not None:
            return self._by_token(request.token, target)
        if connection.secure:
            peer = connection.peer_identity(self._peer_identity)
            if peer is not None:
                return self._by_certificate(peer, request.head, target)
        return _anonymous(target.context or DEFAULT_CONTEXT)

    def admission(
        self, caller: Caller, route: HasAccess, target: Target, method: bytes
    ) -> Callable[[], None]:
        """What raises `Rejection`, when it is called, unless *caller* may call *route* then."""

        def admit() -> None:
            self.admit(caller, route.access, target, method)

        return admit

    def admit(self, caller: Caller, access: str, target: Target, method: bytes) -> None:
        """Raise `Rejection` unless *caller* may call a service of that *access*."""
        if access == "public":
            return
        if access == Access.OPERATOR:
            # The path is the service's own, so that the context in it gives no right.
            if attrs.evolve(caller, context=DEFAULT_CONTEXT).may(Access.OPERATOR):
                return
            if not caller.is_anonymous:
                raise Rejection(
                    403,
                    "forbidden",
                    f"{caller.user} may not use {target.prefix}, which needs the role operator",
                )
        elif not caller.is_anonymous or (target.path == b"/health" and method in (b"GET", b"HEAD")):
            return
        raise Rejection(
            401,
            "unauthenticated",
            f"{target.prefix} needs an identity: send a bearer token or show a certificate",
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
        return _token_caller(
            record.user, record.claims, target.context or record.context or DEFAULT_CONTEXT
        )

    def _by_certificate(self, peer: Peer, head: RequestHead, target: Target) -> Caller:
        if isinstance(peer, UserIdentity):
            self._check_expiry(peer.user, peer.not_after)
            return _person(peer.user, peer.claims, target.context or peer.context)
        if peer.node_sid in self._removed:
            raise Rejection(
                403, "node_removed", f"{peer.node_sid} was removed from the cluster", close=True
            )
        self._check_expiry(peer.node_sid, peer.not_after)
        behalf = head.named.get(b"hero-on-behalf-of", []) if "explorer" in peer.roles else []
        named = behalf[0].decode("latin-1") if len(behalf) == 1 else None
        if behalf and (named is None or not _USER.fullmatch(named)):
            raise Rejection(400, "bad_on_behalf_of", "Hero-On-Behalf-Of names no user")
        return _node_caller(peer.node_sid, peer.roles, target.context or DEFAULT_CONTEXT, named)

    def _check_expiry(self, whose: str, not_after: datetime) -> None:
        """A certificate was good when the connection was made, and can have expired since."""
        if not_after <= self._now():
            raise Rejection(
                401,
                "certificate_expired",
                f"the certificate of {whose} has expired",
                headers=_CHALLENGE,
                close=True,
            )


@lru_cache(_CALLERS)
def _anonymous(context: str) -> Caller:
    return Caller.anonymous(context)


@lru_cache(_CALLERS)
def _token_caller(user: str, claims: str, context: str) -> Caller:
    name = user if user.startswith("user:") else f"user:{user}"
    return Caller(user=name, claims=parse_claims(claims), context=context)


@lru_cache(_CALLERS)
def _person(user: str, claims: frozenset[Claim], context: str) -> Caller:
    return Caller(user=f"user:{user}", claims=claims, context=context)


@lru_cache(_CALLERS)
def _node_caller(
    node_sid: str, roles: frozenset[str], context: str, on_behalf_of: str | None
) -> Caller:
    return Caller(
        user=f"node:{node_sid}",
        claims=frozenset(Claim(role) for role in roles),
        context=context,
        on_behalf_of=on_behalf_of,
    )
