"""Bearer tokens: how they look, and the file by which a router knows the good ones.

A router never sees a secret that it was not shown: the file holds SHA-256 hashes. The secrets are
256 random bits, so a plain hash cannot be searched.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import msgspec
from twisted.logger import Logger

from hero.explorer.model import TokenRecord
from hero.identity.authority import utc_now
from hero.identity.files import Fingerprint, fingerprint, write_atomically
from hero.sids import new_sid

#: What every bearer token of ours starts with, so that people and secret scanners know one.
TOKEN_PREFIX = "hero_"

_log = Logger()
_decoder = msgspec.json.Decoder(list[TokenRecord])


def new_token() -> tuple[str, str]:
    """A new token: its sid, by which it can be named and revoked, and its secret."""
    return new_sid("token"), TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_secret(text: str) -> str:
    """The form in which a secret is kept: its SHA-256 in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def records_digest(records: Iterable[TokenRecord]) -> str:
    """SHA-256, in hex, over the records, in whatever order they come."""
    return hashlib.sha256(_encode(records)).hexdigest()


class TokenFile:
    """The bearer tokens that this node's router accepts.

    The file is read again when it changes; one that cannot be read holds no tokens.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        self._path = path
        self._now = now
        self._seen: Fingerprint | None = None
        self._by_hash: dict[str, TokenRecord] = {}

    def lookup(self, secret_text: str) -> TokenRecord | None:
        """The token whose secret this is, unless it is unknown, revoked or expired."""
        self._refresh()
        record = self._by_hash.get(hash_secret(secret_text))
        if record is None or (record.expires_at is not None and record.expires_at <= self._now()):
            return None
        return record

    def records(self) -> list[TokenRecord]:
        """All tokens, expired ones too."""
        self._refresh()
        return list(self._by_hash.values())

    def digest(self) -> str:
        """`records_digest` of all tokens."""
        return records_digest(self.records())

    def write(self, records: Iterable[TokenRecord]) -> None:
        """Replace all tokens by *records*."""
        write_atomically(self._path, _encode(records))

    def _refresh(self) -> None:
        seen = fingerprint(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        self._by_hash = {}
        try:
            content = self._path.read_bytes()
            self._by_hash = {record.hash: record for record in _decoder.decode(content)}
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.error("no bearer tokens: {path}: {reason}", path=self._path, reason=str(error))


class TokenFiles:
    """The bearer tokens of several files."""

    def __init__(self, *files: TokenFile) -> None:
        self._files = files

    def lookup(self, secret_text: str) -> TokenRecord | None:
        """The token whose secret this is, from the first file that accepts it."""
        for file in self._files:
            record = file.lookup(secret_text)
            if record is not None:
                return record
        return None


def _encode(records: Iterable[TokenRecord]) -> bytes:
    return msgspec.json.encode(sorted(records, key=lambda record: record.sid))
