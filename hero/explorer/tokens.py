"""Bearer tokens of people and scripts: made and revoked here, recognized by every router.

The secret is shown once and kept nowhere; what is kept, and sent to the nodes with the answers to
their heartbeats, is its hash.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import attrs
from sqlalchemy import delete, or_, select, update
from twisted.internet.defer import DeferredLock

from hero.errors import NotFound
from hero.explorer.model import ApiToken, ApiTokenPage, TokenRecord
from hero.explorer.schema import api_tokens, login_codes, sessions
from hero.identity.claims import Claim
from hero.identity.tokens import TokenFile, hash_secret, new_token
from hero.rpc.declare import Call
from hero.store import Database


class Tokens:
    """The bearer tokens of the cluster. *file* is where this machine's router looks them up."""

    def __init__(self, database: Database, file: TokenFile, now: Callable[[], datetime]) -> None:
        self._database = database
        self._file = file
        self._now = now
        self._writing = DeferredLock()
        self.records: list[TokenRecord] = []

    @property
    def digest(self) -> str:
        """What a node names when it has the same tokens."""
        return self._file.digest()

    async def load(self) -> None:
        """Bring the file up to date with the database."""
        await self._writing.acquire()
        try:
            valid = or_(api_tokens.c.expires_at.is_(None), api_tokens.c.expires_at > self._now())
            query = (
                select(api_tokens)
                .where(api_tokens.c.revoked_at.is_(None), valid)
                .order_by(api_tokens.c.sid)
            )
            rows = await self._database.run(lambda c: c.execute(query).all())
            self.records = [
                TokenRecord(
                    sid=row.sid,
                    hash=row.hash,
                    user=row.user,
                    claims=row.claims,
                    context=row.context,
                    expires_at=row.expires_at,
                )
                for row in rows
            ]
            self._file.write(self.records)
        finally:
            self._writing.release()

    async def create(
        self, call: Call, *, user: str, role: str, context: str, lifetime: float | None
    ) -> ApiToken:
        """Make a token for *user* with *role*: for the cluster as admin, else in *context*."""
        sid, secret = new_token()
        now = self._now()
        token = ApiToken(
            sid=sid,
            user=f"user:{user}",
            claims=str(Claim(role, None if role == "admin" else context)),
            context=context,
            created_at=now,
            expires_at=None if lifetime is None else now + timedelta(seconds=lifetime),
            token=secret,
        )
        values = attrs.asdict(token, filter=lambda attribute, _: attribute.name != "token")
        insert = api_tokens.insert().values(hash=hash_secret(secret), **values)
        await self._database.run(lambda c: c.execute(insert))
        await self.load()
        return token

    async def list(self) -> ApiTokenPage:
        """The tokens that were not revoked, expired ones included."""
        query = (
            select(api_tokens)
            .where(api_tokens.c.revoked_at.is_(None))
            .order_by(api_tokens.c.created_at)
        )
        rows = await self._database.run(lambda c: c.execute(query).all())
        return ApiTokenPage(items=[_api_token(row) for row in rows])

    async def revoke(self, sid: str) -> ApiToken:
        """Refuse the token: at once on this machine, elsewhere with the next heartbeat.

        The web sessions of its user end with it; any of them may have been opened with it. Twice
        is no error. Raises `NotFound`.
        """
        this = api_tokens.c.sid == sid

        def work(connection: Any) -> Any:
            row = connection.execute(select(api_tokens).where(this)).one_or_none()
            if row is not None and row.revoked_at is None:
                connection.execute(update(api_tokens).where(this).values(revoked_at=self._now()))
                for table in (login_codes, sessions):
                    connection.execute(delete(table).where(table.c.user == row.user))
            return row

        row = await self._database.run(work)
        await self.load()
        if row is None:
            raise NotFound(f"there is no token {sid!r}", hint="hero token list shows them")
        return _api_token(row)


def _api_token(row: Any) -> ApiToken:
    return ApiToken(
        sid=row.sid,
        user=row.user,
        claims=row.claims,
        context=row.context,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
