"""Who is calling, and what that caller may do.

The router works out an identity once, at the door, and writes it into three headers; services
read a `Caller` from them. A request that reaches a UNIX socket without ``X-Hero-Claims`` was sent
by a local process that could open the socket, and is the local administrator.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

import attrs

from hero.errors import Forbidden, InvalidConfiguration, Unauthenticated

ANONYMOUS_USER = "anonymous"
LOCAL_USER = "local"
DEFAULT_CONTEXT = "root"

#: The names of users and of contexts.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Access(enum.StrEnum):
    """The least right that a method asks for."""

    PUBLIC = "public"
    """Anyone; the call carries its own proof, or needs none."""
    CLUSTER = "cluster"
    """Any known identity."""
    VIEWER = "viewer"
    """May look at the things of the context."""
    OPERATOR = "operator"
    """May change the things of the context."""
    ADMIN = "admin"
    """May change the cluster."""
    NODE = "node"
    """A node of the cluster, about itself."""


@attrs.frozen
class Claim:
    """A role, with the context in which it holds; ``None`` for a role that holds everywhere."""

    role: str
    context: str | None = None

    def __str__(self) -> str:
        return self.role if self.context is None else f"{self.role}@{self.context}"

    @classmethod
    def parse(cls, text: str) -> Claim:
        """The claim that ``role`` or ``role@context`` stands for."""
        role, _, context = text.strip().partition("@")
        return cls(role, context or None)


def check_name(text: str, what: str) -> str:
    """*text*, if a user or a context can be called that, else `InvalidConfiguration` is raised."""
    if _NAME.fullmatch(text) is None:
        raise InvalidConfiguration(
            f"{text!r} is no name for {what}",
            hint="use up to 63 letters, digits, '.', '_' and '-', with a letter or digit first",
        )
    return text


def format_claims(claims: Iterable[Claim]) -> str:
    """The value of ``X-Hero-Claims``."""
    return ", ".join(sorted(str(claim) for claim in claims))


def parse_claims(value: str) -> frozenset[Claim]:
    """The claims in a value of ``X-Hero-Claims``."""
    return frozenset(Claim.parse(part) for part in value.split(",") if part.strip())


@attrs.frozen(kw_only=True)
class Caller:
    """An identity as a service sees it.

    ``user`` is ``user:<name>``, ``node:<sid>``, ``local`` or ``anonymous``. ``on_behalf_of`` is
    the user that an explorer names as the one it acts for. ``context`` is the one the request's
    path or the caller's default names.
    """

    user: str
    claims: frozenset[Claim] = frozenset()
    context: str = DEFAULT_CONTEXT
    on_behalf_of: str | None = None

    @classmethod
    def local_administrator(cls, context: str = DEFAULT_CONTEXT) -> Caller:
        """The one who could open the socket."""
        return cls(user=LOCAL_USER, claims=frozenset({Claim("admin")}), context=context)

    @classmethod
    def anonymous(cls, context: str = DEFAULT_CONTEXT) -> Caller:
        """One with no identity at all."""
        return cls(user=ANONYMOUS_USER, context=context)

    @property
    def is_anonymous(self) -> bool:
        return self.user == ANONYMOUS_USER

    @property
    def responsible(self) -> str:
        """The name for an audit log: the user acted for, or else the caller."""
        return self.on_behalf_of or self.user

    @property
    def node_sid(self) -> str | None:
        """The sid of the node that calls, or None where the caller is not a node."""
        prefix, _, sid = self.user.partition(":")
        return sid if prefix == "node" and sid else None

    def has(self, role: str) -> bool:
        """Whether the caller has *role* in its context or everywhere."""
        return any(c.role == role and c.context in (None, self.context) for c in self.claims)

    def may(self, access: Access, *, delegable: bool = False) -> bool:
        """Whether the caller has the right that *access* names.

        *delegable* methods can be called by an explorer for a user whose rights it has checked.
        """
        if access is Access.PUBLIC:
            return True
        if self.is_anonymous:
            return False
        if access is Access.CLUSTER or self.has("admin"):
            return True
        if delegable and self.has("explorer") and access in (Access.VIEWER, Access.OPERATOR):
            return True
        match access:
            case Access.VIEWER:
                return self.has("viewer") or self.has("operator")
            case Access.OPERATOR:
                return self.has("operator")
            case Access.NODE:
                return self.has("node")
            case _:
                return False

    def require(self, access: Access, *, delegable: bool = False, what: str = "this") -> None:
        """Raise `Unauthenticated` or `Forbidden` unless the caller `may`."""
        if self.may(access, delegable=delegable):
            return
        if self.is_anonymous:
            raise Unauthenticated(
                f"{what} needs an identity",
                hint="send a bearer token (hero token admin makes one) or show a certificate",
            )
        raise Forbidden(
            f"{self.user} may not call {what}, which needs the role {access.value}",
            hint="ask an administrator of the cluster for a token with that role",
        )
