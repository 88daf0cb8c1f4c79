"""Durable files: written whole into the place of what was there, and flushed to the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

SYNCERS = 16
"""Files that are flushed at once: one after the other, 20,000 would wait for the disk 20,000 times."""


def sync(path: Path) -> None:
    """Flush one file or directory to the disk; never through a link.

    Raises:
        OSError: it cannot be written.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(paths: Iterable[Path]) -> None:
    """Flush many files to the disk.

    Raises:
        OSError: one of them cannot be written.
    """
    with ThreadPoolExecutor(SYNCERS) as pool:
        for _ in pool.map(sync, paths):
            pass


@contextmanager
def replacing(path: Path, *, durable: bool = True, via: Path | None = None) -> Iterator[Path]:
    """Yield the path of a new file, which takes the place of `path` once it is written.

    A crash leaves the old file or the new, never half of one. `durable` also survives a power cut,
    for the price of a disk's flush.

    Args:
        path: the place.
        durable: whether the new file is flushed before it takes the place.
        via: the new file's own path; beside the place where it is not given.

    Raises:
        OSError: it cannot take the place.
    """
    new = via or path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield new
        if durable:
            sync(new)
        new.replace(path)
    finally:
        with suppress(OSError):
            new.unlink()


def write_atomically(
    path: Path, raw: bytes, *, durable: bool = True, mode: int = 0o600, via: Path | None = None
) -> None:
    """Replace a file's content; `durable` and `via` as in `replacing`.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path, durable=durable, via=via) as new:
        with suppress(FileNotFoundError):
            new.unlink()  # a dead process's
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(raw)
