"""Model door: the listening socket, the status file and the directory of a fenced process.

A model's process must not make a socket, nor a file outside its own directory. So its starter (the
supervisor, a replay) makes both, and hands their descriptors over on the process's standard input.
If a cleanup job deletes the run directory, the starter makes them again and hands the new ones
over. The process needs no permission in that directory.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kedge.system.files import Door

BACKLOG = 128
WORDS_BYTES = 1 << 16
"""Maximum bytes of the text that is sent with the descriptors: a URL."""
STATUS_BYTES = 4096
"""Size of a status file: it is overwritten in place, in one write, which works on a full disk."""
OWN_BYTES, OWN_FILES = 1 << 30, 1000
"""Limits of a process's directory, on the ledger's disk. Libraries need some megabytes there."""
OWN = ".tmp"
"""Suffix of the only directory that a process may write, beside its socket."""


def own_directory(path: Path) -> Path:
    """Return the own directory of the process that listens at a path."""
    return path.with_name(path.name + OWN)


def exceeds(directory: Path, size: int, files: int) -> bool:
    """Return whether a directory exceeds a limit; stop there, since the rest may be unbounded."""
    taken = count = 0
    waiting = [directory]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                taken += entry.stat(follow_symlinks=False).st_blocks * 512
                if taken > size or count > files:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
    return False


def write_status(status: int, raw: bytes) -> None:
    """Replace the content of a status file.

    Raises:
        OSError: the file cannot be written.
    """
    os.pwrite(status, raw.ljust(STATUS_BYTES), 0)


class ModelDoor:
    """The starter's side: one door for all processes at one path, one after the other."""

    def __init__(self, path: Path) -> None:
        """Store the path of the socket; it makes nothing yet."""
        self._path = path
        self._door = Door(path, BACKLOG)
        self._listener: socket.socket | None = None
        self._line: socket.socket | None = None
        self._owes = False
        """Whether the process still lacks the descriptors of the present files at the path."""

    @contextmanager
    def handed(self, words: bytes) -> Iterator[int]:
        """Yield the standard input for a new process, which receives all descriptors on it.

        Callers that connected since the last process ended wait in the socket.

        Raises:
            OSError: the directory cannot be written, or no descriptors are left.
        """
        self._make_directory()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._hang_up()
            self._line = mine
            mine.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            mine.shutdown(socket.SHUT_RD)  # the process only receives, and sends nothing
            if self._listener is None or self._door.is_lost:
                self._listen()
            self._hand_over(words)
            yield theirs.fileno()

    def tend(self) -> None:
        """Make the files that a cleanup job deleted again, and hand them over.

        Raises:
            OSError: they cannot be made.
        """
        if self._listener is not None and self._door.is_lost:
            self._listen()
            self._owes = True
        if self._owes:
            self._hand_over(b"\n")

    def close(self) -> None:
        """Close and remove everything; this disconnects waiting callers."""
        self._hang_up()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._door.close()
        with suppress(OSError):
            self._status.unlink()
        shutil.rmtree(own_directory(self._path), ignore_errors=True)

    def read_detail(self) -> str:
        """Return the failure in its process's status file; empty if there is none."""
        try:
            return str(json.loads(self._status.read_bytes()).get("detail", ""))
        except (OSError, ValueError, AttributeError):  # gone meanwhile, or of another process
            return ""

    @property
    def is_crowded(self) -> bool:
        """Whether the process's directory exceeds its limits."""
        return exceeds(own_directory(self._path), OWN_BYTES, OWN_FILES)

    @property
    def _status(self) -> Path:
        return self._path.with_name(self._path.name + ".json")

    def _make_directory(self) -> None:
        directory = own_directory(self._path)
        shutil.rmtree(directory, ignore_errors=True)
        with suppress(OSError):  # without one it has no temporary files, but serves
            directory.mkdir(mode=0o700)

    def _listen(self) -> None:
        fresh = self._door.open()
        if self._listener is not None:
            self._listener.close()
        self._listener = fresh

    def _hand_over(self, words: bytes) -> None:
        assert self._line is not None
        assert self._listener is not None
        temporary = self._status.with_name(f"{self._status.name}.{os.getpid()}")
        status = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_status(status, b"{}")
            temporary.replace(self._status)
            socket.send_fds(self._line, [words], [self._listener.fileno(), status])
        except BrokenPipeError:
            pass  # it has ended; the next process gets its own
        finally:
            os.close(status)
        self._owes = False

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class HandedSocket(NamedTuple):
    """The descriptors and the text that a process received."""

    words: bytes
    listener: socket.socket
    status: int
    """The descriptor of its status file."""


def receive(line: socket.socket) -> HandedSocket | None:
    """Return what the starter hands over; None if it has disconnected.

    Raises:
        OSError: the other end is no starter, or nothing has arrived yet (BlockingIOError).
    """
    words, found, _, _ = socket.recv_fds(line, WORDS_BYTES, 2)
    if not words:
        return None
    if len(found) != 2:
        raise ConnectionError(f"{len(found)} descriptors were handed over, not 2")
    return HandedSocket(words, socket.socket(fileno=found[0]), found[1])
