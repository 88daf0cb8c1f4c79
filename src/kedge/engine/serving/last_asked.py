"""Last asked release: a worker's note of the model that it asks, in memory that outlives it.

A model that runs inside a worker and never returns blocks the worker's loop. The kernel then ends
the worker (`gateway/watchdog`), and this note names the release to the supervisor. A note costs two
stores of one byte a request; the names that the byte stands for are written once a release.
"""

from __future__ import annotations

import mmap
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from kedge.core.values import Release

log = structlog.get_logger("kedge.worker")

ENTRY_BYTES = 320
"""Bytes of one entry: the number of a release, and its endpoint."""
MARKS = 255
"""Most releases that one worker distinguishes; a further one replaces the oldest."""
STARVED = 1
"""Offset of the mark of a release that ran out of memory in a worker that held much already."""
MUCH = 0.5
"""Share of a worker's memory limit from which the next allocation is likely to fail as well."""
SIZE = (MARKS + 1) * ENTRY_BYTES


def path_of(run_dir: Path, slot: str) -> Path:
    """Return the path of a worker's note."""
    return run_dir / f"{slot}.asked"


class LastAsked:
    """The note of one worker; only its serving loop uses it."""

    def __init__(self, path: Path | None = None) -> None:
        """Begin an empty note; without a usable path, only this process can read it."""
        self.note: mmap.mmap | bytearray = bytearray(SIZE)
        """The note's bytes. The first is the mark of the release that is being asked; 0: none."""
        self._marks: dict[tuple[str, int], int] = {}
        self._made = 0
        if path is None:
            return
        try:
            path.unlink(missing_ok=True)  # an earlier worker may still have it mapped
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # Allocate all of it now: a page that a full disk cannot give would raise a SIGBUS.
                os.posix_fallocate(handle, 0, SIZE)
                self.note = mmap.mmap(handle, SIZE)
            finally:
                os.close(handle)
        except OSError as error:
            log.warning("worker.asked_unnamed", fault=str(error))

    def starve(self, mark: int) -> None:
        """Note that a release ran out of memory, unless one request asked for too much."""
        try:
            # A request waits.
            with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
                held = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return
        most, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if most != resource.RLIM_INFINITY and held > most * MUCH:
            self.note[STARVED] = mark

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


def read_last_asked(path: Path, at: int = 0) -> tuple[str, int] | None:
    """Return the endpoint and the release that a worker is or was asking; None if it asked none.

    Args:
        path: its note.
        at: offset of the mark: 0, or `STARVED`.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    entry = raw[at] * ENTRY_BYTES if len(raw) > at else 0
    name = raw[entry : entry + ENTRY_BYTES].rstrip(b"\0") if entry else b""
    number, _, endpoint = name.partition(b" ")
    if not number.isdigit():
        return None
    return endpoint.decode(errors="replace"), int(number)
