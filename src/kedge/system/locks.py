"""Locks of files between processes; the kernel releases a lock however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kedge.system.pause import pause

LOOK_S = 0.02
"""Interval of the attempts to get a lock that another process holds."""


def open_lock(path: Path) -> int:
    """Return a descriptor of a lock file; make the file if it is missing.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(handle: int, *, shared: bool = False) -> bool:
    """Lock an open file; return False if another process holds its lock.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(handle: int) -> None:
    """Lock an open file; wait without limit while another process holds its lock.

    Raises:
        OSError: the file system has no locks.
    """
    fcntl.flock(handle, fcntl.LOCK_EX)


@contextmanager
def lock_file(path: Path, within_s: float | None = 0.0) -> Iterator[bool]:
    """Lock a file, and yield whether that succeeded within `within_s`; None: without limit.

    Raises:
        OSError: it cannot be opened or locked.
    """
    handle = open_lock(path)
    try:
        if within_s is None:
            wait_for_lock(handle)
        taken = try_lock(handle)
        for _ in range(0 if taken or within_s is None else round(within_s / LOOK_S)):
            pause(LOOK_S)
            if taken := try_lock(handle):
                break
        yield taken
    finally:
        os.close(handle)
