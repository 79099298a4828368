"""WebSocket over HTTP/2 (RFC 8441) to a service that knows the handshake of HTTP/1.1. No I/O.

The client neither sends a key nor sees one accepted, so nobody but the router can find out
whether it was a WebSocket server that answered.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence

from hero.router.grammar import Field

#: RFC 6455 section 1.3
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def new_key() -> bytes:
    """A Sec-WebSocket-Key (RFC 6455 section 4.1)."""
    return base64.b64encode(secrets.token_bytes(16))


def accepts(fields: Sequence[Field], key: bytes) -> bool:
    """Whether *fields*, of a 101, accept *key*, exactly once (RFC 6455 section 4.2.2)."""
    # SHA-1 is what the RFC says; nothing secret depends on it.
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    given = [value for lower, _, value in fields if lower == b"sec-websocket-accept"]
    return given == [base64.b64encode(digest)]
