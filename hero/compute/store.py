"""What a node knows of its VMs and slices, in its own database: the truth about them.

Each method is one transaction. Transactions run one at a time, so that what is read in one still
holds when the same one writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy import Connection
from twisted.internet.defer import Deferred

from hero.compute.lifecycle import check_transition
from hero.compute.model import Slice, VmState, WantedState
from hero.compute.record import VmRecord
from hero.compute.schema import meta, slices, vms
from hero.compute.slices import Division, allocate, resize
from hero.errors import Conflict, NameTaken, NotFound
from hero.sids import new_sid
from hero.store import Database

#: How long a deleted VM is remembered, for operations on it that a crash interrupted.
MEMORY_OF_DELETED = timedelta(days=7)


class VmStore:
    """VM records and slices. *now* tells the time, in UTC; *new_slice_sid* names a new slice."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        new_slice_sid: Callable[[], str] = lambda: new_sid("slice"),
    ) -> None:
        self._database = database
        self._now = now
        self._new_slice_sid = new_slice_sid

    def create(
        self, record: VmRecord, slice_count: int, slice_sid: str | None = None
    ) -> Deferred[VmRecord]:
        """Write *record* down and give it slices; its memory and disk become theirs.

        The sid of a deploy that was undone can be used again. Raises `NameTaken`,
        `SliceUnavailable`, `NotFound` (*slice_sid*), or `Conflict` where the sid was used before.
        Nothing is written then. VMs that were deleted long ago are forgotten on the way.
        """

        def work(connection: Connection) -> VmRecord:
            connection.execute(
                vms.delete().where(vms.c.deleted_at < self._now() - MEMORY_OF_DELETED)
            )
            _refuse_taken(connection, record)
            chosen = allocate(_slices(connection), slice_count, slice_sid)
            complete = attrs.evolve(
                record,
                slices=tuple(s.sid for s in chosen),
                memory=sum(s.memory for s in chosen),
                disk=sum(s.disk for s in chosen),
            )
            connection.execute(vms.insert().values(_row(complete)))
            connection.execute(
                slices.update().where(slices.c.sid.in_(complete.slices)).values(vm_sid=record.sid)
            )
            return complete

        return self._database.run(work)

    def update(self, sid: str, **changes: Any) -> Deferred[VmRecord]:
        """Change members of the record *sid* (``state``, ``wanted``, ``reason``, ``started_at``).

        Raises `NotFound`, and ValueError for a state that cannot follow the one before.
        """

        def work(connection: Connection) -> VmRecord:
            before = _get(connection, sid)
            if before is None or before.deleted_at is not None:
                raise NotFound(f"no VM {sid}")
            check_transition(before.state, changes.get("state", before.state))
            after = attrs.evolve(before, **changes, revision=before.revision + 1)
            connection.execute(vms.update().where(vms.c.sid == sid).values(_row(after)))
            return after

        return self._database.run(work)

    def remove(self, sid: str, reason: str | None = None) -> Deferred[VmRecord | None]:
        """Free the slices and the name of the VM *sid*; remember it as deleted, with *reason*."""

        def work(connection: Connection) -> VmRecord | None:
            before = _get(connection, sid)
            if before is None or before.deleted_at is not None:
                return before
            after = attrs.evolve(
                before,
                state=VmState.DELETING,
                wanted=WantedState.DELETED,
                slices=(),
                reason=reason,
                deleted_at=self._now(),
                revision=before.revision + 1,
            )
            connection.execute(vms.update().where(vms.c.sid == sid).values(_row(after)))
            connection.execute(slices.update().where(slices.c.vm_sid == sid).values(vm_sid=None))
            return after

        return self._database.run(work)

    def get(self, sid: str) -> Deferred[VmRecord | None]:
        """The record *sid*, of a deleted VM too."""
        return self._database.run(lambda connection: _get(connection, sid))

    def find(self, context: str, ref: str) -> Deferred[VmRecord]:
        """The VM of *context* whose sid or name is *ref*. Raises `NotFound`."""

        def work(connection: Connection) -> VmRecord:
            here = sa.and_(vms.c.context == context, vms.c.deleted_at.is_(None))
            for column in (vms.c.sid, vms.c.name):
                found = _select(connection, sa.and_(here, column == ref))
                if found:
                    return found[0]
            raise NotFound(f"no VM {ref} in the context {context}", hint="hero vm list shows them")

        return self._database.run(work)

    def all(self) -> Deferred[list[VmRecord]]:
        """Every VM there is, in order of context and name."""
        return self._database.run(
            lambda connection: _select(connection, vms.c.deleted_at.is_(None))
        )

    def page(
        self,
        context: str,
        *,
        state: VmState | None,
        labels: Mapping[str, str],
        limit: int,
        after: str | None,
    ) -> Deferred[tuple[list[VmRecord], bool]]:
        """Up to *limit* VMs of *context* whose name comes after *after*; whether there are more."""

        def work(connection: Connection) -> tuple[list[VmRecord], bool]:
            where = [vms.c.context == context, vms.c.deleted_at.is_(None)]
            if state is not None:
                where.append(vms.c.state == state.value)
            if after is not None:
                where.append(vms.c.name > after)
            found = [
                record
                for record in _select(connection, sa.and_(*where))
                if labels.items() <= record.labels.items()
            ]
            return found[:limit], len(found) > limit

        return self._database.run(work)

    def slices(self) -> Deferred[list[Slice]]:
        """The slices, in order of index."""
        return self._database.run(_slices)

    def divide(self, division: Division) -> Deferred[int]:
        """Fit the slices to *division*; how many are in use beyond it. See `slices.resize`."""

        def work(connection: Connection) -> int:
            change = resize(_slices(connection), division)
            size = {"memory": division.memory, "disk": division.disk}
            connection.execute(slices.delete().where(slices.c.sid.in_(change.remove)))
            connection.execute(slices.update().where(slices.c.sid.in_(change.update)).values(size))
            for index in change.add:
                row = {"sid": self._new_slice_sid(), "index": index, **size}
                connection.execute(slices.insert().values(row))
            return change.excess

        return self._database.run(work)

    def remember(self, key: str, value: str) -> Deferred[str | None]:
        """Keep *value* under *key*; what was kept there before."""

        def work(connection: Connection) -> str | None:
            before: str | None = connection.execute(
                sa.select(meta.c.value).where(meta.c.key == key)
            ).scalar()
            connection.execute(meta.delete().where(meta.c.key == key))
            connection.execute(meta.insert().values(key=key, value=value))
            return before

        return self._database.run(work)


def _refuse_taken(connection: Connection, record: VmRecord) -> None:
    earlier = _get(connection, record.sid)
    if earlier is not None and earlier.undone:
        connection.execute(vms.delete().where(vms.c.sid == earlier.sid))
    elif earlier is not None:
        raise Conflict(f"the sid {record.sid} was used before", hint="leave vm_sid out")
    same_name = _select(
        connection,
        sa.and_(
            vms.c.context == record.context,
            vms.c.name == record.name,
            vms.c.deleted_at.is_(None),
        ),
    )
    if same_name:
        raise NameTaken(
            f"a VM named {record.name} exists already in the context {record.context}",
            hint="choose another name, or delete that VM first",
            data={"vm_sid": same_name[0].sid},
        )


def _get(connection: Connection, sid: str) -> VmRecord | None:
    found = _select(connection, vms.c.sid == sid)
    return found[0] if found else None


def _select(connection: Connection, where: sa.ColumnElement[bool]) -> list[VmRecord]:
    held: dict[str, list[str]] = {}
    for sid, vm_sid in connection.execute(
        sa.select(slices.c.sid, slices.c.vm_sid)
        .where(slices.c.vm_sid.in_(sa.select(vms.c.sid).where(where)))
        .order_by(slices.c.index)
    ):
        held.setdefault(vm_sid, []).append(sid)
    rows = connection.execute(sa.select(vms).where(where).order_by(vms.c.context, vms.c.name))
    return [
        VmRecord(
            **{
                **row._mapping,
                "state": VmState(row.state),
                "wanted": WantedState(row.wanted),
                "slices": tuple(held.get(row.sid, ())),
            }
        )
        for row in rows
    ]


def _slices(connection: Connection) -> list[Slice]:
    rows = connection.execute(sa.select(slices).order_by(slices.c.index))
    return [Slice(**row._mapping, state="free" if row.vm_sid is None else "in_use") for row in rows]


def _row(record: VmRecord) -> dict[str, Any]:
    row = attrs.asdict(record)
    del row["slices"]
    return {**row, "state": record.state.value, "wanted": record.wanted.value}
