"""Making, opening and losing the files of a state directory."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.sql_world import Other, World, creates, locks, world
from kedge.adapters.sql.ledger import SqlLedger
from kedge.adapters.sql.roster import SqlRoster
from kedge.adapters.sql.sqlite import ballast, revisions, version
from kedge.adapters.sql.sqlite import create as engine
from kedge.adapters.sql.sqlite.create import create, open_evidence, open_ledger, open_roster
from kedge.adapters.sql.tables import LEDGER
from kedge.core.errors import Refused, Unavailable
from kedge.core.release.commands import Promote, Rollback
from kedge.core.stored.ledger import Note


def refused_by(action: Callable[[], object]) -> str:
    """The code with which an action is refused or unavailable."""
    with pytest.raises((Refused, Unavailable)) as raised:
        action()
    return raised.value.code


def files(directory: Path) -> set[str]:
    """What lies in a directory."""
    return {path.name for path in directory.iterdir()}


# ---------------------------------------------------------------- disks


def on_own_disk(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Run a test that mounts: as root at once, else again inside a namespace of its own."""

    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        if os.geteuid() == 0:
            return test(tmp_path)
        inside = ["unshare", "-rm"]
        if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root, or user namespaces")
        name = f"{test.__code__.co_filename}::{test.__name__}"
        again = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
        done = subprocess.run([*inside, *again], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        return None

    return run


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own with room for so much."""
    path.mkdir(parents=True)
    size = f"size={megabytes}m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> Path:
    """Take every byte that is left on the disk of a directory."""
    filler = path / "filler"
    with filler.open("ab", buffering=0) as file:
        for block in (1 << 20, 1 << 12):
            try:
                while file.write(b"x" * block) == block:
                    pass
            except OSError:
                continue
    return filler


def test_a_connection_that_is_left_in_a_transaction_is_not_used_again(tmp_path: Path) -> None:
    """On a full disk an open connection is kept, but not one that could not be rolled back."""
    database = open_roster(tmp_path)
    database.read(lambda _: None)
    left = database._opened
    assert left is not None
    left.begin()
    error = version.dbapi.OperationalError("database or disk is full")
    error.sqlite_errorcode = 13
    assert database._fault(error).code == "disk_full"
    database.read(lambda _: None)
    kept = database._opened
    assert kept is not left
    assert database._fault(error).code == "disk_full"
    assert database._opened is kept


# ---------------------------------------------------------------- versions


def test_opening_a_ledger_does_not_import_alembic() -> None:
    """It costs 225 ms, and only a migration needs it."""
    look = "import sys, kedge.adapters.sql.ledger, kedge.adapters.sql.sqlite.create; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert "sqlalchemy" in done.stdout.split()
    assert "alembic" not in done.stdout.split()


def test_the_sqlite_in_use_cannot_corrupt_a_shared_ledger() -> None:
    """pysqlite3 is a dependency for exactly this."""
    assert version.sqlite_version_fault() is None


def test_an_older_sqlite_is_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.51.2 is the last that corrupts; the words name it, the first good one, and the way."""

    class Old:
        sqlite_version = "3.51.2"

    monkeypatch.setattr(version, "dbapi", Old)
    fault = version.sqlite_version_fault()
    assert fault is not None
    assert all(word in fault for word in ("3.51.2", "3.51.3", "pip install"))


def test_the_revisions_make_exactly_the_tables_that_queries_see(tmp_path: Path) -> None:
    """Alembic finds no difference between a migrated ledger and `tables.py`."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    create(tmp_path)
    database = open_ledger(tmp_path)
    found = database.read(lambda c: compare_metadata(MigrationContext.configure(c), LEDGER))
    assert found == []


def test_opening_knows_the_newest_revision() -> None:
    """The constant that spares the import of Alembic is the head of the revisions."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    here = Path(engine.__file__).parents[1] / "migrations"
    config.set_main_option("script_location", str(here))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == revisions.REVISION


@pytest.mark.parametrize(
    ("found", "earliest", "hint"),
    [
        ("0000", 7, "kedge up"),
        ("0006", 7, "kedge up"),
        ("9999", 9999, "newer"),
        ("9999", 0, "newer"),
    ],
)
def test_a_ledger_of_another_revision_is_not_touched(
    tmp_path: Path, found: str, earliest: int, hint: str
) -> None:
    """An older one asks for kedge up, one that a newer kedge changed for that kedge."""
    made = world(tmp_path, releases=0, configured=False)
    with made.raw() as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (found,))
        raw.execute(f"PRAGMA user_version = {earliest}")
    with pytest.raises(Unavailable) as raised:
        made.ledger.read()
    assert raised.value.code == "ledger_revision"
    assert hint in raised.value.hint


def test_a_ledger_at_the_newest_revision_is_migrated_to_itself(tmp_path: Path) -> None:
    """Migrating twice changes nothing and loses nothing."""
    made = world(tmp_path)
    made.close()
    engine.migrate(made.state_dir)
    assert made.row().epoch == 1


# ---------------------------------------------------------------- creating


def test_a_new_ledger_has_its_ballast_and_its_marker(tmp_path: Path) -> None:
    """Nothing else lies about, least of all the directory in which it was made."""
    create(tmp_path)
    assert files(tmp_path) == {"ledger"}
    assert files(tmp_path / "ledger") == {"ledger.db", "ballast", "CREATED"}
    assert (tmp_path / "ledger" / "ballast").stat().st_size == ballast.SIZE


def test_the_ledger_is_durable_and_checks_its_keys(tmp_path: Path) -> None:
    """WAL, synchronous=FULL (2), foreign keys on."""
    made = world(tmp_path, releases=0, configured=False)
    pragmas = ("journal_mode", "synchronous", "foreign_keys")
    found = made.database.read(
        lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    )
    assert found == ["wal", 2, 1]


def test_a_ledger_is_not_made_over_a_ledger(tmp_path: Path) -> None:
    """What is there stays."""
    made = world(tmp_path)
    assert refused_by(lambda: create(made.state_dir)) == "ledger_exists"
    assert made.row().epoch == 1


def test_a_lost_ledger_is_not_made_again(tmp_path: Path) -> None:
    """The marker says that there was one."""
    create(tmp_path)
    (tmp_path / "ledger" / "ledger.db").unlink()
    assert refused_by(lambda: create(tmp_path)) == "ledger_lost"
    assert "ledger.db" not in files(tmp_path / "ledger")


def test_of_two_that_create_at_once_one_is_refused(tmp_path: Path) -> None:
    """And the loser leaves nothing behind."""
    both = [Other(creates, tmp_path / "state") for _ in range(2)]
    for other in both:
        other.heard()
    for other in both:
        other.told.send("go")
    assert sorted(other.heard() for other in both) == ["ledger_exists", "made"]
    assert files(tmp_path / "state") == {"ledger"}


# ---------------------------------------------------------------- gone


def test_a_missing_ledger_is_never_made_by_opening(tmp_path: Path) -> None:
    """Not the file, and not its directory; each use says so, since it may come back."""
    ledger = SqlLedger(open_ledger(tmp_path))
    assert refused_by(ledger.stamp) == "ledger_gone"
    with pytest.raises(Unavailable) as raised:
        ledger.read()
    assert raised.value.code == "ledger_gone"
    assert "kedge init" in raised.value.hint
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    "use",
    [
        lambda w: w.ledger.read(),
        lambda w: w.ledger.stamp(),
        lambda w: w.ledger.history("flights"),
        lambda w: w.ledger.note("flights", Note(kind="x", body={}), by="", reason="", at=""),
        lambda w: w.do(Promote(release=1)),
        lambda w: w.release(9),
    ],
    ids=["read", "stamp", "history", "note", "append", "register"],
)
def test_a_ledger_deleted_while_it_is_open_is_noticed(
    tmp_path: Path, use: Callable[[World], object]
) -> None:
    """Whatever is asked of it next; and nothing makes it again."""
    made = world(tmp_path)
    made.row()
    made.path.unlink()
    assert refused_by(lambda: use(made)) == "ledger_gone"
    assert refused_by(lambda: use(made)) == "ledger_gone"
    assert not made.path.exists()


def test_a_ledger_deleted_under_a_write_is_not_reported_as_written(tmp_path: Path) -> None:
    """The commit reached a file that cannot be found any more."""
    made = world(tmp_path)

    def work(connection: Any) -> None:
        connection.exec_driver_sql("DELETE FROM wanted")
        made.path.unlink()

    assert refused_by(lambda: made.database.write(work)) == "ledger_gone"


def test_a_ledger_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """With what the new file says, not with what was remembered of the old one."""
    made = world(tmp_path)
    made.close()
    backup = shutil.copy(made.path, tmp_path / "backup")
    made.release(4)
    assert set(made.row().releases) == {1, 2, 3, 4}
    Path(backup).replace(made.path)
    for tail in ("-wal", "-shm"):
        Path(f"{made.path}{tail}").unlink()
    assert refused_by(made.row) == "ledger_gone"
    assert set(made.row().releases) == {1, 2, 3}
    made.do(Promote(release=1))
    assert made.ledger.verify() == []


# ---------------------------------------------------------------- locked, read-only, damaged


def test_a_ledger_locked_by_another_process_is_reported_after_patience(tmp_path: Path) -> None:
    """Reading goes on meanwhile, and writing works once the lock is gone."""
    made = world(tmp_path)
    made.close()
    other = Other(locks, made.path)
    other.heard()
    hasty = World(made.state_dir, patience_s=0.05)
    assert hasty.row().epoch == 1
    assert refused_by(lambda: hasty.do(Promote(release=1))) == "ledger_locked"
    other.told.send("go")
    other.end()
    hasty.do(Promote(release=1))
    assert hasty.row().production == 1


def test_a_writer_with_patience_waits_for_a_lock(tmp_path: Path) -> None:
    """No error where a moment is enough."""
    made = world(tmp_path)
    made.close()
    other = Other(locks, made.path)
    other.heard()
    other.told.send("go")
    made.do(Promote(release=1))
    assert made.row().production == 1


@pytest.mark.parametrize("harm", ["truncate", "scribble", "drop"])
def test_a_damaged_ledger_is_reported_as_damaged(tmp_path: Path, harm: str) -> None:
    """An empty file, a file of noise, and a database without its tables."""
    made = world(tmp_path)
    if harm == "drop":
        with made.raw() as raw:
            raw.execute("PRAGMA foreign_keys=OFF")
            raw.execute("DROP TABLE condemned")
    made.close()
    if harm != "drop":
        size = 0 if harm == "truncate" else made.path.stat().st_size
        made.path.write_bytes(os.urandom(size))
    assert refused_by(made.row) == "ledger_damaged"


@on_own_disk
def test_a_read_only_ledger_is_reported_as_read_only(tmp_path: Path) -> None:
    """It is the disk here; permissions would not stop root."""
    with small_disk(tmp_path / "disk", 8) as disk:
        made = world(disk)
        made.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert refused_by(lambda: made.do(Promote(release=1))) == "ledger_read_only"


# ---------------------------------------------------------------- disk full


@on_own_disk
def test_a_rollback_is_written_on_a_full_disk(tmp_path: Path) -> None:
    """The ballast is thrown off for it; when even that is used up, nothing is half written."""
    with small_disk(tmp_path / "disk", 24) as disk:
        made = world(disk)
        for number in (1, 2):
            made.do(Promote(release=number, override="a test"))
        filler = fill(disk)
        bare = World(made.state_dir)
        bare.database._ballast = None
        assert refused_by(lambda: bare.do(Rollback())) == "disk_full"
        made.do(Rollback())
        assert made.row().production == 1
        assert (made.state_dir / "ledger" / "ballast").stat().st_size == 0

        fill(disk)
        note = Note(kind="big", body={"x": "x" * 300_000})

        def write_on() -> None:
            for _ in range(20):
                made.ledger.note("flights", note, by="ada", reason="", at="")

        assert refused_by(write_on) == "disk_full"
        assert made.row().production == 1
        assert made.ledger.verify() == []

        filler.unlink()
        made.do(Promote(release=3, override="a test"))
        assert (made.state_dir / "ledger" / "ballast").stat().st_size == ballast.SIZE
        made.close()


# ---------------------------------------------------------------- telemetry


@pytest.mark.parametrize("opens", [open_roster, open_evidence])
@pytest.mark.parametrize("harm", ["missing", "deleted", "empty", "noise", "stripped"])
def test_telemetry_is_made_again(tmp_path: Path, opens: Any, harm: str) -> None:
    """Missing from the start, deleted while open, emptied, overwritten, without its table."""
    database = opens(tmp_path)
    table = "replica" if opens is open_roster else "tally"

    def count(connection: Any) -> Any:
        return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()

    if harm != "missing":
        assert database.read(count) == 0
    if harm == "deleted":
        database.path.unlink()
    elif harm == "stripped":
        database.write(lambda connection: connection.exec_driver_sql(f"DROP TABLE {table}"))
    elif harm in ("empty", "noise"):
        database.close()
        database.path.write_bytes(b"" if harm == "empty" else os.urandom(20_000))
    assert database.read(count) == 0
    pragmas = ("journal_mode", "synchronous")
    found = database.read(
        lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    )
    assert found == ["wal", 1]


def test_two_connections_meet_in_a_roster_that_was_made_again(tmp_path: Path) -> None:
    """The second process does not make it again."""
    first, second = open_roster(tmp_path), open_roster(tmp_path)
    assert SqlRoster(first).members() == SqlRoster(second).members() == ()
    first.path.unlink()
    insert = "INSERT INTO replica VALUES ('a', 0.0, x'')"
    first.write(lambda connection: connection.exec_driver_sql(insert))
    count = "SELECT count(*) FROM replica"
    assert second.read(lambda connection: connection.exec_driver_sql(count).scalar()) == 1
