"""Locks of files: one holder, which releases a lock when it closes or dies."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from kedge.engine.control.lead import Lead, is_led
from kedge.system.locks import lock_file, open_lock, try_lock


def test_one_process_holds_a_lock_until_it_closes_it(tmp_path: Path) -> None:
    first, second = (open_lock(tmp_path / "lock") for _ in range(2))
    assert (try_lock(first), try_lock(second)) == (True, False)
    assert try_lock(first), "its holder may ask again"
    os.close(first)
    assert try_lock(second)
    os.close(second)


def test_readers_share_a_lock(tmp_path: Path) -> None:
    handles = [open_lock(tmp_path / "lock") for _ in range(3)]
    assert [try_lock(handle, shared=True) for handle in handles[:2]] == [True, True]
    assert not try_lock(handles[2])
    for handle in handles:
        os.close(handle)


def test_a_lock_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = open_lock(path)
    assert try_lock(held)
    with lock_file(path) as taken:
        assert not taken
    began = time.monotonic()
    with lock_file(path, within_s=0.1) as taken:
        assert not taken
    assert 0.1 <= time.monotonic() - began < 5
    threading.Timer(0.1, os.close, (held,)).start()
    with lock_file(path, within_s=10) as taken:
        assert taken


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), lock_file(tmp_path / "gone" / "lock"):
        pass


def test_one_process_leads_and_another_may_ask(tmp_path: Path) -> None:
    assert not is_led(tmp_path), "there is no lock yet"
    first, second = Lead(tmp_path), Lead(tmp_path)
    assert not is_led(tmp_path)
    assert (first.take(), second.take(), first.take()) == (True, False, True)
    assert is_led(tmp_path)
