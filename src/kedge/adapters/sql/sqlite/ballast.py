"""Ballast: a megabyte that is freed when the disk is full, so that a rollback can be written."""

from __future__ import annotations

import os
from pathlib import Path

from kedge.system.durable import sync
from kedge.system.reserve import get_free

SIZE = 1024 * 1024
"""Size of the ballast: an append writes some 30 pages; a growing WAL needs a few hundred
kilobytes."""
ROOM = 8 * 1024 * 1024
"""Free space below which the ballast is not restored: it would be needed again at once."""


class Ballast:
    """File that only takes space. Nothing here raises: a lost ballast stops no append."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self) -> None:
        """Write the file durably, with random bytes, because a file system may compress zeros."""
        self._path.write_bytes(os.urandom(SIZE))
        sync(self._path)

    def free(self) -> bool:
        """Free its space. Return False if there is none to free."""
        try:
            if self._path.stat().st_size == 0:
                return False
            os.truncate(self._path, 0)
        except OSError:
            return False
        return True

    def restore(self) -> None:
        """Restore it if it was freed and there is room; otherwise at a later write."""
        try:
            if self._path.stat().st_size >= SIZE:
                return
            if get_free(self._path) > ROOM:
                self.make()
        except OSError:
            self.free()
