"""Unrecorded predictions by cause: they came from the spool and are missing from the records.

Counts by endpoint, hour and cause, in labels.db; they are removed with their hour.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable

from kedge.core.evidence.records import JoinRow, row_hour

TABLE = """
CREATE TABLE IF NOT EXISTS unrecorded (
  endpoint TEXT NOT NULL, hour INTEGER NOT NULL, cause TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (endpoint, hour, cause)) WITHOUT ROWID;
"""
"""Table that is created when missing: files of an earlier kedge do not have it."""
_ADD = """INSERT INTO unrecorded VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""


def add_rows(labels: sqlite3.Connection, cause: str, rows: Iterable[JoinRow]) -> None:
    """Count rows that are not recorded."""
    found = Counter((row.endpoint, row_hour(row)[0]) for row in rows)
    labels.executemany(_ADD, [(endpoint, hour, cause, n) for (endpoint, hour), n in found.items()])


def add(labels: sqlite3.Connection, cause: str, hour: int, counts: dict[str, int]) -> None:
    """Count predictions of one hour, by endpoint."""
    labels.executemany(_ADD, [(endpoint, hour, cause, n) for endpoint, n in counts.items() if n])


def counted(labels: sqlite3.Connection, endpoint: str) -> dict[str, int]:
    """Return an endpoint's counts by cause."""
    query = "SELECT cause, sum(n) FROM unrecorded WHERE endpoint = ? GROUP BY cause ORDER BY cause"
    return dict(labels.execute(query, (endpoint,)).fetchall())
