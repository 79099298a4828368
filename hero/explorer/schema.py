"""The tables of the explorer's database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from hero.operation_log import define_tables


class UtcTime(TypeDecorator[datetime]):
    """An aware `datetime`, kept in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()
define_tables(metadata)

nodes = Table(
    "nodes",
    metadata,
    Column("sid", String(15), primary_key=True),
    Column("name", String(253), nullable=False),
    Column("advertise_address", String(512), nullable=False),
    Column("joined_at", UtcTime, nullable=False),
    Column("local", Boolean, nullable=False),
    Column("version", String(64), nullable=False),
    Column("cordoned", Boolean, nullable=False),
    Column("removed_at", UtcTime),
    Column("last_seen", UtcTime),
    Column("boot_id", String(64)),
    Column("past_boots", JSON, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("capacity", JSON),
    Column("load", Float),
    Column("vms", Integer, nullable=False),
    Column("vms_digest", String(64), nullable=False),
    Column("certificate_expires", UtcTime),
)

#: The VMs as their nodes reported them. ``said_at`` is by the node's own clock. A VM whose
#: deletion the explorer saw stays as ``gone`` until a later report of its node confirms it.
vms = Table(
    "vms",
    metadata,
    Column("sid", String(13), primary_key=True),
    Column("node_sid", String(15), nullable=False),
    Column("context", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("record", JSON, nullable=False),
    Column("said_at", UtcTime, nullable=False),
    Column("gone", Boolean, nullable=False),
    Index("vms_by_name", "context", "name", "sid"),
    Index("vms_by_node", "node_sid"),
)

#: Deployments: ``placing`` holds the name, ``placed`` and ``failed`` are over.
intents = Table(
    "intents",
    metadata,
    Column("operation_sid", String(13), primary_key=True),
    Column("context", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("user", String(255), nullable=False),
    Column("request", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(
        "intents_one_name",
        "context",
        "name",
        unique=True,
        sqlite_where=text("state = 'placing'"),
        postgresql_where=text("state = 'placing'"),
    ),
)

#: Each node that a deployment was sent to: ``trying``, ``placed``, ``refused``, or ``abandoned``,
#: which means that the node may have made a VM that nobody wants any more.
attempts = Table(
    "attempts",
    metadata,
    Column("vm_sid", String(13), primary_key=True),
    Column("node_sid", String(15), primary_key=True),
    Column("operation_sid", String(13), nullable=False),
    Column("context", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("attempts_by_node", "node_sid", "state"),
    Index("attempts_by_operation", "operation_sid"),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("sid", String(15), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_by", String(255), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("key_hash", String(64)),
    Column("node_sid", String(15)),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("sid", String(16), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("user", String(255), nullable=False),
    Column("claims", String(255), nullable=False),
    Column("context", String(63), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
)

login_codes = Table(
    "login_codes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("claims", String(1024), nullable=False),
    Column("context", String(63), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("claims", String(1024), nullable=False),
    Column("context", String(63), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)
