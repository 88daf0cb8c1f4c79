"""Model doors: the listening socket, the status file and the directory of a fenced process.

A model's process may make no socket, and no file outside of its own directory. So its starter (the
supervisor, a replay) makes both, and hands their descriptors over on the process's standard input.
Where a cleanup job deletes the run directory, the starter makes them again and hands the new ones over:
the process needs no right in that directory.
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
"""Most bytes that are said with the descriptors: a URL."""
STATUS_BYTES = 4096
"""Size of a status file: written anew in its place, in one piece, also on a full disk."""
OWN_BYTES, OWN_FILES = 1 << 30, 1000
"""Most that a process may keep in its directory: the disk is that of the ledger. Libraries keep some megabytes there."""
OWN = ".tmp"
"""Ending of the one directory that a process may write, beside its socket."""


def own_directory(path: Path) -> Path:
    """Return the directory of the process that listens at a path."""
    return path.with_name(path.name + OWN)


def exceeds(directory: Path, size: int, files: int) -> bool:
    """Whether a directory holds more bytes or files. It looks at no more of them: the rest is without a bound."""
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
    """Replace what a status file says.

    Raises:
        OSError: it cannot be written.
    """
    os.pwrite(status, raw.ljust(STATUS_BYTES), 0)


class ModelDoor:
    """The starter's end: one for all processes that stand at one path, one after the other."""

    def __init__(self, path: Path) -> None:
        """Remember the path of the socket; nothing is made yet."""
        self._path = path
        self._door = Door(path, BACKLOG)
        self._listener: socket.socket | None = None
        self._line: socket.socket | None = None
        self._owes = False
        """Whether the process has not been handed what stands at the path now."""

    @contextmanager
    def handed(self, words: bytes) -> Iterator[int]:
        """Yield the standard input for a new process, on which it is handed everything.

        Callers that came since the last process ended wait in the socket.

        Raises:
            OSError: the directory cannot be written, or there are no descriptors left.
        """
        self._make_directory()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._hang_up()
            self._line = mine
            mine.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            mine.shutdown(socket.SHUT_RD)  # it is told, and tells nothing
            if self._listener is None or self._door.is_lost:
                self._listen()
            self._hand_over(words)
            yield theirs.fileno()

    def tend(self) -> None:
        """Make again what a cleanup job has deleted, and hand it over.

        Raises:
            OSError: it cannot be made.
        """
        if self._listener is not None and self._door.is_lost:
            self._listen()
            self._owes = True
        if self._owes:
            self._hand_over(b"\n")

    def close(self) -> None:
        """Close and remove everything; callers that wait are hung up on."""
        self._hang_up()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._door.close()
        with suppress(OSError):
            self._status.unlink()
        shutil.rmtree(own_directory(self._path), ignore_errors=True)

    def read_detail(self) -> str:
        """Return what its process said of a failure in its status file; empty where there is none."""
        try:
            return str(json.loads(self._status.read_bytes()).get("detail", ""))
        except (OSError, ValueError, AttributeError):  # gone meanwhile, or another's
            return ""

    @property
    def is_crowded(self) -> bool:
        """Whether the process keeps more in its directory than it may."""
        return exceeds(own_directory(self._path), OWN_BYTES, OWN_FILES)

    @property
    def _status(self) -> Path:
        return self._path.with_name(self._path.name + ".json")

    def _make_directory(self) -> None:
        directory = own_directory(self._path)
        shutil.rmtree(directory, ignore_errors=True)
        with suppress(OSError):  # without one it has no temporary files, and serves
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
            pass  # it has ended; the next one is handed its own
        finally:
            os.close(status)
        self._owes = False

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class HandedSocket(NamedTuple):
    """What a process was handed."""

    words: bytes
    listener: socket.socket
    status: int
    """The descriptor of its status file."""


def receive(line: socket.socket) -> HandedSocket | None:
    """Return what the starter hands over; None when it has hung up.

    Raises:
        OSError: it is not the line of a starter, or nothing has come yet (BlockingIOError).
    """
    words, found, _, _ = socket.recv_fds(line, WORDS_BYTES, 2)
    if not words:
        return None
    if len(found) != 2:
        raise ConnectionError(f"{len(found)} descriptors were handed over, not 2")
    return HandedSocket(words, socket.socket(fileno=found[0]), found[1])
