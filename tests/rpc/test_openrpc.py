"""`hero.rpc.openrpc`, `hero.rpc.reference` and `hero.rpc.declare`."""

from __future__ import annotations

import json
from typing import Any, Protocol

from twisted.trial.unittest import SynchronousTestCase

from hero.compute.api import ComputeService
from hero.explorer.api import ExplorerService
from hero.identity.claims import Access
from hero.router.api import RouterService
from hero.rpc.declare import Call, method, methods_of, service
from hero.rpc.openrpc import document
from hero.rpc.reference import render
from tests.rpc.pets import PetService

ALL = [ComputeService, ExplorerService, RouterService]


class DocumentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.document = document([PetService])
        self.methods = {m["name"]: m for m in self.document["methods"]}

    def test_parameters(self) -> None:
        add = self.methods["PetService.add_pet"]
        name, legs, request_id = add["params"]
        self.assertEqual(name, {"name": "name", "required": True, "schema": {"type": "string"}})
        self.assertEqual(
            legs["schema"], {"type": "integer", "minimum": 0, "maximum": 100, "default": 4}
        )
        self.assertEqual((request_id["name"], request_id["required"]), ("request_id", False))

    def test_methods_that_change_nothing_take_no_request_id(self) -> None:
        self.assertEqual(len(self.methods["PetService.get_pet"]["params"]), 1)

    def test_operation(self) -> None:
        train = self.methods["PetService.train"]
        self.assertEqual(train["result"]["schema"], {"$ref": "#/components/schemas/Operation"})
        self.assertEqual(train["x-operation-result"], {"$ref": "#/components/schemas/Pet"})
        names = [parameter["name"] for parameter in train["params"]]
        self.assertEqual(names, ["name", "trick", "request_id", "wait", "timeout"])

    def test_every_reference_leads_somewhere(self) -> None:
        described = document(ALL)
        schemas = described["components"]["schemas"]
        for name in _references(described):
            self.assertIn(name, schemas)

    def test_is_json_without_pythons_patterns(self) -> None:
        self.assertNotIn(r"\Z", json.dumps(document(ALL)))

    def test_names_are_unique(self) -> None:
        names = [m["name"] for m in document(ALL)["methods"]]
        self.assertEqual(len(names), len(set(names)))


class ReferenceTests(SynchronousTestCase):
    def test_every_method_and_kind_is_there(self) -> None:
        page = render(ALL)
        for declaration in ALL:
            for declared in methods_of(declaration).values():
                self.assertIn(f"### {declared.qualified_name}\n", page)
        self.assertIn("| `not_found` | -32012 |", page)

    def test_links_lead_to_headings(self) -> None:
        page = render(ALL)
        for name in _references(document(ALL)):
            self.assertIn(f"\n### {name}\n", page)


class DeclarationTests(SynchronousTestCase):
    def test_method_without_docstring_is_refused(self) -> None:
        class Undocumented(Protocol):
            @method(Access.VIEWER)
            async def look(self, call: Call) -> None: ...

        self.assertRaises(TypeError, service(), Undocumented)

    def test_parameter_of_the_framework_is_refused(self) -> None:
        class Greedy(Protocol):
            @method(Access.VIEWER, mutates=True)
            async def take(self, call: Call, *, request_id: str) -> None:
                """Take."""

        self.assertRaises(TypeError, service(), Greedy)

    def test_results_with_secrets_are_marked(self) -> None:
        secret = [m.name for m in methods_of(ExplorerService).values() if m.secret]
        self.assertEqual(
            secret,
            ["create_join_token", "create_token", "create_login_code", "redeem_login_code"],
        )


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if "$ref" in value else set()
        return own.union(*map(_references, value.values()))
    if isinstance(value, list):
        return set().union(*map(_references, value))
    return set()
