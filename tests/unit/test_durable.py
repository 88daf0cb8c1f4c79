"""Durable files: whole or not at all, and nothing left beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kedge.system.durable import replacing, sync, write_atomically


def test_a_file_is_replaced_whole_and_leaves_no_other_behind(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A full disk must not cost the last state."""
    path = tmp_path / "file.json"
    write_atomically(path, b"one")
    (tmp_path / f".file.json.{os.getpid()}").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - whichever the system says
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"


def test_written_files_are_private_unless_a_mode_is_given(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    write_atomically(path, b"two", mode=0o640)
    assert path.stat().st_mode & 0o777 == 0o640


def write_half(path: Path) -> None:
    path.write_bytes(b"ne")
    raise OSError("half")


def test_half_of_a_file_takes_no_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="half"), replacing(path) as new:
        write_half(new)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_link_to_a_directory_is_flushed_and_a_link_to_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "place").symlink_to("directory")
    sync(tmp_path / "place")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic links"):
        sync(tmp_path / "link")
