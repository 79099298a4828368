"""The tables of a node's database. The Alembic scripts in ``migrations`` make them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from hero.operation_log import define_tables

metadata = sa.MetaData()


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A time with its zone, kept as ISO 8601 text in UTC, which sorts as the times do."""

    impl = sa.String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:
        if value is None:
            return None
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Any) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


vms = sa.Table(
    "vms",
    metadata,
    sa.Column("sid", sa.String(63), primary_key=True),
    sa.Column("context", sa.String(63), nullable=False),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("image", sa.String(63), nullable=False),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory", sa.BigInteger, nullable=False),
    sa.Column("disk", sa.BigInteger, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("wanted", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("started_at", UtcTime),
    sa.Column("deleted_at", UtcTime),
    sa.Column("revision", sa.Integer, nullable=False),
)

#: A name is free again once its VM is deleted.
vm_names = sa.Index(
    "vm_names",
    vms.c.context,
    vms.c.name,
    unique=True,
    sqlite_where=vms.c.deleted_at.is_(None),
    postgresql_where=vms.c.deleted_at.is_(None),
)

slices = sa.Table(
    "slices",
    metadata,
    sa.Column("sid", sa.String(63), primary_key=True),
    sa.Column("index", sa.Integer, nullable=False, unique=True),
    sa.Column("memory", sa.BigInteger, nullable=False),
    sa.Column("disk", sa.BigInteger, nullable=False),
    sa.Column("vm_sid", sa.String(63), sa.ForeignKey("vms.sid"), index=True),
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.String(63), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

operations = define_tables(metadata).operations
