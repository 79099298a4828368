"""What deployments have in mind, written down before they act."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import attrs
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.exc import IntegrityError

from hero.compute.model import Vm
from hero.errors import Conflict, NameTaken
from hero.explorer import index
from hero.explorer.errors import NodeUnknown
from hero.explorer.schema import attempts, intents, vms
from hero.store import Database


@attrs.frozen(kw_only=True)
class Intent:
    """One deployment. ``request`` holds the parameters of ``deploy_vm`` for a node.

    ``state`` is ``placing`` (which holds the name), ``placed`` or ``failed``.
    """

    operation_sid: str
    context: str
    name: str
    user: str
    request: dict[str, Any]
    state: str = "placing"


@attrs.frozen(kw_only=True)
class Attempt:
    """One node that a deployment was sent to: ``trying``, ``placed`` or ``abandoned``."""

    vm_sid: str
    node_sid: str
    operation_sid: str
    state: str

    @property
    def request_id(self) -> str:
        """Under which the node knows the call again."""
        return f"{self.operation_sid}/{self.vm_sid}"


class IntentStore:
    """Deployments and where they were tried."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def reserve(self, intent: Intent, vm_sid: str) -> None:
        """Write *intent* down; from here on its name is taken.

        Raises `NameTaken`, and `Conflict` where *vm_sid* was ever meant for a VM.
        """

        def work(connection: Connection) -> None:
            known = [
                connection.scalar(select(attempts.c.vm_sid).where(attempts.c.vm_sid == vm_sid)),
                connection.scalar(select(vms.c.sid).where(vms.c.sid == vm_sid)),
            ]
            if any(known):
                raise Conflict(
                    f"the id {vm_sid} was used for a VM before",
                    hint="leave vm_sid out; to ask for the same VM again, repeat the request_id",
                )
            holder = index.name_holder(connection, intent.context, intent.name)
            if holder is not None:
                raise NameTaken(
                    f"a VM named {intent.name} exists already: {holder}",
                    hint="choose another name, or delete that VM first",
                    data={"vm_sid": holder},
                )
            connection.execute(
                intents.insert().values(**attrs.asdict(intent), created_at=self._now())
            )

        try:
            await self._database.run(work)
        except IntegrityError as error:
            raise NameTaken(
                f"a VM named {intent.name} is being deployed right now",
                hint="choose another name, or look at it with `hero operation list`",
            ) from error

    async def attempt(self, intent: Intent, vm_sid: str, node_sid: str) -> Attempt:
        """Write down that the node is about to be asked for the VM."""
        attempt = Attempt(
            vm_sid=vm_sid,
            node_sid=node_sid,
            operation_sid=intent.operation_sid,
            state="trying",
        )
        await self._database.run(
            lambda c: c.execute(
                attempts.insert().values(
                    **attrs.asdict(attempt),
                    context=intent.context,
                    name=intent.name,
                    created_at=self._now(),
                )
            )
        )
        return attempt

    async def abandon(self, attempt: Attempt) -> None:
        """Nobody wants the VM of *attempt* any more; should it appear, it is to be deleted."""

        def work(connection: Connection) -> None:
            connection.execute(_this(attempt).values(state="abandoned"))
            connection.execute(
                delete(vms).where(vms.c.sid == attempt.vm_sid, vms.c.node_sid == attempt.node_sid)
            )
            index.ask_again(connection, attempt.node_sid)

        await self._database.run(work)

    async def place(self, attempt: Attempt, vm: Vm) -> None:
        """The node made *vm*. It enters the index as the intent ends.

        Raises `NodeUnknown` where the node was removed meanwhile.
        """
        said_at = vm.observed_at or self._now()

        def work(connection: Connection) -> None:
            if index.has_left(connection, attempt.node_sid):
                raise NodeUnknown(
                    f"the node {attempt.node_sid} was removed from the cluster while it made "
                    f"{vm.name}, which runs there unknown to the cluster",
                    hint="deploy it again; the machine shows its own VMs with `hero vm list`",
                )
            connection.execute(_this(attempt).values(state="placed"))
            connection.execute(_intent(attempt.operation_sid).values(state="placed"))
            index.write_vm(connection, vm, attempt.node_sid, said_at)
            index.ask_again(connection, attempt.node_sid)

        await self._database.run(work)

    async def fail(self, operation_sid: str) -> None:
        """The deployment is over without a VM; its name is free."""
        await self._database.run(lambda c: c.execute(_intent(operation_sid).values(state="failed")))

    async def find(self, operation_sid: str) -> tuple[Intent, Attempt | None] | None:
        """A deployment, with the attempt under way or the one that was placed."""

        def work(connection: Connection) -> tuple[Intent, Attempt | None] | None:
            row = connection.execute(
                select(intents).where(intents.c.operation_sid == operation_sid)
            ).one_or_none()
            if row is None:
                return None
            tried = connection.execute(
                select(attempts).where(
                    attempts.c.operation_sid == operation_sid, attempts.c.state != "abandoned"
                )
            ).first()
            return _read(Intent, row), None if tried is None else _read(Attempt, tried)

        return await self._database.run(work)

    async def open(self) -> list[str]:
        """The operations whose deployments have not ended."""
        query = select(intents.c.operation_sid).where(intents.c.state == "placing")
        return await self._database.run(lambda c: list(c.scalars(query)))

    async def left_behind(self, node_sid: str, context: str, name: str) -> bool:
        """Whether an abandoned attempt may be what holds *name* on the node."""
        query = select(attempts.c.vm_sid).where(
            attempts.c.node_sid == node_sid,
            attempts.c.context == context,
            attempts.c.name == name,
            attempts.c.state == "abandoned",
        )
        return await self._database.run(lambda c: c.execute(query).first() is not None)

    async def prune(self) -> None:
        """Drop what is too old to matter: a week after success, a quarter after failure."""
        week, quarter = self._now() - timedelta(days=7), self._now() - timedelta(days=90)

        def work(connection: Connection) -> None:
            connection.execute(
                delete(attempts).where(attempts.c.state == "placed", attempts.c.created_at < week)
            )
            connection.execute(
                delete(attempts).where(
                    attempts.c.state == "abandoned", attempts.c.created_at < quarter
                )
            )
            connection.execute(
                delete(intents).where(intents.c.state != "placing", intents.c.created_at < week)
            )

        await self._database.run(work)


def _this(attempt: Attempt) -> Any:
    return update(attempts).where(
        attempts.c.vm_sid == attempt.vm_sid, attempts.c.node_sid == attempt.node_sid
    )


def _intent(operation_sid: str) -> Any:
    return update(intents).where(intents.c.operation_sid == operation_sid)


def _read(cls: type[Any], row: Any) -> Any:
    return cls(**{a.name: row._mapping[a.name] for a in attrs.fields(cls)})
