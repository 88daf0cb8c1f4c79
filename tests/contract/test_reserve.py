"""The reserve: when space counts as short, and blocks that are allocated ahead."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kedge.adapters.clock import SystemClock
from kedge.adapters.records.store import Records
from kedge.adapters.sql.roster import SqlRoster
from kedge.adapters.sql.sqlite.create import open_evidence, open_roster
from kedge.adapters.sql.sqlite.version import dbapi
from kedge.adapters.sql.windows import SqlWindows
from kedge.core.errors import Unavailable
from kedge.core.evidence.records import Outcome
from kedge.engine.loop import Duty, Loop
from kedge.engine.process_faults import ProcessFaults
from kedge.system import reserve
from kedge.system.reserve import RESERVE, Reserve, allocate_open_files, get_reserve, is_short


def test_a_small_file_system_has_a_small_reserve(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    whole = disk.f_blocks * disk.f_frsize
    assert get_reserve(disk) == min(RESERVE, whole // 4)


def test_what_is_not_there_yet_is_on_the_disk_above_it(tmp_path: Path) -> None:
    assert is_short(tmp_path / "not" / "there") == is_short(tmp_path)


def test_a_descriptor_that_is_closed_is_not_short(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    os.close(handle)
    assert not is_short(handle)


def blocks(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_the_blocks_of_a_ledgers_log_and_index_are_there_before_they_are_written(
    tmp_path: Path,
) -> None:
    """And neither looks longer: SQLite reads what it wrote, and goes on writing."""
    path = tmp_path / "ledger.db"
    raw = dbapi.connect(str(path), isolation_level=None)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("CREATE TABLE t (x)")
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    sizes = log.stat().st_size, index.stat().st_size
    allocate_open_files(tmp_path)
    if blocks(log) < reserve.LOG_BYTES:
        pytest.skip("this file system does not allocate ahead")
    assert blocks(index) >= reserve.INDEX_BYTES
    assert (log.stat().st_size, index.stat().st_size) == sizes
    for number in range(3_000):
        raw.execute("INSERT INTO t VALUES (?)", (number,))
    assert raw.execute("SELECT count(*) FROM t").fetchone() == (3_000,)
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


def test_allocating_drops_no_lock_of_sqlite(tmp_path: Path) -> None:
    """Closing another descriptor of the file would: a second writer would then come in."""
    path = tmp_path / "ledger.db"
    first = dbapi.connect(str(path), isolation_level=None)
    first.execute("PRAGMA journal_mode=WAL")
    first.execute("CREATE TABLE t (x)")
    first.execute("BEGIN IMMEDIATE")
    allocate_open_files(tmp_path)
    code = (
        "import sys; from kedge.adapters.sql.sqlite.version import dbapi\n"
        "raw = dbapi.connect(sys.argv[1], isolation_level=None, timeout=0.2)\n"
        "raw.execute('BEGIN IMMEDIATE')"
    )
    done = run(code, str(path))
    first.execute("ROLLBACK")
    assert "locked" in done
    assert run(code, str(path)) == ""
    first.close()


def run(code: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    return done.stderr


def test_other_files_are_kept(tmp_path: Path) -> None:
    with (tmp_path / "other").open("wb") as file:
        file.write(b"x" * mmap.PAGESIZE)
        file.flush()
        before = blocks(tmp_path / "other")
        allocate_open_files(tmp_path)
        assert blocks(tmp_path / "other") == before


def test_a_shortage_is_reported_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    one = Reserve(tmp_path, lambda place, error: told.append(f"{place}: {error}"), told.append)
    monkeypatch.setattr(reserve, "RESERVE", 1 << 60)
    monkeypatch.setattr(reserve, "SHARE", 1)
    one.look()
    assert told[0].startswith("disk.reserve: less than")
    monkeypatch.setattr(reserve, "RESERVE", 0)
    one.look()
    assert told[1:] == ["disk.reserve"]


def test_a_look_that_fails_costs_that_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is no OSError: without this thread no process allocates the ledger's blocks."""
    looks: list[str] = []

    def allocate(_: Path) -> None:
        looks.append("")
        if len(looks) == 1:
            raise ValueError("such as a path that cannot be decoded")
        loop.stop()

    monkeypatch.setattr(reserve, "allocate_open_files", allocate)
    faults = ProcessFaults(SystemClock())
    one = Reserve(tmp_path, faults.note, faults.clear)
    loop = Loop(Duty(SystemClock(), faults), "disk.look", one.look, every_s=0.01)
    loop.run()
    assert len(looks) == 2
    (fault,) = faults.faults
    assert (fault.place, fault.count, fault.standing) == ("disk.look", 1, False)


def test_evidence_and_records_stop_at_the_reserve_and_the_roster_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = SqlWindows(open_evidence(tmp_path))
    windows.keep("e", "x", b"1")
    monkeypatch.setattr(reserve, "RESERVE", 1 << 60)
    monkeypatch.setattr(reserve, "SHARE", 1)
    for write in (
        lambda: windows.keep("e", "x", b"2"),
        lambda: Records(tmp_path / "records").ingest(1.0),
        lambda: Records(tmp_path / "records").join("e", [Outcome("a", 1.0, None, "v1")], 1.0),
    ):
        with pytest.raises(Unavailable) as told:
            write()
        assert told.value.code == "disk_reserve"
    assert windows.kept("e", "x") == b"1"
    SqlRoster(open_roster(tmp_path)).leave("nobody")
    monkeypatch.setattr(reserve, "RESERVE", 0)
    windows.keep("e", "x", b"2")
    assert windows.kept("e", "x") == b"2"
