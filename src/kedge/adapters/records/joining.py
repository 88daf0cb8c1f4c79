"""Joining of labels to predictions, in order, and the outcomes that wait.

Everything here runs inside a transaction of labels.db, under the lock of the records.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec

from kedge.adapters.records import corrections
from kedge.adapters.records.corrections import correct_label, correct_parked
from kedge.adapters.records.files import begun
from kedge.adapters.records.hours import Named, arm_of
from kedge.core.evidence.records import (
    COUNTS,
    EXAMPLES,
    HORIZON_S,
    HOUR_S,
    Early,
    Joined,
    JoinRow,
    Known,
    Labelled,
    Outcome,
    delay_bin,
    id_hour,
    id_time,
    requests_of,
    row_hour,
)
from kedge.core.time.instants import early

PARKED = 1_000_000
"""Maximum number of outcomes that wait for their predictions."""

TABLES = """
CREATE TABLE label (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, id TEXT NOT NULL,
  label_version TEXT NOT NULL, value BLOB NOT NULL, at REAL, joined_at REAL NOT NULL,
  hour INTEGER NOT NULL, unit TEXT NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX label_once ON label (endpoint, id, label_version);
CREATE INDEX label_order ON label (endpoint);
CREATE INDEX label_hour ON label (hour);
CREATE TABLE tally (
  hour INTEGER NOT NULL, endpoint TEXT NOT NULL, production INTEGER NOT NULL,
  candidate INTEGER NOT NULL, salt TEXT NOT NULL, arm TEXT NOT NULL, label_version TEXT NOT NULL,
  declined INTEGER NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (hour, endpoint, production, candidate, salt, arm, label_version, declined)
) WITHOUT ROWID;
CREATE TABLE parked (
  endpoint TEXT NOT NULL, id TEXT NOT NULL, label_version TEXT NOT NULL, value BLOB NOT NULL,
  at REAL, parked_at REAL NOT NULL, PRIMARY KEY (endpoint, id, label_version)) WITHOUT ROWID;
CREATE TABLE conflict (
  seq INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, id TEXT NOT NULL, label_version TEXT NOT NULL,
  stands BLOB NOT NULL, refused BLOB NOT NULL, at REAL, joined_at REAL NOT NULL,
  UNIQUE (endpoint, id, label_version, refused));
CREATE TABLE forgotten (hash BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE aside (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""
NAMES = frozenset({"label", "tally", "parked", "conflict", "forgotten", "aside"})
COUNT = """INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_LABEL = """INSERT OR IGNORE INTO label
(endpoint, id, label_version, value, at, joined_at, hour, unit, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_encode = msgspec.msgpack.Encoder().encode
_row = msgspec.msgpack.Decoder(JoinRow).decode
_value = msgspec.msgpack.Decoder(Known).decode


class Joining:
    """One batch of outcomes, inside a transaction of labels.db."""

    def __init__(
        self, labels: sqlite3.Connection, endpoint: str, now: float, *, settled: float, by: str = ""
    ) -> None:
        """Begin a batch.

        Args:
            labels: labels.db.
            endpoint: the endpoint of the labels.
            now: Unix seconds.
            settled: time before which every given prediction is stored.
            by: the author of corrections; empty: existing labels stand.
        """
        self._labels, self._settled, self._by = labels, settled, by
        self._execute = labels.execute
        self._executemany = labels.executemany
        self._endpoint = endpoint
        self._now = now
        self._counts = dict.fromkeys(COUNTS, 0)
        self._because: Counter[str] = Counter()
        self._delays: Counter[int] = Counter()
        self._labelled: list[Labelled] = []
        self._early: list[Early] = []
        self._tally: Counter[tuple[int | str | bool, ...]] = Counter()
        self._room: int | None = None
        self._parked_since: float | None = None

    def refuse(self, cause: str) -> None:
        """Count an outcome that names more than one prediction."""
        self._counts["ambiguous"] += 1
        self._because[cause] += 1

    def join(self, outcome: Outcome, named: Named, place: int, *, dated: bool = True) -> None:
        """Join an outcome to the prediction that was found for it, unless it is dated before it.

        Args:
            outcome: the true result.
            named: the prediction.
            place: the outcome's position in the batch, for messages about it.
            dated: whether the caller gave its time; else it is the time of arrival.
        """
        name, body = named
        row, version = _row(body), outcome.label_version
        if dated and outcome.at is not None and early(outcome.at, row.at) is not None:
            self._counts["early"] += 1
            if len(self._early) < EXAMPLES:
                self._early.append(Early(place, outcome.at, row.at))
            return
        value, hour = _encode(outcome.value), row_hour(row)[0]
        if not self._execute(
            _LABEL,
            (
                self._endpoint,
                name,
                version,
                value,
                outcome.at,
                self._now,
                hour,
                row.unit,
                body,
            ),
        ).rowcount:
            there = "SELECT value FROM label WHERE endpoint = ? AND id = ? AND label_version = ?"
            (stands,) = self._execute(there, (self._endpoint, name, version)).fetchone()
            if _value(stands) == outcome.value:
                self._counts["duplicates"] += 1
            elif self._replaces(outcome, name, stands):
                self._correct(outcome, name)
            return
        kept = Labelled(row, Outcome(name, outcome.value, outcome.at, version), self._now)
        self._labelled.append(kept)
        declined = outcome.value is None
        self._tally[hour, *arm_of(row, told=True)[:5], version, declined] += 1
        if declined:
            self._counts["declined"] += 1
        else:
            self._counts["joined"] += 1
            self._delays[delay_bin(kept.delay_s)] += 1

    def unpark(self, outcome: Outcome) -> None:
        """Remove an outcome from the waiting ones."""
        self._execute(
            "DELETE FROM parked WHERE endpoint = ? AND id = ? AND label_version = ?",
            (self._endpoint, outcome.id, outcome.label_version),
        )

    def park(self, outcome: Outcome) -> None:
        """Park an outcome: its prediction is missing or late; the outcome may wait already."""
        key = self._endpoint, outcome.id, outcome.label_version
        there = (
            "SELECT value, parked_at FROM parked WHERE endpoint = ? AND id = ? AND"
            " label_version = ?"
        )
        found = self._execute(there, key).fetchone()
        if found is not None:
            stands, since = found
            if _value(stands) == outcome.value:
                self._wait(outcome, since)
            elif self._replaces(outcome, outcome.id, stands):
                self._counts["corrected"] += 1
                correct_parked(self._labels, self._endpoint, outcome, self._now, self._by)
            return
        hour = id_hour(outcome.id)
        if hour is not None and hour < (self._now - HORIZON_S) // HOUR_S:
            self._counts["unknown"] += 1
            return
        if self._room is None:
            self._room = PARKED - self._execute("SELECT count(*) FROM parked").fetchone()[0]
        if self._room <= 0:
            self._counts["unknown"] += 1
            return
        self._room -= 1
        given = (*key, _encode(outcome.value), outcome.at, self._now)
        self._execute("INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?)", given)
        self._wait(outcome, self._now)

    def _wait(self, outcome: Outcome, since: float) -> None:
        """Count a waiting outcome, by whether its prediction can still come."""
        answered = id_time(outcome.id)
        if answered is not None and answered < self._settled:
            self._counts["unrecorded"] += 1
            return
        self._counts["parked"] += 1
        known = self._parked_since
        self._parked_since = since if known is None else min(known, since)

    def _correct(self, outcome: Outcome, name: str) -> None:
        """Replace the value of a joined label."""
        self._counts["corrected"] += 1
        given = (self._labels, self._endpoint, name, outcome, self._now, self._by)
        hour, body, was_declined = correct_label(*given)
        key = (hour, *arm_of(_row(body), told=True)[:5], outcome.label_version)
        self._tally[*key, was_declined] -= 1
        self._tally[*key, outcome.value is None] += 1

    def _replaces(self, outcome: Outcome, name: str, stands: bytes) -> bool:
        """Return whether a value must replace another one; else store it as a conflict."""
        key = self._endpoint, name, outcome.label_version
        if self._by:
            return True
        self._counts["conflicts"] += 1
        self._execute(
            "INSERT OR IGNORE INTO conflict"
            " (endpoint, id, label_version, stands, refused, at, joined_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, stands, _encode(outcome.value), outcome.at, self._now),
        )
        return False

    def done(self) -> Joined:
        """Write the sums; return the result of the batch."""
        self._executemany(COUNT, [(*key, n) for key, n in self._tally.items() if n])
        return Joined(
            **self._counts,
            ambiguous_because=dict(self._because),
            early_ones=tuple(self._early),
            parked_since=self._parked_since,
            delays=dict(self._delays),
            labelled=tuple(self._labelled),
        )


def unpark(labels: sqlite3.Connection, names: Iterable[tuple[str, str]]) -> None:
    """Remove these from the waiting outcomes: endpoint, and id as it was requested."""
    labels.executemany("DELETE FROM parked WHERE endpoint = ? AND id = ?", names)


def hashed(unit: str, endpoint: str | None) -> bytes:
    """Return a hash: names of forgotten units are not stored. None: on every endpoint."""
    return blake2b(_encode((endpoint, unit)), digest_size=16).digest()


def forget(
    labels: sqlite3.Connection,
    units: Sequence[str],
    endpoint: str | None,
    gone: set[tuple[str, str]],
) -> int:
    """Remove the labels of a unit, in these spellings, and all records of the ids in `gone`."""
    labels.execute("PRAGMA secure_delete = ON")
    with begun(labels):
        found = labels.execute(
            # Only question marks are inserted.
            f"DELETE FROM label WHERE unit IN ({', '.join('?' for _ in units)})"  # noqa: S608
            " AND (? IS NULL OR endpoint = ?) RETURNING hour, label_version, value, body",
            (*units, endpoint, endpoint),
        ).fetchall()
        tally: Counter[tuple[int | str | bool, ...]] = Counter()
        for hour, version, value, body in found:
            row = _row(body)
            gone.add((row.endpoint, row.id))
            key = (hour, *arm_of(row, told=True)[:5], version, _value(value) is None)
            tally[key] += 1
        labels.executemany(COUNT, [(*key, -n) for key, n in tally.items()])
        names = [(where, each) for where, name in gone for each in requests_of(name)]
        labels.executemany("DELETE FROM conflict WHERE endpoint = ? AND id = ?", names)
        corrections.forget(labels, names)
        unpark(labels, names)
    labels.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(found)
