"""Short ids: ``vm-8k3hq2wz0x``. A prefix that says what it names, then 50 random bits."""

from __future__ import annotations

import secrets

#: Crockford's base 32, which leaves out letters that people mistake for digits.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 10


def new_sid(prefix: str) -> str:
    """A new random id that starts with *prefix* and a hyphen."""
    return f"{prefix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
