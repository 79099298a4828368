"""What becomes of operations that a restart of the explorer interrupted.

The nodes went on meanwhile. So each operation is settled by asking the node that was to do it,
as soon as that node reports again; after `PATIENCE` seconds of silence it has failed, and says
that nobody knows more.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from hero.compute.model import Vm
from hero.errors import HeroError, NotFound
from hero.explorer.cluster import ClusterCompute
from hero.explorer.deployment import Deployer
from hero.explorer.errors import NodeUnreachable
from hero.explorer.intents import IntentStore
from hero.explorer.node_proxy import unreachable
from hero.explorer.registry import Registry
from hero.identity.claims import Caller
from hero.operation_log import OperationLog
from hero.operations import Operation, OperationInterrupted
from hero.rpc.declare import Call

#: Seconds for which a node that was to do something is waited for.
PATIENCE = 600.0

_PAUSE = 1.0


class Recovery:
    """Settles what was under way when the explorer stopped."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        operations: OperationLog,
        registry: Registry,
        intents: IntentStore,
        deployer: Deployer,
        cluster: ClusterCompute,
    ) -> None:
        self._clock = clock
        self._operations = operations
        self._registry = registry
        self._intents = intents
        self._deployer = deployer
        self._cluster = cluster
        self._tasks: set[Deferred[None]] = set()

    async def start(self) -> None:
        """Find what was interrupted, and begin to settle it. Call before serving."""
        interrupted = await self._operations.interrupted()
        under_way = {operation.sid for operation in interrupted}
        for sid in await self._intents.open():
            if sid not in under_way:
                await self._intents.fail(sid)
        for operation in interrupted:
            task = Deferred.fromCoroutine(self._settle(operation))
            self._tasks.add(task)
            task.addBoth(self._done, task)

    def stop(self) -> None:
        """Leave the rest to the next start."""
        for task in list(self._tasks):
            task.cancel()

    def _done(self, outcome: object, task: Deferred[None]) -> None:
        self._tasks.discard(task)
        if isinstance(outcome, Failure) and outcome.check(CancelledError) is None:
            self._log.failure("an interrupted operation was not settled", outcome)

    async def _settle(self, operation: Operation) -> None:
        self._log.info(
            "settling {kind} ({operation}), which a restart interrupted",
            kind=operation.kind,
            operation=operation.sid,
        )
        try:
            result = await self._result(operation)
        except HeroError as error:
            await self._operations.finish(operation.sid, error=error)
        else:
            await self._operations.finish(operation.sid, result=result)

    async def _result(self, operation: Operation) -> Any:
        if operation.kind == "deploy_vm":
            return await self._deployed(operation)
        if operation.kind == "build_image":
            raise OperationInterrupted(
                "the explorer was restarted during build_image; a node that was asked goes on",
                hint="hero image list shows how far it is",
            )
        if operation.target is None:
            raise _nothing_done(operation)
        call = Call(caller=Caller(user=operation.user, context=operation.context))
        deadline = self._clock.seconds() + PATIENCE
        while True:
            try:
                return await self._cluster.follow(call, operation)
            except NodeUnreachable:
                if self._clock.seconds() >= deadline:
                    raise
            except NotFound as error:
                raise _nothing_done(operation) from error
            await deferLater(self._clock, _PAUSE)

    async def _deployed(self, operation: Operation) -> Vm:
        found = await self._intents.find(operation.sid)
        if found is None:
            raise _nothing_done(operation)
        intent, attempt = found
        if attempt is None:
            await self._deployer.give_up(intent, None)
            raise _nothing_done(operation)
        deadline = self._clock.seconds() + PATIENCE
        while True:
            record = self._registry.known(attempt.node_sid)
            failure = None if record is None else unreachable(record, "no heartbeat came")
            if failure is None or self._registry.reachable(attempt.node_sid):
                try:
                    return await self._deployer.resume(intent, attempt)
                except NodeUnreachable as error:
                    failure = error
            if self._clock.seconds() >= deadline:
                await self._deployer.give_up(intent, attempt)
                raise failure
            await deferLater(self._clock, _PAUSE)


def _nothing_done(operation: Operation) -> OperationInterrupted:
    return OperationInterrupted(
        f"the explorer was restarted before {operation.kind} reached a node; nothing was done",
        hint="call it again, with a new request id",
        retry_after=1.0,
    )
