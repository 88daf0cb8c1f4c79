"""Revision: announcements, one row for each entry of the ledger that is announced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add them. Earlier entries are not announced."""
    op.create_table(
        "announcement",
        sa.Column("seq", sa.Integer, sa.ForeignKey("ledger.seq"), primary_key=True),
        sa.Column("live", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    # From here on a ledger states the earliest revision whose kedge may use it: see
    # `adapters.sql.sqlite.revisions`. Every change since 0007 only adds.
    op.execute("PRAGMA user_version = 7")
    live = sa.text("live = 1")
    op.create_index("announcement_live", "announcement", ["live"], sqlite_where=live)
