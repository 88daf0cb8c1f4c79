"""SQLite files of the records: created whole, opened once a call, set aside when damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from urllib.parse import quote

from kedge.core.errors import Unavailable
from kedge.system.durable import replacing
from kedge.system.locks import lock_file
from kedge.system.reserve import NO_SPACE, get_free, is_short

BUSY_S = 30.0
"""Time that a writer waits for another."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the writers' lock; the lock of a process that dies is released."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(path, within_s=BUSY_S) as taken:
        if not taken:
            raise Unavailable(
                f"another process has been writing to {path.parent} for {BUSY_S:g} s",
                code="records_busy",
                hint="try again",
            )
        yield


def refuse_when_short(directory: Path) -> None:
    """Raise if the free space of the disk is the ledger's reserve.

    Raises:
        Unavailable: `disk_reserve`.
    """
    if is_short(directory):
        raise Unavailable(
            f"the disk is nearly full, and records are not written: {directory}",
            code="disk_reserve",
            hint=(
                "free some space; predictions that wait are taken in then, and outcomes can be"
                " handed in again"
            ),
        )


@contextmanager
def told() -> Iterator[None]:
    """Turn errors of SQLite and the disk into kedge's own."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            f"the records cannot be read or written: {error}",
            code="records_unavailable",
            hint="free disk space, and check that the state directory belongs to this user",
        ) from error


class Incomplete(sqlite3.DatabaseError):
    """Error of a file that lacks a table: it was truncated, or another program wrote it."""


def opened(path: Path, tables: frozenset[str], *, cache_kb: int = 16_000) -> sqlite3.Connection:
    """Open an existing database, and check that it has these tables.

    Raises:
        Incomplete: a table is missing.
        sqlite3.Error: it cannot be opened or read.
    """
    if get_free(path.parent) < NO_SPACE:
        # SQLite maps a file beside it: a page that a full disk lacks kills this process (SIGBUS).
        raise sqlite3.OperationalError(f"the disk is full: {path.parent}")
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=rw",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{cache_kb}")
        connection.execute("PRAGMA synchronous = NORMAL")
        query = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        if missing := tables - {name for (name,) in connection.execute(query)}:
            raise Incomplete(f"{path.name} lacks {', '.join(sorted(missing))}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def begun(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction: all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield


def make(path: Path, tables: str) -> None:
    """Create a database that appears whole; the caller holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    for stale in (f"{new}", f"{new}-wal", f"{new}-shm", f"{path}-wal", f"{path}-shm"):
        Path(stale).unlink(missing_ok=True)
    with (
        replacing(path, durable=False, via=new),
        closing(sqlite3.connect(new, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(tables)


def damaged(error: sqlite3.DatabaseError) -> bool:
    """Return whether the file is at fault, and not the disk or another process."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, Incomplete) or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def inode(path: Path) -> int:
    """Return the file's inode; 0 if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def size_of(path: Path) -> int:
    """Return the bytes of a database and of its log; 0 if there is none."""
    total = 0
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += Path(f"{path}{suffix}").stat().st_size
    return total


def set_aside(path: Path) -> None:
    """Rename a damaged partition, so that no process reads it and an operator can restore it."""
    names = (path.with_name(f"{path.name}{'.' * bool(n)}{n or ''}.damaged") for n in count())
    target = next(name for name in names if not name.exists())
    for suffix in ("-wal", ""):
        old = Path(f"{path}{suffix}")
        if old.exists():
            old.rename(f"{target}{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)
