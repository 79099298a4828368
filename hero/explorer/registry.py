"""The nodes of the cluster: kept in the database, held in memory, believed while they report.

Each heartbeat is a transaction of its own about its own node. Whatever is wrong with one node, or
with one heartbeat, touches no other.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
import msgspec
from sqlalchemy import Connection, select, update
from twisted.logger import Logger

from hero.compute.model import Capacity, Vm
from hero.errors import NameTaken, NotFound
from hero.explorer import index, schema
from hero.explorer.leases import Leases, Pace
from hero.explorer.model import Heartbeat, Node, NodeState
from hero.explorer.nodes import NodeRecord, accept, describe, state_of
from hero.store import Database


@attrs.frozen
class Accepted:
    """A heartbeat that counted: the node after it, and what it changed in the VM index.

    ``send_vms``: the VM records are wanted with the next one.
    """

    record: NodeRecord
    report: index.Report | None
    send_vms: bool

    @property
    def unwanted(self) -> list[Vm]:
        """VMs on the node that an abandoned deployment left behind."""
        return self.report.unwanted if self.report is not None else []


class Registry:
    """Every node there is, and whether it is believed to be there.

    *local_sid* and *local_address* are those of the explorer's own machine, which is registered
    by its first heartbeat. *monotonic* is a clock that is never set, *now* the time of day.
    *publish* gets each node whose state changed.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        *,
        local_sid: str,
        local_address: str,
        pace: Pace,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
        publish: Callable[[Node], None],
    ) -> None:
        self.local_sid = local_sid
        self.pace = pace
        self._database = database
        self._local_address = local_address
        self._monotonic = monotonic
        self._now = now
        self._publish = publish
        self._leases = Leases()
        self._records: dict[str, NodeRecord] = {}
        self._states: dict[str, NodeState] = {}
        self._size = 0

    async def load(self) -> None:
        """Read the nodes. One that reported to the last has one lease from now in which to report.

        When that was, the newest heartbeat of all tells: nobody listened after it.
        """
        rows = await self._database.run(lambda c: c.execute(select(schema.nodes)).all())
        for record in map(_record, rows):
            self._records[record.sid] = record
        self._size = len(self._present())
        heard = [r.last_seen for r in self._present() if r.last_seen is not None]
        for record in self._present():
            if record.last_seen is not None:
                silence = (max(heard) - record.last_seen).total_seconds()
                if silence < self.lease:
                    self._leases.renew(record.sid, self._monotonic(), self.lease)
            self._states[record.sid] = self.state(record)

    @property
    def interval(self) -> float:
        """Seconds between the heartbeats of one node."""
        return self.pace.interval_for(self._size)

    @property
    def lease(self) -> float:
        """Seconds of silence after which a node counts as unreachable."""
        return self.pace.lease_for(self._size)

    def nodes(self) -> list[Node]:
        """The nodes in order of name, as they stand on the wire."""
        present = sorted(self._present(), key=lambda r: (r.name, r.sid))
        return [self.describe(record) for record in present]

    def get(self, ref: str) -> NodeRecord:
        """The node that *ref*, a sid or a name, means. Raises `NotFound`."""
        record = self._records.get(ref)
        if record is not None and record.removed_at is None:
            return record
        for record in self._present():
            if record.name == ref:
                return record
        raise NotFound(f"there is no node {ref!r} in this cluster")

    def known(self, sid: str) -> NodeRecord | None:
        """The node *sid*, even one that was removed."""
        return self._records.get(sid)

    def reachable(self, sid: str) -> bool:
        """Whether the node reported within its lease."""
        record = self._records.get(sid)
        return (
            record is not None
            and record.removed_at is None
            and self._leases.holds(sid, self._monotonic())
        )

    def state(self, record: NodeRecord) -> NodeState:
        """The state of the node now."""
        return state_of(record, live=self._leases.holds(record.sid, self._monotonic()))

    def describe(self, record: NodeRecord) -> Node:
        """The node as it stands on the wire."""
        return describe(record, live=self._leases.holds(record.sid, self._monotonic()))

    def dress(self, vm: Vm) -> Vm:
        """*vm*, whose ``node_sid`` is set, with what its own node cannot say.

        Each heartbeat confirms what the node said of its VMs before.
        """
        assert vm.node_sid is not None
        record = self._records.get(vm.node_sid)
        name = seen = None
        if record is not None:
            name, seen = record.name, record.last_seen
        said = [time for time in (vm.observed_at, seen) if time is not None]
        return attrs.evolve(
            vm,
            node_name=name,
            observed_at=max(said, default=None),
            reachable=self.reachable(vm.node_sid),
        )

    def unreachable(self) -> list[str]:
        """The names of the nodes that have reported before and do not now."""
        silent = NodeState.UNREACHABLE
        return sorted(r.name for r in self._present() if self.state(r) is silent)

    def removed(self) -> list[str]:
        """The sids whose certificates are refused."""
        return sorted(r.sid for r in self._records.values() if r.removed_at is not None)

    async def heartbeat(self, heartbeat: Heartbeat) -> Accepted:
        """Take a heartbeat whose sender has been checked.

        Raises `NodeUnknown` and `HeartbeatStale`.
        """
        now = self._now()

        def work(connection: Connection) -> Accepted:
            row = connection.execute(
                select(schema.nodes).where(schema.nodes.c.sid == heartbeat.node_sid)
            ).one_or_none()
            record = None if row is None else _record(row)
            if record is None and heartbeat.node_sid == self.local_sid:
                record = self._register_local(connection, heartbeat, now)
            record = accept(record, heartbeat, now)
            report = None
            if heartbeat.vms is not None:
                report = index.take_report(connection, heartbeat)
                record = attrs.evolve(
                    record,
                    vms=len(heartbeat.vms),
                    vms_digest=heartbeat.vms_digest if report.settled else "",
                )
            _write(connection, record)
            return Accepted(record, report, record.vms_digest != heartbeat.vms_digest)

        accepted = await self._database.run(work)
        record = accepted.record
        self._keep(record)
        self._leases.renew(record.sid, self._monotonic(), self.lease)
        self._note(record)
        return accepted

    async def add(
        self, record: NodeRecord, prove: Callable[[Connection], None] = lambda _: None
    ) -> None:
        """A node joined. Raises `NameTaken`, and what *prove* raises in the same transaction."""

        def work(connection: Connection) -> list[str]:
            prove(connection)
            replaced = _free_name(connection, record, self._now())
            _write(connection, record)
            return replaced

        for sid in await self._database.run(work):
            await self.change(sid, removed_at=self._now())
        self._keep(record)
        self._note(record)

    async def change(self, sid: str, **fields: Any) -> NodeRecord:
        """Set *fields* of the node *sid*."""

        def work(connection: Connection) -> NodeRecord:
            row = connection.execute(select(schema.nodes).where(schema.nodes.c.sid == sid)).one()
            record = attrs.evolve(_record(row), **fields)
            _write(connection, record)
            if record.removed_at is not None:
                index.forget_node(connection, sid)
            return record

        record = await self._database.run(work)
        self._keep(record)
        if record.removed_at is not None:
            self._leases.end(sid)
        self._note(record)
        return record

    def count(self, sid: str, *, slices_free: int, vms: int) -> None:
        """Count so many free slices and VMs more (or fewer), until the node says what is."""
        record = self._records.get(sid)
        if record is None or record.capacity is None:
            return
        free = min(record.capacity.slices, max(0, record.capacity.slices_free + slices_free))
        self._records[sid] = attrs.evolve(
            record,
            vms=max(0, record.vms + vms),
            capacity=attrs.evolve(record.capacity, slices_free=free),
        )

    def tick(self) -> None:
        """Publish the nodes whose leases have run out since the last time."""
        for record in self._present():
            self._note(record)

    def _keep(self, record: NodeRecord) -> None:
        before = self._records.get(record.sid)
        self._size += (record.removed_at is None) - (
            before is not None and before.removed_at is None
        )
        self._records[record.sid] = record

    def _present(self) -> list[NodeRecord]:
        return [r for r in self._records.values() if r.removed_at is None]

    def _note(self, record: NodeRecord) -> None:
        state, before = self.state(record), self._states.get(record.sid)
        if state is before:
            return
        self._states[record.sid] = state
        self._log.info(
            "node {node} ({name}) is {state}",
            node=record.sid,
            name=record.name,
            state=state.value,
            before=before.value if before else None,
        )
        self._publish(self.describe(record))

    def _register_local(
        self, connection: Connection, heartbeat: Heartbeat, now: datetime
    ) -> NodeRecord:
        record = NodeRecord(
            sid=self.local_sid,
            name=heartbeat.name,
            advertise_address=self._local_address,
            joined_at=now,
            local=True,
        )
        try:
            _free_name(connection, record, now)
        except NameTaken:
            record = attrs.evolve(record, name=f"{record.name}-{self.local_sid[-4:]}")
        return record


def _free_name(connection: Connection, record: NodeRecord, now: datetime) -> list[str]:
    """Make sure that no other node has the name of *record*.

    The same machine, by its key, that joined under the name and never reported was given up
    half-way and is in nobody's way. The sids of such are returned.
    """
    keys = schema.join_tokens.c
    key_of = select(keys.key_hash).where
    key = connection.scalar(key_of(keys.node_sid == record.sid))
    holders = connection.execute(
        select(schema.nodes).where(
            schema.nodes.c.name == record.name,
            schema.nodes.c.sid != record.sid,
            schema.nodes.c.removed_at.is_(None),
        )
    ).all()
    for holder in holders:
        same = key is not None and key == connection.scalar(key_of(keys.node_sid == holder.sid))
        if holder.last_seen is not None or not same:
            raise NameTaken(
                f"the cluster has a node named {record.name} already: {holder.sid}",
                hint="choose another name with --name, or remove the old node first: "
                f"hero node remove {record.name}",
            )
    sids = [holder.sid for holder in holders]
    connection.execute(
        update(schema.nodes).where(schema.nodes.c.sid.in_(sids)).values(removed_at=now)
    )
    return sids


def _record(row: Any) -> NodeRecord:
    fields = dict(row._mapping)
    capacity = fields.pop("capacity")
    fields["past_boots"] = tuple(fields["past_boots"])
    return NodeRecord(
        capacity=None if capacity is None else msgspec.convert(capacity, Capacity), **fields
    )


def _write(connection: Connection, record: NodeRecord) -> None:
    values = {a.name: getattr(record, a.name) for a in attrs.fields(NodeRecord)}
    values["past_boots"] = list(record.past_boots)
    values["capacity"] = msgspec.to_builtins(record.capacity)
    sid = values.pop("sid")
    table = schema.nodes
    if connection.execute(update(table).where(table.c.sid == sid).values(values)).rowcount == 0:
        connection.execute(table.insert().values(sid=sid, **values))
