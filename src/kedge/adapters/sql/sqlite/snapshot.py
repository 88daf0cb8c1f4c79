"""Snapshots of SQLite files: copies as of one time while others write, and damage checks."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, select

from kedge.adapters.sql import tables
from kedge.adapters.sql.sqlite.connection import Database
from kedge.adapters.sql.sqlite.version import dbapi
from kedge.core import codec
from kedge.core.errors import Unavailable
from kedge.core.values import Release

PATIENCE_S = 30.0
"""Time that a copy waits for a process with an exclusive lock."""
_DAMAGED = (11, 26)
"""SQLite's codes SQLITE_CORRUPT and SQLITE_NOTADB."""


def snapshot(source: Path, target: Path) -> str:
    """Copy a database as of one time, while others read and write it.

    Returns:
        The damage that prevents a copy; empty if the copy was made.

    Raises:
        FileNotFoundError: the database is missing.
        Unavailable: `snapshot_failed`: it cannot be read, or the copy cannot be written.
    """
    source.stat()
    until = time.monotonic() + PATIENCE_S  # noqa: TID251 - how long this command waits

    def waited(_status: int, remaining: int, _total: int) -> None:
        if remaining and time.monotonic() > until:  # noqa: TID251 - as above
            raise dbapi.OperationalError(f"it is locked for {PATIENCE_S:g} s")

    try:
        with closing(_connect(source, "rw")) as db, closing(dbapi.connect(str(target))) as copy:
            copy.execute("PRAGMA synchronous = OFF")  # the whole backup is flushed at its end
            db.backup(copy, progress=waited)
    except (dbapi.Error, OSError) as error:
        if not source.exists():
            raise FileNotFoundError(str(source)) from error
        if told := _find_live_damage(source):
            return told
        raise Unavailable(
            f"{source} cannot be copied: {error}",
            code="snapshot_failed",
            hint="kedge doctor shows what is wrong with it; check the free space at the copy",
        ) from error
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    return ""


def find_damage(path: Path) -> str:
    """Return the damage that SQLite finds in a file without writers; empty if it is whole."""
    try:
        with closing(_connect(path, "ro", "&immutable=1")) as db:
            (told,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    except (dbapi.Error, OSError) as error:
        return str(error)
    return "" if told == "ok" else str(told)


def _find_live_damage(path: Path) -> str:
    """Return the damage that SQLite finds in a file with writers; empty if it is unknown."""
    try:
        with closing(_connect(path, "ro")) as db:
            (told,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except (dbapi.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", None) or 0
        return str(error) if code & 0xFF in _DAMAGED else ""
    return "" if told == "ok" else str(told)


def read_artifacts(database: Database) -> dict[str, tuple[str, ...]]:
    """Return the ledger's artifacts by digest, with the names of their owners.

    Owners are models (`wine v3`), transformations (`flight/1#2`) and code of releases (`wine r4`);
    removed versions are excluded.
    """

    def work(connection: Connection) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        version, code, release = tables.model_version, tables.transform_version, tables.release
        models = select(version.c.digest, version.c.model, version.c.number)
        for digest, model, number in connection.execute(
            models.where(version.c.removed_at.is_(None))
        ):
            found.setdefault(digest, []).append(f"{model} v{number}")
        for digest, schema, number in connection.execute(
            select(code.c.code_digest, code.c.schema_id, code.c.version)
        ):
            found.setdefault(digest, []).append(f"{schema}#{number}")
        for body in connection.execute(select(release.c.body)).scalars():
            made = codec.decode(body, Release)
            if made.code is not None:
                found.setdefault(made.code, []).append(f"{made.endpoint} {made.label}")
        return {digest: tuple(names) for digest, names in sorted(found.items())}

    return database.read(work)


def _connect(path: Path, mode: str, more: str = "") -> Any:
    os.stat(path)  # noqa: PTH116 - SQLite's own words for a missing file name no file
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}{more}"
    return dbapi.connect(uri, uri=True, timeout=PATIENCE_S, isolation_level=None)
