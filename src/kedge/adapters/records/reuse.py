"""Reused ids: ids of more than one request, and the labels that cannot be joined because of them.

A label names a request by its id. When two requests used the id, the label may mean either, so it
is joined to neither. This module stores a hash of the id, with counts; the rows are in the labels'
file.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import TypeVar

import msgspec

from kedge.adapters.records.hours import arm_of
from kedge.adapters.records.joining import COUNT
from kedge.core.evidence.records import JoinRow, Known, Reused, is_same, requests_of, row_hour

TABLE = """
CREATE TABLE IF NOT EXISTS reused (
  hash BLOB PRIMARY KEY, endpoint TEXT NOT NULL, hour INTEGER NOT NULL,
  refused INTEGER NOT NULL, withdrawn INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reused_by_endpoint ON reused (endpoint);
"""
"""Table that is created when missing: files of an earlier kedge do not have it."""
AT_ONCE = 500
"""Ids in one query: SQLite binds some thousands of values."""

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_row = msgspec.msgpack.Decoder(JoinRow).decode
_value = msgspec.msgpack.Decoder(Known).decode


def marked(labels: sqlite3.Connection, endpoint: str, names: Iterable[str]) -> set[str]:
    """Return the names whose id more than one request used."""
    if not _any(labels, endpoint):
        return set()
    asked = {name: [_hash(endpoint, request) for request in requests_of(name)] for name in names}
    known: set[bytes] = set()
    for some in batches({each for hashes in asked.values() for each in hashes}, AT_ONCE):
        # Only question marks are inserted.
        query = f"SELECT hash FROM reused WHERE hash IN ({_places(some)})"  # noqa: S608
        known.update(each for (each,) in labels.execute(query, some))
    return {name for name, hashes in asked.items() if not known.isdisjoint(hashes)}


def refuse(labels: sqlite3.Connection, endpoint: str, name: str) -> None:
    """Count a refused label, at the first of the ids that it may mean."""
    for request in requests_of(name):
        query = "UPDATE reused SET refused = refused + 1 WHERE hash = ?"
        if labels.execute(query, (_hash(endpoint, request),)).rowcount:
            return


def mark(labels: sqlite3.Connection, rows: Iterable[JoinRow]) -> int:
    """Mark the ids of these rows as used by several requests, and withdraw their labels.

    Returns:
        How many labels were withdrawn.
    """
    withdrawn = 0
    for row in {(one.endpoint, one.request): one for one in rows}.values():
        labels.execute(
            "INSERT INTO reused VALUES (?, ?, ?, 0, 0)"
            " ON CONFLICT DO UPDATE SET hour = max(hour, excluded.hour)",
            (_hash(row.endpoint, row.request), row.endpoint, row_hour(row)[0]),
        )
        first = f"{row.request}/"
        found = labels.execute(
            "SELECT seq, id FROM label WHERE endpoint = ? AND id >= ? AND id < ?",
            (row.endpoint, first, first[:-1] + "0"),  # "0" is the character after "/"
        ).fetchall()
        gone = [seq for seq, name in found if name.rpartition("/")[0] == row.request]
        withdrawn += _withdraw(labels, row, gone)
    return withdrawn


def second(labels: sqlite3.Connection, rows: Iterable[JoinRow]) -> list[JoinRow]:
    """Return rows whose id, as a label spells it, was joined to another request; and its rows."""
    again: list[JoinRow] = []
    by_endpoint: dict[str, dict[str, JoinRow]] = {}
    for row in rows:
        if row.digest:  # the gateway made the other ids: such an id is still unknown
            known = by_endpoint.setdefault(row.endpoint, {})
            known.update(dict.fromkeys(_alike(row.id), row))
    for endpoint, known in by_endpoint.items():
        for some in batches(known, AT_ONCE):
            # Only question marks are inserted.
            query = f"SELECT id, body FROM label WHERE endpoint = ? AND id IN ({_places(some)})"  # noqa: S608
            for name, body in labels.execute(query, (endpoint, *some)).fetchall():
                row, there = known[name], _row(body)
                if name != row.id or not is_same(there, row):
                    again += [row, there]
    return again


def counted(labels: sqlite3.Connection, endpoint: str) -> Reused:
    """Return the reused ids and refused labels of an endpoint."""
    query = "SELECT count(*), sum(refused), sum(withdrawn) FROM reused WHERE endpoint = ?"
    ids, refused, withdrawn = labels.execute(query, (endpoint,)).fetchone()
    return Reused(ids=ids, refused=refused or 0, withdrawn=withdrawn or 0)


def _withdraw(labels: sqlite3.Connection, row: JoinRow, seqs: list[int]) -> int:
    tally: Counter[tuple[int | str | bool, ...]] = Counter()
    for seq in seqs:
        hour, version, value, body = labels.execute(
            "DELETE FROM label WHERE seq = ? RETURNING hour, label_version, value, body", (seq,)
        ).fetchone()
        key = arm_of(_row(body), told=True)[:5]
        tally[hour, *key, version, _value(value) is None] += 1
    labels.executemany(COUNT, [(*key, -n) for key, n in tally.items()])
    labels.execute(
        "UPDATE reused SET withdrawn = withdrawn + ? WHERE hash = ?",
        (len(seqs), _hash(row.endpoint, row.request)),
    )
    return len(seqs)


def _alike(name: str) -> tuple[str, ...]:
    """Return the rows that a label for this row may also have been joined to."""
    request, _, row = name.rpartition("/")
    return (name, f"{name}/0", request) if row == "0" else (name, f"{name}/0")


def _any(labels: sqlite3.Connection, endpoint: str) -> bool:
    query = "SELECT 1 FROM reused WHERE endpoint = ? LIMIT 1"
    return labels.execute(query, (endpoint,)).fetchone() is not None


def _hash(endpoint: str, request: str) -> bytes:
    return blake2b(_encode((endpoint, request)), digest_size=16).digest()


def batches(values: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yield the values in batches of this size."""
    rest = iter(values)
    while some := tuple(islice(rest, size)):
        yield some


def _places(values: Iterable[object]) -> str:
    return ",".join("?" for _ in values)
