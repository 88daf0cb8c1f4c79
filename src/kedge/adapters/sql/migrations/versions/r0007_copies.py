"""Revision: the number of processes that a wish requests, one more column."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add it. A wish lasts for seconds, so no stored one needs another value."""
    column = sa.Column("copies", sa.Integer, nullable=False, server_default=sa.text("1"))
    op.add_column("wanted", column)
