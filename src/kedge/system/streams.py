"""Streams: standard output and error that never raise, and log files of bounded size.

Theory of operation
-------------------
* A process that serves must not fail because its log cannot be written: the reader of a pipe is
  gone, the disk is full, the terminal is stopped. `guard` puts a stream in the place of
  `sys.stdout` and `sys.stderr` that drops what it cannot write and counts it. This covers kedge's
  own log, and what a library or a model prints.
* What native code and the interpreter itself write goes to the same descriptors, past that stream.
  So the file behind them is bounded from outside: `LogFile` copies what is full to `.1` and cuts
  the file. Every writer appends, so it goes on at the new end. Lines that are written between the
  last read of the copy and the cut (microseconds) are lost.
"""

from __future__ import annotations

import errno
import io
import json
import os
import select
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from kedge.system.reserve import is_short

LOG_BYTES = 16 << 20
"""A larger log is rotated: about 100,000 lines, which an editor opens at once."""
LOG_COUNT = 2
"""Rotated files that are kept: `.1` is the newer one."""
PATIENCE_MS = 100
"""How long a line waits for a slow reader. After a line was lost, the next ones do not wait."""
PIECE = 4096
"""Bytes of one write: the kernel takes so many at once from a pipe that is ready, or none."""
COPY = 1 << 20
TAIL = 16 << 10
"""Bytes at the end of a log in which the error is looked for that ended its process."""
WORDS = 300
"""Characters of that error that are kept."""

_lost = 0
_lock = threading.Lock()


def lost() -> int:
    """Writes of this process that its standard streams dropped."""
    return _lost


def _drop() -> None:
    global _lost  # noqa: PLW0603 - one count a process, as there is one pair of streams
    with _lock:
        _lost += 1


class Unfailing(io.RawIOBase):
    """A raw stream over a descriptor: what cannot be written is counted and dropped."""

    def __init__(self, descriptor: int) -> None:
        """Write to the descriptor; it is not closed with this."""
        self._descriptor = descriptor
        self._waits = True

    def fileno(self) -> int:
        """The descriptor, for child processes."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def writable(self) -> bool:
        """Always: that is its promise."""
        return True

    def write(self, data: object) -> int:
        """Write what can be written; return the whole length in any case."""
        raw = bytes(data)  # type: ignore[call-overload]
        try:
            if self._takes_space() and is_short(self._descriptor):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            for start in range(0, len(raw), PIECE):
                if not self._ready():
                    raise BlockingIOError
                self._write_all(raw[start : start + PIECE])
            self._waits = True
        except (OSError, ValueError):
            self._waits = False
            _drop()
        return len(raw)

    def _takes_space(self) -> bool:
        """Whether it is a file on a disk."""
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def _ready(self) -> bool:
        """Whether a write would not block: a stopped reader must not stop this process."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(PATIENCE_MS if self._waits else 0))

    def _write_all(self, piece: bytes) -> None:
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]


def guard() -> None:
    """Make the standard streams of this process unfailing, and its descriptors 0 to 2 open.

    A process that was started without them would otherwise give their numbers to its next files,
    and the interpreter's own messages would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = io.TextIOWrapper(
            io.BufferedWriter(Unfailing(number)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        setattr(sys, name, stream)


class LogFile:
    """A file that child processes append to, and their parent keeps bounded."""

    def __init__(self, path: Path, *, limit: int = LOG_BYTES, count: int = LOG_COUNT) -> None:
        """Name it; it is opened by `descriptor`."""
        self.path = path
        self._limit = limit
        self._count = count
        self._open: int | None = None

    def descriptor(self) -> tuple[int, OSError | None]:
        """Return where a child's output goes now, and why that is not the file of this name.

        Where the name cannot be opened, the file that was open last goes on, although it may have
        no name any more; where there is none, everything is dropped.
        """
        try:
            self._reopen()
        except OSError as error:
            if self._open is None:
                return subprocess.DEVNULL, error
            return self._open, error
        assert self._open is not None
        return self._open, None

    def _reopen(self) -> None:
        """Open what has the name, unless that is open already."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._open is not None:
            mine = os.fstat(self._open)
            with suppress(FileNotFoundError):
                named = self.path.stat()
                if (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino):
                    return
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        fresh = os.open(self.path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(fresh).st_mode):
            os.close(fresh)
            raise OSError(f"{self.path} is not a regular file")
        self.close()
        self._open = fresh

    def size(self) -> int:
        """Bytes in it now; 0 where it cannot be asked."""
        try:
            return os.fstat(self._open).st_size if self._open is not None else 0
        except OSError:
            return 0

    def last_error(self, since: int) -> str:
        """Return the newest error that was written after `since` bytes; empty where there is none."""
        end = self.size()
        start = max(end - TAIL, since if since <= end else 0)  # it was cut when it was full
        try:
            raw = os.pread(self._open, end - start, start) if self._open is not None else b""
        except OSError:
            return ""
        return find_last_error(raw.decode(errors="replace"))

    def bound(self) -> None:
        """Rotate the file if it is too large. What the disk does not take is dropped.

        Raises:
            OSError: the copy was not written; the file was cut.
        """
        if self._open is None or os.fstat(self._open).st_size <= self._limit:
            return
        try:
            self._copy()
        finally:
            os.ftruncate(self._open, 0)

    def _copy(self) -> None:
        """Copy the newest bytes to `.1`, after each older file moved on by one."""
        assert self._open is not None
        if is_short(self._open):
            raise OSError(errno.ENOSPC, "no copy is kept while the disk is nearly full")
        for number in range(self._count, 1, -1):
            with suppress(FileNotFoundError):
                self._older(number - 1).replace(self._older(number))
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            with part.open("wb") as out:
                at = max(os.fstat(self._open).st_size - self._limit, 0)
                # What is written meanwhile is copied too, up to once more the limit.
                end = at + 2 * self._limit
                while at < end and (piece := os.pread(self._open, min(COPY, end - at), at)):
                    out.write(piece)
                    at += len(piece)
            part.replace(self._older(1))
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def close(self) -> None:
        """Close the descriptor; children keep theirs."""
        if self._open is not None:
            os.close(self._open)
            self._open = None


def find_last_error(text: str) -> str:
    """Return the newest error in lines of a log: of an event its fault, else the line itself.

    What ends a process is its last line, but for hints: the interpreter ends a traceback with the
    error, and a command prints it. Ordinary events are passed over.
    """
    for line in reversed(text.splitlines()):
        words = _read_line(line.strip())
        if words:
            return words[:WORDS]
    return ""


PASSED_OVER = ("hint:", "File ", "Thread 0x", "Current thread", "Extension modules")
"""How lines begin that say where something happened, or what to do about it."""


def _read_line(line: str) -> str:
    if not line.startswith("{"):
        return "" if line.startswith(PASSED_OVER) else line
    try:
        event = json.loads(line)
    except ValueError:
        return ""  # its beginning was cut off
    if not isinstance(event, dict) or event.get("level") not in {"error", "critical"}:
        return ""
    return f"{event.get('event', '')}: {event.get('fault', '')}".rstrip(": ")
