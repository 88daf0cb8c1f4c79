"""Revision: the first schema.

The database itself refuses, for every client:
* an entry of the ledger that is changed or deleted;
* a model version or a release that is changed or deleted (a version may be marked removed,
  once and permanently);
* a release that names a model version of another schema, or a transformation of another
  schema, or a generation of another transformation;
* a row that names a release its endpoint does not have.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

POINTERS = ("production", "previous", "candidate", "back", "back_model", "back_features")

TRIGGERS = {
    "ledger_no_update": (
        """BEFORE UPDATE ON ledger BEGIN
        SELECT RAISE(ABORT, 'append-only: an entry of the ledger is never changed'); END"""
    ),
    "ledger_no_delete": (
        """BEFORE DELETE ON ledger BEGIN
        SELECT RAISE(ABORT, 'append-only: an entry of the ledger is never deleted'); END"""
    ),
    "ledger_no_replace": (
        """BEFORE INSERT ON ledger
        WHEN NEW.seq <= (SELECT max(seq) FROM ledger) BEGIN
        SELECT RAISE(ABORT, 'append-only: an entry of the ledger is never replaced'); END"""
    ),
    "model_version_no_replace": (
        """BEFORE INSERT ON model_version
        WHEN EXISTS (SELECT 1 FROM model_version
              WHERE model = NEW.model AND number = NEW.number) BEGIN
        SELECT RAISE(ABORT, 'insert-only: a model version is never replaced'); END"""
    ),
    "release_no_replace": (
        """BEFORE INSERT ON release
        WHEN EXISTS (SELECT 1 FROM release WHERE id = NEW.id OR (endpoint = NEW.endpoint
              AND (number = NEW.number OR digest = NEW.digest))) BEGIN
        SELECT RAISE(ABORT, 'insert-only: a release is never replaced'); END"""
    ),
    "model_version_no_update": (
        """BEFORE UPDATE ON model_version
        WHEN OLD.removed_at IS NOT NULL OR NEW.removed_at IS NULL
          OR NEW.model IS NOT OLD.model OR NEW.number IS NOT OLD.number
          OR NEW.digest IS NOT OLD.digest OR NEW.schema_id IS NOT OLD.schema_id
          OR NEW.body IS NOT OLD.body BEGIN
        SELECT RAISE(ABORT, 'insert-only: a model version is never changed'); END"""
    ),
    "model_version_no_delete": (
        """BEFORE DELETE ON model_version BEGIN
        SELECT RAISE(ABORT, 'insert-only: a model version is never deleted'); END"""
    ),
    "transform_version_no_update": (
        """BEFORE UPDATE ON transform_version BEGIN
        SELECT RAISE(ABORT, 'insert-only: a transformation is never changed'); END"""
    ),
    "release_no_update": (
        """BEFORE UPDATE ON release BEGIN
        SELECT RAISE(ABORT, 'insert-only: a release is never changed'); END"""
    ),
    "release_no_delete": (
        """BEFORE DELETE ON release BEGIN
        SELECT RAISE(ABORT, 'insert-only: a release is never deleted'); END"""
    ),
    "release_pin": (
        """BEFORE INSERT ON release
        WHEN (SELECT schema_id FROM model_version
              WHERE model = NEW.model AND number = NEW.version) IS NOT NEW.schema_id BEGIN
        SELECT RAISE(ABORT, 'pin: the model version was made for another feature schema'); END"""
    ),
    "release_pin_transformation": (
        """BEFORE INSERT ON release
        WHEN NEW.transformation IS NOT NULL AND NOT EXISTS (
              SELECT 1 FROM transform_version
              WHERE schema_id = NEW.schema_id AND version = NEW.transformation) BEGIN
        SELECT RAISE(ABORT, 'pin: the feature schema has no such transformation'); END"""
    ),
}


def upgrade() -> None:
    """Create all tables and triggers."""
    _features()
    _registry()
    _rows()
    for name, body in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {body}")


def _features() -> None:
    op.create_table(
        "feature_schema",
        sa.Column("schema_id", sa.String, primary_key=True),
        sa.Column("spec", sa.LargeBinary),
        sa.Column("contract_digest", sa.String),
    )
    op.create_table(
        "transform_version",
        sa.Column(
            "schema_id", sa.String, sa.ForeignKey("feature_schema.schema_id"), primary_key=True
        ),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("code_digest", sa.String, nullable=False),
        sa.UniqueConstraint("schema_id", "code_digest"),
    )
    op.create_table(
        "generation",
        sa.Column("schema_id", sa.String, primary_key=True),
        sa.Column("transformation", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("generation", sa.String, primary_key=True),
        sa.Column("watermark", sa.String),
        sa.Column("rows", sa.Integer),
        sa.Column("state", sa.String, nullable=False),
        sa.ForeignKeyConstraint(
            ["schema_id", "transformation"],
            ["transform_version.schema_id", "transform_version.version"],
        ),
    )


def _registry() -> None:
    op.create_table(
        "artifact",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("size", sa.Integer, nullable=False),
    )
    op.create_table(
        "model_version",
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String, sa.ForeignKey("artifact.digest"), nullable=False),
        sa.Column("schema_id", sa.String, sa.ForeignKey("feature_schema.schema_id")),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("removed_at", sa.Double),
    )
    op.create_index(
        "model_version_by_digest",
        "model_version",
        ["model", "digest"],
        unique=True,
        sqlite_where=sa.text("removed_at IS NULL"),
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_table(
        "release",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("schema_id", sa.String),
        sa.Column("transformation", sa.Integer),
        sa.Column("generation", sa.String),
        sa.Column("placement", sa.String, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("endpoint", "number"),
        sa.UniqueConstraint("endpoint", "digest"),
        sa.ForeignKeyConstraint(
            ["model", "version"], ["model_version.model", "model_version.number"]
        ),
        sa.ForeignKeyConstraint(
            ["schema_id", "transformation"],
            ["transform_version.schema_id", "transform_version.version"],
        ),
        sa.ForeignKeyConstraint(
            ["schema_id", "transformation", "generation"],
            ["generation.schema_id", "generation.transformation", "generation.generation"],
        ),
        sa.CheckConstraint(
            "(transformation IS NULL OR schema_id IS NOT NULL)"
            " AND (generation IS NULL OR transformation IS NOT NULL)",
            name="pin",
        ),
    )
    op.create_index("release_by_version", "release", ["model", "version"])


def _rows() -> None:
    op.create_table(
        "policy",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "endpoint",
        sa.Column("endpoint", sa.String, primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("stage", sa.String, nullable=False),
        *(sa.Column(name, sa.Integer) for name in POINTERS),
        sa.Column("paused", sa.Integer, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("sample", sa.Integer, nullable=False),
        sa.Column("salt", sa.String, nullable=False),
        sa.Column("holdback", sa.Integer, nullable=False),
        sa.Column("follow", sa.Integer, nullable=False),
        sa.Column("policy_digest", sa.String, sa.ForeignKey("policy.digest")),
        sa.Column("fields", sa.LargeBinary, nullable=False),
        sa.Column("served", sa.LargeBinary, nullable=False),
        sa.Column("flipped_at", sa.String, nullable=False),
        *(
            sa.ForeignKeyConstraint(["endpoint", name], ["release.endpoint", "release.number"])
            for name in POINTERS
        ),
    )
    op.create_table(
        "ledger",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        *(
            sa.Column(name, sa.String, nullable=False)
            for name in ("at", "by", "reason", "event", "previous_hash", "hash")
        ),
    )
    op.create_index("ledger_by_endpoint", "ledger", ["endpoint", "epoch", "seq"])
    op.create_table(
        "condemned",
        sa.Column("endpoint", sa.String, primary_key=True),
        sa.Column("release", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer, sa.ForeignKey("ledger.seq"), nullable=False),
        sa.ForeignKeyConstraint(["endpoint", "release"], ["release.endpoint", "release.number"]),
    )
    op.create_table(
        "wanted",
        sa.Column("endpoint", sa.String, primary_key=True),
        sa.Column("release", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("placement", sa.String, primary_key=True),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("by", sa.String, nullable=False),
    )
