"""Every example of section 7 of the JSON-RPC 2.0 specification."""

from __future__ import annotations

import json
from typing import Protocol

from treq.testing import StubTreq
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from hero.identity.claims import Access
from hero.rpc.declare import Call, method, methods_of, service
from hero.rpc.dispatch import ServedMethod, serve
from hero.rpc.server import RpcResource


@service()
class Examples(Protocol):
    """The methods that the examples call."""

    @method(Access.PUBLIC)
    async def subtract(self, call: Call, *, minuend: int, subtrahend: int) -> int:
        """The difference."""

    @method(Access.PUBLIC)
    async def update(self, call: Call, *, a: int, b: int, c: int, d: int, e: int) -> None:
        """Do nothing."""

    @method(Access.PUBLIC)
    async def sum(self, call: Call, *, a: int, b: int, c: int) -> int:
        """The sum."""

    @method(Access.PUBLIC)
    async def notify_hello(self, call: Call, *, a: int) -> None:
        """Do nothing."""

    @method(Access.PUBLIC)
    async def get_data(self, call: Call) -> list[str | int]:
        """Some data."""


class Implementation:
    async def subtract(self, call: Call, *, minuend: int, subtrahend: int) -> int:
        return minuend - subtrahend

    async def update(self, call: Call, **numbers: int) -> None:
        return None

    async def sum(self, call: Call, *, a: int, b: int, c: int) -> int:
        return a + b + c

    async def notify_hello(self, call: Call, *, a: int) -> None:
        return None

    async def get_data(self, call: Call) -> list[str | int]:
        return ["hello", 5]


PARSE_ERROR = {"code": -32700, "message": "Parse error"}
INVALID_REQUEST = {"code": -32600, "message": "Invalid Request"}
METHOD_NOT_FOUND = {"code": -32601, "message": "Method not found"}


class SpecificationTests(SynchronousTestCase):
    def setUp(self) -> None:
        resource = RpcResource({})
        for declared in methods_of(Examples).values():
            handler = getattr(Implementation(), declared.name)
            serve(resource, ServedMethod(declared, handler, None))
        root = Resource()
        root.putChild(b"rpc", resource)
        self.client = StubTreq(root)

    def exchange(self, text: str) -> object:
        """The answer to *text*, without the ``data`` of errors; None for none."""
        response = self.successResultOf(
            self.client.post(
                "http://x/rpc", data=text.encode(), headers={"Content-Type": "application/json"}
            )
        )
        body = self.successResultOf(response.content())
        if response.code == 204:
            self.assertEqual(body, b"")
            return None
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["application/json"])
        answer = json.loads(body)
        for member in answer if isinstance(answer, list) else [answer]:
            member.get("error", {}).pop("data", None)
        return answer

    def test_positional_parameters(self) -> None:
        self.assertEqual(
            self.exchange('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}'),
            {"jsonrpc": "2.0", "result": 19, "id": 1},
        )
        self.assertEqual(
            self.exchange('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}'),
            {"jsonrpc": "2.0", "result": -19, "id": 2},
        )

    def test_named_parameters(self) -> None:
        self.assertEqual(
            self.exchange(
                '{"jsonrpc": "2.0", "method": "subtract",'
                ' "params": {"subtrahend": 23, "minuend": 42}, "id": 3}'
            ),
            {"jsonrpc": "2.0", "result": 19, "id": 3},
        )
        self.assertEqual(
            self.exchange(
                '{"jsonrpc": "2.0", "method": "subtract",'
                ' "params": {"minuend": 42, "subtrahend": 23}, "id": 4}'
            ),
            {"jsonrpc": "2.0", "result": 19, "id": 4},
        )

    def test_notification(self) -> None:
        self.assertIsNone(
            self.exchange('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}')
        )
        self.assertIsNone(self.exchange('{"jsonrpc": "2.0", "method": "foobar"}'))

    def test_non_existent_method(self) -> None:
        self.assertEqual(
            self.exchange('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}'),
            {"jsonrpc": "2.0", "error": METHOD_NOT_FOUND, "id": "1"},
        )

    def test_invalid_json(self) -> None:
        self.assertEqual(
            self.exchange('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]'),
            {"jsonrpc": "2.0", "error": PARSE_ERROR, "id": None},
        )

    def test_invalid_request_object(self) -> None:
        self.assertEqual(
            self.exchange('{"jsonrpc": "2.0", "method": 1, "params": "bar"}'),
            {"jsonrpc": "2.0", "error": INVALID_REQUEST, "id": None},
        )

    def test_batch_of_invalid_json(self) -> None:
        self.assertEqual(
            self.exchange(
                '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
                ' {"jsonrpc": "2.0", "method"]'
            ),
            {"jsonrpc": "2.0", "error": PARSE_ERROR, "id": None},
        )

    def test_empty_batch(self) -> None:
        self.assertEqual(
            self.exchange("[]"), {"jsonrpc": "2.0", "error": INVALID_REQUEST, "id": None}
        )

    def test_invalid_but_not_empty_batch(self) -> None:
        self.assertEqual(
            self.exchange("[1]"), [{"jsonrpc": "2.0", "error": INVALID_REQUEST, "id": None}]
        )

    def test_invalid_batch(self) -> None:
        self.assertEqual(
            self.exchange("[1,2,3]"),
            [{"jsonrpc": "2.0", "error": INVALID_REQUEST, "id": None}] * 3,
        )

    def test_batch(self) -> None:
        self.assertEqual(
            self.exchange(
                """[
                {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
                {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
                {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
                {"foo": "boo"},
                {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
                {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
                ]"""
            ),
            [
                {"jsonrpc": "2.0", "result": 7, "id": "1"},
                {"jsonrpc": "2.0", "result": 19, "id": "2"},
                {"jsonrpc": "2.0", "error": INVALID_REQUEST, "id": None},
                {"jsonrpc": "2.0", "error": METHOD_NOT_FOUND, "id": "5"},
                {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"},
            ],
        )

    def test_batch_of_notifications(self) -> None:
        self.assertIsNone(
            self.exchange(
                """[
                {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
                {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
                ]"""
            )
        )
