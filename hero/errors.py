"""What can go wrong, as a caller sees it.

Each class is one thing that a caller could do something different about. Its ``kind`` is the
word that JSON-RPC error data, logs and metrics carry; its docstring is what the reference page
prints. Packages define their own kinds in an ``errors`` module of theirs; `hero.rpc` turns all of
them into JSON-RPC error objects, and `hero.rpc.client` turns those back into the same classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

_kinds: dict[str, type[HeroError]] = {}


class HeroError(Exception):
    """Something a caller can be told: what happened, and what to do.

    *detail* says what happened to which thing. *hint* says what to do about it. *retry_after* is
    in seconds, where trying again may help. *data* holds further members for the error data, JSON
    values only.
    """

    kind: ClassVar[str] = "internal"
    code: ClassVar[int] = -32603
    http_status: ClassVar[int] = 200

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.retry_after = retry_after
        self.data: dict[str, Any] = dict(data or {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls):
            other = _kinds.setdefault(cls.kind, cls)
            if other is not cls:
                raise TypeError(f"error kind {cls.kind!r} is taken by {other.__qualname__}")

    def to_data(self) -> dict[str, Any]:
        """The ``data`` member of a JSON-RPC error object."""
        members: dict[str, Any] = {"kind": self.kind, "detail": self.detail}
        if self.hint is not None:
            members["hint"] = self.hint
        if self.retry_after is not None:
            members["retry_after"] = self.retry_after
        return {**self.data, **members}

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> HeroError:
        """The error that *data*, an error's ``data`` member from the wire, describes.

        A kind that this version does not know becomes a `RemoteError`.
        """
        rest = dict(data)
        kind = str(rest.pop("kind", "internal"))
        detail = str(rest.pop("detail", "the other side gave no detail"))
        hint = rest.pop("hint", None)
        retry_after = rest.pop("retry_after", None)
        cls = _kinds.get(kind, RemoteError)
        error = cls(detail, hint=hint, retry_after=retry_after, data=rest)
        if cls is RemoteError:
            error.data["remote_kind"] = kind
        return error


def error_kinds() -> dict[str, type[HeroError]]:
    """Every kind that has been defined so far, by its word."""
    return dict(_kinds)


class InternalError(HeroError):
    """Hero itself failed. The log of the service that answered has the request id and the cause."""

    kind = "internal"


class RemoteError(HeroError):
    """The other side answered with a kind of error that this version of Hero does not know."""

    kind = "remote_error"
    code = -32001


class Unauthenticated(HeroError):
    """The call needs an identity: a token, a client certificate, or the local socket."""

    kind = "unauthenticated"
    code = -32010
    http_status = 401


class Forbidden(HeroError):
    """The caller is known and may not do this."""

    kind = "forbidden"
    code = -32011
    http_status = 403


class NotFound(HeroError):
    """No such thing, or none that the caller may see."""

    kind = "not_found"
    code = -32012


class NameTaken(HeroError):
    """Another thing of the same kind already has this name."""

    kind = "name_taken"
    code = -32013


class Conflict(HeroError):
    """The thing is in a state in which this cannot be done."""

    kind = "conflict"
    code = -32014


class RequestIdReused(HeroError):
    """The request id was used before for a different call."""

    kind = "request_id_reused"
    code = -32015


class Unavailable(HeroError):
    """The service that would do this cannot be reached or is not ready."""

    kind = "unavailable"
    code = -32016


class Timeout(HeroError):
    """No answer in time. The call may have had an effect; repeat it with its request id."""

    kind = "timeout"
    code = -32017


class LimitExceeded(HeroError):
    """A bound of the service was reached: too large, too many, too deep."""

    kind = "limit_exceeded"
    code = -32018


class InvalidConfiguration(HeroError):
    """A setting or a file of this node's configuration cannot be used."""

    kind = "invalid_configuration"
    code = -32019


class SocketPathTooLong(InvalidConfiguration):
    """The path of a UNIX socket would not fit a socket address, which holds 107 bytes on Linux."""

    kind = "socket_path_too_long"
