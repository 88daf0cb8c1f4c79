"""Names for completion: read from the ledger's file in milliseconds, without SQLAlchemy.

Nothing is created: SQLite itself would make the files of a write-ahead log beside the ledger.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from kedge.adapters.sql.sqlite.version import dbapi

PATIENCE_S = 0.2
"""Time to wait for a lock: a person waits for each keystroke."""
MOST = 300
"""Limit of names: a person reads fewer."""

Kind = Literal["endpoint", "version", "release", "alert", "transformation", "schema", "token"]
"""The things that have names."""
_QUERIES: dict[Kind, str] = {
    "endpoint": "SELECT endpoint, '' FROM endpoint ORDER BY 1",
    "version": (
        "SELECT 'v' || v.number, coalesce(group_concat('r' || r.number, ', '), '')"
        " FROM model_version v LEFT JOIN release r ON r.model = v.model AND r.version = v.number"
        " WHERE v.model = :endpoint AND v.removed_at IS NULL"
        " GROUP BY v.number ORDER BY v.number DESC"
    ),
    "release": (
        "SELECT 'r' || number, 'v' || version FROM release WHERE endpoint = :endpoint"
        " ORDER BY number DESC"
    ),
    "alert": "SELECT number, endpoint FROM alert WHERE open = 1 ORDER BY number DESC",
    "transformation": (
        "SELECT schema_id || '#' || version, '' FROM transform_version"
        " ORDER BY schema_id, version DESC"
    ),
    "schema": "SELECT schema_id, '' FROM feature_schema WHERE spec IS NOT NULL ORDER BY 1",
    "token": "SELECT name, '' FROM token WHERE revoked = 0 ORDER BY 1",
}


class Name(NamedTuple):
    """A name and what helps to choose it."""

    text: str
    help: str


def read_names(ledger: Path, kind: Kind, endpoint: str = "") -> list[Name]:
    """Return the names of a kind, of an endpoint where they belong to one.

    Raises:
        dbapi.Error: the ledger is missing, locked, damaged, or of another version of kedge.
    """
    # Without a log beside it nothing was written since, and the file can be read as it is.
    logged = all(ledger.with_name(f"{ledger.name}-{end}").exists() for end in ("wal", "shm"))
    mode = "mode=ro" if logged else "mode=ro&immutable=1"
    connection = dbapi.connect(f"{ledger.absolute().as_uri()}?{mode}", uri=True, timeout=PATIENCE_S)
    try:
        rows = connection.execute(f"{_QUERIES[kind]} LIMIT {MOST}", {"endpoint": endpoint})
        return [Name(str(text), str(told)) for text, told in rows]
    finally:
        connection.close()
