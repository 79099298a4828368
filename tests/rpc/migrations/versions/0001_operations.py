"""Operations and answers to request ids."""

from alembic import op

from hero.operation_log import create_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_tables(op.get_bind())
