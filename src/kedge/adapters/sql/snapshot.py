"""Snapshots of SQLite files: copies as of one instant while others write, and whether a copy is whole."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, select

from kedge.adapters.sql import tables
from kedge.adapters.sql.database import Database
from kedge.adapters.sql.dialect import dbapi
from kedge.core import codec
from kedge.core.errors import Unavailable
from kedge.core.values import Release

PATIENCE_S = 30.0
"""How long a copy waits for a process that holds the file for itself."""


def snapshot(source: Path, target: Path) -> None:
    """Copy a database as it is at one instant. Others read and write it meanwhile.

    Raises:
        FileNotFoundError: there is none.
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
        raise Unavailable(
            f"{source} cannot be copied: {error}",
            code="snapshot_failed",
            hint="kedge doctor says what is wrong with it; is there space at the copy?",
        ) from error
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)


def find_damage(path: Path) -> str:
    """Return what SQLite finds wrong in a file that nothing writes to; empty when it is whole."""
    try:
        with closing(_connect(path, "ro", "&immutable=1")) as db:
            (told,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    except (dbapi.Error, OSError) as error:
        return str(error)
    return "" if told == "ok" else str(told)


def read_digests(database: Database) -> tuple[str, ...]:
    """Return the digests of all artifacts that a ledger knows: models and transformations, without removed ones."""

    def work(connection: Connection) -> tuple[str, ...]:
        version = tables.model_version
        models = select(version.c.digest).where(version.c.removed_at.is_(None))
        codes = select(tables.transform_version.c.code_digest)
        found = {*connection.execute(models).scalars(), *connection.execute(codes).scalars()}
        for body in connection.execute(select(tables.release.c.body)).scalars():
            code = codec.decode(body, Release).code
            if code is not None:
                found.add(code)
        return tuple(sorted(found))

    return database.read(work)


def _connect(path: Path, mode: str, more: str = "") -> Any:
    os.stat(path)  # noqa: PTH116 - SQLite's own words for a missing file name no file
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}{more}"
    return dbapi.connect(uri, uri=True, timeout=PATIENCE_S, isolation_level=None)
