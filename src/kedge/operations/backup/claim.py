"""Claims on a directory: one process at a time makes or restores a backup in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kedge.core.errors import Refused
from kedge.system.locks import lock_file


@contextmanager
def claim(
    lock: Path, *, check: Callable[[], None], release: Callable[[], None], told: str, code: str
) -> Iterator[None]:
    """Hold the lock of a file, which is created.

    Args:
        lock: the file.
        check: raises if the directory is in use. It runs before and after the lock is taken:
            another process may have finished in between.
        release: removes the files of the lock if the second check raises.
        told: the message when another process holds the lock.
        code: the code of that error.

    Raises:
        Refused: another process holds the lock; or the error of `check`.
    """
    check()
    lock.parent.mkdir(mode=0o700, exist_ok=True)
    with lock_file(lock) as taken:
        if not taken:
            raise Refused(told, code=code, hint="wait for it")
        try:
            check()
        except Refused:
            release()
            raise
        yield
