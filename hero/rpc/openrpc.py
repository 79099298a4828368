"""The OpenRPC document (https://spec.open-rpc.org) of what a service offers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from txjsonrpc_ng.jsonrpc import BaseSubhandler

from hero import __version__
from hero.identity.claims import Access
from hero.rpc.declare import Call, Method, methods_of
from hero.rpc.dispatch import ServedMethod, serve

OPENRPC_VERSION = "1.3.2"

_REF = "#/components/schemas/{name}"


def document(declarations: Iterable[type], *, title: str = "Hero") -> dict[str, Any]:
    """The OpenRPC document of *declarations*."""
    methods = [
        method for declaration in declarations for method in methods_of(declaration).values()
    ]
    hints: list[Any] = []
    for method in methods:
        hints += [hint for hint, _ in parameters(method).values()]
        hints.append(method.answer)
        hints.append(method.returns)
    schemas, components = msgspec.json.schema_components(hints, ref_template=_REF)
    schema = iter(schemas)
    described: dict[str, Any] = _portable(
        {
            "openrpc": OPENRPC_VERSION,
            "info": {"title": title, "version": __version__},
            "methods": [_method(method, schema) for method in methods],
            "components": {"schemas": components},
        }
    )
    return described


def parameters(method: Method) -> dict[str, tuple[Any, Any]]:
    """All that *method* takes on the wire: type and default by name."""
    return {**method.parameters, **method.options}


def discovery(declarations: Mapping[type, object]) -> BaseSubhandler:
    """The sub-handler ``rpc``, whose ``discover`` answers with the document."""
    method = Method(
        service="rpc",
        name="discover",
        access=Access.PUBLIC,
        mutates=False,
        operation=False,
        secret=False,
        delegable=False,
        parameters={},
        returns=dict[str, Any],
        doc="This document.",
    )
    value = document(declarations)

    async def discover(call: Call) -> dict[str, Any]:
        return value

    handler = BaseSubhandler()
    serve(handler, ServedMethod(method, discover, None))
    return handler


def _method(method: Method, schema: Any) -> dict[str, Any]:
    params = [
        {
            "name": name,
            "required": default is inspect.Parameter.empty,
            "schema": next(schema) | _default(default),
        }
        for name, (_, default) in parameters(method).items()
    ]
    result = {"name": "result", "schema": next(schema)}
    returns = next(schema)
    summary, _, rest = method.doc.partition("\n")
    described: dict[str, Any] = {
        "name": method.qualified_name,
        "summary": summary,
        "description": rest.strip(),
        "paramStructure": "either",
        "params": params,
        "result": result,
        "x-access": method.access.value,
        "x-mutates": method.mutates,
    }
    if method.operation:
        described["x-operation-result"] = returns
    return described


def _default(default: Any) -> dict[str, Any]:
    if default is inspect.Parameter.empty:
        return {}
    return {"default": msgspec.to_builtins(default)}


def _portable(value: Any) -> Any:
    """*value* with patterns that other languages read: ``$`` for Python's ``\\Z``."""
    if isinstance(value, dict):
        return {
            key: child.replace(r"\Z", "$")
            if key == "pattern" and isinstance(child, str)
            else _portable(child)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_portable(child) for child in value]
    return value
