"""Corrections of labels: the old value, the new value, the time and the author.

Rows are only appended, in labels.db; they are removed with the hour of their prediction, or with a
unit that asks to be forgotten.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from kedge.core.evidence.records import HOUR_S, Correction, Known, Outcome

TABLE = """
CREATE TABLE IF NOT EXISTS correction (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, id TEXT NOT NULL,
  label_version TEXT NOT NULL, label INTEGER, was BLOB NOT NULL, was_at REAL, value BLOB NOT NULL,
  at REAL, by TEXT NOT NULL, corrected_at REAL NOT NULL, hour INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS correction_order ON correction (endpoint);
CREATE TRIGGER IF NOT EXISTS correction_stays BEFORE UPDATE ON correction
BEGIN SELECT RAISE(ABORT, 'a correction is never changed'); END;
"""
"""Table that is created when missing: files of an earlier kedge do not have it. `label`: the number
of the joined label; NULL while it waited for its prediction."""
_ADD = """INSERT INTO correction
(endpoint, id, label_version, label, was, was_at, value, at, by, corrected_at, hour)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_encode = msgspec.msgpack.Encoder().encode
_value = msgspec.msgpack.Decoder(Known).decode


def correct_label(
    labels: sqlite3.Connection, endpoint: str, name: str, outcome: Outcome, now: float, by: str
) -> tuple[int, bytes, bool]:
    """Replace the value of a joined label.

    Returns:
        The hour of its prediction, the prediction, and whether the label was declined before.
    """
    key = endpoint, name, outcome.label_version
    seq, was, was_at, hour, body = labels.execute(
        "SELECT seq, value, at, hour, body FROM label"
        " WHERE endpoint = ? AND id = ? AND label_version = ?",
        key,
    ).fetchone()
    value = _encode(outcome.value)
    labels.execute(_ADD, (*key, seq, was, was_at, value, outcome.at, by, now, hour))
    labels.execute(
        "UPDATE label SET value = ?, at = ?, joined_at = ? WHERE seq = ?",
        (value, outcome.at, now, seq),
    )
    return hour, body, _value(was) is None


def correct_parked(
    labels: sqlite3.Connection, endpoint: str, outcome: Outcome, now: float, by: str
) -> None:
    """Replace the value of a label that waits for its prediction."""
    key = endpoint, outcome.id, outcome.label_version
    where = "WHERE endpoint = ? AND id = ? AND label_version = ?"
    # The condition is a constant.
    was, was_at = labels.execute(f"SELECT value, at FROM parked {where}", key).fetchone()  # noqa: S608
    value, hour = _encode(outcome.value), int(now // HOUR_S)
    labels.execute(_ADD, (*key, None, was, was_at, value, outcome.at, by, now, hour))
    # The condition is a constant.
    labels.execute(f"UPDATE parked SET value = ?, at = ? {where}", (value, outcome.at, *key))  # noqa: S608


def newest(labels: sqlite3.Connection, endpoint: str, after: int) -> tuple[int, int | None]:
    """Return the newest correction's number, and the first label that was corrected after `after`.

    The second is None if there is none.
    """
    (last,) = labels.execute(
        "SELECT seq FROM correction INDEXED BY correction_order WHERE endpoint = ?"
        " ORDER BY seq DESC LIMIT 1",
        (endpoint,),
    ).fetchone() or (after,)
    if last <= after:
        return after, None
    (first,) = labels.execute(
        "SELECT min(label) FROM correction WHERE endpoint = ? AND seq > ?", (endpoint, after)
    ).fetchone()
    return last, first


def listed(labels: sqlite3.Connection, endpoint: str, limit: int) -> tuple[Correction, ...]:
    """Return at most `limit` corrections, the newest first."""
    rows = labels.execute(
        "SELECT id, label_version, was, was_at, value, at, by, corrected_at FROM correction"
        " INDEXED BY correction_order WHERE endpoint = ? ORDER BY seq DESC LIMIT ?",
        (endpoint, limit),
    )
    return tuple(
        Correction(
            name, endpoint, version, _value(was), was_at, _value(value), at, by, corrected_at
        )
        for name, version, was, was_at, value, at, by, corrected_at in rows
    )


def count(labels: sqlite3.Connection, endpoint: str) -> int:
    """Return how many corrections there are."""
    query = "SELECT count(*) FROM correction WHERE endpoint = ?"
    (found,) = labels.execute(query, (endpoint,)).fetchone()
    return int(found)


def forget(labels: sqlite3.Connection, names: Iterable[tuple[str, str]]) -> None:
    """Remove the corrections of these: endpoint, and id as the label spelled it."""
    labels.executemany("DELETE FROM correction WHERE endpoint = ? AND id = ?", names)
