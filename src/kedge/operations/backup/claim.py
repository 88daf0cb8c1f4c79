"""Claims on a directory: one process at a time makes or restores a backup in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kedge.core.errors import Refused


@contextmanager
def claim(lock: Path, *, told: str, code: str) -> Iterator[None]:
    """Hold the lock of a file, which is made.

    What was seen before it is held may be over by then: look again.

    Raises:
        Refused: another process holds it.
    """
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(told, code=code, hint="wait for it") from None
        yield
    finally:
        os.close(handle)
