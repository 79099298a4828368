"""Calls to the nodes' own compute services.

A worker is called through its router, both sides with certificates; the explorer's own machine by
UNIX socket. Each node has its own bound on calls under way, so that a slow one holds up nobody
who asks for another. What goes wrong on the way becomes `NodeUnreachable`, which names the node;
what the node itself answers is passed on, with the node's name added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
import msgspec
from twisted.internet.defer import CancelledError, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

import hero.compute.errors
import hero.compute.hypervisor.errors  # noqa: F401  (an error is known by its kind once defined)
from hero.compute.api import ComputeService
from hero.errors import (
    Forbidden,
    HeroError,
    LimitExceeded,
    RemoteError,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from hero.explorer.errors import NodeUnreachable
from hero.explorer.nodes import NodeRecord
from hero.identity.errors import PeerRefused
from hero.operations import Operation
from hero.rpc.declare import Call, methods_of


class Client(Protocol):
    """What is needed of `hero.rpc.client.RpcClient`."""

    async def call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float,
        headers: Mapping[str, str],
    ) -> Any: ...


class Progress(Protocol):
    """What is needed of `hero.operation_log.OperationHandle`."""

    cancel_requested: bool

    async def update(self, *, progress: float | None, message: str | None) -> None: ...


@attrs.frozen(kw_only=True)
class Patience:
    """How long to wait for a node, in seconds.

    ``answer`` for one answer; ``submit`` and ``follow`` for a node that does not answer at first,
    or no longer, about an operation (it may be restarting); ``whole`` for an operation as such.
    ``poll`` is how long the node holds back the answer to "has it ended?".
    """

    answer: float = 10.0
    submit: float = 3.0
    follow: float = 20.0
    whole: float = 900.0
    poll: float = 1.0
    pause: float = 0.5


class NodeProxy:
    """Calls nodes for users.

    *connect* makes the client for a node and a context. *explorer* is the user name under which
    the explorer itself acts.
    """

    def __init__(
        self,
        clock: IReactorTime,
        connect: Callable[[NodeRecord, str], Client],
        *,
        local_sid: str,
        patience: Patience | None = None,
        concurrency: int = 32,
        queue: int = 512,
    ) -> None:
        self.patience = patience or Patience()
        self._clock = clock
        self._connect = connect
        self._local_sid = local_sid
        self._concurrency = concurrency
        self._queue = queue
        self._turns: dict[tuple[str, str], DeferredSemaphore] = {}

    async def call(
        self,
        node: NodeRecord,
        call: Call,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float | None = None,
    ) -> Any:
        """The JSON value that ComputeService's *method* on *node* answers, for *call*'s user."""
        # Who follows a log holds its call for long; that is no reason for others to wait.
        lane = (node.sid, "logs" if method == "vm_logs" else "calls")
        turns = self._turns.setdefault(lane, DeferredSemaphore(self._concurrency))
        if len(turns.waiting) >= self._queue:
            raise LimitExceeded(
                f"{self._queue} calls are waiting for the node {node.name} already",
                retry_after=5.0,
                data={"node": node.name},
            )
        client = self._connect(node, call.context)
        limit = self.patience.answer if timeout is None else timeout
        try:
            await turns.acquire().addTimeout(limit, self._clock)
        except DeferredTimeout:
            raise unreachable(
                node, f"{self._concurrency} calls to it have had no answer for {limit:g} seconds"
            ) from None
        try:
            return await client.call(
                f"ComputeService.{method}",
                msgspec.to_builtins(dict(params)),
                timeout=limit,
                headers=self._headers(node, call),
            )
        except (Unavailable, Timeout, PeerRefused, Unauthenticated, Forbidden) as error:
            raise unreachable(node, error.detail) from error
        except HeroError as error:
            error.data.setdefault("node", node.name)
            error.data.pop("operation", None)
            raise
        finally:
            turns.release()

    async def read(
        self,
        node: NodeRecord,
        call: Call,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float | None = None,
    ) -> Any:
        """`call`, with the answer as the type that *method* declares."""
        value = await self.call(node, call, method, params, timeout=timeout)
        return _understood(node, method, value, methods_of(ComputeService)[method].returns)

    async def perform(
        self,
        node: NodeRecord,
        call: Call,
        method: str,
        params: Mapping[str, Any],
        *,
        request_id: str,
        progress: Progress | None = None,
    ) -> Any:
        """Run an operation on *node* and wait for it; the value is what *method* declares.

        The node knows *request_id* again, so asking twice makes nothing twice.
        """
        patience = self.patience
        asked = {**params, "request_id": request_id, "wait": True, "timeout": patience.poll}
        started = heard = self._clock.seconds()
        operation: Operation | None = None
        while operation is None or not operation.state.ended:
            now = self._clock.seconds()
            if now - started > patience.whole:
                raise _too_long(node, method, patience.whole, operation)
            try:
                if operation is None:
                    answer = await self.call(
                        node, call, method, asked, timeout=patience.poll + patience.answer
                    )
                else:
                    answer = await self.call(
                        node,
                        call,
                        "get_operation",
                        {"sid": operation.sid, "wait": patience.poll},
                        timeout=patience.poll + patience.answer,
                    )
            except NodeUnreachable as error:
                limit = patience.submit if operation is None else patience.follow
                if self._clock.seconds() - heard >= limit:
                    raise _lost(node, method, operation, error) from error
                await deferLater(self._clock, patience.pause)
                continue
            except CancelledError:
                if operation is not None and progress is not None and progress.cancel_requested:
                    await self._cancel(node, call, operation)
                raise
            heard = self._clock.seconds()
            operation = _understood(node, method, answer, Operation)
            if progress is not None and not operation.state.ended:
                await progress.update(progress=operation.progress, message=operation.message)
        if operation.error is not None:
            error_data = {**operation.error, "node": node.name}
            raise HeroError.from_data(error_data)
        return _understood(
            node, method, operation.result, methods_of(ComputeService)[method].returns
        )

    async def _cancel(self, node: NodeRecord, call: Call, operation: Operation) -> None:
        try:
            await self.call(node, call, "cancel_operation", {"sid": operation.sid})
        except HeroError:
            return  # it ended before, or cannot be undone; the node says which when asked

    def _headers(self, node: NodeRecord, call: Call) -> dict[str, str]:
        user = call.caller.responsible
        traced = {} if call.trace_id is None else {"X-Request-ID": call.trace_id}
        if not node.advertise_address.startswith("unix://"):
            return {"Hero-On-Behalf-Of": user, **traced}
        return {
            "X-Hero-User": f"node:{self._local_sid}",
            "X-Hero-Claims": "explorer, node",
            "X-Hero-On-Behalf-Of": user,
            **traced,
        }


def _understood(node: NodeRecord, method: str, value: Any, expected: Any) -> Any:
    """*value*, which *node* answered, as the type *expected*. Raises `RemoteError`."""
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise RemoteError(
            f"the answer of the node {node.name} to {method} cannot be understood: {error}",
            hint=f"see whether it runs the same version of Hero: hero node show {node.name}",
            data={"node": node.name},
        ) from error


def unreachable(node: NodeRecord, why: str) -> NodeUnreachable:
    """The error that says that *node* does not answer."""
    seen = "never" if node.last_seen is None else f"{node.last_seen:%Y-%m-%d %H:%M:%S} UTC"
    return NodeUnreachable(
        f"the node {node.name} does not answer: {why} (its last heartbeat: {seen})",
        hint=f"check that the machine is on and `hero status` on it shows no problem; its VMs "
        f"may well be running. If it is lost for good: hero node remove --force {node.name}",
        retry_after=10.0,
        data={"node": node.name, "node_sid": node.sid},
    )


def _lost(
    node: NodeRecord, method: str, operation: Operation | None, error: NodeUnreachable
) -> NodeUnreachable:
    if operation is None:
        return error
    return NodeUnreachable(
        f"the node {node.name} stopped answering during {method}",
        hint=f"it may finish that by itself; {error.hint}",
        retry_after=error.retry_after,
        data={**error.data, "node_operation": operation.sid},
    )


def _too_long(node: NodeRecord, method: str, limit: float, operation: Operation | None) -> Timeout:
    return Timeout(
        f"{method} on the node {node.name} has not ended after {limit:.0f} seconds",
        hint="the node goes on with it; ask for the VM again later",
        data={
            "node": node.name,
            "node_operation": None if operation is None else operation.sid,
        },
    )
