"""Last asked release: a note, in memory that outlives a worker, of the model that it is asking.

A model that runs inside a worker and never returns takes the worker's loop with it. The kernel then
ends the worker (`gateway/watchdog`), and this note tells the supervisor which release it was. A note
is two stores of one byte a request; the names that the byte stands for are written once a release.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from kedge.core.values import Release

log = structlog.get_logger("kedge.worker")

ENTRY_BYTES = 320
"""Of a name: the number of a release, and its endpoint."""
MARKS = 255
"""Releases that one worker tells apart; a further one takes the oldest's place."""
SIZE = (MARKS + 1) * ENTRY_BYTES


def path_of(run_dir: Path, slot: str) -> Path:
    """Return where a worker's note lies."""
    return run_dir / f"{slot}.asked"


class LastAsked:
    """The note of one worker; used by its serving loop only."""

    def __init__(self, path: Path | None = None) -> None:
        """Begin an empty note; without a path, or where none can be made, it names nothing to others."""
        self.note: mmap.mmap | bytearray = bytearray(SIZE)
        """Its first byte is the mark of the release that is being asked; 0: none is."""
        self._marks: dict[tuple[str, int], int] = {}
        self._made = 0
        if path is None:
            return
        try:
            path.unlink(missing_ok=True)  # an earlier worker may still have it mapped
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # All of it now: a page that a full disk cannot give would be a SIGBUS.
                os.posix_fallocate(handle, 0, SIZE)
                self.note = mmap.mmap(handle, SIZE)
            finally:
                os.close(handle)
        except OSError as error:
            log.warning("worker.asked_unnamed", fault=str(error))

    def mark(self, release: Release) -> int:
        """Return the byte that stands for a release."""
        key = (release.endpoint, release.number)
        if key not in self._marks:
            mark = self._made % MARKS + 1
            self._made += 1
            self._marks = {of: old for of, old in self._marks.items() if old != mark}
            self._marks[key] = mark
            name = f"{release.number} {release.endpoint}".encode()
            if len(name) < ENTRY_BYTES:
                at = mark * ENTRY_BYTES
                self.note[at : at + ENTRY_BYTES] = name.ljust(ENTRY_BYTES, b"\0")
        return self._marks[key]


def read_last_asked(path: Path) -> tuple[str, int] | None:
    """Return the endpoint and the release that a dead worker was asking; None when it asked none."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    at = raw[0] * ENTRY_BYTES if raw else 0
    name = raw[at : at + ENTRY_BYTES].rstrip(b"\0") if at else b""
    number, _, endpoint = name.partition(b" ")
    if not number.isdigit():
        return None
    return endpoint.decode(errors="replace"), int(number)
