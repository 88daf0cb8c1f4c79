"""Revision: alerts, and the newest ledger entry that was checked for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add them. Earlier events raise no alert."""
    op.create_table(
        "alert",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("open", sa.Integer, nullable=False),
        sa.Column("live", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    once = sa.text("open = 1")
    op.create_index("alert_open", "alert", ["endpoint", "key"], unique=True, sqlite_where=once)
    op.create_index("alert_live", "alert", ["live"], sqlite_where=sa.text("live = 1"))
    op.create_table(
        "alert_cursor",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("seq", sa.Integer, nullable=False),
    )
    op.execute("INSERT INTO alert_cursor (id, seq) SELECT 1, coalesce(max(seq), 0) FROM ledger")
