"""What kind of actor wrote an entry of the ledger: one more column, beside the actor's name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column. Stored entries keep NULL: the hash of an entry covers what was written."""
    op.add_column("ledger", sa.Column("actor", sa.String))
