"""Declared methods on txjsonrpc-ng's dispatch: ``ComputeService.deploy_vm`` is the method
``jsonrpc_deploy_vm`` of the sub-handler ``ComputeService``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import msgspec
from twisted.logger import Logger
from txjsonrpc_ng.jsonrpc import BaseSubhandler

from hero.errors import HeroError
from hero.operation_log import OperationHandle, OperationLog, call_digest
from hero.rpc.declare import Call, Method, methods_of
from hero.rpc.envelope import Params
from hero.rpc.parameters import Arguments, bind

#: Decisions on mutating calls: who was allowed to do, or refused, what.
_audit = Logger("hero.audit")


@attrs.frozen
class ServedMethod:
    """A declared method with what implements it."""

    method: Method
    handler: Callable[..., Awaitable[Any]]
    operations: OperationLog | None

    async def __call__(self, call: Call, params: Params) -> Any:
        """The wire value of the result."""
        self._authorize(call)
        arguments = bind(self.method, params)
        call = attrs.evolve(call, request_id=arguments.options.get("request_id"))
        if self.method.operation:
            return await self._operate(call, arguments)
        if call.request_id is not None and not call.caller.is_anonymous:
            return await self._once(call, arguments)
        return msgspec.to_builtins(await self.handler(call, **arguments.values))

    async def _operate(self, call: Call, arguments: Arguments) -> Any:
        async def work(handle: OperationHandle) -> Any:
            return await self.handler(attrs.evolve(call, operation=handle), **arguments.values)

        assert self.operations is not None
        operation = await self.operations.run(
            call,
            self.method,
            msgspec.to_builtins(arguments.values),
            work,
            wait=arguments.options["wait"],
            timeout=arguments.options["timeout"],
        )
        return msgspec.to_builtins(operation)

    async def _once(self, call: Call, arguments: Arguments) -> Any:
        assert self.operations is not None
        return await self.operations.requests.once(
            call,
            call_digest(self.method, msgspec.to_builtins(arguments.values)),
            lambda: self.handler(call, **arguments.values),
            secret=self.method.secret,
        )

    def _authorize(self, call: Call) -> None:
        method = self.method
        try:
            call.caller.require(
                method.access, delegable=method.delegable, what=method.qualified_name
            )
        except HeroError as error:
            self._record(call, error.kind)
            raise
        if method.mutates:
            self._record(call, "allowed")

    def _record(self, call: Call, decision: str) -> None:
        _audit.info(
            "{method} by {user} for {responsible} in {context}: {decision}",
            method=self.method.qualified_name,
            user=call.caller.user,
            responsible=call.caller.responsible,
            context=call.context,
            decision=decision,
            trace_id=call.trace_id,
        )


class ServiceHandler(BaseSubhandler):  # type: ignore[misc]
    """The methods that *declaration* declares, as *implementation* does them.

    An implementation of a declaration with mutating methods has an attribute ``operations``, its
    `OperationLog`.
    """

    def __init__(self, declaration: type, implementation: object) -> None:
        super().__init__()
        operations = getattr(implementation, "operations", None)
        name = type(implementation).__name__
        for method in methods_of(declaration).values():
            handler = getattr(implementation, method.name, None)
            if handler is None:
                raise TypeError(f"{name} does not implement {method.qualified_name}")
            if method.mutates and operations is None:
                raise TypeError(f"{name} needs an attribute 'operations', an OperationLog")
            serve(self, ServedMethod(method, handler, operations))


def serve(handler: BaseSubhandler, served: ServedMethod) -> None:
    """Let *handler* answer calls of the method."""
    setattr(handler, f"jsonrpc_{served.method.name}", served)
