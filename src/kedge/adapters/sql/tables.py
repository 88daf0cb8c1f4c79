"""Tables of the databases, as queries see them.

The revisions in `migrations/` create the ledger's tables and its triggers (see there); a contract
test compares the two. The roster's and the evidence's tables are created from here: they hold
telemetry and may be lost.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

LEDGER = MetaData()
"""`ledger.db`: the truth."""
ROSTER = MetaData()
"""`roster.db`: the state that replicas report."""
EVIDENCE = MetaData()
"""`evidence.db`: the counts of replicas."""
ACCESS = MetaData()
"""`access.db`: browsers' sessions and the last uses of tokens. Lost ones cost a new login."""

POINTERS = ("production", "previous", "candidate", "back", "back_model", "back_features")
"""Columns of `endpoint` that name a release, each with a foreign key."""

artifact = Table(
    "artifact",
    LEDGER,
    Column("digest", String, primary_key=True),
    Column("size", Integer, nullable=False),
)

feature_schema = Table(
    "feature_schema",
    LEDGER,
    Column("schema_id", String, primary_key=True),
    Column("spec", LargeBinary),
    Column("contract_digest", String),
    Column("head", Integer),
)
"""A schema becomes known with the first model that names it; `spec` is set when it is declared.

`head` is the transformation that followers use."""

model_version = Table(
    "model_version",
    LEDGER,
    Column("model", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", String, ForeignKey("artifact.digest"), nullable=False),
    Column("schema_id", String, ForeignKey("feature_schema.schema_id")),
    Column("body", LargeBinary, nullable=False),
    Column("removed_at", Double),
)
Index(
    "model_version_by_digest",
    model_version.c.model,
    model_version.c.digest,
    unique=True,
    sqlite_where=text("removed_at IS NULL"),
)

transform_version = Table(
    "transform_version",
    LEDGER,
    Column("schema_id", String, ForeignKey("feature_schema.schema_id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("code_digest", String, nullable=False),
    UniqueConstraint("schema_id", "code_digest"),
)

generation = Table(
    "generation",
    LEDGER,
    Column("schema_id", String, primary_key=True),
    Column("transformation", Integer, primary_key=True, autoincrement=False),
    Column("generation", String, primary_key=True),
    Column("state", String, nullable=False),
    ForeignKeyConstraint(
        ["schema_id", "transformation"],
        ["transform_version.schema_id", "transform_version.version"],
    ),
)
"""Run of a materialised schema (a number), or the runs that a release reads (their labels)."""

release = Table(
    "release",
    LEDGER,
    Column("id", Integer, primary_key=True),
    Column("endpoint", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("schema_id", String),
    Column("transformation", Integer),
    Column("generation", String),
    Column("placement", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("endpoint", "number"),
    UniqueConstraint("endpoint", "digest"),
    ForeignKeyConstraint(["model", "version"], ["model_version.model", "model_version.number"]),
    ForeignKeyConstraint(
        ["schema_id", "transformation"],
        ["transform_version.schema_id", "transform_version.version"],
    ),
    ForeignKeyConstraint(
        ["schema_id", "transformation", "generation"],
        ["generation.schema_id", "generation.transformation", "generation.generation"],
    ),
    CheckConstraint(
        "(transformation IS NULL OR schema_id IS NOT NULL)"
        " AND (generation IS NULL OR transformation IS NOT NULL)",
        name="pin",
    ),
)
"""`id` only grows, so a reader that knows every release up to one reads only later ones."""
Index("release_by_version", release.c.model, release.c.version)

policy = Table(
    "policy",
    LEDGER,
    Column("digest", String, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

endpoint = Table(
    "endpoint",
    LEDGER,
    Column("endpoint", String, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("stage", String, nullable=False),
    *(Column(name, Integer) for name in POINTERS),
    Column("paused", Integer, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("sample", Integer, nullable=False),
    Column("salt", String, nullable=False),
    Column("holdback", Integer, nullable=False),
    Column("follow", Integer, nullable=False),
    Column("policy_digest", String, ForeignKey("policy.digest")),
    Column("fields", LargeBinary, nullable=False),
    Column("served", LargeBinary, nullable=False),
    Column("flipped_at", String, nullable=False),
    Column("automation", LargeBinary, nullable=False, server_default=text("'{}'")),
    Column("answers", LargeBinary, nullable=False, server_default=text("'null'")),
    *(
        ForeignKeyConstraint(["endpoint", name], ["release.endpoint", "release.number"])
        for name in POINTERS
    ),
)

ledger = Table(
    "ledger",
    LEDGER,
    Column("seq", Integer, primary_key=True),
    Column("endpoint", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("at", String, nullable=False),
    Column("by", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("event", String, nullable=False),
    Column("previous_hash", String, nullable=False),
    Column("hash", String, nullable=False),
    Column("actor", String),
    Column("token", String),
)
"""`actor` is NULL in entries from before revision 0005; `rows` derives it. `token` is NULL in
entries of local commands."""
appended = ledger.to_metadata(MetaData(), schema="main")
"""The same table for new entries: a view completes an earlier one for queries, and takes none."""
Index("ledger_by_endpoint", ledger.c.endpoint, ledger.c.epoch, ledger.c.seq)

token = Table(
    "token",
    LEDGER,
    Column("number", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("revoked", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
"""Tokens of control, by the digest of their spelling. A revoked one stays, for `kedge token list`."""
Index("token_by_name", token.c.name, unique=True, sqlite_where=text("revoked = 0"))

condemned = Table(
    "condemned",
    LEDGER,
    Column("endpoint", String, primary_key=True),
    Column("release", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, ForeignKey("ledger.seq"), nullable=False),
    ForeignKeyConstraint(["endpoint", "release"], ["release.endpoint", "release.number"]),
)

wanted = Table(
    "wanted",
    LEDGER,
    Column("endpoint", String, primary_key=True),
    Column("release", Integer, primary_key=True, autoincrement=False),
    Column("placement", String, primary_key=True),
    Column("until", Double, nullable=False),
    Column("by", String, nullable=False),
    Column("copies", Integer, nullable=False, server_default=text("1")),
)

alert = Table(
    "alert",
    LEDGER,
    Column("number", Integer, primary_key=True),
    Column("endpoint", String, nullable=False),
    Column("key", String, nullable=False),
    Column("open", Integer, nullable=False),
    Column("live", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
"""`live`: work may be left, such as sending the end of the alert to a recipient."""
Index("alert_open", alert.c.endpoint, alert.c.key, unique=True, sqlite_where=text("open = 1"))
Index("alert_live", alert.c.live, sqlite_where=text("live = 1"))

alert_cursor = Table(
    "alert_cursor",
    LEDGER,
    Column("id", Integer, primary_key=True),
    Column("seq", Integer, nullable=False),
)
"""One row: the newest ledger entry that was checked for alerts."""

announcement = Table(
    "announcement",
    LEDGER,
    Column("seq", Integer, ForeignKey("ledger.seq"), primary_key=True),
    Column("live", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""One row at most for each entry that is announced; `live` as in `alert`."""
Index("announcement_live", announcement.c.live, sqlite_where=text("live = 1"))

replica = Table(
    "replica",
    ROSTER,
    Column("name", String, primary_key=True),
    Column("beat_at", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

tally = Table(
    "tally",
    EVIDENCE,
    Column("replica", String, primary_key=True),
    Column("endpoint", String, primary_key=True),
    Column("production", Integer, primary_key=True, autoincrement=False),
    Column("candidate", Integer, primary_key=True, autoincrement=False),
    Column("salt", String, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
"""`candidate` is 0 if there is none: in a key, a NULL never equals another."""
Index("tally_by_endpoint", tally.c.endpoint)

window = Table(
    "window",
    EVIDENCE,
    Column("seq", Integer, primary_key=True),
    Column("replica", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("at", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("replica", "number"),
    sqlite_autoincrement=True,
)
"""`seq` is never reused, so a reader that knows every window up to one reads only later ones."""
Index("window_by_endpoint", window.c.endpoint, window.c.seq)
Index("window_by_second", window.c.at)

roll = Table(
    "roll",
    EVIDENCE,
    Column("id", Integer, primary_key=True),
    Column("endpoint", String, nullable=False),
    Column("span", Integer, nullable=False),
    Column("at", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("roll_by_time", roll.c.endpoint, roll.c.at)
Index("roll_by_span", roll.c.span, roll.c.at)

judged = Table(
    "judged",
    EVIDENCE,
    Column("endpoint", String, primary_key=True),
    Column("comparison", String, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

session = Table(
    "session",
    ACCESS,
    Column("digest", String, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
"""Sessions of browsers, and login links that were not used, by the digest of their secret."""

token_use = Table(
    "token_use",
    ACCESS,
    Column("token", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
)
"""The last use of each token, to the minute."""
