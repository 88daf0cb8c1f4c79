"""Paths of the run directory, which holds the sockets of a supervisor and its processes.

kedge opens it by descriptor and never through a link: in the temporary directory another user may
have put anything under its name. kedge removes only sockets, their status files and the directories
of model processes, and only in folders named by a process id.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kedge.core.errors import Unavailable
from kedge.system.door import OWN
from kedge.system.files import connect_to, listen_at, make_private, open_private

RUN_DIR = "run"
"""Name within the state directory, where no other user can write and no cleanup job deletes."""
LONGEST_NAME = f"{'e' * 40}-r{10**9}-{10**3}.sock"
"""The longest name of a socket: an endpoint has at most 40 letters, its numbers fewer digits."""
FOLDER = re.compile(r"[1-9][0-9]*(?:[.-][0-9]+)?")
"""Name of a supervisor's folder: its process id, with a number if it has several."""
OURS = re.compile(r".*\.(?:sock|handoff|asked)(?:\.json)?(?:\.[0-9]+)?")
"""Names of the files that kedge makes in such a folder."""


def get_candidates(state_dir: Path) -> tuple[Path, ...]:
    """Return the possible run directories, best first.

    The first is in the state directory. The others are for a state directory that cannot hold
    sockets: named by user and state directory, in XDG_RUNTIME_DIR or the temporary directory.
    """
    name = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]
    bases = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir())
    outside = (Path(base) / f"kedge-{os.getuid()}-{name}" for base in bases if base)
    return (state_dir.absolute() / RUN_DIR, *outside)


def choose_folder(state_dir: Path, name: str) -> Path:
    """Make this supervisor's folder in the first run directory that works, and return it.

    The test makes a socket with the longest possible name.

    Raises:
        Unavailable: `no_run_dir`: none works; the message has each reason.
    """
    faults = []
    for root in get_candidates(state_dir):
        fault = _try(root, name)
        if fault is None:
            return root / name
        faults.append(f"{root}: {fault}")
    raise Unavailable(
        "there is no directory for Unix sockets: " + "; ".join(faults),
        code="no_run_dir",
        hint=(
            "remove what stands there, or set XDG_RUNTIME_DIR to a private directory with a short"
            " path"
        ),
    )


def _try(root: Path, name: str) -> str | None:
    """Return why no socket can be made there, or None; the folder stays."""
    try:
        _check_base(root.parent)
        root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (root, root / name):
            make_private(directory, tighten=True)
        path = root / name / LONGEST_NAME
        with listen_at(path, 1), connect_to(path, timeout_s=1.0):
            path.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _check_base(base: Path) -> None:
    """Raise if other users can rename kedge's files: a shared directory without the sticky bit."""
    found = base.stat()
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if shared and found.st_uid != os.geteuid():
        raise PermissionError(f"every user may rename files in {base}: it has no sticky bit")


def find_doors(state_dir: Path) -> list[Path]:
    """Return the sockets where workers may hand the listener over, in all run directories."""
    return [
        root / folder / name
        for root, folder, handle in _folders(state_dir)
        for name in sorted(os.listdir(handle))  # noqa: PTH208 - by descriptor
        if name.endswith(".handoff")
    ]


def sweep(state_dir: Path, keep: Path) -> None:
    """Remove the folders of earlier supervisors whose processes are gone, except `keep`."""
    for root, folder, handle in _folders(state_dir):
        if root / folder != keep:
            _empty(handle)
            with suppress(OSError):
                (root / folder).rmdir()


def remove_folder(folder: Path) -> None:
    """Remove one folder of a supervisor, with the sockets in it."""
    with suppress(OSError):
        handle = open_private(folder)
        try:
            _empty(handle)
        finally:
            os.close(handle)
        folder.rmdir()


def _folders(state_dir: Path) -> Iterator[tuple[Path, str, int]]:
    """Yield every folder of a supervisor, with a descriptor that is open meanwhile."""
    for root in get_candidates(state_dir):
        try:
            top = open_private(root)
        except OSError:
            continue  # it is missing, or belongs to another user
        try:
            for folder in sorted(os.listdir(top)):  # noqa: PTH208 - by descriptor
                if FOLDER.fullmatch(folder) is None:
                    continue
                with suppress(OSError):
                    handle = open_private(folder, within=top)
                    try:
                        yield root, folder, handle
                    finally:
                        os.close(handle)
        finally:
            os.close(top)


def _empty(handle: int) -> None:
    for name in os.listdir(handle):
        if OURS.fullmatch(name) is not None:
            with suppress(OSError):
                os.unlink(name, dir_fd=handle)
        elif name.endswith(f".sock{OWN}"):
            shutil.rmtree(name, ignore_errors=True, dir_fd=handle)
