"""The five standard errors of JSON-RPC 2.0 (section 5.1), and how errors look on the wire."""

from __future__ import annotations

from typing import Any, ClassVar

from hero.errors import HeroError, InternalError


class ProtocolError(HeroError):
    """The request cannot be understood as a call."""

    kind = "protocol_error"
    code = -32600
    message: ClassVar[str] = "Invalid Request"


class ParseError(ProtocolError):
    """The body is not JSON in UTF-8, or is nested too deeply."""

    kind = "parse_error"
    code = -32700
    message = "Parse error"


class InvalidRequest(ProtocolError):
    """The JSON is not a request object of JSON-RPC 2.0, nor a batch of them."""

    kind = "invalid_request"


class MethodNotFound(ProtocolError):
    """This service has no method of that name."""

    kind = "method_not_found"
    code = -32601
    message = "Method not found"


class InvalidParams(ProtocolError):
    """A parameter is unknown, missing or of the wrong type; ``parameter`` names it."""

    kind = "invalid_params"
    code = -32602
    message = "Invalid params"


def error_object(error: HeroError, trace_id: str | None) -> dict[str, Any]:
    """The ``error`` member of a response. *trace_id* is the request id that logs carry."""
    if isinstance(error, ProtocolError):
        message = error.message
    elif isinstance(error, InternalError):
        message = "Internal error"
    else:
        message = error.detail
    data = error.to_data()
    if trace_id is not None:
        data["request_id"] = trace_id
    return {"code": error.code, "message": message, "data": data}


def error_from_object(error: Any) -> HeroError:
    """The error that the ``error`` member of a response describes."""
    members = error if isinstance(error, dict) else {}
    data = members.get("data")
    if isinstance(data, dict) and "kind" in data:
        return HeroError.from_data(data)
    detail = str(members.get("message", "the other side gave no message"))
    code = members.get("code")
    cls = _STANDARD.get(code) if isinstance(code, int) else None
    if cls is not None:
        return cls(detail)
    return HeroError.from_data({"kind": "unknown", "detail": detail, "code": code})


_STANDARD: dict[int, type[HeroError]] = {
    cls.code: cls for cls in (ParseError, InvalidRequest, MethodNotFound, InvalidParams)
} | {InternalError.code: InternalError}
