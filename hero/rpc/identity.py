"""Who sent a request to one of our UNIX sockets, by the headers that the router sets."""

from __future__ import annotations

from twisted.web.http_headers import Headers

from hero.identity.claims import (
    ANONYMOUS_USER,
    DEFAULT_CONTEXT,
    Caller,
    parse_claims,
)


def caller_from_headers(headers: Headers, context: str = DEFAULT_CONTEXT) -> Caller:
    """The caller behind a request with *headers* that is about *context*.

    Without ``X-Hero-Claims`` the request did not pass the router: a local process opened the
    socket, and is the local administrator. With it, and without a user, it is anonymous.
    """
    claims_values = headers.getRawHeaders(b"X-Hero-Claims")
    if claims_values is None:
        return Caller.local_administrator(context)
    user = _last(headers, b"X-Hero-User")
    if not user or user == ANONYMOUS_USER:
        return Caller.anonymous(context)
    claims = parse_claims(b",".join(claims_values).decode("utf-8", "replace"))
    behalf = None
    if any(claim.role == "explorer" for claim in claims):
        behalf = _last(headers, b"X-Hero-On-Behalf-Of") or None
    return Caller(user=user, claims=claims, context=context, on_behalf_of=behalf)


def _last(headers: Headers, name: bytes) -> str:
    return headers.getRawHeaders(name, [b""])[-1].decode("utf-8", "replace").strip()
