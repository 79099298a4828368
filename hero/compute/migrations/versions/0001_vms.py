"""VMs, slices, operations.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

from hero.operation_log import create_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vms",
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
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("started_at", sa.String(32)),
        sa.Column("deleted_at", sa.String(32)),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_index(
        "vm_names",
        "vms",
        ["context", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "slices",
        sa.Column("sid", sa.String(63), primary_key=True),
        sa.Column("index", sa.Integer, nullable=False, unique=True),
        sa.Column("memory", sa.BigInteger, nullable=False),
        sa.Column("disk", sa.BigInteger, nullable=False),
        sa.Column("vm_sid", sa.String(63), sa.ForeignKey("vms.sid"), index=True),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(63), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    create_tables(op.get_bind())


def downgrade() -> None:
    raise NotImplementedError("a node's database is not taken back to an earlier revision")
