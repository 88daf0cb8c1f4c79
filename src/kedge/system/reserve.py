"""Reserve: disk space that records, evidence and logs leave to the ledger, the roster and acks.

Theory of operation
-------------------
* Below the reserve, kedge stops writing observations: predictions, windows, counts, labels, logs.
  It counts and shows what it drops, and resumes by itself. A rollback and its acks need little
  space, and must have it even when another program fills the disk.
* That program never frees its space. So kedge allocates the blocks that a commit needs early: those
  of the write-ahead logs of ledger and roster, and of the files that SQLite maps (`-shm`). A mapped
  page without space on the disk ends a process with SIGBUS.
* It allocates them through the descriptors that SQLite has open: closing another descriptor of the
  same file would release the locks that this process holds on it.
* Deliberately absent: a stored size. Each check asks the file system.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

RESERVE = 64 << 20
"""Bytes that stay free: an hour of commits and heartbeats, in which a person can free space."""
SHARE = 4
"""On a small file system, the reserve is this part (1/4) of it; the rest stays for its purpose."""
NO_SPACE = 256 << 10
"""Free bytes below which an I/O error counts as a full disk, and kedge opens no database that must
still map its index."""
BEAT_S = 1.0
INDEX_BYTES = 128 << 10
"""Bytes of a mapped `-shm`: four times the need of a log of the usual length."""
LOG_BYTES = 4_600_000
"""Bytes of a write-ahead log: SQLite restarts it after about 1,000 pages of 4,120 bytes."""
LOG_SHARE = 20
"""On a small file system, a log gets at most this part (1/20) of it."""
OWN_SHARE, OWN_BLOCKS = 40, 4096
"""Blocks that ext4 reserves for itself among those for root: 2 % of all, or 4,096. ext4 counts them
as free."""
KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE: allocate blocks beyond the end of the file, whose size stays the same."""
LOGS = ("ledger.db-wal", "roster.db-wal")


def get_free(path: Path | int) -> int:
    """Return the bytes that this user may still write on a file system; 0 if that is unknown."""
    disk = _ask(path)
    if disk is None:
        return 0
    blocks = disk.f_bavail
    if os.geteuid() == 0:
        blocks = max(blocks, disk.f_bfree - min(disk.f_blocks // OWN_SHARE, OWN_BLOCKS))
    return disk.f_frsize * blocks


def is_short(path: Path | int) -> bool:
    """Return whether a file system has less than its reserve left; False if that is unknown."""
    disk = _ask(path)
    return disk is not None and get_free(path) < get_reserve(disk)


def get_reserve(disk: os.statvfs_result) -> int:
    """Return the number of bytes of a file system that stay free."""
    return min(RESERVE, disk.f_blocks * disk.f_frsize // SHARE)


def _ask(path: Path | int) -> os.statvfs_result | None:
    """Ask the file system of a path, or of its nearest existing parent."""
    if isinstance(path, int):
        with suppress(OSError):
            return os.fstatvfs(path)
        return None
    for each in (path, *path.absolute().parents):
        with suppress(OSError):
            return os.statvfs(each)
    return None


def allocate_open_files(directory: Path) -> None:
    """Allocate the blocks that commits need, in this process's open files below a directory."""
    disk = _ask(directory)
    if disk is None:
        return
    log = min(LOG_BYTES, disk.f_blocks * disk.f_frsize // LOG_SHARE)
    if is_short(directory):  # the remaining space is for the commits of all, not for one log
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
    """Allocate blocks if the kernel can. libc would write instead, while SQLite uses the file."""
    import ctypes  # noqa: PLC0415 - a command allocates nothing and need not load it

    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        call(descriptor, KEEP_SIZE, 0, size)


class DiskShort(Exception):
    """The fault that `status` shows while the free space is below the reserve."""


class Reserve:
    """The check of one state directory's reserve; each process runs it once a second."""

    def __init__(
        self,
        directory: Path,
        note: Callable[[str, BaseException], None],
        clear: Callable[[str], None],
    ) -> None:
        """Prepare the check; it reports a shortage with `note` and its end with `clear`."""
        self._directory = directory
        self._note = note
        self._clear = clear

    def look(self) -> None:
        """Check once: allocate blocks of open files, and report whether the disk is short."""
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
