"""From parameters on the wire to the typed arguments of a declared method."""

from __future__ import annotations

import inspect
from typing import Any

import attrs
import msgspec

from hero.rpc.declare import Method
from hero.rpc.envelope import Params
from hero.rpc.errors import InvalidParams


@attrs.frozen
class Arguments:
    """Typed parameters: ``values`` for the handler, ``options`` for the framework."""

    values: dict[str, Any]
    options: dict[str, Any]


def bind(method: Method, params: Params) -> Arguments:
    """The arguments that *params*, by position or by name, give *method*.

    Raises `InvalidParams` naming the parameter and what was expected.
    """
    named = _by_name(method, params)
    known = {**method.parameters, **method.options}
    for name in named:
        if name not in known:
            raise InvalidParams(
                f"{method.qualified_name} has no parameter {name!r}",
                hint=f"its parameters are: {', '.join(known) or 'none'}",
                data={"parameter": name},
            )
    return Arguments(
        {name: _value(method, name, *how, named) for name, how in method.parameters.items()},
        {name: _value(method, name, *how, named) for name, how in method.options.items()},
    )


def _by_name(method: Method, params: Params) -> dict[str, Any]:
    if isinstance(params, dict):
        return params
    if len(params) > len(method.parameters):
        raise InvalidParams(
            f"{method.qualified_name} takes {len(method.parameters)} positional parameters, "
            f"not {len(params)}"
        )
    return dict(zip(method.parameters, params, strict=False))


def _value(method: Method, name: str, hint: Any, default: Any, named: dict[str, Any]) -> Any:
    if name not in named:
        if default is inspect.Parameter.empty:
            raise InvalidParams(
                f"{method.qualified_name} needs the parameter {name!r}", data={"parameter": name}
            )
        return default
    try:
        return msgspec.convert(named[name], hint)
    except msgspec.ValidationError as error:
        raise InvalidParams(
            f"parameter {name!r} of {method.qualified_name}: {error}",
            data={"parameter": name, "expected": str(error)},
        ) from error
