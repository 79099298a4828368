"""The tables in which operations, and answers to request ids, are kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
import sqlalchemy as sa

from hero.operations import Operation, OperationState


@attrs.frozen
class OperationTables:
    """The tables of operations and of the answers to request ids."""

    operations: sa.Table
    requests: sa.Table


def define_tables(metadata: sa.MetaData) -> OperationTables:
    """Define both tables in *metadata*."""
    operations = sa.Table(
        "operations",
        metadata,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("sid", sa.String(32), nullable=False, unique=True),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("context", sa.String(64), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("target", sa.String(64), index=True),
        sa.Column("progress", sa.Float, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("request_id", sa.String(128)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("node_sid", sa.String(32)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint("context", "user", "request_id"),
    )
    requests = sa.Table(
        "requests",
        metadata,
        sa.Column("context", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(255), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    return OperationTables(operations, requests)


def create_tables(connection: sa.Connection) -> None:
    """Make both tables. For an Alembic revision: ``create_tables(op.get_bind())``."""
    metadata = sa.MetaData()
    define_tables(metadata)
    metadata.create_all(connection, checkfirst=False)


def to_row(operation: Operation) -> dict[str, Any]:
    """The columns of *operation*, apart from ``number`` and ``digest``."""
    row = attrs.asdict(operation, recurse=False)
    row["created_at"] = operation.created_at.timestamp()
    row["updated_at"] = operation.updated_at.timestamp()
    for name in ("error", "result"):
        row[name] = None if row[name] is None else msgspec.json.encode(row[name]).decode()
    return row


def from_row(row: Any) -> Operation:
    """The operation that *row* holds."""
    values = row._asdict()
    del values["number"], values["digest"]
    values["state"] = OperationState(row.state)
    values["created_at"] = datetime.fromtimestamp(row.created_at, UTC)
    values["updated_at"] = datetime.fromtimestamp(row.updated_at, UTC)
    for name in ("error", "result"):
        values[name] = None if values[name] is None else msgspec.json.decode(values[name])
    return Operation(**values)
