"""The reserve: disk space that records, evidence and logs leave to the ledger, the roster and acks.

Theory of operation
-------------------
* Below the reserve what is only observed is not written any more: predictions, windows, counts,
  labels, logs. It is counted and shown, and goes on by itself. A rollback and its acks need little,
  and must find it also when another program fills the disk.
* What that program takes is never given back. So the blocks that a commit needs are allocated while
  there are some. Of the write-ahead logs of ledger and roster, and of the files that SQLite maps
  (`-shm`): a mapped page that the disk cannot give ends a process with SIGBUS.
* They are allocated through the descriptors that SQLite has open: closing another one of the same
  file would drop the locks that this process holds on it.
* Deliberately absent: a size that is remembered. Each look asks the file system.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

RESERVE = 64 << 20
"""Bytes that stay free: an hour of commits and heartbeats, and time for a person to make room."""
SHARE = 4
"""On a small file system the reserve is one such part of it: the rest is for what it was made for."""
NO_SPACE = 256 << 10
"""Free bytes below which an I/O error is taken for a full disk, and no database is opened that has
still to map its index."""
BEAT_S = 1.0
INDEX_BYTES = 128 << 10
"""Of a mapped `-shm`: four times what a log of the usual length needs."""
LOG_BYTES = 4_600_000
"""Of a write-ahead log: SQLite begins it anew after some 1,000 pages of 4,120 bytes."""
LOG_SHARE = 20
"""On a small file system a log gets one such part of it at most."""
OWN_SHARE, OWN_BLOCKS = 40, 4096
"""What ext4 keeps for itself of the blocks that only root may use: 2 % of all, or 4,096. It counts them
as free."""
KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE: blocks beyond the end of the file; it looks as before."""
LOGS = ("ledger.db-wal", "roster.db-wal")


def get_free(path: Path | int) -> int:
    """Return the bytes that this user may still write on a file system; 0 where it cannot be asked."""
    disk = _ask(path)
    if disk is None:
        return 0
    blocks = disk.f_bavail
    if os.geteuid() == 0:
        blocks = max(blocks, disk.f_bfree - min(disk.f_blocks // OWN_SHARE, OWN_BLOCKS))
    return disk.f_frsize * blocks


def is_short(path: Path | int) -> bool:
    """Whether a file system has less than its reserve left. One that cannot be asked is not short."""
    disk = _ask(path)
    return disk is not None and get_free(path) < get_reserve(disk)


def get_reserve(disk: os.statvfs_result) -> int:
    """Return how many bytes of a file system stay free."""
    return min(RESERVE, disk.f_blocks * disk.f_frsize // SHARE)


def _ask(path: Path | int) -> os.statvfs_result | None:
    """Ask the file system of a path, or of the nearest directory above it that is there."""
    if isinstance(path, int):
        with suppress(OSError):
            return os.fstatvfs(path)
        return None
    for each in (path, *path.absolute().parents):
        with suppress(OSError):
            return os.statvfs(each)
    return None


def allocate_open_files(directory: Path) -> None:
    """Allocate the blocks that commits need, of the files below a directory that this process has open."""
    disk = _ask(directory)
    if disk is None:
        return
    log = min(LOG_BYTES, disk.f_blocks * disk.f_frsize // LOG_SHARE)
    if is_short(directory):  # what is left is for the commits of all, not for one log
        log = 0
    top = f"{directory.absolute()}{os.sep}"
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():  # noqa: PTH208, PTH112
        with suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - descriptors are many
            if path.startswith(top) and path.endswith(("-shm", *LOGS)):
                _allocate(int(name), Path(path), INDEX_BYTES if path.endswith("-shm") else log)


def _allocate(descriptor: int, path: Path, size: int) -> None:
    found, named = os.fstat(descriptor), path.stat()
    same = (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino)
    if same and stat.S_ISREG(found.st_mode) and found.st_blocks * 512 < size:
        _fallocate(descriptor, size)


def _fallocate(descriptor: int, size: int) -> None:
    """Allocate blocks; where the kernel cannot, nothing is done (libc would write, under SQLite's feet)."""
    import ctypes  # noqa: PLC0415 - a command, which allocates nothing, need not pay for it

    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        call(descriptor, KEEP_SIZE, 0, size)


class DiskShort(Exception):
    """What stands in `status` while the reserve is reached."""


class Reserve:
    """Looks after the reserve of one state directory; each process looks once a second."""

    def __init__(
        self,
        directory: Path,
        note: Callable[[str, BaseException], None],
        clear: Callable[[str], None],
    ) -> None:
        """Note a shortage, and clear it, as a fault of this process."""
        self._directory = directory
        self._note = note
        self._clear = clear

    def look(self) -> None:
        """Look once: allocate what is open, and say whether the disk is short."""
        with suppress(OSError):
            allocate_open_files(self._directory)
        if is_short(self._directory):
            disk = _ask(self._directory)
            kept = get_reserve(disk) >> 20 if disk is not None else 0
            self._note(
                "disk.reserve",
                DiskShort(
                    f"less than {kept} MB are free, which are the ledger's: records, evidence and"
                    " logs are not written"
                ),
            )
        else:
            self._clear("disk.reserve")
