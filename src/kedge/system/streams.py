"""Streams: standard output and error that never raise, and log files of bounded size.

Theory of operation
-------------------
* A process that serves must not fail because its log cannot be written: the reader of a pipe is
  gone, the disk is full, the terminal is stopped. `guard` replaces `sys.stdout` and `sys.stderr`
  by a stream that drops and counts what it cannot write. This covers kedge's own log, and what a
  library or a model prints.
* Native code and the interpreter itself write to the same descriptors without that stream. So the
  file behind them is bounded from outside: `LogFile` copies a full file to `.1` and truncates it.
  Every writer appends, so it continues at the new end. Lines that are written between the last read
  of the copy and the truncation (microseconds) are lost.
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
"""Size above which a log is rotated: about 100,000 lines, which an editor opens at once."""
LOG_COUNT = 2
"""Number of rotated files that are kept: `.1` is the newer one."""
PATIENCE_MS = 100
"""Time for which a line waits for a slow reader. After a lost line, the next ones do not wait."""
PIECE = 4096
"""Bytes of one write: a pipe that is ready takes this many at once."""
COPY = 1 << 20
TAIL = 16 << 10
"""Bytes at the end of a log that are searched for the error that ended its process."""
WORDS = 300
"""Maximum characters of that error."""

_lost = 0
_lock = threading.Lock()


def lost() -> int:
    """Return the number of writes that this process's standard streams dropped."""
    return _lost


def _drop() -> None:
    global _lost  # noqa: PLW0603 - one count a process, as there is one pair of streams
    with _lock:
        _lost += 1


class Unfailing(io.RawIOBase):
    """A raw stream over a descriptor; it counts and drops what cannot be written."""

    def __init__(self, descriptor: int) -> None:
        """Write to the descriptor; closing the stream does not close it."""
        self._descriptor = descriptor
        self._waits = True

    def fileno(self) -> int:
        """Return the descriptor, for child processes."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def writable(self) -> bool:
        """Return True: a write never fails."""
        return True

    def write(self, data: object) -> int:
        """Write as much as possible; always return the whole length."""
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
        """Return whether it is a file on a disk."""
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def _ready(self) -> bool:
        """Return whether a write would not block: a stopped reader must not stop this process."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(PATIENCE_MS if self._waits else 0))

    def _write_all(self, piece: bytes) -> None:
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]


def guard() -> None:
    """Make the standard streams of this process unfailing, and open its descriptors 0 to 2.

    Otherwise, without these descriptors, the process's next files would get their numbers, and the
    interpreter's own messages would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = io.TextIOWrapper(
            io.BufferedWriter(Unfailing(number)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        setattr(sys, name, stream)


class LogFile:
    """A file that child processes append to, and whose size their parent bounds."""

    def __init__(self, path: Path, *, limit: int = LOG_BYTES, count: int = LOG_COUNT) -> None:
        """Store the path; `descriptor` opens the file."""
        self.path = path
        self._limit = limit
        self._count = count
        self._open: int | None = None

    def descriptor(self) -> tuple[int, OSError | None]:
        """Return the descriptor for a child's output, and the error if it is not the named file.

        If the named file cannot be opened, the file that was open last is used further, even if it
        was deleted. Without such a file, all output is dropped.
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
        """Open the file of this name, unless it is open already."""
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
        """Return its present size in bytes; 0 if that is unknown."""
        try:
            return os.fstat(self._open).st_size if self._open is not None else 0
        except OSError:
            return 0

    def last_error(self, since: int) -> str:
        """Return the newest error that was written after `since` bytes; empty if there is none."""
        end = self.size()
        start = max(end - TAIL, since if since <= end else 0)  # beyond the end: it was truncated
        try:
            raw = os.pread(self._open, end - start, start) if self._open is not None else b""
        except OSError:
            return ""
        return find_last_error(raw.decode(errors="replace"))

    def bound(self) -> None:
        """Rotate the file if it is too large; drop what the disk does not take.

        Raises:
            OSError: the copy was not written; the file was truncated.
        """
        if self._open is None or os.fstat(self._open).st_size <= self._limit:
            return
        try:
            self._copy()
        finally:
            os.ftruncate(self._open, 0)

    def _copy(self) -> None:
        """Copy the newest bytes to `.1`, after renaming each older file to the next number."""
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
                # Lines written meanwhile are copied too, up to the limit once more.
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
        """Close the descriptor; those of the children stay open."""
        if self._open is not None:
            os.close(self._open)
            self._open = None


def find_last_error(text: str) -> str:
    """Return the newest error in lines of a log: the fault of an event, else the line itself.

    The last line, except for hints, names the error that ended a process: a traceback ends with it,
    and a command prints it. Ordinary events are skipped.
    """
    for line in reversed(text.splitlines()):
        words = _read_line(line.strip())
        if words:
            return words[:WORDS]
    return ""


PASSED_OVER = ("hint:", "File ", "Thread 0x", "Current thread", "Extension modules")
"""First words of lines that report a place or a remedy, and no error."""


def _read_line(line: str) -> str:
    if not line.startswith("{"):
        return "" if line.startswith(PASSED_OVER) else line
    try:
        event = json.loads(line)
    except ValueError:
        return ""  # its beginning is missing
    if not isinstance(event, dict) or event.get("level") not in {"error", "critical"}:
        return ""
    return f"{event.get('event', '')}: {event.get('fault', '')}".rstrip(": ")
