"""Files: permissions of other users, walks over directories, bounded reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kedge.system.files import find_open, read_bounded, tighten, walk


def test_a_directory_that_is_open_to_others_is_closed_and_said(tmp_path: Path) -> None:
    """Once: what is closed already is not said again."""
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(0o755)
    assert tighten(place)
    assert place.stat().st_mode & 0o777 == 0o700
    assert not tighten(place)


def test_files_that_are_open_to_others_are_found_and_no_link_is_followed(tmp_path: Path) -> None:
    """Files, directories, and the top itself."""
    place = tmp_path / "state"
    (place / "records").mkdir(parents=True)
    (place / "records" / "labels.db").write_text("")
    (place / "ledger.db").write_text("")
    (place / "link").symlink_to("/etc")
    place.chmod(0o700)
    (place / "records").chmod(0o700)
    (place / "ledger.db").chmod(0o600)
    (place / "records" / "labels.db").chmod(0o640)
    assert find_open(place) == [place / "records" / "labels.db"]
    place.chmod(0o711)
    assert place in find_open(place)


def test_a_tree_of_any_depth_is_walked_and_no_link_is_followed(tmp_path: Path) -> None:
    """Deeper than the interpreter recurses."""
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "file").touch()
    for depth in range(1, 1_201):
        Path(str(tmp_path) + "/d" * depth).mkdir()
    Path(str(tmp_path) + "/d" * 1_200 + "/file").touch()
    names = [name for name, _ in walk(tmp_path, skip=lambda name: name.startswith("."))]
    assert len(names) == 1_202
    assert names[-1].endswith("d/file")
    assert "link" in names
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_what_is_read_has_a_bound_also_out_of_a_device_or_an_empty_pipe(tmp_path: Path) -> None:
    """A device may never end, and a pipe without a writer must not be waited for."""
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"12345")
    os.mkfifo(pipe)
    assert read_bounded(file, 5) == b"12345"
    assert read_bounded(pipe, 5) == b""
    for path in (file, Path("/dev/zero")):
        with pytest.raises(OSError, match="more than 4 bytes"):
            read_bounded(path, 4)
