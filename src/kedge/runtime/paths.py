"""The run directory: where the sockets of a supervisor and its processes are.

It is opened by descriptor and never through a link: in the temporary directory another user may have
put anything under its name. What is removed are sockets, their status files and the directories of model
processes in folders named by a process id, nothing else.
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
"""Within the state directory: no other user can put anything there, and no cleanup job looks there."""
LONGEST_NAME = f"{'e' * 40}-r{10**9}-{10**3}.sock"
"""The longest name of a socket: an endpoint has 40 letters, and its numbers never so many digits."""
FOLDER = re.compile(r"[1-9][0-9]*(?:[.-][0-9]+)?")
"""A supervisor's own folder: its process id, with a number where it has several."""
OURS = re.compile(r".*\.(?:sock|handoff|asked)(?:\.json)?(?:\.[0-9]+)?")
"""What kedge puts into such a folder."""


def get_candidates(state_dir: Path) -> tuple[Path, ...]:
    """Return where the run directory may be, best first.

    Within the state directory; where that cannot hold sockets, a directory named by user and state
    directory in XDG_RUNTIME_DIR or the temporary directory.
    """
    name = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]
    bases = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir())
    outside = (Path(base) / f"kedge-{os.getuid()}-{name}" for base in bases if base)
    return (state_dir.absolute() / RUN_DIR, *outside)


def choose_folder(state_dir: Path, name: str) -> Path:
    """Make this supervisor's folder in the first run directory that works, and return it.

    It is tried with a socket of the longest name that can occur.

    Raises:
        Unavailable: `no_run_dir`: none works; each reason is in the message.
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
    """Return why no socket can be made there, or None; leaves the folder behind."""
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
    """Raise where other users may rename what is ours: a shared directory without the sticky bit."""
    found = base.stat()
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if shared and found.st_uid != os.geteuid():
        raise PermissionError(f"every user may rename files in {base}: it has no sticky bit")


def find_doors(state_dir: Path) -> list[Path]:
    """Return where workers may still hand the listening socket over, in every run directory of ours."""
    return [
        root / folder / name
        for root, folder, handle in _folders(state_dir)
        for name in sorted(os.listdir(handle))  # noqa: PTH208 - by descriptor
        if name.endswith(".handoff")
    ]


def sweep(state_dir: Path, keep: Path) -> None:
    """Remove the folders of earlier supervisors, whose processes are gone; `keep` stays."""
    for root, folder, handle in _folders(state_dir):
        if root / folder != keep:
            _empty(handle)
            with suppress(OSError):
                (root / folder).rmdir()


def remove_folder(folder: Path) -> None:
    """Remove one folder of ours, with the sockets in it."""
    with suppress(OSError):
        handle = open_private(folder)
        try:
            _empty(handle)
        finally:
            os.close(handle)
        folder.rmdir()


def _folders(state_dir: Path) -> Iterator[tuple[Path, str, int]]:
    """Every folder of a supervisor, with a descriptor that is open meanwhile."""
    for root in get_candidates(state_dir):
        try:
            top = open_private(root)
        except OSError:
            continue  # there is none, or it is another user's
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
