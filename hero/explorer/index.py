"""The VMs of the cluster, as their nodes reported them.

Each node's own database is the truth; this is a copy that one round of heartbeats rebuilds. A
report and the result of a call can overtake each other on the way, so each row says when its node
said so, by the node's own clock, and the older of two never replaces the newer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs
import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, or_, select, update
from twisted.logger import Logger

from hero.compute.model import Vm, VmState, WantedState
from hero.errors import Conflict, NotFound
from hero.explorer.model import Heartbeat
from hero.explorer.schema import attempts, nodes, vms
from hero.store import Database

#: A row from further ahead than this is from before the node's clock was set back.
_CLOCK_STEP = timedelta(seconds=60)

_log = Logger()


@attrs.frozen
class Report:
    """What one heartbeat's VM records changed.

    ``settled`` is false where something newer was kept, or where ``unwanted`` VMs are left on the
    node; the records are then asked for again.
    """

    changed: list[Vm]
    deleted: list[Vm]
    unwanted: list[Vm]
    settled: bool


def take_report(connection: Connection, heartbeat: Heartbeat) -> Report:
    """Bring the rows of one node up to what *heartbeat*, which carries VM records, says."""
    assert heartbeat.vms is not None
    node_sid, sent_at = heartbeat.node_sid, heartbeat.sent_at
    known = {row.sid: row for row in connection.execute(select(vms).where(_of_node(node_sid)))}
    abandoned = set(
        connection.scalars(
            select(attempts.c.vm_sid).where(
                attempts.c.node_sid == node_sid, attempts.c.state == "abandoned"
            )
        )
    )
    changed, deleted, unwanted, settled = [], [], [], True
    for vm in heartbeat.vms:
        row = known.pop(vm.sid, None)
        if vm.sid in abandoned:
            unwanted.append(vm)
        elif row is None and _is_elsewhere(connection, vm.sid):
            _log.warn("{node} reports {vm}, which is another node's", node=node_sid, vm=vm.sid)
        elif row is not None and _newer(row.said_at, sent_at):
            settled = False
        elif row is None or row.gone or _plain(_vm(row)) != _plain(vm):
            write_vm(connection, vm, node_sid, sent_at)
            changed.append(attrs.evolve(vm, node_sid=node_sid))
    for row in known.values():
        if _newer(row.said_at, sent_at):
            settled = False
            continue
        connection.execute(delete(vms).where(vms.c.sid == row.sid))
        if not row.gone:
            deleted.append(_vm(row))
    return Report(changed, deleted, unwanted, settled and not unwanted)


def write_vm(connection: Connection, vm: Vm, node_sid: str, said_at: datetime) -> None:
    """Make the row of *vm* what its node said of it at *said_at*."""
    values = {
        "node_sid": node_sid,
        "context": vm.context,
        "name": vm.name,
        "state": vm.state.value,
        "record": msgspec.to_builtins(vm),
        "said_at": said_at,
        "gone": False,
    }
    if connection.execute(update(vms).where(vms.c.sid == vm.sid).values(values)).rowcount == 0:
        connection.execute(vms.insert().values(sid=vm.sid, **values))


def name_holder(connection: Connection, context: str, name: str) -> str | None:
    """The sid of the VM that has *name* in *context*, as far as is known."""
    return connection.scalar(
        select(vms.c.sid).where(vms.c.context == context, vms.c.name == name, vms.c.gone.is_(False))
    )


def has_left(connection: Connection, node_sid: str) -> bool:
    """Whether the node was removed: no report of its will ever correct what is written now."""
    query = select(nodes.c.sid).where(nodes.c.sid == node_sid, nodes.c.removed_at.is_not(None))
    return connection.scalar(query) is not None


def forget_node(connection: Connection, node_sid: str) -> None:
    """Drop what a node said of its VMs."""
    connection.execute(delete(vms).where(_of_node(node_sid)))


class VmIndex:
    """Answers what is known of VMs, without asking any node.

    *publish* gets each `Vm` that changed, and whether it is gone.
    """

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        publish: Callable[[Vm, bool], None],
    ) -> None:
        self._database = database
        self._now = now
        self._publish = publish

    def announce(self, report: Report) -> None:
        """Publish what a heartbeat changed."""
        for vm in report.changed:
            self._publish(vm, False)
        for vm in report.deleted:
            self._publish(vm, True)

    async def page(
        self,
        context: str,
        *,
        state: VmState | None = None,
        node_sid: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[list[Vm], str | None]:
        """VMs in order of name and sid, and the cursor of the next page if there is one."""
        wanted = [vms.c.context == context, vms.c.gone.is_(False)]
        if state is not None:
            wanted.append(vms.c.state == state.value)
        if node_sid is not None:
            wanted.append(_of_node(node_sid))

        def work(connection: Connection) -> list[Vm]:
            where = [*wanted] if after is None else [*wanted, _after(after)]
            query = select(vms).where(*where).order_by(vms.c.name, vms.c.sid)
            found = []
            for row in connection.execute(query if labels else query.limit(limit + 1)):
                vm = _vm(row)
                if not labels or labels.items() <= vm.labels.items():
                    found.append(vm)
                if len(found) > limit:
                    break
            return found

        found = await self._database.run(work)
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], f"{last.name}:{last.sid}"

    async def find(self, context: str, ref: str) -> Vm:
        """The VM of *context* that *ref*, a sid or a name, means. Its ``node_sid`` is set.

        Raises `NotFound`, and `Conflict` for a name that VMs on several nodes have.
        """

        def work(connection: Connection) -> list[Vm]:
            rows = connection.execute(
                select(vms).where(
                    vms.c.context == context,
                    vms.c.gone.is_(False),
                    or_(vms.c.sid == ref, vms.c.name == ref),
                )
            )
            return [_vm(row) for row in rows]

        found = await self._database.run(work)
        exact = [vm for vm in found if vm.sid == ref] or found
        if not exact:
            raise NotFound(f"there is no VM {ref!r} in the context {context}")
        if len(exact) > 1:
            places = ", ".join(f"{vm.sid} on {vm.node_sid}" for vm in exact)
            raise Conflict(
                f"{len(exact)} VMs are named {ref}: {places}", hint="name one by its sid"
            )
        return exact[0]

    async def put(self, vm: Vm, node_sid: str) -> None:
        """Take the result of a call: what *node_sid* just said of *vm*."""
        said_at = vm.observed_at or self._now()

        def work(connection: Connection) -> bool:
            if has_left(connection, node_sid):
                return False
            write_vm(connection, vm, node_sid, said_at)
            ask_again(connection, node_sid)
            return True

        if await self._database.run(work):
            self._publish(attrs.evolve(vm, node_sid=node_sid), False)

    async def remove(self, vm: Vm, node_sid: str) -> None:
        """Take the result of a call: *node_sid* just deleted *vm*."""
        said_at = vm.observed_at or self._now()

        def work(connection: Connection) -> None:
            connection.execute(
                update(vms).where(vms.c.sid == vm.sid).values(gone=True, said_at=said_at)
            )
            ask_again(connection, node_sid)

        await self._database.run(work)
        self._publish(attrs.evolve(vm, node_sid=node_sid), True)

    async def counts(self) -> dict[str, int]:
        """How many VMs of the cluster are in each state."""

        def work(connection: Connection) -> dict[str, int]:
            rows = connection.execute(
                select(vms.c.state, func.count()).where(vms.c.gone.is_(False)).group_by(vms.c.state)
            )
            return {state: count for state, count in rows}

        return await self._database.run(work)


def as_deleted(vm: Vm) -> Vm:
    """*vm* as it is announced when it is gone."""
    return attrs.evolve(vm, state=VmState.DELETING, wanted_state=WantedState.DELETED)


def ask_again(connection: Connection, node_sid: str) -> None:
    """Make the node send its VM records with one of the next heartbeats."""
    connection.execute(update(nodes).where(nodes.c.sid == node_sid).values(vms_digest=""))


def _is_elsewhere(connection: Connection, vm_sid: str) -> bool:
    return connection.scalar(select(vms.c.node_sid).where(vms.c.sid == vm_sid)) is not None


def _plain(vm: Vm) -> Vm:
    """*vm* without what changes with every look."""
    return attrs.evolve(vm, observed_at=None, node_sid=None)


def _newer(held: datetime, sent_at: datetime) -> bool:
    return timedelta(0) < held - sent_at < _CLOCK_STEP


def _of_node(node_sid: str) -> ColumnElement[bool]:
    return vms.c.node_sid == node_sid


def _after(cursor: str) -> ColumnElement[bool]:
    name, _, sid = cursor.partition(":")
    return or_(vms.c.name > name, and_(vms.c.name == name, vms.c.sid > sid))


def _vm(row: Row[Any]) -> Vm:
    return attrs.evolve(msgspec.convert(row.record, Vm), node_sid=row.node_sid)
