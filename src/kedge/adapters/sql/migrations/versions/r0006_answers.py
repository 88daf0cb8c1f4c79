"""Revision: the contract of answers, one more column of the row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add it; an existing endpoint takes its contract at its next promotion."""
    column = sa.Column("answers", sa.LargeBinary, nullable=False, server_default=sa.text("'null'"))
    op.add_column("endpoint", column)
