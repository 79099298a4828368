"""Answers that the router itself makes instead of a service's."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus


class Rejection(Exception):
    """The request is not forwarded, or its answer cannot be.

    *reason* is the short word that the problem document, the access log and the metrics share;
    *detail* is a sentence for a person. *headers* are further fields of the answer. With *close*
    the connection cannot be used further, because where the next request starts is in doubt.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        headers: Mapping[bytes, bytes] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = dict(headers or {})
        self.close = close

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase


class BadMessage(Rejection):
    """What the client sent is not a well-formed HTTP/1.1 request; nothing after it is read."""

    def __init__(self, reason: str, detail: str, *, status: int = 400) -> None:
        super().__init__(status, reason, detail, close=True)


class BadAnswer(Exception):
    """What the service sent is not a well-formed HTTP/1.1 answer."""
