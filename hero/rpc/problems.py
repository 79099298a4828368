"""Errors of HTTP itself, as problem documents (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec


def problem(status: int, reason: str, detail: str, **members: Any) -> bytes:
    """The body of a problem document. *reason* is the short word that logs and metrics use too."""
    return msgspec.json.encode(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "reason": reason,
            "detail": detail,
            **members,
        }
    )


PROBLEM_TYPE = "application/problem+json"
