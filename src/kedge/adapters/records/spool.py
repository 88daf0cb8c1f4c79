"""Spool of a worker's predictions, and how the reader takes them.

    DIR/REPLICA-PID-N.new     being made; holds nothing
       /REPLICA-PID-N.open    being written; its writer holds a lock on it until it dies
       /REPLICA-PID-N.rows    closed: the reader's

A file is a run of frames. A frame is the length and CRC-32 of the payload (little endian, 4 bytes
each), then the payload, a msgpack array of rows. A kill leaves at most one incomplete frame.
Nothing is synced: a power cut loses what the system had not yet written, at most some seconds. It
loses no more than that, because every frame is checked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from itertools import count as numbers_from
from math import inf
from pathlib import Path
from struct import Struct
from threading import Lock
from types import TracebackType
from typing import NamedTuple, Self
from zlib import crc32

import msgspec

from kedge.core.evidence.records import JoinRow
from kedge.system.locks import try_lock

OPEN, CLOSED, NEW = ".open", ".rows", ".new"
BOUND = 256 << 20
"""Limit of bytes of one replica that wait for the reader."""
ROLL_BYTES = 8 << 20
ROLL_S = 10.0
FRAME_ROWS = 256
FRAME_BYTES = 64 << 20
"""Maximum length of a frame; a larger length is damage."""

_HEAD = Struct("<II")
_encoder = msgspec.msgpack.Encoder()
_numbers = numbers_from(0)


class Spool:
    """Output of one replica's predictions. It never raises, and never waits for a disk's sync.

    Several threads may use it. After a fork it belongs to the parent.
    """

    def __init__(
        self,
        directory: Path,
        replica: str,
        *,
        bound: int = BOUND,
        roll_bytes: int = ROLL_BYTES,
        roll_s: float = ROLL_S,
    ) -> None:
        """Remember where to write; the first row creates the first file.

        Args:
            directory: shared by all replicas of a host.
            replica: the replica that writes; the bound covers all files under this name.
            bound: bytes that may wait for the reader; rows beyond it are dropped and counted.
            roll_bytes: size at which a file is closed.
            roll_s: age difference of its first and newest row at which a file is closed.
        """
        self._directory = directory
        self._replica = "".join(c if c.isalnum() or c in "._" else "_" for c in replica)
        self._bound, self._roll_bytes, self._roll_s = bound, roll_bytes, roll_s
        self._lock = Lock()
        self._file = -1
        self._path = directory
        self._size = self._waiting = 0
        self._begun = self._looked = 0.0

    def append(self, rows: Sequence[JoinRow]) -> int:
        """Write the rows; return how many were dropped (the bound, a full or missing disk)."""
        dropped = 0
        with self._lock:
            for start in range(0, len(rows), FRAME_ROWS):
                some = rows[start : start + FRAME_ROWS]
                if not self._write(some):
                    dropped += len(some)
        return dropped

    def roll(self, now: float) -> None:
        """Close the file if it is old enough; call it regularly, also when no rows come."""
        with self._lock:
            if self._file >= 0 and self._size and now - self._begun >= self._roll_s:
                self._close()

    def close(self) -> None:
        """Close the file, so that the reader can take it; the next row begins another."""
        with self._lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------ inside the lock

    def _write(self, rows: Sequence[JoinRow]) -> bool:
        at = rows[-1].at
        try:
            payload = _encoder.encode(rows)
        except UnicodeEncodeError:  # half a surrogate pair in a segment
            return False
        frame = _HEAD.pack(len(payload), crc32(payload)) + payload
        if len(payload) > FRAME_BYTES or not self._room(len(frame), at):
            return False
        try:
            if self._file < 0:
                self._open(at)
            written = os.write(self._file, frame)
        except OSError:
            written = 0
        if written < len(frame):
            self._undo()
            return False
        self._size += written
        if self._size >= self._roll_bytes or not 0 <= at - self._begun < self._roll_s:
            self._close()
        return True

    def _room(self, more: int, at: float) -> bool:
        if self._waiting + self._size + more <= self._bound:
            return True
        if 0 <= at - self._looked < 1.0:
            return False  # checked already in this second
        self._looked = at
        self._waiting = self._closed_bytes()
        return self._waiting + self._size + more <= self._bound

    def _closed_bytes(self) -> int:
        found = 0
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if owner(entry.name) == self._replica and entry.path != str(self._path):
                        found += entry.stat().st_size
        except OSError:
            return found  # the reader took one meanwhile, or the directory does not exist yet
        return found

    def _open(self, at: float) -> None:
        """Lock the file before it gets the name that readers look for."""
        self._directory.mkdir(parents=True, exist_ok=True)
        new = self._directory / f"{self._replica}-{os.getpid()}-{next(_numbers)}-{int(at)}{NEW}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        handle = os.open(new, flags, 0o600)
        try:
            if not try_lock(handle):
                raise BlockingIOError(errno.EAGAIN, "another process holds its lock", str(new))
            self._path = new.rename(new.with_suffix(OPEN))
        except OSError:
            os.close(handle)
            raise
        self._file, self._size, self._begun = handle, 0, at
        self._waiting = self._closed_bytes()

    def _undo(self) -> None:
        """Remove an incomplete frame, so that the next one can be read."""
        if self._file < 0:
            return
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._file < 0:
            return
        handle, self._file = self._file, -1
        try:
            self._path.rename(self._path.with_suffix(CLOSED))
        except OSError:
            pass  # another process removed it; without the lock, the reader takes it as it is
        finally:
            os.close(handle)
        self._waiting += self._size
        self._size = 0
        self._path = self._directory


# ---------------------------------------------------------------- the reader's side


class Frame(NamedTuple):
    """Rows as bytes and as values; empty when the frame was torn."""

    rows: list[JoinRow]
    raw: list[bytes]
    torn: int


_raws = msgspec.msgpack.Decoder(list[msgspec.Raw])
_row = msgspec.msgpack.Decoder(JoinRow)


def owner(name: str) -> str:
    """Return the replica that wrote a file."""
    return name.rsplit("-", 3)[0]


def begun_at(directory: Path) -> float:
    """Return when the oldest file was begun, in Unix seconds; infinite if there is none."""
    try:
        stems = [path.stem.rpartition("-")[2] for path in directory.iterdir()]
    except OSError:
        return inf
    return min((float(stem) for stem in stems if stem.isdecimal()), default=inf)


def takeable(directory: Path) -> list[Path]:
    """Return the files that no process writes any more: closed ones, and those of dead writers."""
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix in {OPEN, CLOSED, NEW})
    except OSError:
        return []
    return [path for path in found if path.suffix == CLOSED or _abandoned(path)]


def _abandoned(path: Path) -> bool:
    """Return whether the file's writer is dead: a living one holds the lock."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # renamed meanwhile; the reader will find its other name
    try:
        if path.suffix == NEW and not _dead(path):
            return False  # between its creation and its lock
        if not try_lock(handle):
            return False
        there, held = path.stat(), os.fstat(handle)
    except OSError:
        return False
    else:
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
    finally:
        os.close(handle)


def _dead(path: Path) -> bool:
    """Return whether the process in a file's name has ended."""
    try:
        os.kill(int(path.name.rsplit("-", 3)[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, IndexError):
        return False
    return False


def frames(path: Path) -> Iterator[Frame]:
    """Yield every frame of a file in order. Torn or damaged frames are counted and skipped."""
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            if len(head) < _HEAD.size:
                yield Frame([], [], 1)
                return
            length, crc = _HEAD.unpack(head)
            payload = file.read(length) if length <= FRAME_BYTES else b""
            if len(payload) < length or length > FRAME_BYTES:
                yield Frame([], [], 1)
                return  # the tail, or a length that does not locate the next frame
            if crc32(payload) != crc:
                yield Frame([], [], 1)
                continue
            yield _decoded(payload)


def _decoded(payload: bytes) -> Frame:
    try:
        raws = _raws.decode(payload)
    except msgspec.DecodeError:
        return Frame([], [], 1)
    rows: list[JoinRow] = []
    kept: list[bytes] = []
    torn = 0
    for raw in raws:
        try:
            rows.append(_row.decode(raw))
        except msgspec.DecodeError:  # a newer kedge wrote it, or it is damaged
            torn += 1
        else:
            kept.append(bytes(raw))
    return Frame(rows, kept, torn)
