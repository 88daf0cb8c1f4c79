"""The note of the release that a worker is asking."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kedge.engine.serving.last_asked import (
    MARKS,
    SIZE,
    STARVED,
    LastAsked,
    path_of,
    read_last_asked,
)


def release(number: int, endpoint: str = "flights") -> Any:
    return SimpleNamespace(endpoint=endpoint, number=number)


def test_another_process_reads_what_was_asked_last(tmp_path: Path) -> None:
    path = path_of(tmp_path, "w0")
    asked = LastAsked(path)
    assert read_last_asked(path) is None
    asked.note[0] = asked.mark(release(3))
    assert read_last_asked(path) == ("flights", 3)
    asked.note[0] = asked.mark(release(12, "fares"))
    assert read_last_asked(path) == ("fares", 12)
    asked.note[0] = 0
    assert read_last_asked(path) is None


def test_more_releases_than_marks_take_the_oldest_place(tmp_path: Path) -> None:
    path = path_of(tmp_path, "w0")
    asked = LastAsked(path)
    for number in range(MARKS + 10):
        asked.note[0] = asked.mark(release(number))
        assert read_last_asked(path) == ("flights", number)
    assert path.stat().st_size == SIZE


def test_a_new_worker_leaves_the_note_of_the_one_before_it_alone(tmp_path: Path) -> None:
    path = path_of(tmp_path, "w0")
    before = LastAsked(path)
    before.note[0] = before.mark(release(1))
    LastAsked(path)
    assert read_last_asked(path) is None
    assert before.note[0] == 1


def test_without_a_place_and_without_a_file_nothing_fails(tmp_path: Path) -> None:
    asked = LastAsked(tmp_path / "missing" / "w0.asked")
    asked.note[0] = asked.mark(release(1))
    assert read_last_asked(tmp_path / "missing" / "w0.asked") is None
    (tmp_path / "empty").touch()
    assert read_last_asked(tmp_path / "empty") is None


def test_a_release_that_ran_out_of_memory_is_noted_where_much_is_held(tmp_path: Path) -> None:
    """Of a process that may allocate no more than it holds, and of one that may allocate a lot."""
    for most, noted in ((50_000_000, ("flights", 7)), (1 << 40, None)):
        script = (
            "import resource, sys\n"
            "from pathlib import Path\n"
            "from kedge.engine.serving.last_asked import LastAsked\n"
            f"note = LastAsked(Path({str(tmp_path / 'w0.asked')!r}))\n"
            "class Seven: endpoint, number = 'flights', 7\n"
            "mark = note.mark(Seven())\n"
            f"resource.setrlimit(resource.RLIMIT_DATA, ({most}, {most}))\n"
            "note.starve(mark)\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True)
        assert read_last_asked(tmp_path / "w0.asked", STARVED) == noted
        assert read_last_asked(tmp_path / "w0.asked") is None
