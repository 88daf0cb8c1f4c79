"""Revision: the permissions of the patrol and its proofs, one more column of the row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add it; for an existing endpoint nothing is proven and it is not frozen."""
    column = sa.Column("automation", sa.LargeBinary, nullable=False, server_default=sa.text("'{}'"))
    op.add_column("endpoint", column)
