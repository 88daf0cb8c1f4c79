"""Revision: tokens of control, and the token of a ledger entry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add them. Stored entries keep NULL: an entry's hash covers the original content."""
    op.add_column("ledger", sa.Column("token", sa.String))
    op.create_table(
        "token",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False, unique=True),
        sa.Column("revoked", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    current = sa.text("revoked = 0")
    op.create_index("token_by_name", "token", ["name"], unique=True, sqlite_where=current)
