"""Bearer tokens that one machine makes for its own router, with no explorer anywhere.

They are in a file of their own, beside the settings: that of the cluster's tokens is replaced as a
whole by an explorer. It is written under the directory's lock, and the router notices a change by
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import msgspec

from hero.errors import InvalidConfiguration, NotFound
from hero.explorer.model import ApiToken, TokenRecord
from hero.identity.authority import utc_now
from hero.identity.claims import DEFAULT_CONTEXT, Claim, check_name
from hero.identity.files import locked, write_atomically
from hero.identity.tokens import hash_secret, new_token


@attrs.frozen(kw_only=True)
class OwnRecord(TokenRecord):
    """What is kept of a token: what a router needs, and when it was made."""

    created_at: datetime


class OwnTokens:
    """The tokens in the file *path*, which `hero.identity.tokens.TokenFile` reads too."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        self._path = path
        self._now = now

    def records(self) -> list[ApiToken]:
        """All of them, the oldest first, without their secrets; expired ones included.

        Raises `InvalidConfiguration` for a file that cannot be read, as the other methods do.
        """
        return [_describe(record) for record in self._read()]

    def create(
        self, *, user: str, role: str, context: str = DEFAULT_CONTEXT, lifetime: float | None = None
    ) -> ApiToken:
        """Make a token for *user*: with *role* everywhere as admin, else in *context*.

        *lifetime* is in seconds. The secret is in the answer and nowhere else. Raises
        `InvalidConfiguration` for a name that cannot stand in a header.
        """
        check_name(user, "a user")
        check_name(context, "a context")
        sid, secret = new_token()
        now = self._now()
        record = OwnRecord(
            sid=sid,
            hash=hash_secret(secret),
            user=f"user:{user}",
            claims=str(Claim(role, None if role == "admin" else context)),
            context=context,
            expires_at=None if lifetime is None else now + timedelta(seconds=lifetime),
            created_at=now,
        )
        with locked(self._path.parent):
            self._write([*self._read(), record])
        return attrs.evolve(_describe(record), token=secret)

    def revoke(self, sid: str) -> ApiToken:
        """Forget the token *sid*: the router refuses it from then on. Raises `NotFound`."""
        with locked(self._path.parent):
            records = self._read()
            gone = next((record for record in records if record.sid == sid), None)
            if gone is None:
                raise NotFound(
                    f"this machine has no token {sid!r} of its own",
                    hint="hero token list --local shows them",
                )
            self._write([record for record in records if record is not gone])
        return _describe(gone)

    def _read(self) -> list[OwnRecord]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[OwnRecord])
        except FileNotFoundError:
            return []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidConfiguration(f"{self._path} holds no tokens: {error}") from error

    def _write(self, records: list[OwnRecord]) -> None:
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(records)) + b"\n")


def _describe(record: OwnRecord) -> ApiToken:
    return ApiToken(
        sid=record.sid,
        user=record.user,
        claims=record.claims,
        context=record.context,
        created_at=record.created_at,
        expires_at=record.expires_at,
    )
