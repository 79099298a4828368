"""`hero.rpc.server`: what the resource answers, beyond the examples of the specification."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from treq.testing import StubTreq
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from hero.rpc.envelope import MAX_BATCH, MAX_CONTAINERS, Refused, parse
from hero.rpc.server import RpcResource
from tests.rpc.pets import Pets, PetService

OPERATOR = {"X-Hero-User": "user:alice", "X-Hero-Claims": "operator@root"}
VIEWER = {"X-Hero-User": "user:bob", "X-Hero-Claims": "viewer@root"}
ANONYMOUS = {"X-Hero-User": "anonymous", "X-Hero-Claims": "anonymous"}


class ServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pets = Pets(operations=object())
        root = Resource()
        root.putChild(b"rpc", RpcResource({PetService: self.pets}))
        self.client = StubTreq(root)

    def request(
        self, body: bytes, verb: str = "POST", headers: dict[str, str] | None = None
    ) -> tuple[Any, bytes]:
        sent = {"Content-Type": "application/json", **(headers or {})}
        response = self.successResultOf(
            self.client.request(verb, "http://x/rpc", data=body, headers=sent)
        )
        return response, self.successResultOf(response.content())

    def send(self, value: Any, headers: dict[str, str] | None = None) -> Any:
        return json.loads(self.request(json.dumps(value).encode(), headers=headers)[1])

    def invoke(self, name: str, params: Any = None, headers: dict[str, str] | None = None) -> Any:
        value = {"jsonrpc": "2.0", "id": 1, "method": f"PetService.{name}"}
        if params is not None:
            value["params"] = params
        return self.send(value, headers)

    def test_result_is_the_wire_form_of_the_declared_value(self) -> None:
        self.assertEqual(self.invoke("get_pet", ["rex"])["result"], {"name": "rex", "legs": 4})

    def test_null_result_is_answered(self) -> None:
        self.pets.woken.callback(None)
        self.assertEqual(self.invoke("sleep"), {"jsonrpc": "2.0", "id": 1, "result": None})

    def test_application_error_carries_its_data(self) -> None:
        answer = self.invoke("get_pet", ["tom"], {"X-Request-ID": "abc"})
        self.assertEqual(
            answer["error"],
            {
                "code": -32012,
                "message": "no pet tom",
                "data": {
                    "kind": "not_found",
                    "detail": "no pet tom",
                    "hint": "add_pet adds one",
                    "request_id": "abc",
                },
            },
        )

    def test_request_id_is_made_up_where_there_is_none(self) -> None:
        self.assertTrue(self.invoke("get_pet", ["tom"])["error"]["data"]["request_id"])

    def test_crash_leaks_nothing(self) -> None:
        response, body = self.request(b'{"jsonrpc":"2.0","id":1,"method":"PetService.crash"}')
        self.assertEqual(response.code, 200)
        self.assertNotIn(b"hunter2", body)
        self.assertNotIn(b"RuntimeError", body)
        error = json.loads(body)["error"]
        self.assertEqual((error["code"], error["data"]["kind"]), (-32603, "internal"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_parameter_errors_name_the_parameter(self) -> None:
        for params, parameter, words in (
            ({"name": 1}, "name", "Expected `str`, got `int`"),
            ({}, "name", "needs the parameter"),
            ({"name": "a", "colour": 1}, "colour", "has no parameter"),
            ({"name": "a", "legs": 101}, "legs", "<= 100"),
            (["a", "4"], "legs", "Expected `int`, got `str`"),
            ({"name": "a", "request_id": 5}, "request_id", "Expected `str | null`"),
        ):
            error = self.invoke("add_pet", params)["error"]
            self.assertEqual((error["code"], error["message"]), (-32602, "Invalid params"))
            self.assertEqual(error["data"]["parameter"], parameter)
            self.assertIn(words, error["data"]["detail"])
        self.assertEqual(self.pets.calls, [])

    def test_too_many_positional_parameters(self) -> None:
        error = self.invoke("get_pet", ["a", "b"])["error"]
        self.assertEqual(error["code"], -32602)

    def test_framework_parameters_are_not_positional(self) -> None:
        error = self.invoke("add_pet", ["a", 4, "request-1"])["error"]
        self.assertEqual(error["code"], -32602)

    def test_names_that_are_not_methods(self) -> None:
        for name in (
            "PetService",
            "PetService.",
            "PetService.__class__",
            "PetService.get_pet.x",
            "PetService.__dir__",
            "__dir__",
            "rpc.__dir__",
            "system.listMethods",
            "render",
            "Nothing.get_pet",
            "",
            "\ud83d\ude00",
        ):
            error = self.send({"jsonrpc": "2.0", "id": 1, "method": name})["error"]
            self.assertEqual(error["code"], -32601, name)

    def test_requests_that_are_not_requests(self) -> None:
        for value in (
            {},
            {"jsonrpc": "1.0", "id": 1, "method": "PetService.hello"},
            {"jsonrpc": 2.0, "id": 1, "method": "PetService.hello"},
            {"id": 1, "method": "PetService.hello"},
            {"jsonrpc": "2.0", "id": 1, "method": None},
            {"jsonrpc": "2.0", "id": 1, "method": "PetService.hello", "params": None},
            {"jsonrpc": "2.0", "id": 1, "method": "PetService.hello", "params": "x"},
            {"jsonrpc": "2.0", "id": True, "method": "PetService.hello"},
            {"jsonrpc": "2.0", "id": [1], "method": "PetService.hello"},
            {"jsonrpc": "2.0", "id": {}, "method": "PetService.hello"},
            "text",
            7,
            None,
            True,
        ):
            self.assertEqual(self.send(value)["error"]["code"], -32600, value)

    def test_invalid_id_is_answered_with_null(self) -> None:
        answer = self.send({"jsonrpc": "2.0", "id": [1], "method": "PetService.hello"})
        self.assertIsNone(answer["id"])

    def test_every_valid_id_comes_back(self) -> None:
        for id in (0, -1, 1.5, "", "x", None, 2**53):
            answer = self.send({"jsonrpc": "2.0", "id": id, "method": "PetService.hello"})
            self.assertEqual((answer["id"], answer["result"]), (id, "hello local"))

    def test_members_named_fault_and_error_are_ignored(self) -> None:
        answer = self.send(
            {"jsonrpc": "2.0", "id": 1, "method": "PetService.hello", "fault": 1, "error": {}}
        )
        self.assertEqual(answer["result"], "hello local")

    def test_bodies_that_are_not_json(self) -> None:
        call = b'{"jsonrpc":"2.0","id":1,"method":"PetService.add_pet","params":[%s]}'
        for body in (
            b"",
            b"\xff\xfe",
            call % b'"\xff"',
            call % b'"\xed\xa0\x80"',
            call % b'"\\ud800"',
            call % b"NaN",
            call % b"Infinity",
            call % b"1e999",
            call % (b"9" * 10_000),
            b"[" * 100_000,
            b"[" * 100 + b"]" * 100,
            b'{"a":' * 100_000,
            call % b"1" + b"garbage",
        ):
            response, answer = self.request(body)
            self.assertEqual(response.code, 200)
            error = json.loads(answer)["error"]
            self.assertEqual((error["code"], error["message"]), (-32700, "Parse error"), body[:80])

    def test_many_small_arrays_are_not_deep(self) -> None:
        answer = self.invoke("get_pet", {"name": "rex", "x": [[]] * 1000})
        self.assertEqual(answer["error"]["data"]["parameter"], "x")

    def test_number_of_arrays_and_objects_is_bounded(self) -> None:
        for one in (b"[]", b"{}"):
            body = b'{"jsonrpc":"2.0","id":1,"method":"PetService.hello","params":[%s]}'
            _, answer = self.request(body % b",".join([one] * MAX_CONTAINERS))
            self.assertEqual(json.loads(answer)["error"]["data"]["kind"], "limit_exceeded")

    def test_batch_is_bounded(self) -> None:
        one = {"jsonrpc": "2.0", "id": 1, "method": "PetService.hello"}
        self.assertEqual(len(self.send([one] * MAX_BATCH)), MAX_BATCH)
        answer = self.send([one] * (MAX_BATCH + 1))
        self.assertEqual(answer["error"]["data"]["kind"], "limit_exceeded")

    def test_notification_that_fails_is_not_answered(self) -> None:
        for name in ("get_pet", "crash", "nothing"):
            body = json.dumps({"jsonrpc": "2.0", "method": f"PetService.{name}"}).encode()
            response, answer = self.request(body)
            self.assertEqual((response.code, answer), (204, b""))
        self.flushLoggedErrors(RuntimeError)

    def test_only_post(self) -> None:
        for verb in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            response, body = self.request(b"", verb)
            self.assertEqual(response.code, 405)
            self.assertEqual(response.headers.getRawHeaders("Allow"), ["POST"])
            self.assertEqual(json.loads(body)["reason"], "method_not_allowed")

    def test_only_json(self) -> None:
        body = b'{"jsonrpc":"2.0","id":1,"method":"PetService.hello"}'
        for media_type in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "text/plain; application/json",
            "",
        ):
            response, answer = self.request(body, headers={"Content-Type": media_type})
            self.assertEqual(response.code, 415, answer)
        for media_type in ("application/json; charset=utf-8", "Application/JSON-RPC"):
            response, _ = self.request(body, headers={"Content-Type": media_type})
            self.assertEqual(response.code, 200)

    def test_anonymous_call_is_refused_with_401(self) -> None:
        response, body = self.request(
            b'{"jsonrpc":"2.0","id":1,"method":"PetService.get_pet"}', headers=ANONYMOUS
        )
        self.assertEqual(response.code, 401)
        self.assertEqual(response.headers.getRawHeaders("WWW-Authenticate"), ["Bearer"])
        self.assertEqual(json.loads(body)["error"]["data"]["kind"], "unauthenticated")

    def test_role_that_is_too_low_is_refused_with_403(self) -> None:
        response, body = self.request(
            b'{"jsonrpc":"2.0","id":1,"method":"PetService.add_pet","params":["a"]}',
            headers=VIEWER,
        )
        self.assertEqual(response.code, 403)
        self.assertEqual(json.loads(body)["error"]["data"]["kind"], "forbidden")
        self.assertEqual(self.pets.calls, [])

    def test_batch_with_refused_calls_is_200(self) -> None:
        one = {"jsonrpc": "2.0", "id": 1, "method": "PetService.get_pet", "params": ["rex"]}
        response, _ = self.request(json.dumps([one]).encode(), headers=ANONYMOUS)
        self.assertEqual(response.code, 200)

    def test_public_method_is_open_to_anyone(self) -> None:
        self.assertEqual(self.invoke("hello", headers=ANONYMOUS)["result"], "hello anonymous")

    def test_role_that_suffices(self) -> None:
        self.assertEqual(self.invoke("add_pet", ["a"], OPERATOR)["result"]["name"], "a")

    def test_discovery(self) -> None:
        answer = self.send({"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"})
        names = [method["name"] for method in answer["result"]["methods"]]
        self.assertIn("PetService.add_pet", names)

    def test_missing_method_is_found_at_start(self) -> None:
        self.assertRaises(TypeError, RpcResource, {PetService: object()})

    def test_missing_operation_log_is_found_at_start(self) -> None:
        self.assertRaises(TypeError, RpcResource, {PetService: Pets(operations=None)})


class EnvelopeTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_no_body_raises(self, body: bytes) -> None:
        parse(body)

    @settings(deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda children: (
                st.lists(children, max_size=4)
                | st.dictionaries(
                    st.sampled_from(["jsonrpc", "method", "params", "id", "x"]), children
                )
            ),
        )
    )
    def test_no_value_raises(self, value: Any) -> None:
        for member in parse(json.dumps(value).encode()).calls:
            if isinstance(member, Refused):
                self.assertIn(member.error.code, (-32700, -32600))
