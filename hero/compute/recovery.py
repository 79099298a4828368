"""Operations that were under way when the service was killed: how each of them ended.

The reconciler has been through the VMs before; what is true now decides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection
from twisted.logger import Logger

from hero.compute.model import Vm, VmState
from hero.compute.record import VmRecord
from hero.compute.schema import operations
from hero.compute.store import VmStore
from hero.operation_log import OperationLog
from hero.operations import Operation, OperationInterrupted
from hero.store import Database

_log = Logger()

#: The state of the VM that means that the command was carried out.
_DONE = {
    "start_vm": VmState.RUNNING,
    "resume_vm": VmState.RUNNING,
    "stop_vm": VmState.STOPPED,
    "pause_vm": VmState.PAUSED,
}


def outcome(operation: Operation, record: VmRecord | None) -> OperationInterrupted | None:
    """How *operation* ended, by the *record* of the VM that it was about.

    None means that it succeeded. The error says what became of it otherwise.
    """
    gone = record is None or record.deleted_at is not None
    if operation.kind == "delete_vm" and record is not None and gone:
        return None
    if not gone and record is not None:
        if operation.kind == "deploy_vm":
            return None
        if _DONE.get(operation.kind) is record.state:
            return None
        if operation.kind == "restart_vm" and _started_since(operation, record):
            return None
    return OperationInterrupted(
        f"the compute service stopped while {operation.kind} was under way; {_truth(record)}",
        hint="call again",
    )


async def close_interrupted(
    interrupted: list[Operation],
    *,
    store: VmStore,
    log: OperationLog,
    database: Database,
    describe: Callable[[VmRecord], Vm],
) -> None:
    """End each of the operations *interrupted*, truthfully.

    *describe* makes the wire value of a record. An operation that came to nothing lets go of its
    request id, so that it is done when its caller repeats it.
    """
    for operation in interrupted:
        record = await store.get(operation.target) if operation.target else None
        error = outcome(operation, record)
        _log.info(
            "interrupted operation {operation} ({kind}) of {vm}: {ended}",
            operation=operation.sid,
            kind=operation.kind,
            vm=operation.target,
            ended="succeeded" if error is None else error.detail,
        )
        if error is not None:
            await database.run(partial(_release_request, sid=operation.sid))
        result = describe(record) if error is None and record is not None else None
        await log.finish(operation.sid, result=result, error=error)


def _started_since(operation: Operation, record: VmRecord) -> bool:
    return (
        record.state is VmState.RUNNING
        and record.started_at is not None
        and record.started_at >= operation.created_at
    )


def _truth(record: VmRecord | None) -> str:
    if record is None:
        return "no VM has come of it"
    if record.deleted_at is not None:
        return "the VM is gone"
    return f"the VM is {record.state.value}"


def _release_request(connection: Connection, sid: str) -> None:
    connection.execute(operations.update().where(operations.c.sid == sid).values(request_id=None))
