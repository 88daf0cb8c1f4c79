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

    def labels(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Labelled, ...]]:
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


# ---------------------------------------------------------------- taking


class _Given(NamedTuple):
    """A prediction out of the spool, as a value and as it was written."""

    row: JoinRow
    raw: bytes
    hour: int
    told: bool
    """Its id alone says which hour it is kept under."""


@dataclass
class _Taking:
    """What one call of `ingest` did so far."""

    now: float
    count: int = 0
    torn: int = 0
    duplicates: int = 0
    dropped_rows: int = 0
    damaged: int = 0
    adopted: Joined = Joined()
    forgotten: Mapping[bytes, float] = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    def drops(self, row: JoinRow) -> bool:
        """Whether the row is of a unit that asked to be forgotten; then it is noted."""
        if not self.forgotten or not row.unit:
            return False
        hashes = _hashed(row.unit, row.endpoint), _hashed(row.unit, None)
        if row.at >= max(self.forgotten.get(each, -inf) for each in hashes):
            return False
        self.dropped_rows += 1
        self.dropped += ((row.endpoint, name) for name in _names(row.id))
        return True

    def done(self) -> Ingested:
        """As a value."""
        return Ingested(
            count=self.count, torn=self.torn, duplicates=self.duplicates,
            forgotten=self.dropped_rows, damaged=self.damaged, adopted=self.adopted,
        )  # fmt: skip


def _pieces(path: Path, taking: _Taking) -> Iterator[list[_Given]]:
    """A spool file, so much at a time; without the rows that are to be forgotten."""
    piece: list[_Given] = []
    size = 0
    for frame in frames(path):
        taking.torn += frame.torn
        for row, raw in zip(frame.rows, frame.raw, strict=True):
            if not taking.drops(row):
                piece.append(_Given(row, raw, *row_hour(row)))
                size += len(raw)
        if len(piece) >= PIECE_ROWS or size >= PIECE_BYTES:
            yield piece
            piece, size = [], 0
    yield piece


def _by_hour(piece: list[_Given]) -> dict[int, list[_Given]]:
    hours: dict[int, list[_Given]] = {}
    for each in piece:
        hours.setdefault(each.hour, []).append(each)
    return hours


def _insert(path: Path, batch: list[_Given]) -> int:
    """Store rows in one partition, in one transaction; how many were new."""
    if not path.exists():
        _make(path, _HOUR)
    with closing(_open(path)) as connection, _begun(connection):
        kept = [(each.row.id, each.row.endpoint, each.row.unit, _body(each)) for each in batch]
        fresh = batch
        connection.execute("SAVEPOINT fast")
        try:
            connection.executemany("INSERT INTO prediction VALUES (?, ?, ?, ?)", kept)
        except sqlite3.IntegrityError:  # some are there already: find out which
            connection.execute("ROLLBACK TO fast")
            one = "INSERT OR IGNORE INTO prediction VALUES (?, ?, ?, ?)"
            fresh = [
                each
                for each, values in zip(batch, kept, strict=True)
                if connection.execute(one, values).rowcount
            ]
        connection.executemany(
            "INSERT INTO logged VALUES (?, ?, ?, ?)",
            [(row.id, row.endpoint, row.at, row.inputs) for row, *_ in fresh if row.inputs],
        )
        tally = Counter(_arm_of(each.row, told=each.told) for each in fresh)
        connection.executemany(_COUNT_PREDICTIONS, [(*key, n) for key, n in tally.items()])
    return len(fresh)


def _body(given: _Given) -> bytes:
    """Without the inputs, which are kept apart: they go sooner."""
    row = given.row
    return _encode(msgspec.structs.replace(row, inputs=b"")) if row.inputs else given.raw


def _arm_of(row: JoinRow, *, told: bool) -> tuple[str, int, int, str, str, bool]:
    candidate = NOBODY if row.candidate is None else row.candidate
    return row.endpoint, row.production, candidate, row.salt, row.arm, told


def _names(name: str) -> tuple[str, ...]:
    """How somebody may have asked for this prediction: by its id, or by its request's."""
    request = name.rpartition("/")[0]
    return (name, request) if request else (name,)


def _unpark(labels: sqlite3.Connection, names: list[tuple[str, str]]) -> None:
    labels.executemany("DELETE FROM parked WHERE endpoint = ? AND id = ?", names)
    names.clear()


# ---------------------------------------------------------------- joining


def _look(
    connection: sqlite3.Connection, endpoint: str, names: list[str], found: dict[str, Named | None]
) -> None:
    """Look for these in one partition, in order: neighbours lie on one page."""
    query = "SELECT body FROM prediction WHERE id = ? AND endpoint = ?"
    read = connection.execute
    for name in names:
        for spelling in spellings(name):
            got = read(query, (spelling, endpoint)).fetchone()
            if got is None:
                continue
            by_request = len(spelling) > len(name)
            several = by_request and read(query, (f"{name}/1", endpoint)).fetchone() is not None
            found[name] = None if several else (spelling, got[0])
            break


def _has_strays(connection: sqlite3.Connection, endpoint: str) -> bool:
    """Whether some ids in this partition do not say that they are here."""
    query = "SELECT 1 FROM tally WHERE endpoint = ? AND NOT told AND n > 0 LIMIT 1"
    return connection.execute(query, (endpoint,)).fetchone() is not None


class _Joining:
    """One batch of outcomes, inside a transaction of labels.db."""

    def __init__(self, labels: sqlite3.Connection, endpoint: str, now: float) -> None:
        self._execute = labels.execute
        self._executemany = labels.executemany
        self._endpoint = endpoint
        self._now = now
        self._counts = dict.fromkeys(COUNTS, 0)
        self._delays: Counter[int] = Counter()
        self._labelled: list[Labelled] = []
        self._tally: Counter[tuple[int | str | bool, ...]] = Counter()
        self._room: int | None = None

    def join(self, outcome: Outcome, named: Named | None) -> None:
        """The outcome's prediction was found, or (None) several were."""
        if named is None:
            self._counts["ambiguous"] += 1
            return
        name, body = named
        row, version = _row(body), outcome.label_version
        value, hour = _encode(outcome.value), row_hour(row)[0]
        if not self._execute(_LABEL, (
            self._endpoint, name, version, value, outcome.at, self._now, hour, row.unit, body,
        )).rowcount:  # fmt: skip
            there = "SELECT value FROM label WHERE endpoint = ? AND id = ? AND label_version = ?"
            self._again(outcome, name, there)
            return
        kept = Labelled(row, Outcome(name, outcome.value, outcome.at, version), self._now)
        self._labelled.append(kept)
        declined = outcome.value is None
        self._tally[hour, *_arm_of(row, told=True)[:5], version, declined] += 1
        if declined:
            self._counts["declined"] += 1
        else:
            self._counts["joined"] += 1
            self._delays[delay_bin(kept.delay_s)] += 1

    def park(self, outcome: Outcome) -> None:
        """No prediction has this id, or none has it yet."""
        hour = id_hour(outcome.id)
        if hour is not None and hour < (self._now - HORIZON_S) // HOUR_S:
            self._counts["unknown"] += 1
            return
        if self._room is None:
            self._room = PARKED - self._execute("SELECT count(*) FROM parked").fetchone()[0]
        if self._room <= 0:
            self._counts["unknown"] += 1
            return
        key = self._endpoint, outcome.id, outcome.label_version
        new = "INSERT OR IGNORE INTO parked VALUES (?, ?, ?, ?, ?, ?)"
        given = (*key, _encode(outcome.value), outcome.at, self._now)
        if self._execute(new, given).rowcount:
            self._room -= 1
            self._counts["parked"] += 1
        else:
            there = "SELECT value FROM parked WHERE endpoint = ? AND id = ? AND label_version = ?"
            self._again(outcome, outcome.id, there)

    def _again(self, outcome: Outcome, name: str, there: str) -> None:
        """There is a value already: it stands."""
        key = self._endpoint, name, outcome.label_version
        (stands,) = self._execute(there, key).fetchone()
        if _value(stands) == outcome.value:
            self._counts["duplicates"] += 1
            return
        self._counts["conflicts"] += 1
        self._execute(
            "INSERT OR IGNORE INTO conflict"
            " (endpoint, id, label_version, stands, refused, at, joined_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, stands, _encode(outcome.value), outcome.at, self._now),
        )

    def done(self) -> Joined:
        """Write the sums; what became of the batch."""
        self._executemany(_COUNT_LABELS, [(*key, n) for key, n in self._tally.items()])
        return Joined(**self._counts, delays=dict(self._delays), labelled=tuple(self._labelled))


# ---------------------------------------------------------------- forgetting


def _hashed(unit: str, endpoint: str | None) -> bytes:
    """Names are not kept of those who asked to be forgotten. None: on every endpoint."""
    return blake2b(_encode((endpoint, unit)), digest_size=16).digest()


def _forget_predictions(
    connection: sqlite3.Connection, unit: str, endpoint: str | None, gone: set[tuple[str, str]]
) -> int:
    """Remove a unit from one partition; adds to `gone` what was removed."""
    if (
        connection.execute("SELECT 1 FROM prediction WHERE unit = ? LIMIT 1", (unit,)).fetchone()
        is None
    ):
        return 0
    with _begun(connection):
        bodies = connection.execute(
            "DELETE FROM prediction WHERE unit = ?1 AND (?2 IS NULL OR endpoint = ?2)"
            " RETURNING body",
            (unit, endpoint),
        ).fetchall()
        rows = [_row(body) for (body,) in bodies]
        gone.update((row.endpoint, row.id) for row in rows)
        connection.executemany(
            "DELETE FROM logged WHERE id = ? AND endpoint = ?",
            [(row.id, row.endpoint) for row in rows],
        )
        tally = Counter(_arm_of(row, told=row_hour(row)[1]) for row in rows)
        connection.executemany(_COUNT_PREDICTIONS, [(*key, -n) for key, n in tally.items()])
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(rows)


def _forget_labels(
    labels: sqlite3.Connection, unit: str, endpoint: str | None, gone: set[tuple[str, str]]
) -> int:
    """Remove the labels of a unit, and all that is kept under the ids in `gone`."""
    labels.execute("PRAGMA secure_delete = ON")
    with _begun(labels):
        found = labels.execute(
            "DELETE FROM label WHERE unit = ?1 AND (?2 IS NULL OR endpoint = ?2)"
            " RETURNING hour, label_version, value, body",
            (unit, endpoint),
        ).fetchall()
        tally: Counter[tuple[int | str | bool, ...]] = Counter()
        for hour, version, value, body in found:
            row = _row(body)
            gone.add((row.endpoint, row.id))
            key = (hour, *_arm_of(row, told=True)[:5], version, _value(value) is None)
            tally[key] += 1
        labels.executemany(_COUNT_LABELS, [(*key, -n) for key, n in tally.items()])
        labels.executemany("DELETE FROM conflict WHERE endpoint = ? AND id = ?", gone)
        _unpark(labels, [(where, each) for where, name in gone for each in _names(name)])
    labels.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(found)


# ---------------------------------------------------------------- SQLite


@contextmanager
def _told() -> Iterator[None]:
    """Say what SQLite and the disk say, in the house's words."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            f"the records cannot be read or written: {error}", code="records_unavailable",
            hint="is the disk full, or does the state directory belong to somebody else?",
        ) from error  # fmt: skip


def _open(path: Path, *, cache_kb: int = 16_000) -> sqlite3.Connection:
    """Open an existing database, and look whether it is one of ours."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=BUSY_S,
        isolation_level=None, check_same_thread=False,
    )  # fmt: skip
    try:
        connection.execute(f"PRAGMA cache_size = -{cache_kb}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("SELECT 1 FROM tally LIMIT 1").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def _begun(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield


def _make(path: Path, tables: str) -> None:
    """Make a database that appears whole; whoever calls holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    for stale in (f"{new}", f"{new}-wal", f"{new}-shm", f"{path}-wal", f"{path}-shm"):
        Path(stale).unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(tables)
    new.rename(path)


def _damaged(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is at fault, and not the disk or another process."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} or "no such table" in str(error)


def _set_aside(path: Path) -> None:
    """Keep a damaged partition for whoever can mend it, under a name that nobody reads."""
    names = (path.with_name(f"{path.name}{'.' * bool(n)}{n or ''}.damaged") for n in count())
    target = next(name for name in names if not name.exists())
    for suffix in ("-wal", ""):
        old = Path(f"{path}{suffix}")
        if old.exists():
            old.rename(f"{target}{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)
