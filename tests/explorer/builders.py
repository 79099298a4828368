"""Values for the tests of the explorer, and a database for each."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hero.compute.model import Capacity, Vm, VmState, WantedState
from hero.explorer.daemon import MIGRATIONS
from hero.explorer.model import Heartbeat, Node, NodeState
from hero.explorer.nodes import NodeRecord
from hero.identity.claims import Caller, parse_claims
from hero.rpc.declare import Call
from hero.store import Database

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LOCAL_SID = "node-0000000000"


def node_sid(number: int) -> str:
    """The sid of the node with *number*."""
    return f"node-{number:010d}"


def vm_sid(number: int) -> str:
    """The sid of the VM with *number*."""
    return f"vm-{number:010d}"


def later(seconds: float) -> datetime:
    """So many seconds after `NOON`."""
    return NOON + timedelta(seconds=seconds)


def capacity(slices: int = 4, free: int | None = None, vcpus: int = 2) -> Capacity:
    """The capacity of a node with *slices* slices, *free* of them free."""
    return Capacity(
        memory=slices << 30,
        disk=slices << 33,
        vcpus=vcpus,
        slice_memory=1 << 30,
        slice_disk=1 << 33,
        slices=slices,
        slices_free=slices if free is None else free,
    )


def a_node(number: int = 1, **fields: Any) -> Node:
    """A node that is online and empty."""
    values: dict[str, Any] = {
        "sid": node_sid(number),
        "name": f"n{number}",
        "state": NodeState.ONLINE,
        "schedulable": True,
        "advertise_address": f"https://n{number}:9998",
        "version": "0.1.0",
        "joined_at": NOON,
        "last_seen": NOON,
        "capacity": capacity(),
        "load": 0.0,
    }
    return Node(**{**values, **fields})


def a_record(number: int = 1, **fields: Any) -> NodeRecord:
    """A node that has joined and not reported yet."""
    values: dict[str, Any] = {
        "sid": node_sid(number),
        "name": f"n{number}",
        "advertise_address": f"https://n{number}:9998",
        "joined_at": NOON,
    }
    return NodeRecord(**{**values, **fields})


def a_heartbeat(number: int = 1, seq: int = 1, **fields: Any) -> Heartbeat:
    """A heartbeat without VM records."""
    values: dict[str, Any] = {
        "node_sid": node_sid(number),
        "boot_id": "boot-one",
        "seq": seq,
        "sent_at": later(seq),
        "advertise_address": f"https://n{number}:9998",
        "name": f"n{number}",
        "version": "0.1.0",
        "capacity": capacity(),
        "load": 0.5,
        "vms_digest": "none",
    }
    return Heartbeat(**{**values, **fields})


def a_vm(number: int = 1, **fields: Any) -> Vm:
    """A running VM."""
    values: dict[str, Any] = {
        "sid": vm_sid(number),
        "name": f"vm{number}",
        "context": "root",
        "image": "micro",
        "state": VmState.RUNNING,
        "wanted_state": WantedState.RUNNING,
        "slices": [f"slice-{number}"],
        "vcpus": 1,
        "memory": 1 << 30,
        "disk": 1 << 33,
        "created_at": NOON,
    }
    return Vm(**{**values, **fields})


def admin(**fields: Any) -> Call:
    """A call by the local administrator."""
    return Call(caller=Caller.local_administrator(), **fields)


def call_of(user: str, claims: str = "", context: str = "root") -> Call:
    """A call by *user* with *claims*."""
    return Call(caller=Caller(user=user, claims=parse_claims(claims), context=context))


def temporary_directory(test: TestCase) -> Path:
    """A directory with a short name, gone after the test."""
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="hx"))
    test.addCleanup(shutil.rmtree, path)
    return path


def a_database(test: TestCase, path: Path | None = None) -> Database:
    """An open database with the explorer's tables."""
    path = path or temporary_directory(test) / "explorer.db"
    database = Database(reactor, f"sqlite:///{path}", MIGRATIONS)  # type: ignore[arg-type]
    database.open()
    test.addCleanup(database.close)
    return database
