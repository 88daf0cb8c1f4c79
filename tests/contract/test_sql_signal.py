"""The wake-up between processes. The tests assert that it arrives, not how soon."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.sql_world import Other, World, alternates, world
from kedge.adapters.sql.sqlite import signal as wakeup
from kedge.adapters.sql.sqlite.signal import DirectorySignal

LONG_S = 10.0
"""Longer than any wake-up takes, shorter than any timeout."""


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[DirectorySignal]:
    """A signal of one directory."""
    (tmp_path / "watched").mkdir()
    signal = DirectorySignal(tmp_path / "watched")
    yield signal
    signal.close()


def quick(signal: DirectorySignal) -> bool:
    """Whether it wakes well before its time."""
    started = time.monotonic()
    return signal.wait(LONG_S) and time.monotonic() - started < LONG_S / 2


def test_without_a_write_no_follower_wakes(heard: DirectorySignal) -> None:
    """It gives up after its time."""
    assert not heard.wait(0.02)
    assert not heard.wait(0.0)


def test_many_writes_wake_once(tmp_path: Path, heard: DirectorySignal) -> None:
    """Also those from before the wait."""
    for number in range(50):
        (tmp_path / "watched" / str(number)).write_text("x")
    assert quick(heard)
    assert not heard.wait(0.01)


def test_another_directory_wakes_no_follower(tmp_path: Path, heard: DirectorySignal) -> None:
    """That is why each database has its own."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "file").write_text("x")
    assert not heard.wait(0.02)


def test_another_thread_can_wake_it(heard: DirectorySignal) -> None:
    """Whether it waits already or only will."""
    heard.wake()
    assert quick(heard)
    threading.Timer(0.02, heard.wake).start()
    assert quick(heard)
    assert not heard.wait(0.01)


def test_closing_ends_a_wait(heard: DirectorySignal) -> None:
    """From another thread, at once, and for good."""
    threading.Timer(0.02, heard.close).start()
    started = time.monotonic()
    assert not heard.wait(LONG_S)
    assert time.monotonic() - started < LONG_S / 2
    assert not heard.wait(LONG_S)
    heard.wake()
    heard.close()


@pytest.mark.parametrize("how", ["deleted", "moved away"])
def test_a_directory_that_comes_back_is_watched_again(
    tmp_path: Path, heard: DirectorySignal, how: str
) -> None:
    """It wakes when it goes, when it is back, and when the new one is written."""
    watched = tmp_path / "watched"
    if how == "deleted":
        shutil.rmtree(watched)
    else:
        watched.rename(tmp_path / "old")
    assert quick(heard)
    while heard.wait(0.0):
        pass
    threading.Timer(0.02, watched.mkdir).start()
    assert quick(heard)
    while heard.wait(0.0):
        pass
    (watched / "file").write_text("x")
    assert quick(heard)


def test_a_directory_may_come_later(tmp_path: Path) -> None:
    """It need not be there at the start."""
    signal = DirectorySignal(tmp_path / "later")
    assert not signal.wait(0.01)
    (tmp_path / "later").mkdir()
    assert quick(signal)
    signal.close()


@pytest.mark.parametrize("why", ["no inotify", "no instance left"])
def test_without_inotify_it_polls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """It always says that something may have changed, and can still be woken and closed."""

    class Exhausted:
        @staticmethod
        def INotify(**_: Any) -> None:  # noqa: N802 - the library's name
            raise OSError(24, "too many open files")

    monkeypatch.setattr(wakeup, "_inotify", None if why == "no inotify" else Exhausted)
    signal = DirectorySignal(tmp_path)
    assert quick(signal)
    signal.close()
    assert not signal.wait(LONG_S)


def test_an_append_of_another_process_becomes_visible_through_the_signal(tmp_path: Path) -> None:
    """Twenty times, with nothing but the signal."""
    made = world(tmp_path)
    made.close()
    other = Other(alternates, made.state_dir)
    other.heard()
    signal = DirectorySignal(made.path.parent)
    epoch = made.row().epoch
    for _ in range(20):
        other.told.send("go")
        deadline = time.monotonic() + LONG_S
        epoch += 1
        while made.row().epoch != epoch and time.monotonic() < deadline:
            assert signal.wait(LONG_S), "nothing woke the follower"
        assert made.row().epoch == epoch
    other.told.send("stop")
    other.end()
    signal.close()


def test_every_write_touches_the_file_after_its_commit(tmp_path: Path) -> None:
    """The log alone is written before the commit can be seen; this is the wake-up after it."""
    made = world(tmp_path)
    follower = World(made.state_dir)
    follower.row()
    os.utime(made.path, (0, 0))

    def work(connection: Any) -> None:
        connection.exec_driver_sql("INSERT INTO artifact VALUES ('sha256:x', 1)")
        assert made.path.stat().st_mtime == 0

    seen = follower.ledger.stamp()
    made.database.write(work)
    assert made.path.stat().st_mtime > 0
    assert follower.ledger.stamp() != seen
