"""Supervisor lock: which process runs on a state directory, and the result of its last restart.

The kernel releases the lock however the process ends. The file contains a record of a fixed size,
which is written in place: that needs no room on a full disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from kedge.core.errors import Refused
from kedge.engine.relief import process_of
from kedge.system.locks import open_lock, try_lock

NAME = "supervisor.lock"
SIZE = 4096
"""Bytes of the record: one block of a file system."""
TEXT = 1500
"""Limit of characters of a fault."""


class Phase(StrEnum):
    """Phase of a supervisor."""

    SERVING = "serving"
    CHECKING = "checking"
    """It tests the new code and kedge.toml in a child."""
    REFUSED = "refused"
    """The test failed; nothing was touched."""
    STARTING = "starting"
    """The new image starts workers; the previous ones serve."""
    FAILED = "failed"
    """The new image cannot start; the previous workers serve."""


class Record(msgspec.Struct):
    """The contents of the file."""

    pid: int = 0
    started: str = ""
    """Start in the clock ticks of /proc: another process may have the number by now."""
    namespace: int = 0
    """Namespace in which the number means this process: containers have separate ones."""
    version: str = ""
    number: int = 0
    """Restarts that were requested since the process started."""
    phase: Phase = Phase.SERVING
    told: str = ""
    """Why it was refused, or failed, or what it waits for."""
    hint: str = ""
    workers: int = 0


class SupervisorLock:
    """The open and locked file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.record = _read(descriptor)

    def write(self, **changes: object) -> None:
        """Change the record.

        Raises:
            OSError: it cannot be written.
        """
        for name in ("told", "hint"):
            if name in changes:
                changes[name] = str(changes[name])[:TEXT]
        self.record = msgspec.structs.replace(self.record, **changes)
        raw = msgspec.json.encode(self.record)
        os.pwrite(self.descriptor, raw[: SIZE - 1].ljust(SIZE - 1) + b"\n", 0)

    def keep(self, state_dir: Path) -> None:
        """Lock the file that now has the path: a lock on a deleted file stops no other supervisor.

        Raises:
            OSError: it cannot be made, or another supervisor holds it.
        """
        path = state_dir / NAME
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(self.descriptor)):
                return
        fresh = open_lock(path)
        try:
            if not try_lock(fresh):
                raise BlockingIOError(errno.EAGAIN, "another kedge up holds the lock", str(path))
            os.dup2(fresh, self.descriptor, inheritable=False)
        finally:
            os.close(fresh)
        self.write()

    def close(self) -> None:
        """Release the lock."""
        os.close(self.descriptor)


@contextlib.contextmanager
def one_supervisor(state_dir: Path, inherited: int | None = None) -> Iterator[SupervisorLock]:
    """Hold the host's lock, which the image before this one may have left open.

    Raises:
        Refused: another supervisor runs on this state directory.
    """
    descriptor = open_lock(state_dir / NAME) if inherited is None else os.dup(inherited)
    lock = SupervisorLock(descriptor)
    try:
        if not try_lock(descriptor):
            raise Refused(
                f"kedge up already runs on {state_dir}",
                code="already_running",
                hint=(
                    "kedge restart replaces it without an outage; kedge status shows what it serves"
                ),
            )
        yield lock
    finally:
        lock.close()


def read(state_dir: Path) -> Record | None:
    """Return the record of the running supervisor; None if none runs."""
    try:
        descriptor = os.open(state_dir / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if try_lock(descriptor, shared=True) else _read(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Record:
    raw = os.pread(descriptor, SIZE, 0)
    try:
        return msgspec.json.decode(raw, type=Record)
    except msgspec.DecodeError:
        return Record()


def _namespace() -> int:
    """Return the namespace of process ids."""
    return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a link of the kernel's


def is_same(found: Record) -> bool:
    """Return whether a record's process id means the supervisor that wrote it, here and now."""
    process = process_of(found.pid)
    return found.pid != 0 and (found.started, found.namespace) == (process.started, _namespace())
