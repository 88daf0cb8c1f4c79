"""SQLite: the default store, with a table for each namespace in one file, read through memory."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kedge.core.errors import Unavailable

try:  # a system's own SQLite can damage a file that several processes write
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:
    import sqlite3

BATCH = 900
"""Keys in one statement: SQLite's oldest limit on parameters is 999."""
MAPPED = 1 << 30
_NAME = re.compile(r"[a-z0-9_]+(/[0-9]+)+")


def opened(where: str) -> SqliteOnline:
    """Return the store at this path; the entry point `kedge.online`."""
    return SqliteOnline(Path(where))


class SqliteOnline:
    """One SQLite file. Several processes may read while one writes; no reader waits for it."""

    def __init__(self, path: Path) -> None:
        """Remember the path; the file is opened at the first use, and created if missing."""
        self._path = path
        self._mine = threading.local()

    def write(self, namespace: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """Upsert rows in one transaction: after a crash all of them are stored, or none."""
        # This is the order of the tree: each page is then filled once.
        table, batch = _table(namespace), sorted(rows)
        with _told(self._path):
            db = self._open()
            with db:
                db.execute("BEGIN IMMEDIATE")
                db.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, row BLOB) WITHOUT"
                    " ROWID"
                )
                db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", batch)  # noqa: S608
        return len(batch)

    def read(self, namespace: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return the rows of these keys, in order; None where there is none.

        Raises:
            Unavailable: `online_unavailable`: the file cannot be read, or has no such namespace.
        """
        table = _table(namespace)
        with _told(self._path):
            db = self._open()
            if len(keys) == 1:
                found = db.execute(f"SELECT row FROM {table} WHERE key = ?", (keys[0],)).fetchone()  # noqa: S608
                return [found[0] if found is not None else None]
            known: dict[str, bytes] = {}
            for start in range(0, len(keys), BATCH):
                part = keys[start : start + BATCH]
                marks = ",".join("?" * len(part))
                known.update(
                    db.execute(
                        f"SELECT key, row FROM {table} WHERE key IN ({marks})",  # noqa: S608
                        part,
                    )
                )
            return [known.get(key) for key in keys]

    def drop(self, namespace: str) -> None:
        """Remove a namespace; do nothing if it is missing."""
        with _told(self._path), self._open() as db:
            db.execute(f"DROP TABLE IF EXISTS {_table(namespace)}")

    def namespaces(self) -> tuple[str, ...]:
        """Return the existing namespaces."""
        with _told(self._path):
            self._reopened()
            rows = (
                self._open()
                .execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                .fetchall()
            )
        return tuple(sorted(name for (name,) in rows))

    def count(self, namespace: str) -> int:
        """Return how many keys a namespace has; 0 if it is missing."""
        if namespace not in self.namespaces():
            return 0
        with _told(self._path):
            query = f"SELECT count(*) FROM {_table(namespace)}"  # noqa: S608
            return int(self._open().execute(query).fetchone()[0])

    def _reopened(self) -> None:
        """Close a file that was removed from this path, or replaced."""
        db: Any = getattr(self._mine, "db", None)
        now = self._path.stat().st_ino if self._path.exists() else None
        if db is not None and self._mine.inode != now:
            db.close()
            self._mine.db = None

    def _open(self) -> Any:
        """Return this thread's connection."""
        db: Any = getattr(self._mine, "db", None)
        if db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = self._mine.db = sqlite3.connect(
                self._path, timeout=5, isolation_level=None, cached_statements=256
            )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA mmap_size = {MAPPED}")
            self._mine.inode = self._path.stat().st_ino
        return db


def _table(namespace: str) -> str:
    if _NAME.fullmatch(namespace) is None:
        raise ValueError(f"{namespace!r} is not a namespace")
    return f'"{namespace}"'


LOST = "check the disk and the file; kedge features materialise writes it again"
DAMAGED = "remove the file: kedge features materialise writes it again, from the log"


class _told:  # noqa: N801 - used as a statement
    """Turn SQLite's errors into kedge's own."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error | OSError):
            # Exactly that class, no subclass: the file is not a database, or is damaged.
            damaged = type(error) is sqlite3.DatabaseError
            raise Unavailable(
                f"{self._path}: {error}",
                code="online_unavailable",
                hint=DAMAGED if damaged else LOST,
            ) from error
