"""Operations: anything that may take longer than a second.

An operation is written down before it acts, so that it can be asked for by its sid or by the
caller's request id, from another connection or after a crash.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any

import attrs
from msgspec import Meta

from hero.errors import HeroError

OperationSid = Annotated[str, Meta(pattern=r"^op-[0-9a-z]{10}\Z")]


class OperationState(enum.StrEnum):
    """``pending → running → succeeded | failed | cancelled``."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (self.SUCCEEDED, self.FAILED, self.CANCELLED)


@attrs.frozen(kw_only=True)
class Operation:
    """Work under way or done.

    ``kind`` is the method (``deploy_vm``), ``target`` the sid of what it acts on. ``progress``
    runs from 0 to 1. ``error`` is error data as in `hero.errors.HeroError.to_data`; ``result`` is
    what the method returns.
    """

    sid: str
    kind: str
    context: str
    user: str
    state: OperationState
    created_at: datetime
    updated_at: datetime
    target: str | None = None
    progress: float = 0.0
    message: str = ""
    error: dict[str, Any] | None = None
    result: Any = None
    request_id: str | None = None
    node_sid: str | None = None


@attrs.frozen(kw_only=True)
class OperationPage:
    """Operations, newest first."""

    items: list[Operation]
    unreachable: list[str] = attrs.field(factory=list)


class OperationCancelled(HeroError):
    """The operation was cancelled before it was done."""

    kind = "operation_cancelled"
    code = -32002


class OperationInterrupted(HeroError):
    """The service stopped while the operation was under way. Look at its target, and try again."""

    kind = "operation_interrupted"
    code = -32003
