"""How far a run is stands beside its values, written with them: the ledger only knows the runs."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0002"


def upgrade() -> None:
    """Drop what nothing ever wrote."""
    op.drop_column("generation", "watermark")
    op.drop_column("generation", "rows")
