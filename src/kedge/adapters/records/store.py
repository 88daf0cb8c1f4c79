"""Predictions by the hour, and the labels that are joined to them.

    DIR/spool/            what workers write (`spool`)
       /hours/HOUR.db     predictions of one hour since 1970
       /labels.db         labels in the order in which they were joined, and what waits
       /lock              held while anything is written

One writer at a time, so that two processes cannot both join one outcome, and so that no outcome
is parked while its prediction comes in. Readers do not wait. A spool file is removed when all of
it is stored: after a crash it is read again, and what is there already is counted and dropped.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from math import inf
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from kedge.adapters.records.spool import frames, takeable
from kedge.core.errors import BadRequest, Unavailable
from kedge.core.records import (
    COUNTS,
    HORIZON_S,
    HOUR_S,
    PARKED_S,
    Conflict,
    Coverage,
    Ingested,
    Joined,
    JoinRow,
    Known,
    Labelled,
    Outcome,
    delay_bin,
    id_hour,
    row_hour,
    spellings,
)

SPOOL = "spool"
"""Where workers write, under the directory of the records."""
FILES = 16
"""Spool files taken by one call of `ingest`."""
PARKED = 1_000_000
"""Outcomes that may wait for their predictions."""
BUSY_S = 30.0
LOOK_S = 0.02
PIECE_ROWS, PIECE_BYTES = 50_000, 16 << 20
"""How much of a spool file is held in memory."""
NOBODY = -1
"""How a comparison without a candidate is kept: SQLite has no NULL in a primary key."""

_HOUR = """
CREATE TABLE prediction (
  id TEXT NOT NULL, endpoint TEXT NOT NULL, unit TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (id, endpoint)) WITHOUT ROWID;
CREATE TABLE logged (
  id TEXT NOT NULL, endpoint TEXT NOT NULL, given REAL NOT NULL, inputs BLOB NOT NULL,
  PRIMARY KEY (id, endpoint)) WITHOUT ROWID;
CREATE TABLE tally (
  endpoint TEXT NOT NULL, production INTEGER NOT NULL, candidate INTEGER NOT NULL,
  salt TEXT NOT NULL, arm TEXT NOT NULL, told INTEGER NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (endpoint, production, candidate, salt, arm, told)) WITHOUT ROWID;
"""
_LABELS = """
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
_COUNT_PREDICTIONS = """INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_COUNT_LABELS = """INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_LABEL = """INSERT OR IGNORE INTO label
(endpoint, id, label_version, value, at, joined_at, hour, unit, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_encode = msgspec.msgpack.Encoder().encode
_row = msgspec.msgpack.Decoder(JoinRow).decode
_value = msgspec.msgpack.Decoder(Known).decode

Named = tuple[str, bytes]
"""A prediction that was found: its id, and the prediction."""


class Records:
    """Keeps predictions for as long as a label may come, and joins the labels to them.

    Several processes and threads may use one directory at once. Every call opens what it needs.

    Every method raises `Unavailable`: `records_unavailable` (the disk), `records_busy` (somebody
    else is writing for long), `records_damaged` (labels.db cannot be read).
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._hours_dir = directory / "hours"
        self._labels_path = directory / "labels.db"
        self.spool = directory / SPOOL

    # ------------------------------------------------------------ predictions come in

    def waiting(self) -> int:
        """How many spool files may be taken now."""
        return len(takeable(self.spool))

    def ingest(self, now: float) -> Ingested:
        """Store what workers wrote, then adopt the outcomes that had come before.

        Takes at most `FILES` files, so that others get their turn; `waiting` says whether there
        are more.
        """
        taking = _Taking(now)
        with _told():
            for path in takeable(self.spool)[:FILES]:
                with self._locked():
                    self._take(path, taking)
            taking.damaged = self._count_damaged()
        return taking.done()

    def _take(self, path: Path, taking: _Taking) -> None:
        with self._labels(make=True) as labels:
            if labels is None or not path.exists():
                return  # another process took it
            taking.forgotten = dict(labels.execute("SELECT hash, until FROM forgotten"))
            for piece in _pieces(path, taking):
                for hour, batch in _by_hour(piece).items():
                    stored = self._store(hour, batch)
                    taking.count += stored
                    taking.duplicates += len(batch) - stored
                with _begun(labels):
                    self._adopt(labels, [each.row for each in piece], taking)
                    _unpark(labels, taking.dropped)
        path.unlink(missing_ok=True)

    def _store(self, hour: int, batch: list[_Given]) -> int:
        """Store rows of one hour; how many of them were new."""
        path = self._hour_path(hour)
        try:
            return _insert(path, batch)
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise
        _set_aside(path)
        return _insert(path, batch)

    def _adopt(self, labels: sqlite3.Connection, rows: list[JoinRow], taking: _Taking) -> None:
        """Join what was parked for these rows. They need not be new: a crash may have come."""
        if labels.execute("SELECT 1 FROM parked LIMIT 1").fetchone() is None:
            return
        asked = dict.fromkeys((row.endpoint, name) for row in rows for name in _names(row.id))
        parked: dict[str, list[tuple[float, Outcome]]] = {}
        for key in asked:
            for name, version, value, at, since in labels.execute(
                "SELECT id, label_version, value, at, parked_at FROM parked"
                " WHERE endpoint = ? AND id = ?", key,
            ):  # fmt: skip
                known = since if at is None else at
                one = Outcome(name, _value(value), known, version)
                parked.setdefault(key[0], []).append((since, one))
        for endpoint, some in parked.items():
            some.sort(key=lambda each: each[0])
            found = self._find(endpoint, (one.id for _, one in some))
            joining = _Joining(labels, endpoint, taking.now)
            for _, one in some:
                if one.id in found:
                    labels.execute(
                        "DELETE FROM parked WHERE endpoint = ? AND id = ? AND label_version = ?",
                        (endpoint, one.id, one.label_version),
                    )
                    joining.join(one, found[one.id])
            taking.adopted = taking.adopted.plus(joining.done())

    def _count_damaged(self) -> int:
        """Partitions that were set aside, by whomever, since they were last counted."""
        names = [path.name for path in self._hours_dir.glob("*.damaged")]
        if not names:
            return 0
        with self._locked(), self._labels(make=True) as labels:
            if labels is None:
                return 0
            fresh = "INSERT OR IGNORE INTO aside VALUES (?)"
            return sum(labels.execute(fresh, (name,)).rowcount for name in names)

    # ------------------------------------------------------------ outcomes come in

    def join(self, endpoint: str, outcomes: Iterable[Outcome], now: float) -> Joined:
        """Bring outcomes to their predictions: all of them, or, when it is killed, none.

        The first value under a label version stands. What has no prediction yet waits for one.
        Hand in batches of some ten thousand: each is held in memory, and others wait for it.
        """
        batch = list(outcomes)
        if not batch:
            return Joined()
        with _told(), self._locked(), self._labels(make=True) as labels:
            if labels is None:
                return Joined()
            found = self._find(endpoint, (one.id for one in batch))
            with _begun(labels):
                joining = _Joining(labels, endpoint, now)
                for one in batch:
                    if one.id in found:
                        joining.join(one, found[one.id])
                    else:
                        joining.park(one)
                return joining.done()

    def _find(self, endpoint: str, names: Iterable[str]) -> dict[str, Named | None]:
        """The predictions that are asked for; None where a request has several rows."""
        found: dict[str, Named | None] = {}
        named: dict[int, list[str]] = {}
        rest: list[str] = []
        for name in sorted(set(names)):
            hour = id_hour(name)
            if hour is None:
                rest.append(name)
            else:
                named.setdefault(hour, []).append(name)
        for hour, some in named.items():
            with self._hour(hour) as connection:
                if connection is not None:
                    _look(connection, endpoint, some, found)
        # An id of ours that is not in its own hour was used again, or made by somebody else.
        rest += [name for some in named.values() for name in some if name not in found]
        for hour in reversed(self._hours()):
            if not rest:
                break
            with self._hour(hour) as connection:
                if connection is not None and _has_strays(connection, endpoint):
                    _look(connection, endpoint, rest, found)
                    rest = [name for name in rest if name not in found]
        return found

    # ------------------------------------------------------------ reading

    def labels(
        self, endpoint: str, after: int, limit: int
    ) -> tuple[int, tuple[Labelled, ...]]:
        """At most `limit` labels in the order in which they were joined, and the next cursor."""
        with _told(), self._labels() as labels:
            if labels is None:
                return after, ()
            rows = labels.execute(
                "SELECT seq, id, label_version, value, at, joined_at, body"
                " FROM label INDEXED BY label_order"
                " WHERE endpoint = ? AND seq > ? ORDER BY seq LIMIT ?",
                (endpoint, after, limit),
            ).fetchall()
        return rows[-1][0] if rows else after, tuple(
            Labelled(_row(body), Outcome(name, _value(value), at, version), joined_at)
            for _, name, version, value, at, joined_at, body in rows
        )

    def coverage(self, endpoint: str) -> tuple[Coverage, ...]:
        """How many predictions of each arm have a label, comparison by comparison."""
        given: Counter[tuple[int, int, str, str]] = Counter()
        labelled: dict[tuple[int, int, str, str], tuple[dict[str, int], dict[str, int]]] = {}
        with _told():
            for hour in self._hours():
                for *key, n in self._read_hour(
                    hour,
                    "SELECT production, candidate, salt, arm, sum(n) FROM tally"
                    " WHERE endpoint = ? GROUP BY 1, 2, 3, 4",
                    (endpoint,),
                ):
                    given[key[0], key[1], key[2], key[3]] += n
            with self._labels() as labels:
                found = [] if labels is None else labels.execute(
                    "SELECT production, candidate, salt, arm, label_version, declined, sum(n)"
                    " FROM tally WHERE endpoint = ? GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(n) > 0",
                    (endpoint,),
                ).fetchall()  # fmt: skip
        for production, candidate, salt, arm, version, declined, n in found:
            both = labelled.setdefault((production, candidate, salt, arm), ({}, {}))
            both[declined][version] = n
        return tuple(
            Coverage(
                production=key[0], candidate=None if key[1] == NOBODY else key[1], salt=key[2],
                arm=key[3], predictions=given[key], labelled=with_label, declined=declined,
            )
            for key in sorted({key for key, n in given.items() if n} | set(labelled))
            for with_label, declined in (labelled.get(key, ({}, {})),)
        )  # fmt: skip

    def conflicts(self, endpoint: str, limit: int) -> tuple[Conflict, ...]:
        """At most `limit` values that were refused, the newest first."""
        with _told(), self._labels() as labels:
            rows = [] if labels is None else labels.execute(
                "SELECT id, label_version, stands, refused, at, joined_at FROM conflict"
                " WHERE endpoint = ? ORDER BY seq DESC LIMIT ?",
                (endpoint, limit),
            ).fetchall()  # fmt: skip
        return tuple(
            Conflict(name, endpoint, version, _value(stands), _value(refused), at, joined_at)
            for name, version, stands, refused, at, joined_at in rows
        )

    def rows(self, endpoint: str, since: float, until: float) -> Iterator[JoinRow]:
        """Predictions given in [since, until), hour by hour; with their inputs where kept."""
        with _told():
            for hour in self._hours():
                if not since / HOUR_S - 2 <= hour <= until / HOUR_S + 1:
                    continue
                for body, inputs in self._read_hour(
                    hour,
                    "SELECT body, inputs FROM prediction LEFT JOIN logged USING (id, endpoint)"
                    " WHERE endpoint = ? ORDER BY id",
                    (endpoint,),
                ):
                    row = _row(body)
                    if since <= row.at < until:
                        yield row if inputs is None else msgspec.structs.replace(row, inputs=inputs)

    # ------------------------------------------------------------ removing

    def forget(self, unit: str, endpoint: str | None = None, *, until: float = inf) -> int:
        """Remove all predictions and labels of a unit; how many there were.

        A hash of the unit is kept, so that its predictions given before `until` are also dropped
        when they come out of the spool. Partitions that were set aside as damaged are removed:
        what cannot be read cannot be searched.

        Raises:
            BadRequest: `no_unit`.
        """
        if not unit:
            raise BadRequest("no unit was named", code="no_unit", hint="name the entity to forget")
        removed = 0
        with _told():
            with self._locked(), self._labels(make=True) as labels:
                if labels is not None:
                    labels.execute(
                        "INSERT INTO forgotten VALUES (?, ?)"
                        " ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
                        (_hashed(unit, endpoint), until),
                    )
            for path in self._hours_dir.glob("*.damaged"):
                path.unlink(missing_ok=True)
            gone: set[tuple[str, str]] = set()
            for hour in self._hours():
                with self._locked(), self._hour(hour, write=True) as connection:
                    if connection is not None:
                        removed += _forget_predictions(connection, unit, endpoint, gone)
            # Last: a join may have come while the hours were gone through, one by one.
            with self._locked(), self._labels(make=True) as labels:
                if labels is not None:
                    removed += _forget_labels(labels, unit, endpoint, gone)
        return removed

    def prune(self, now: float) -> int:
        """Drop what is beyond the horizon; how many outcomes waited for a prediction in vain."""
        first = int((now - HORIZON_S) // HOUR_S)
        with _told(), self._locked(), self._labels() as labels:
            for path in self._hours_dir.glob("*.db*"):
                hour = path.name.partition(".")[0]
                if hour.isdecimal() and int(hour) < first:
                    path.unlink(missing_ok=True)
            if labels is None:
                return 0
            with _begun(labels):
                labels.execute("DELETE FROM label WHERE hour < ?", (first,))
                labels.execute("DELETE FROM tally WHERE hour < ?", (first,))
                labels.execute("DELETE FROM conflict WHERE joined_at < ?", (now - HORIZON_S,))
                labels.execute("DELETE FROM forgotten WHERE until < ?", (now - HORIZON_S,))
                return labels.execute(
                    "DELETE FROM parked WHERE parked_at < ?", (now - PARKED_S,)
                ).rowcount

    def strip(self, now: float, retention_s: float, endpoint: str) -> int:
        """Remove the raw inputs of predictions older than this; how many had them."""
        before, removed = now - retention_s, 0
        with _told():
            for hour in self._hours():
                if hour - 1 > before / HOUR_S:
                    continue
                asked = "SELECT 1 FROM logged WHERE endpoint = ? AND given < ? LIMIT 1"
                if not list(self._read_hour(hour, asked, (endpoint, before))):
                    continue
                with self._locked(), self._hour(hour, write=True) as connection:
                    if connection is not None:
                        removed += connection.execute(
                            "DELETE FROM logged WHERE endpoint = ? AND given < ?",
                            (endpoint, before),
                        ).rowcount
                        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return removed

    # ------------------------------------------------------------ files

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one who writes; a lock of a process that dies is gone with it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for attempt in count():
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt * LOOK_S >= BUSY_S:
                        raise Unavailable(
                            f"somebody else has been writing to {self._directory} for"
                            f" {BUSY_S:g} s", code="records_busy", hint="try again",
                        ) from None  # fmt: skip
                    time.sleep(LOOK_S)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _labels(self, *, make: bool = False) -> Iterator[sqlite3.Connection | None]:
        """labels.db; None while there is none. Made by whoever holds the lock."""
        if make and not self._labels_path.exists():
            _make(self._labels_path, _LABELS)
        if not self._labels_path.exists():
            yield None
            return
        try:
            with closing(_open(self._labels_path, cache_kb=64_000)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise
            raise Unavailable(
                f"{self._labels_path} is damaged: {error}", code="records_damaged",
                hint="move it aside, with its -wal, and hand the labels in again",
            ) from error  # fmt: skip

    @contextmanager
    def _hour(self, hour: int, *, write: bool = False) -> Iterator[sqlite3.Connection | None]:
        """One partition; None where there is none. Held by whoever holds the lock.

        A damaged one is set aside, and is as if it were not there.
        """
        path = self._hour_path(hour)
        if not path.exists():
            yield None
            return
        try:
            with closing(_open(path)) as connection:
                if write:
                    connection.execute("PRAGMA secure_delete = ON")
                else:
                    connection.execute("PRAGMA query_only = ON")
                yield connection
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise
            _set_aside(path)

    def _read_hour(
        self, hour: int, query: str, given: tuple[object, ...]
    ) -> Iterator[tuple[int | str | bytes, ...]]:
        """What a partition answers, for one who does not hold the lock."""
        path = self._hour_path(hour)
        try:
            with closing(_open(path)) as connection:
                connection.execute("PRAGMA query_only = ON")
                yield from connection.execute(query, given)
        except sqlite3.DatabaseError as error:
            if not path.exists():
                return  # pruned meanwhile
            if not _damaged(error):
                raise
            with self._locked():
                _set_aside(path)

    def _hours(self) -> list[int]:
        stems = [path.stem for path in self._hours_dir.glob("*.db")]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def _hour_path(self, hour: int) -> Path:
        return self._hours_dir / f"{hour}.db"
