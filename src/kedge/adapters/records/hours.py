"""Hours: predictions on disk, one SQLite file for each hour.

The writer holds the lock of the records (`system.files.locked`). Readers do not wait for it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kedge.adapters.records import strays
from kedge.adapters.records.files import (
    begun,
    damaged,
    inode,
    locked,
    make,
    opened,
    set_aside,
    size_of,
)
from kedge.adapters.records.strays import NameSearch
from kedge.core.evidence.records import (
    HOUR_PART,
    HOUR_S,
    ID_REUSED,
    KEEP_GB,
    SEVERAL_ROWS,
    JoinRow,
    id_hour,
    is_same,
    row_hour,
    spellings,
)

SEARCHED = 24
"""Hours in which an id that a caller chose is looked up: a file is opened for each."""
NO_CANDIDATE = -1
"""Stored number of a comparison without a candidate: SQLite needs a value in a primary key."""

_TABLES = """
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
_ALL_TABLES = _TABLES + strays.TABLE
NAMES = frozenset({"prediction", "logged", "tally"})
_COUNT = """INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_OLDEST = """SELECT body, inputs FROM prediction LEFT JOIN logged USING (id, endpoint)
WHERE endpoint = ? ORDER BY id"""
_NEWEST = """SELECT body, inputs FROM prediction LEFT JOIN logged USING (id, endpoint)
WHERE endpoint = ? ORDER BY id DESC"""
_ONE = """SELECT body, inputs FROM prediction LEFT JOIN logged USING (id, endpoint)
WHERE endpoint = ? AND id = ?"""
_STRIP = "DELETE FROM logged WHERE endpoint = ? AND given < ?"

_encode = msgspec.msgpack.Encoder().encode
_row = msgspec.msgpack.Decoder(JoinRow).decode

Named = tuple[str, bytes]
"""A prediction that was found: its id, and its bytes."""


class Several(NamedTuple):
    """Predictions that a label may mean, where they are several."""

    cause: str
    rows: tuple[JoinRow, ...] = ()
    """Rows of requests that used one id."""


class Stored(NamedTuple):
    """Result of storing predictions from the spool."""

    new: int = 0
    duplicates: int = 0
    second: tuple[JoinRow, ...] = ()
    """Rows that are not stored: another request used their id before."""
    bare: int = 0
    """Number of new rows that lost their inputs to the bound on an hour's bytes."""
    over: tuple[JoinRow, ...] = ()
    """Rows that are not stored, for the same reason."""
    retried: tuple[JoinRow, ...] = ()
    """Duplicates that a caller sent again; the other duplicates were read twice."""

    def plus(self, other: Stored) -> Stored:
        """Return two batches as one."""
        return Stored(
            self.new + other.new,
            self.duplicates + other.duplicates,
            self.second + other.second,
            self.bare + other.bare,
            self.over + other.over,
            self.retried + other.retried,
        )


class SpooledPrediction(NamedTuple):
    """Prediction from the spool, as a value and as bytes."""

    row: JoinRow
    raw: bytes
    hour: int
    told: bool
    """Whether its id alone gives the hour of its storage."""


class Hours:
    """The partitions, one for each hour."""

    def __init__(self, directory: Path, lock: Path) -> None:
        """Remember the directory and its lock."""
        self._directory = directory
        self._lock = lock
        self.keep_bytes = int(KEEP_GB * 2**30)
        """Maximum bytes of all hours together."""

    def numbers(self) -> list[int]:
        """Return the existing hours, the oldest first."""
        stems = [path.stem for path in self._directory.glob("*.db")]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def damaged(self) -> list[Path]:
        """Return the partitions that were set aside."""
        return sorted(self._directory.glob("*.damaged"))

    def remove_damaged(self) -> None:
        """Remove the unreadable partitions."""
        for path in self._directory.glob("*.damaged*"):
            path.unlink(missing_ok=True)

    def store(self, given: list[SpooledPrediction]) -> Stored:
        """Store predictions. A damaged partition is replaced by a new one."""
        hours: dict[int, list[SpooledPrediction]] = {}
        for each in given:
            hours.setdefault(each.hour, []).append(each)
        done = Stored()
        for hour, batch in hours.items():
            done = done.plus(self._bounded(hour, batch))
        return done

    def _bounded(self, hour: int, batch: list[SpooledPrediction]) -> Stored:
        """Store an hour's rows up to its share: beyond it first without inputs, then not at all."""
        size, share = size_of(self._path(hour)), self.keep_bytes // HOUR_PART
        if size <= share:
            return self._store(hour, batch)
        if size > share + share // 4:
            return Stored(over=tuple(each.row for each in batch))
        bare = sum(bool(each.row.inputs) for each in batch)
        batch = [
            (
                each._replace(
                    row=(row := msgspec.structs.replace(each.row, inputs=b"")), raw=_encode(row)
                )
                if each.row.inputs
                else each
            )
            for each in batch
        ]
        return self._store(hour, batch)._replace(bare=bare)

    def shrink(self) -> dict[int, dict[str, int]]:
        """Remove the oldest hours while all together exceed the bound. Never remove the newest.

        The caller holds the lock. Return how many predictions each hour had, by endpoint.
        """
        total, dropped = 0, dict[int, dict[str, int]]()
        for age, hour in enumerate(reversed(self.numbers())):
            total += size_of(self._path(hour))
            if age and total > self.keep_bytes:
                dropped[hour] = self._held_counts(hour)
                self._remove(hour)
        return dropped

    def _held_counts(self, hour: int) -> dict[str, int]:
        """Return how many predictions an hour has, by endpoint; empty if it is damaged."""
        found: dict[str, int] = {}
        with self._held(hour) as connection:
            if connection is not None:
                query = "SELECT endpoint, sum(n) FROM tally GROUP BY endpoint"
                found = dict(connection.execute(query).fetchall())
        return found

    def _remove(self, hour: int) -> None:
        for path in self._directory.glob(f"{hour}.db*"):
            path.unlink(missing_ok=True)

    def _store(self, hour: int, batch: list[SpooledPrediction]) -> Stored:
        path = self._path(hour)
        try:
            return _insert(path, batch)
        except sqlite3.DatabaseError as error:
            if not damaged(error):
                raise
        set_aside(path)
        return _insert(path, batch)

    def find(self, endpoint: str, names: Iterable[str]) -> dict[str, Named | Several]:
        """Return the predictions with these names. The caller holds the lock.

        The search covers every hour, even after a match: another request may have used an id that a
        caller chose.
        """
        wanted = sorted(set(names))
        named: dict[int, list[str]] = {}
        for name in wanted:
            hour = id_hour(name)
            if hour is not None:
                named.setdefault(hour, []).append(name)
        asked = NameSearch(wanted)
        found: dict[str, list[Named]] = {}
        several: set[str] = set()
        for hour in self.numbers():
            with self._held(hour) as connection:
                if connection is not None:
                    here = {*named.get(hour, ()), *_strays(connection, endpoint, wanted, asked)}
                    _look(connection, endpoint, sorted(here), found, several)
        return {name: _meant(rows, several=name in several) for name, rows in found.items()}

    def coverage(self, endpoint: str) -> Counter[tuple[int, int, str, str]]:
        """Return how many predictions there are of each (production, candidate, salt, arm)."""
        given: Counter[tuple[int, int, str, str]] = Counter()
        query = (
            "SELECT production, candidate, salt, arm, sum(n) FROM tally"
            " WHERE endpoint = ? GROUP BY 1, 2, 3, 4"
        )
        for hour in self.numbers():
            for production, candidate, salt, arm, n in self._read(hour, query, (endpoint,)):
                given[production, candidate, salt, arm] += n
        return +given

    def rows(
        self, endpoint: str, since: float, until: float, *, newest: bool = False
    ) -> Iterator[JoinRow]:
        """Yield predictions given in [since, until), hour by hour; with their inputs if stored.

        `newest`: the newest hour first, and within it the greatest id; kedge's greatest is its
            newest.
        """
        query = _NEWEST if newest else _OLDEST
        for hour in self._within(since, until, newest=newest):
            for body, inputs in self._read(hour, query, (endpoint,)):
                try:
                    row = _row(body)
                except msgspec.MsgspecError:
                    continue  # damaged, or of a newer kedge: it stays unchanged
                if since <= row.at < until:
                    yield row if inputs is None else msgspec.structs.replace(row, inputs=inputs)

    def row(self, endpoint: str, name: str) -> JoinRow | None:
        """Return the prediction with this id, with its inputs if stored; None: it is not found.

        For an id that does not state its time, the search covers the newest `SEARCHED` hours.
        """
        named = id_hour(name)
        near = () if named is None else (named - 1, named, named + 1)
        hours = sorted(self.numbers(), reverse=True)
        for hour in [h for h in hours if h in near] if near else hours[:SEARCHED]:
            for body, inputs in self._read(hour, _ONE, (endpoint, name)):
                try:
                    row = _row(body)
                except msgspec.MsgspecError:
                    continue  # damaged, or of a newer kedge: it stays unchanged
                return row if inputs is None else msgspec.structs.replace(row, inputs=inputs)
        return None

    def counted(self, endpoint: str, since: float, until: float) -> int:
        """Return how many predictions the hours of [since, until) hold; nothing is decoded."""
        query = "SELECT sum(n) FROM tally WHERE endpoint = ?"
        hours = self._within(since, until, around=0)
        return sum(n or 0 for hour in hours for (n,) in self._read(hour, query, (endpoint,)))

    def _within(
        self, since: float, until: float, *, newest: bool = False, around: int = 1
    ) -> list[int]:
        """Return the hours that may hold [since, until): an id's hour may be one off."""
        first, last = int(since // HOUR_S) - around, int(until // HOUR_S) + around
        found = [hour for hour in self.numbers() if first <= hour <= last]
        return found[::-1] if newest else found

    def forget(self, units: Sequence[str], endpoint: str | None) -> set[tuple[str, str]]:
        """Remove a unit's predictions, in these spellings; return their endpoints and ids."""
        gone: set[tuple[str, str]] = set()
        for hour in self.numbers():
            with locked(self._lock), self._held(hour, write=True) as connection:
                if connection is not None:
                    _forget(connection, units, endpoint, gone)
        return gone

    def strip(self, before: float, endpoint: str) -> int:
        """Remove the inputs of predictions given before this; return how many had them."""
        removed = 0
        for hour in self.numbers():
            if (hour - 1) * HOUR_S > before:
                continue
            asked = "SELECT 1 FROM logged WHERE endpoint = ? AND given < ? LIMIT 1"
            if not list(self._read(hour, asked, (endpoint, before))):
                continue
            with locked(self._lock), self._held(hour, write=True) as connection:
                if connection is not None:
                    given = (endpoint, before)
                    removed += connection.execute(_STRIP, given).rowcount
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return removed

    def prune(self, first: int) -> None:
        """Remove partitions of hours before this one, whole or damaged."""
        for path in self._directory.glob("*.db*"):
            hour = path.name.partition(".")[0]
            if hour.isdecimal() and int(hour) < first:
                path.unlink(missing_ok=True)

    # ------------------------------------------------------------ opening

    @contextmanager
    def _held(self, hour: int, *, write: bool = False) -> Iterator[sqlite3.Connection | None]:
        """Yield a partition to a holder of the lock; None if there is none.

        A damaged one is set aside, and then counts as missing.
        """
        path = self._path(hour)
        connection: sqlite3.Connection | None = None
        try:
            connection = opened(path, NAMES) if path.exists() else None
        except sqlite3.DatabaseError as error:
            if not damaged(error):
                raise
            set_aside(path)
        if connection is None:
            yield None
            return
        connection.execute(f"PRAGMA {'secure_delete' if write else 'query_only'} = ON")
        try:
            with closing(connection):
                yield connection
        except sqlite3.DatabaseError as error:
            if not damaged(error):
                raise
            set_aside(path)

    def _read(self, hour: int, query: str, given: tuple[object, ...]) -> Iterator[tuple[Any, ...]]:
        """Yield a partition's answer to a caller without the lock."""
        path = self._path(hour)
        before = inode(path)
        try:
            with closing(opened(path, NAMES)) as connection:
                connection.execute("PRAGMA query_only = ON")
                yield from connection.execute(query, given)
        except sqlite3.DatabaseError as error:
            if not inode(path):
                return  # removed meanwhile
            if not damaged(error):
                raise
            with locked(self._lock):
                if inode(path) == before:
                    set_aside(path)

    def _path(self, hour: int) -> Path:
        return self._directory / f"{hour}.db"


def _insert(path: Path, batch: list[SpooledPrediction]) -> Stored:
    """Store rows in one partition, in one transaction."""
    if not path.exists():
        make(path, _ALL_TABLES)
    with closing(opened(path, NAMES)) as connection, begun(connection):
        kept = [(each.row.id, each.row.endpoint, each.row.unit, _body(each)) for each in batch]
        fresh, second, retried = batch, list[JoinRow](), list[JoinRow]()
        connection.execute("SAVEPOINT fast")
        try:
            connection.executemany("INSERT INTO prediction VALUES (?, ?, ?, ?)", kept)
        except sqlite3.IntegrityError:  # some exist already: find out which
            connection.execute("ROLLBACK TO fast")
            fresh, second, retried = _insert_new(connection, batch, kept)
        connection.executemany(
            "INSERT INTO logged VALUES (?, ?, ?, ?)",
            [(row.id, row.endpoint, row.at, row.inputs) for row, *_ in fresh if row.inputs],
        )
        tally = Counter(arm_of(each.row, told=each.told) for each in fresh)
        connection.executemany(_COUNT, [(*key, n) for key, n in tally.items()])
        _keep_strays(connection, fresh)
    duplicates = len(batch) - len(fresh) - len(second)
    return Stored(len(fresh), duplicates, tuple(second), retried=tuple(retried))


def _keep_strays(connection: sqlite3.Connection, fresh: list[SpooledPrediction]) -> None:
    """Store the hashes of ids without their hour, in files that have all such hashes."""
    requests: dict[str, list[str]] = {}
    for each in fresh:
        if not each.told:
            requests.setdefault(each.row.endpoint, []).append(each.row.request)
    if requests and _has_table(connection):
        connection.executemany(
            "INSERT INTO stray VALUES (?, ?)",
            [(endpoint, strays.pack(some)) for endpoint, some in requests.items()],
        )


def _make_strays_anew(connection: sqlite3.Connection) -> None:
    """Replace the hashes by those of the ids that still exist."""
    requests: dict[str, list[str]] = {}
    for (body,) in connection.execute("SELECT body FROM prediction"):
        row = _row(body)
        if not row_hour(row)[1]:
            requests.setdefault(row.endpoint, []).append(row.request)
    connection.execute("DELETE FROM stray")
    connection.executemany(
        "INSERT INTO stray VALUES (?, ?)",
        [(endpoint, strays.pack(some)) for endpoint, some in requests.items()],
    )


def _has_table(connection: sqlite3.Connection) -> bool:
    """Return whether the file has the hashes of its strays: an earlier kedge stored none."""
    there = "SELECT 1 FROM sqlite_schema WHERE name = 'stray'"
    return connection.execute(there).fetchone() is not None


def _insert_new(
    connection: sqlite3.Connection,
    batch: list[SpooledPrediction],
    kept: list[tuple[str, str, str, bytes]],
) -> tuple[list[SpooledPrediction], list[JoinRow], list[JoinRow]]:
    """Store the rows with new ids; return them, rows of other requests, and retries."""
    fresh: list[SpooledPrediction] = []
    second: list[JoinRow] = []
    retried: list[JoinRow] = []
    one = "INSERT OR IGNORE INTO prediction VALUES (?, ?, ?, ?)"
    there = "SELECT body FROM prediction WHERE id = ? AND endpoint = ?"
    for each, values in zip(batch, kept, strict=True):
        if connection.execute(one, values).rowcount:
            fresh.append(each)
            continue
        (body,) = connection.execute(there, values[:2]).fetchone()
        if body == values[3]:
            continue
        stands = _row(body)
        if not is_same(stands, each.row):
            second.append(each.row)
        elif stands.at != each.row.at:
            retried.append(each.row)
    return fresh, second, retried


def _body(given: SpooledPrediction) -> bytes:
    """Return the row without its inputs, which are stored apart: they are removed sooner."""
    row = given.row
    return _encode(msgspec.structs.replace(row, inputs=b"")) if row.inputs else given.raw


def arm_of(row: JoinRow, *, told: bool) -> tuple[str, int, int, str, str, bool]:
    """Return the key by which predictions are counted."""
    candidate = NO_CANDIDATE if row.candidate is None else row.candidate
    return row.endpoint, row.production, candidate, row.salt, row.arm, told


def _look(
    connection: sqlite3.Connection,
    endpoint: str,
    names: list[str],
    found: dict[str, list[Named]],
    several: set[str],
) -> None:
    """Look for these in one partition, in order: neighbours are on one page.

    Adds to `found` every row that a name may mean, and to `several` the names of whole requests
    that have more than one row.
    """
    query = "SELECT id, body FROM prediction WHERE endpoint = ? AND id IN (?, ?)"
    more = "SELECT 1 FROM prediction WHERE endpoint = ? AND id = ?"
    read = connection.execute
    for name in names:
        for spelling, body in read(query, (endpoint, *spellings(name))).fetchall():
            found.setdefault(name, []).append((spelling, body))
            by_request = len(spelling) > len(name)
            if by_request and read(more, (endpoint, f"{name}/1")).fetchone() is not None:
                several.add(name)


def _meant(rows: list[Named], *, several: bool) -> Named | Several:
    """Return the meaning of a label for which these rows were found."""
    if len(rows) > 1:
        known = [_row(body) for _, body in rows]
        first = min(known, key=lambda row: row.at)
        if not all(row.id == first.id and is_same(row, first) for row in known):
            return Several(ID_REUSED, tuple(known))
        rows = [rows[known.index(first)]]
    return Several(SEVERAL_ROWS) if several else rows[0]


def _strays(
    connection: sqlite3.Connection, endpoint: str, wanted: list[str], asked: NameSearch
) -> Iterable[str]:
    """Return the names that may be in this partition although their ids do not say so."""
    query = "SELECT 1 FROM tally WHERE endpoint = ? AND NOT told AND n > 0 LIMIT 1"
    if connection.execute(query, (endpoint,)).fetchone() is None:
        return ()
    if not _has_table(connection):
        return wanted
    query = "SELECT hashes FROM stray WHERE endpoint = ?"
    return asked.among(packed for (packed,) in connection.execute(query, (endpoint,)))


def _forget(
    connection: sqlite3.Connection,
    units: Sequence[str],
    endpoint: str | None,
    gone: set[tuple[str, str]],
) -> None:
    """Remove a unit from one partition; add the removed rows to `gone`."""
    among = f"unit IN ({', '.join('?' for _ in units)})"
    known = f"SELECT 1 FROM prediction WHERE {among} LIMIT 1"  # noqa: S608 - question marks
    if connection.execute(known, units).fetchone() is None:
        return
    with begun(connection):
        bodies = connection.execute(
            # Only question marks are inserted.
            f"DELETE FROM prediction WHERE {among} AND (? IS NULL OR endpoint = ?) RETURNING body",  # noqa: S608
            (*units, endpoint, endpoint),
        ).fetchall()
        rows = [_row(body) for (body,) in bodies]
        gone.update((row.endpoint, row.id) for row in rows)
        connection.executemany(
            "DELETE FROM logged WHERE id = ? AND endpoint = ?",
            [(row.id, row.endpoint) for row in rows],
        )
        tally = Counter(arm_of(row, told=row_hour(row)[1]) for row in rows)
        connection.executemany(_COUNT, [(*key, -n) for key, n in tally.items()])
        if _has_table(connection) and not all(row_hour(row)[1] for row in rows):
            _make_strays_anew(connection)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
