"""Revision: the kind of actor of a ledger entry, one more column beside the actor's name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column. Stored entries keep NULL: an entry's hash covers the original content."""
    op.add_column("ledger", sa.Column("actor", sa.String))
