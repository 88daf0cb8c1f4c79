"""A megabyte that is given back when the disk is full, so that a rollback can be written."""

from __future__ import annotations

import os
from pathlib import Path

from kedge.system.durable import sync
from kedge.system.reserve import get_free

SIZE = 1024 * 1024
"""An append writes some 30 pages; a WAL that must be enlarged, a few hundred kilobytes."""
ROOM = 8 * 1024 * 1024
"""Free space below which the ballast is not made again: it would be taken at once."""


class Ballast:
    """A file that only takes space. Nothing here raises: a lost ballast stops no append."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self) -> None:
        """Write it, durably. Random bytes, because a file system may compress zeros away."""
        self._path.write_bytes(os.urandom(SIZE))
        sync(self._path)

    def free(self) -> bool:
        """Give its space back. False when it has none to give."""
        try:
            if self._path.stat().st_size == 0:
                return False
            os.truncate(self._path, 0)
        except OSError:
            return False
        return True

    def restore(self) -> None:
        """Make it again if it was freed and there is room; otherwise at a later write."""
        try:
            if self._path.stat().st_size >= SIZE:
                return
            if get_free(self._path) > ROOM:
                self.make()
        except OSError:
            self.free()
