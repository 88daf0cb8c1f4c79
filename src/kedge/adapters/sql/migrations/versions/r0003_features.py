"""Revision: the head of a schema. The progress of a run is stored beside its values, not here."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the head; remove a column that nothing wrote."""
    op.add_column("feature_schema", sa.Column("head", sa.Integer))
    op.drop_column("generation", "watermark")
    op.drop_column("generation", "rows")
