"""A service for tests: a declaration, and an implementation that remembers its calls."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Protocol

import attrs
from msgspec import Meta
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from hero.errors import Conflict, NotFound
from hero.events import EventLog
from hero.identity.claims import Access, Caller
from hero.operation_log import OperationLog
from hero.operations import Operation
from hero.rpc.declare import Call, method, service
from hero.store import Database

MIGRATIONS = Path(__file__).parent / "migrations"


@attrs.frozen(kw_only=True)
class Pet:
    """An animal."""

    name: str
    legs: int = 4


@service(delegable=True)
class PetService(Protocol):
    """Animals."""

    @method(Access.VIEWER)
    async def get_pet(self, call: Call, *, name: str) -> Pet:
        """One animal. Errors: not_found."""

    @method(Access.VIEWER)
    async def sleep(self, call: Call) -> None:
        """Sleep until woken."""

    @method(Access.VIEWER)
    async def crash(self, call: Call) -> None:
        """Fail for a reason that is our own."""

    @method(Access.OPERATOR, mutates=True)
    async def add_pet(
        self,
        call: Call,
        *,
        name: str,
        legs: Annotated[int, Meta(ge=0, le=100)] = 4,
    ) -> Pet:
        """Keep an animal. Errors: conflict."""

    @method(Access.ADMIN, mutates=True, secret=True)
    async def make_key(self, call: Call, *, door: str) -> str:
        """Make a key."""

    @method(Access.OPERATOR, operation=True)
    async def train(self, call: Call, *, name: str, trick: str = "sit") -> Pet:
        """Teach an animal a trick. Errors: not_found."""

    @method(Access.PUBLIC)
    async def hello(self, call: Call) -> str:
        """Greet."""

    @method(Access.VIEWER)
    async def get_operation(self, call: Call, *, sid: str, wait: float = 0.0) -> Operation:
        """One operation."""


class Pets:
    """Implements `PetService`."""

    def __init__(self, operations: OperationLog | None) -> None:
        self.operations = operations
        self.calls: list[str] = []
        self.pets = {"rex": Pet(name="rex")}
        self.woken: Deferred[None] = Deferred()
        self.cancelled = 0

    async def get_pet(self, call: Call, *, name: str) -> Pet:
        if name not in self.pets:
            raise NotFound(f"no pet {name}", hint="add_pet adds one")
        return self.pets[name]

    async def sleep(self, call: Call) -> None:
        self.calls.append("sleep")
        try:
            await self.woken
        finally:
            self.cancelled += 1

    async def crash(self, call: Call) -> None:
        raise RuntimeError("a password is hunter2")

    async def add_pet(self, call: Call, *, name: str, legs: int) -> Pet:
        self.calls.append(f"add_pet {name}")
        if name in self.pets:
            raise Conflict(f"there is a {name}")
        self.pets[name] = Pet(name=name, legs=legs)
        return self.pets[name]

    async def make_key(self, call: Call, *, door: str) -> str:
        self.calls.append("make_key")
        return "the-secret"

    async def train(self, call: Call, *, name: str, trick: str) -> Pet:
        self.calls.append(f"train {name} {trick}")
        assert call.operation is not None
        await call.operation.update(message="training", target=name)
        if trick == "wait":
            await self.woken
        return await self.get_pet(call, name=name)

    async def hello(self, call: Call) -> str:
        return f"hello {call.caller.user}"

    async def get_operation(self, call: Call, *, sid: str, wait: float) -> Operation:
        return await self.operations.get(sid, wait)


class DatabaseTestCase(TestCase):
    """Has ``self.log``, an `OperationLog` over a database of its own, and a `Clock`."""

    timeout = 30

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.events = EventLog(self.clock)
        self.open()

    def open(self) -> None:
        """Open the database, again after `reopen`."""
        self.database = Database(reactor, f"sqlite:///{self.directory}/pets.db", MIGRATIONS)
        self.database.open()
        self.addCleanup(self.database.close)
        self.log = OperationLog(self.database, self.clock, self.events, node_sid="node-0123456789")
        self.pets = Pets(self.log)

    def reopen(self) -> None:
        """As after a crash: nothing that was in memory is left."""
        self.database.close()
        self.open()


def call(request_id: str | None = None, user: str = "user:alice", context: str = "root") -> Call:
    """A call by *user*."""
    return Call(caller=Caller(user=user, context=context), request_id=request_id)
