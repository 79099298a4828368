"""Who looks at the console."""

from __future__ import annotations

import attrs

from hero.identity.claims import ANONYMOUS_USER, DEFAULT_CONTEXT


@attrs.frozen(kw_only=True)
class Visitor:
    """An identity as the router or a session gives it. *session*: it can be signed out."""

    user: str
    claims: str
    context: str = DEFAULT_CONTEXT
    session: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What tells the explorer for whom a request is made."""
        return {"X-Hero-User": self.user, "X-Hero-Claims": self.claims}


#: One who has shown nothing. The claims are there because a request without any is believed to
#: come from the local administrator.
NOBODY = Visitor(user=ANONYMOUS_USER, claims=ANONYMOUS_USER)
