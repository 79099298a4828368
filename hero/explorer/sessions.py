"""Logging in to the web console: a one-time code from the command line becomes a session.

Codes and session secrets are kept as hashes only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, select

from hero.errors import Unauthenticated
from hero.explorer.model import LoginCode, Session
from hero.explorer.schema import login_codes, sessions
from hero.identity.claims import format_claims
from hero.identity.tokens import hash_secret
from hero.rpc.declare import Call
from hero.store import Database

#: Seconds for which a login code and a session are good.
CODE_LIFETIME = 120.0
SESSION_LIFETIME = 12 * 3600.0


class Sessions:
    """Login codes and the sessions they became."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def create_code(self, call: Call) -> LoginCode:
        """A code with which a browser becomes the caller."""
        code = secrets.token_urlsafe(32)
        now = self._now()

        def work(connection: Connection) -> None:
            connection.execute(delete(login_codes).where(login_codes.c.expires_at <= now))
            connection.execute(
                login_codes.insert().values(
                    hash=hash_secret(code),
                    user=call.caller.responsible,
                    claims=format_claims(call.caller.claims),
                    context=call.context,
                    expires_at=now + timedelta(seconds=CODE_LIFETIME),
                )
            )

        await self._database.run(work)
        return LoginCode(code=code, expires_in=CODE_LIFETIME)

    async def redeem(self, code: str) -> Session:
        """The session for *code*, which is worth nothing afterwards."""
        secret = secrets.token_urlsafe(32)
        now = self._now()

        def work(connection: Connection) -> Any:
            row = connection.execute(
                select(login_codes).where(login_codes.c.hash == hash_secret(code))
            ).one_or_none()
            if row is None:
                return None
            connection.execute(delete(login_codes).where(login_codes.c.hash == row.hash))
            connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            if row.expires_at <= now:
                return None
            values = {
                "user": row.user,
                "claims": row.claims,
                "context": row.context,
                "expires_at": now + timedelta(seconds=SESSION_LIFETIME),
            }
            connection.execute(sessions.insert().values(hash=hash_secret(secret), **values))
            return values

        values = await self._database.run(work)
        if values is None:
            raise Unauthenticated(
                "the login code was used before, or is too old",
                hint="run `hero ui` for a new link",
            )
        return Session(secret=secret, **values)

    async def get(self, secret: str) -> Session:
        """The session that *secret* stands for."""
        query = select(sessions).where(
            sessions.c.hash == hash_secret(secret), sessions.c.expires_at > self._now()
        )
        row = await self._database.run(lambda c: c.execute(query).one_or_none())
        if row is None:
            raise Unauthenticated("the session has ended", hint="run `hero ui` for a new link")
        return Session(
            secret=secret,
            user=row.user,
            claims=row.claims,
            context=row.context,
            expires_at=row.expires_at,
        )

    async def end(self, secret: str) -> None:
        """Log out."""
        over = delete(sessions).where(sessions.c.hash == hash_secret(secret))
        await self._database.run(lambda c: c.execute(over))
