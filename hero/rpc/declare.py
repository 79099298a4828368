"""Methods are declared once, as typed Python methods with docstrings.

A declaration is a class whose name is the RPC namespace and whose methods have no body::

    @service(delegable=True)
    class ComputeService(Protocol):
        '''Virtual machines of one node, or of the whole cluster.'''

        @method(Access.OPERATOR, operation=True)
        async def start_vm(self, call: Call, *, vm: VmRef) -> Vm:
            '''Start a stopped VM. ...'''

Parameter validation, the OpenRPC document, the reference page, the command line's help and the
client proxy all come from it. An implementation is any object with the same methods.

Parameters are keyword-only, typed with what msgspec can convert: builtins, ``Literal``, enums,
``datetime``, frozen attrs classes, lists and dicts of these, and ``Annotated[..., Meta(...)]`` for
limits and descriptions. The framework adds ``request_id`` to every mutating method, and ``wait``
and ``timeout`` to every operation (`Method.options`); handlers never see them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import attrs
from msgspec import Meta

from hero.identity.claims import Access, Caller
from hero.operations import Operation

if TYPE_CHECKING:
    from hero.operation_log import OperationHandle

_F = TypeVar("_F", bound=Callable[..., Any])
_C = TypeVar("_C", bound=type)

#: An id chosen by the caller; the same id again returns the first result instead of acting twice.
RequestId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")]

#: The options that the framework adds to operations, beside ``request_id``.
Wait = Annotated[bool, Meta(description="false: answer at once with the operation under way")]
WaitTimeout = Annotated[
    float, Meta(ge=0, le=3600, description="seconds to wait for the operation to end")
]
_REQUEST_ID = {"request_id": (RequestId | None, None)}
_OPERATION = {"wait": (Wait, True), "timeout": (WaitTimeout, 60.0)}


@attrs.frozen(kw_only=True)
class Call:
    """What a handler knows of the request beside its parameters."""

    caller: Caller
    #: From the parameter ``request_id``; None where the caller gave none.
    request_id: str | None = None
    #: From ``X-Request-ID``: names this one HTTP request in logs and errors.
    trace_id: str | None = None
    #: Where the method is an operation: what its handler reports progress to.
    operation: OperationHandle | None = None

    @property
    def context(self) -> str:
        """The context that the request is about."""
        return self.caller.context


@attrs.frozen(kw_only=True)
class Method:
    """One declared method.

    ``parameters`` maps each name to its type hint (``Annotated`` kept) and default
    (`inspect.Parameter.empty` for a required one), in declaration order, which is also the order
    of positional parameters on the wire. ``secret`` says that the result must not be kept.
    """

    service: str
    name: str
    access: Access
    mutates: bool
    operation: bool
    secret: bool
    delegable: bool
    parameters: Mapping[str, tuple[Any, Any]]
    returns: Any
    doc: str

    @property
    def qualified_name(self) -> str:
        """The name on the wire: ``ComputeService.start_vm``."""
        return f"{self.service}.{self.name}"

    @property
    def options(self) -> Mapping[str, tuple[Any, Any]]:
        """The parameters that the framework adds, given by name only; as ``parameters``."""
        return (_REQUEST_ID if self.mutates else {}) | (_OPERATION if self.operation else {})

    @property
    def answer(self) -> Any:
        """The type of the result on the wire: an `Operation` in place of what it returns."""
        return Operation if self.operation else self.returns


def method(
    access: Access, *, mutates: bool = False, operation: bool = False, secret: bool = False
) -> Callable[[_F], _F]:
    """Declare a method.

    *operation*: it may take longer than a second; the wire answers with an `Operation` whose
    ``result`` is what the method returns (see `hero.operations`). Operations mutate.
    *secret*: the result holds a secret, and is not kept to answer the same request id again.
    """

    def decorate(function: _F) -> _F:
        mark = (access, mutates or operation, operation, secret)
        function.__hero_method__ = mark  # type: ignore[attr-defined]
        return function

    return decorate


def service(*, delegable: bool = False) -> Callable[[_C], _C]:
    """Declare a class as a service. *delegable*: an explorer may call it for the user it names."""

    def mark(cls: _C) -> _C:
        cls.__hero_methods__ = _collect(cls, delegable)  # type: ignore[attr-defined]
        return cls

    return mark


def methods_of(declaration: type) -> Mapping[str, Method]:
    """The methods that the class *declaration* declares, by name, in order."""
    return declaration.__hero_methods__  # type: ignore[attr-defined, no-any-return]


def _collect(cls: type, delegable: bool) -> dict[str, Method]:
    found = {}
    for name, function in vars(cls).items():
        mark = getattr(function, "__hero_method__", None)
        if mark is None:
            continue
        access, mutates, operation, secret = mark
        hints = get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        parameters = {
            p.name: (hints[p.name], p.default)
            for p in signature.parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        }
        doc = inspect.getdoc(function)
        if not doc:
            raise TypeError(f"{cls.__name__}.{name} has no docstring")
        declared = Method(
            service=cls.__name__,
            name=name,
            access=access,
            mutates=mutates,
            operation=operation,
            secret=secret,
            delegable=delegable,
            parameters=parameters,
            returns=hints["return"],
            doc=doc,
        )
        if taken := declared.options.keys() & parameters.keys():
            raise TypeError(f"{cls.__name__}.{name}: the framework defines {sorted(taken)} itself")
        found[name] = declared
    return found
