"""Creation and opening of the three databases of a state directory.

    STATE_DIR/ledger/ledger.db      the truth; a commit survives a power cut
             /ledger/ballast        freed when the disk is full
             /ledger/CREATED        proof that there was a ledger, if it is missing later
             /roster/roster.db      telemetry: may be lost, is recreated
             /evidence/evidence.db  telemetry: may be lost, is recreated
             /evidence/BEGINNING    its creation time, and the unreadable data before; /roster too

Unreadable telemetry is renamed and kept (`NAME.unreadable-TIME`). The ledger is never recreated.

Each database has its own directory, so that a watch on one wakes no process for another.
"""

from __future__ import annotations

import os
import secrets
import shutil
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, MetaData, text

from kedge.adapters.sql.creation import read_beginning, write_beginning
from kedge.adapters.sql.sqlite.ballast import Ballast
from kedge.adapters.sql.sqlite.connection import Database
from kedge.adapters.sql.sqlite.faults import explain
from kedge.adapters.sql.sqlite.revisions import check_revision, is_newest
from kedge.adapters.sql.sqlite.version import dbapi, sqlite_version_fault
from kedge.adapters.sql.tables import ACCESS, EVIDENCE, ROSTER
from kedge.core.errors import Refused, Unavailable
from kedge.core.values import Beginning
from kedge.system.durable import replacing, sync
from kedge.system.files import set_aside
from kedge.system.locks import lock_file

__all__ = [
    "ACCESS_DIR",
    "EVIDENCE_DIR",
    "LEDGER_DIR",
    "ROSTER_DIR",
    "create",
    "migrate",
    "open_access",
    "open_evidence",
    "open_ledger",
    "open_roster",
    "sqlite_version_fault",
]

LEDGER_DIR, ROSTER_DIR, EVIDENCE_DIR = "ledger", "roster", "evidence"
ACCESS_DIR = "access"
COMMAND_PATIENCE_S = 5.0
"""Time that a command waits for a lock: a person prefers waiting to retrying."""
TELEMETRY_PATIENCE_S = 1.0


def create(state_dir: Path) -> None:
    """Create a ledger where there was none: all of it, or nothing that could be opened.

    Of two processes that try at once, one creates it and the other is refused.

    Raises:
        Refused: `ledger_exists`, or `ledger_lost`: there was one, and it is missing.
    """
    home = state_dir / LEDGER_DIR
    _refuse_second(home)
    state_dir.mkdir(parents=True, exist_ok=True)
    making = state_dir / f"{LEDGER_DIR}.new-{secrets.token_hex(4)}"
    making.mkdir()
    try:
        _blank(making / "ledger.db")
        _migrate(making / "ledger.db")
        Ballast(making / "ballast").make()
        (making / "CREATED").write_text("kedge made a ledger here; see docs on restoring one\n")
        for file in making.iterdir():
            sync(file)
        sync(making)
        # A non-empty directory cannot be replaced by a rename: the race has one winner.
        making.rename(home)
    except OSError:
        _refuse_second(home)
        raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    sync(state_dir)


def complete(home: Path) -> None:
    """Add the files beside a restored ledger that a new ledger has."""
    Ballast(home / "ballast").make()
    (home / "CREATED").write_text("kedge restored a ledger here; see docs on restoring one\n")


def open_ledger(state_dir: Path, *, patience_s: float = COMMAND_PATIENCE_S) -> Database:
    """Open the ledger's database; `SqlLedger` and `SqlRegistry` of one thread share it.

    It is never created here. A missing one is no fault yet: a gateway starts without it, and each
    use raises `ledger_gone` until it is restored.
    """
    path = state_dir / LEDGER_DIR / "ledger.db"
    return Database(
        path,
        name="ledger",
        patience_s=patience_s,
        ballast=Ballast(path.parent / "ballast"),
        check=check_revision,
    )


def open_roster(state_dir: Path, *, patience_s: float = TELEMETRY_PATIENCE_S) -> Database:
    """Open the roster's database; create it if it is missing or damaged."""
    return _telemetry(state_dir / ROSTER_DIR / "roster.db", "roster", ROSTER, patience_s)


def open_evidence(state_dir: Path, *, patience_s: float = TELEMETRY_PATIENCE_S) -> Database:
    """Open the evidence's database; create it if it is missing or damaged."""
    return _telemetry(state_dir / EVIDENCE_DIR / "evidence.db", "evidence", EVIDENCE, patience_s)


def open_access(state_dir: Path, *, patience_s: float = TELEMETRY_PATIENCE_S) -> Database:
    """Open the database of sessions and last uses; create it if it is missing or damaged."""
    return _telemetry(state_dir / ACCESS_DIR / "access.db", "access", ACCESS, patience_s)


def migrate(state_dir: Path) -> None:
    """Bring an existing ledger to the newest revision, in one transaction.

    A ledger at the newest revision costs nothing.
    """
    path = state_dir / LEDGER_DIR / "ledger.db"
    database = Database(path, name="ledger", patience_s=COMMAND_PATIENCE_S)
    try:
        newest = database.read(is_newest)
    finally:
        database.close()
    if not newest:
        _migrate(path)
        return
    database = open_ledger(state_dir)
    try:
        database.read(check_revision)  # one of a newer kedge may be refused
    finally:
        database.close()  # an open one would remove the files of its journal at any later time


# ---------------------------------------------------------------- the ledger


def _refuse_second(home: Path) -> None:
    if (home / "ledger.db").exists():
        raise Refused(
            f"there is a ledger already: {home}", code="ledger_exists", hint="kedge status reads it"
        )
    if home.exists() and not (home.is_dir() and not any(home.iterdir())):
        raise Refused(
            f"there was a ledger, and it is gone: {home}",
            code="ledger_lost",
            hint=f"restore it from a backup; to begin again without its history, remove {home}",
        )


def _migrate(path: Path) -> None:
    # Alembic takes 225 ms to import, and only this function needs it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    here = str(Path(__file__).parents[1] / "migrations").replace("%", "%%")
    config.set_main_option("script_location", here)
    config.set_main_option("path_separator", "os")

    def upgrade(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    database = Database(path, name="ledger", patience_s=COMMAND_PATIENCE_S)
    try:
        database.write(upgrade)
    finally:
        database.close()


# ---------------------------------------------------------------- telemetry


def _telemetry(path: Path, name: str, metadata: MetaData, patience_s: float) -> Database:
    return Database(
        path,
        name=name,
        patience_s=patience_s,
        synchronous="NORMAL",
        yields=name == "evidence",
        remake=partial(_remake, name=name, metadata=metadata),
    )


def _remake(path: Path, *, name: str, metadata: MetaData) -> None:
    """Replace a missing or broken database with an empty one; the broken one is kept.

    A second process finds it repaired. The new file appears whole, by a rename. The WAL of the
    broken one is removed first, because SQLite would otherwise apply it to the new file.
    """
    try:
        _remake_locked(path, name, metadata)
    except OSError as error:
        raise Unavailable(
            f"{path} is gone, and cannot be made again: {error.strerror}",
            code=f"{name}_gone",
            hint="look at what stands in its place; space, permissions",
        ) from error
    except dbapi.Error as error:
        raise explain(error, name=name, path=path, patience_s=TELEMETRY_PATIENCE_S) from error


def _remake_locked(path: Path, name: str, metadata: MetaData) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(path.parent / ".lock", within_s=None):
        why = kept = ""
        if os.path.lexists(path):
            why = _find_fault(path, name, metadata)
            if not why:
                return
        elif read_beginning(path) is not None:
            why = "it was gone"
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with replacing(path, durable=False, via=new):
            _blank(new)
            database = Database(
                new, name=name, patience_s=TELEMETRY_PATIENCE_S, synchronous="NORMAL"
            )
            database.write(metadata.create_all)
            database.close()
            if os.path.lexists(path):
                kept = set_aside(path, "-wal", "-shm")
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            write_beginning(path, Beginning(at=new.stat().st_mtime, why=why, kept=kept))


def _find_fault(path: Path, name: str, metadata: MetaData) -> str:
    """Return why a database cannot be used; empty if it can, or if the fault is temporary."""
    database = Database(path, name=name, patience_s=TELEMETRY_PATIENCE_S, synchronous="NORMAL")

    def look(connection: Connection) -> str:
        for table in metadata.sorted_tables:
            connection.execute(table.select().limit(1)).all()
        return str(connection.execute(text("PRAGMA quick_check(1)")).scalar())

    try:
        told = database.read(look)
        database.write(lambda _: None)
    except Unavailable as error:
        return str(error) if error.code.endswith(("_damaged", "_read_only")) else ""
    finally:
        database.close()
    return "" if told == "ok" else told


# ---------------------------------------------------------------- files


def _blank(path: Path) -> None:
    """Create an empty database with a write-ahead log."""
    raw = dbapi.connect(str(path), isolation_level=None)
    try:
        raw.execute("PRAGMA journal_mode=WAL")
    finally:
        raw.close()
