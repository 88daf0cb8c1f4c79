"""What the patrol may do on an endpoint, and what it has proven: one more column of the row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add it; an endpoint that is there already has proven nothing and is not frozen."""
    column = sa.Column("automation", sa.LargeBinary, nullable=False, server_default=sa.text("'{}'"))
    op.add_column("endpoint", column)
