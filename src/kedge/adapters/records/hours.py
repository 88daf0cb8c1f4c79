"""Predictions on disk: one SQLite file for the predictions of one hour.

Whoever writes holds the lock of the records (`files.locked`). Readers do not wait for it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kedge.adapters.records.files import (
    begun,
    damaged,
    inode,
    locked,
    make,
    opened,
    set_aside,
)
from kedge.core.records import HOUR_S, JoinRow, id_hour, row_hour, spellings

NOBODY = -1
"""How a comparison without a candidate is kept: SQLite has no NULL in a primary key."""

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
NAMES = frozenset({"prediction", "logged", "tally"})
_COUNT = """INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_OLDEST = """SELECT body, inputs FROM prediction LEFT JOIN logged USING (id, endpoint)
WHERE endpoint = ? ORDER BY id"""
_NEWEST = """SELECT body, inputs FROM prediction LEFT JOIN logged USING (id, endpoint)
WHERE endpoint = ? ORDER BY id DESC"""
_STRIP = "DELETE FROM logged WHERE endpoint = ? AND given < ?"

_encode = msgspec.msgpack.Encoder().encode
_row = msgspec.msgpack.Decoder(JoinRow).decode

Named = tuple[str, bytes]
"""A prediction that was found: its id, and the prediction."""


class Given(NamedTuple):
    """A prediction out of the spool, as a value and as it was written."""

    row: JoinRow
    raw: bytes
    hour: int
    told: bool
    """Its id alone says which hour it is kept under."""


class Hours:
    """The partitions."""

    def __init__(self, directory: Path, lock: Path) -> None:
        """Remember where they are, and which lock belongs to them."""
        self._directory = directory
        self._lock = lock

    def numbers(self) -> list[int]:
        """The hours that there are, the oldest first."""
        stems = [path.stem for path in self._directory.glob("*.db")]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def damaged(self) -> list[Path]:
        """Partitions that were set aside."""
        return sorted(self._directory.glob("*.damaged"))

    def remove_damaged(self) -> None:
        """Remove what nobody can read."""
        for path in self._directory.glob("*.damaged*"):
            path.unlink(missing_ok=True)

    def store(self, given: list[Given]) -> int:
        """Keep predictions; how many were new. A damaged partition is begun anew."""
        hours: dict[int, list[Given]] = {}
        for each in given:
            hours.setdefault(each.hour, []).append(each)
        return sum(self._store(hour, batch) for hour, batch in hours.items())

    def _store(self, hour: int, batch: list[Given]) -> int:
        path = self._path(hour)
        try:
            return _insert(path, batch)
        except sqlite3.DatabaseError as error:
            if not damaged(error):
                raise
        set_aside(path)
        return _insert(path, batch)

    def find(self, endpoint: str, names: Iterable[str]) -> dict[str, Named | None]:
        """The predictions that are asked for; None where a request has several rows.

        For one who holds the lock.
        """
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
            with self._held(hour) as connection:
                if connection is not None:
                    _look(connection, endpoint, some, found)
        # An id of ours that is not in its own hour was used again, or made by somebody else.
        rest += [name for some in named.values() for name in some if name not in found]
        for hour in reversed(self.numbers()):
            if not rest:
                break
            with self._held(hour) as connection:
                if connection is not None and _has_strays(connection, endpoint):
                    _look(connection, endpoint, rest, found)
                    rest = [name for name in rest if name not in found]
        return found

    def coverage(self, endpoint: str) -> Counter[tuple[int, int, str, str]]:
        """How many predictions of (production, candidate, salt, arm)."""
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
        """Predictions given in [since, until), hour by hour; with their inputs where kept.

        `newest`: the newest hour first, and within it the greatest id, which is ours and newest.
        """
        query = _NEWEST if newest else _OLDEST
        for hour in self._within(since, until, newest=newest):
            for body, inputs in self._read(hour, query, (endpoint,)):
                try:
                    row = _row(body)
                except msgspec.MsgspecError:
                    continue  # damaged, or of a newer kedge: it stays where it is
                if since <= row.at < until:
                    yield row if inputs is None else msgspec.structs.replace(row, inputs=inputs)

    def counted(self, endpoint: str, since: float, until: float) -> int:
        """How many predictions the hours of [since, until) hold; whole hours, nothing is decoded."""
        query = "SELECT sum(n) FROM tally WHERE endpoint = ?"
        hours = self._within(since, until, around=0)
        return sum(n or 0 for hour in hours for (n,) in self._read(hour, query, (endpoint,)))

    def _within(
        self, since: float, until: float, *, newest: bool = False, around: int = 1
    ) -> list[int]:
        """The hours in which predictions of [since, until) may be: an id's hour may be one off."""
        first, last = int(since // HOUR_S) - around, int(until // HOUR_S) + around
        found = [hour for hour in self.numbers() if first <= hour <= last]
        return found[::-1] if newest else found

    def forget(self, unit: str, endpoint: str | None) -> set[tuple[str, str]]:
        """Remove a unit's predictions; the endpoint and the id of each."""
        gone: set[tuple[str, str]] = set()
        for hour in self.numbers():
            with locked(self._lock), self._held(hour, write=True) as connection:
                if connection is not None:
                    _forget(connection, unit, endpoint, gone)
        return gone

    def strip(self, before: float, endpoint: str) -> int:
        """Remove the inputs of predictions given before this; how many had them."""
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
        """A partition, for one who holds the lock; None where there is none.

        A damaged one is set aside, and is then as if it had not been there.
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
        """What a partition answers, for one who does not hold the lock."""
        path = self._path(hour)
        before = inode(path)
        try:
            with closing(opened(path, NAMES)) as connection:
                connection.execute("PRAGMA query_only = ON")
                yield from connection.execute(query, given)
        except sqlite3.DatabaseError as error:
            if not inode(path):
                return  # pruned meanwhile
            if not damaged(error):
                raise
            with locked(self._lock):
                if inode(path) == before:
                    set_aside(path)

    def _path(self, hour: int) -> Path:
        return self._directory / f"{hour}.db"


def _insert(path: Path, batch: list[Given]) -> int:
    """Store rows in one partition, in one transaction; how many were new."""
    if not path.exists():
        make(path, _TABLES)
    with closing(opened(path, NAMES)) as connection, begun(connection):
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
        tally = Counter(arm_of(each.row, told=each.told) for each in fresh)
        connection.executemany(_COUNT, [(*key, n) for key, n in tally.items()])
    return len(fresh)


def _body(given: Given) -> bytes:
    """Without the inputs, which are kept apart: they go sooner."""
    row = given.row
    return _encode(msgspec.structs.replace(row, inputs=b"")) if row.inputs else given.raw


def arm_of(row: JoinRow, *, told: bool) -> tuple[str, int, int, str, str, bool]:
    """What predictions are counted by."""
    candidate = NOBODY if row.candidate is None else row.candidate
    return row.endpoint, row.production, candidate, row.salt, row.arm, told


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


def _forget(
    connection: sqlite3.Connection, unit: str, endpoint: str | None, gone: set[tuple[str, str]]
) -> None:
    """Remove a unit from one partition; adds to `gone` what was removed."""
    asked = "SELECT 1 FROM prediction WHERE unit = ? LIMIT 1"
    if connection.execute(asked, (unit,)).fetchone() is None:
        return
    with begun(connection):
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
        tally = Counter(arm_of(row, told=row_hour(row)[1]) for row in rows)
        connection.executemany(_COUNT, [(*key, -n) for key, n in tally.items()])
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
