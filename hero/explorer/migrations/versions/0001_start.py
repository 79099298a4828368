"""The explorer's tables."""

import sqlalchemy as sa
from alembic import op

from hero.operation_log import create_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tables(op.get_bind())
    op.create_table(
        "nodes",
        sa.Column("sid", sa.String(15), primary_key=True),
        sa.Column("name", sa.String(253), nullable=False),
        sa.Column("advertise_address", sa.String(512), nullable=False),
        sa.Column("joined_at", sa.DateTime, nullable=False),
        sa.Column("local", sa.Boolean, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("cordoned", sa.Boolean, nullable=False),
        sa.Column("removed_at", sa.DateTime),
        sa.Column("last_seen", sa.DateTime),
        sa.Column("boot_id", sa.String(64)),
        sa.Column("past_boots", sa.JSON, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("capacity", sa.JSON),
        sa.Column("load", sa.Float),
        sa.Column("vms", sa.Integer, nullable=False),
        sa.Column("vms_digest", sa.String(64), nullable=False),
        sa.Column("certificate_expires", sa.DateTime),
    )
    op.create_table(
        "vms",
        sa.Column("sid", sa.String(13), primary_key=True),
        sa.Column("node_sid", sa.String(15), nullable=False),
        sa.Column("context", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
        sa.Column("said_at", sa.DateTime, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
    )
    op.create_index("vms_by_name", "vms", ["context", "name", "sid"])
    op.create_index("vms_by_node", "vms", ["node_sid"])
    op.create_table(
        "intents",
        sa.Column("operation_sid", sa.String(13), primary_key=True),
        sa.Column("context", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_index(
        "intents_one_name",
        "intents",
        ["context", "name"],
        unique=True,
        sqlite_where=sa.text("state = 'placing'"),
        postgresql_where=sa.text("state = 'placing'"),
    )
    op.create_table(
        "attempts",
        sa.Column("vm_sid", sa.String(13), primary_key=True),
        sa.Column("node_sid", sa.String(15), primary_key=True),
        sa.Column("operation_sid", sa.String(13), nullable=False),
        sa.Column("context", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_index("attempts_by_node", "attempts", ["node_sid", "state"])
    op.create_index("attempts_by_operation", "attempts", ["operation_sid"])
    op.create_table(
        "join_tokens",
        sa.Column("sid", sa.String(15), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.Column("key_hash", sa.String(64)),
        sa.Column("node_sid", sa.String(15)),
    )
    op.create_table(
        "api_tokens",
        sa.Column("sid", sa.String(16), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("claims", sa.String(255), nullable=False),
        sa.Column("context", sa.String(63), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("expires_at", sa.DateTime),
        sa.Column("revoked_at", sa.DateTime),
    )
    for name in ("login_codes", "sessions"):
        op.create_table(
            name,
            sa.Column("hash", sa.String(64), primary_key=True),
            sa.Column("user", sa.String(255), nullable=False),
            sa.Column("claims", sa.String(1024), nullable=False),
            sa.Column("context", sa.String(63), nullable=False),
            sa.Column("expires_at", sa.DateTime, nullable=False),
        )


def downgrade() -> None:
    for name in (
        "sessions",
        "login_codes",
        "api_tokens",
        "join_tokens",
        "attempts",
        "intents",
        "vms",
        "nodes",
        "requests",
        "operations",
    ):
        op.drop_table(name)
