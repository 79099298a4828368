"""The reference page of the JSON-RPC API.

``python -m hero.rpc.reference > docs/reference/rpc.md`` writes it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import msgspec

import hero
from hero.compute.api import ComputeService
from hero.errors import error_kinds
from hero.explorer.api import ExplorerService
from hero.router.api import RouterService
from hero.rpc.declare import Method, methods_of
from hero.rpc.openrpc import document

_HEAD = """\
# JSON-RPC

*Made from the source by `python -m hero.rpc.reference`.*

JSON-RPC 2.0 over HTTP POST with `Content-Type: application/json`. Parameters go by name or, those
of the method itself, by position in the order shown. A method that **changes** something takes
`request_id`: the same id again returns the first result instead of acting twice. One that is an
**operation** answers with an [Operation](#operation), whose `result` is what the method returns;
`wait` and `timeout` say how long to hold the answer back for it to end.

A call without the right it needs is answered with HTTP status 401 or 403, and the JSON-RPC error;
every other error has status 200.
"""


def render(declarations: list[type]) -> str:
    """The page, in Markdown."""
    described = document(declarations)
    methods = {method["name"]: method for method in described["methods"]}
    parts = [_HEAD]
    for declaration in declarations:
        parts.append(f"## {declaration.__name__}\n\n{_prose(inspect.getdoc(declaration) or '')}\n")
        for method in methods_of(declaration).values():
            parts.append(_method(method, methods[method.qualified_name]))
    parts.append("## Values\n")
    for name, schema in sorted(described["components"]["schemas"].items()):
        parts.append(_value(name, schema))
    parts.append("## Errors\n\nThe `data` member of an error has `kind`, `detail`, `request_id`,")
    parts.append("and where they help `hint` and `retry_after` (seconds).\n")
    parts.append("| kind | code | meaning |\n|---|---|---|")
    for kind, cls in sorted(error_kinds().items()):
        parts.append(f"| `{kind}` | {cls.code} | {_cell(inspect.getdoc(cls) or '')} |")
    return "\n".join(parts) + "\n"


def _method(method: Method, described: dict[str, Any]) -> str:
    notes = [f"Needs: `{method.access.value}`."]
    if method.operation:
        notes.append("An **operation**.")
    elif method.mutates:
        notes.append("**Changes** something.")
    lines = [f"### {method.qualified_name}\n", " ".join(notes) + "\n", _prose(method.doc) + "\n"]
    if described["params"]:
        lines += ["| parameter | type | default |", "|---|---|---|"]
        for parameter in described["params"]:
            schema = parameter["schema"]
            default = "required" if parameter["required"] else f"`{_json(schema['default'])}`"
            lines.append(f"| `{parameter['name']}` | {_type(schema)} | {default} |")
        lines.append("")
    result = described.get("x-operation-result", described["result"]["schema"])
    lines.append(f"Returns {_type(result)}.\n")
    return "\n".join(lines)


def _value(name: str, schema: dict[str, Any]) -> str:
    lines = [f"### {name}\n"]
    if schema.get("description"):
        lines.append(_prose(schema["description"]) + "\n")
    if "enum" in schema:
        lines.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n")
    if schema.get("properties"):
        lines += ["| member | type |", "|---|---|"]
        for member, member_schema in schema["properties"].items():
            lines.append(f"| `{member}` | {_type(member_schema)} |")
        lines.append("")
    return "\n".join(lines)


def _type(schema: dict[str, Any]) -> str:
    """*schema* in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    words = schema.get("type", "any value")
    if words == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if words == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map to {_type(schema['additionalProperties'])}"
    limits = ", ".join(_limits(schema))
    return f"{words} ({limits})" if limits else str(words)


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    for member, words in (
        ("exclusiveMinimum", "> {}"),
        ("minimum", "≥ {}"),
        ("maximum", "≤ {}"),
        ("minLength", "{} characters or more"),
        ("maxLength", "{} characters or fewer"),
        ("pattern", "`{}`"),
        ("description", "{}"),
    ):
        if member in schema:
            yield words.format(str(schema[member]).replace("|", "\\|"))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _prose(doc: str) -> str:
    """A docstring in Markdown: one backtick where reStructuredText has two."""
    return inspect.cleandoc(doc).replace("``", "`")


def _cell(doc: str) -> str:
    return " ".join(_prose(doc).split()).replace("|", "\\|")


def reference() -> str:
    """The page about all declarations, with the error kinds of every package."""
    for module in pkgutil.walk_packages(hero.__path__, "hero."):
        if module.name.endswith("errors"):
            importlib.import_module(module.name)
    return render([ComputeService, ExplorerService, RouterService])


if __name__ == "__main__":
    print(reference(), end="")
