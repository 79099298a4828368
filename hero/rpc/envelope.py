"""JSON-RPC 2.0 envelopes: bytes in, calls out; results in, bytes out. No I/O.

https://www.jsonrpc.org/specification
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from hero.errors import HeroError, LimitExceeded
from hero.rpc.errors import InvalidRequest, ParseError, ProtocolError, error_object

#: Arrays and objects inside each other, at most.
MAX_NESTING = 64

#: Arrays and objects in a body, at most. Making a million of them takes a second, before it is
#: known who asks. (Brackets in strings are counted too.)
MAX_CONTAINERS = 100_000

#: Calls in one batch, at most.
MAX_BATCH = 100

#: The media types that a request may have.
MEDIA_TYPES = frozenset({"application/json", "application/json-rpc", "application/jsonrequest"})

Params = list[Any] | dict[str, Any]


@attrs.frozen
class Request:
    """One call. Without an ``id`` member it is a notification (section 4.1)."""

    method: str
    params: Params
    id: str | int | float | None
    notification: bool


@attrs.frozen
class Refused:
    """A member of a batch, or a whole body, that is no call. ``id`` is as far as it was known."""

    error: HeroError
    id: str | int | float | None = None


@attrs.frozen
class Parsed:
    """What a body holds. ``batch`` says whether the answer is an array (section 6)."""

    calls: list[Request | Refused]
    batch: bool


def parse(body: bytes) -> Parsed:
    """The calls in *body*, each one valid or refused."""
    try:
        value = decode(body)
        if not isinstance(value, list):
            return Parsed([_request(value)], batch=False)
        if not value:
            raise InvalidRequest("the batch is empty")
        if len(value) > MAX_BATCH:
            raise LimitExceeded(f"{len(value)} calls in a batch; {MAX_BATCH} is the limit")
    except HeroError as error:
        return Parsed([Refused(error)], batch=False)
    return Parsed([_request(member) for member in value], batch=True)


def decode(body: bytes) -> Any:
    """The JSON value that *body* holds (RFC 8259). Raises `ParseError`, `LimitExceeded`."""
    containers = body.count(b"[") + body.count(b"{")
    if containers > MAX_CONTAINERS:
        raise LimitExceeded(f"{containers} arrays and objects; {MAX_CONTAINERS} is the limit")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ParseError(str(error)) from error
    except RecursionError:
        raise ParseError(_TOO_DEEP) from None
    if containers > MAX_NESTING and _depth_exceeds(value):
        raise ParseError(_TOO_DEEP)
    return value


def success(id: Any, result: Any) -> bytes:
    """A response with a result, which is JSON already where it is `msgspec.Raw`."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "result": result})


def failure(id: Any, error: HeroError, trace_id: str | None = None) -> bytes:
    """A response with an error."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": error_object(error, trace_id)})


def batch(responses: list[bytes]) -> bytes:
    """The response to a batch."""
    return b"[" + b",".join(responses) + b"]"


_TOO_DEEP = f"nested more than {MAX_NESTING} levels deep"


def _request(value: Any) -> Request | Refused:
    id = None
    try:
        if not isinstance(value, dict):
            raise InvalidRequest("a call is a JSON object")
        id = _id(value.get("id"))
        if value.get("jsonrpc") != "2.0":
            raise InvalidRequest('the member "jsonrpc" must be "2.0"')
        method = value.get("method")
        if not isinstance(method, str):
            raise InvalidRequest('the member "method" must be a string')
        params = value.get("params", {})
        if not isinstance(params, (list, dict)):
            raise InvalidRequest('the member "params" must be an array or an object')
    except ProtocolError as error:
        return Refused(error, id)
    return Request(method, params, id, notification="id" not in value)


def _id(value: Any) -> str | int | float | None:
    """Section 4: a string, a number or null. ``true`` is an int to Python, not to JSON."""
    if value is None or (isinstance(value, (str, int, float)) and not isinstance(value, bool)):
        return value
    raise InvalidRequest('the member "id" must be a string, a number or null')


def _depth_exceeds(value: list[Any] | dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
