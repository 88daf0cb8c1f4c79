"""Durable files: each is written whole, replaces the old file, and is flushed to the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

SYNCERS = 16
"""Files flushed at the same time: one by one, 20,000 files would wait for the disk 20,000 times."""


def sync(path: Path) -> None:
    """Flush one file or directory to the disk; never follow a link to a file.

    Raises:
        OSError: it cannot be written.
    """
    # A directory may be a link: an operator puts a state directory on another disk.
    kind = os.O_DIRECTORY if path.is_dir() else os.O_NOFOLLOW
    handle = os.open(path, os.O_RDONLY | kind | os.O_CLOEXEC)
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
    """Yield the path of a new file, which replaces `path` once it is written.

    A crash leaves the old file or the new one, never a partial file. With `durable` a power cut does
    too, at the cost of one flush of the disk. The new one is certain only after `sync` of the
    directory.

    Args:
        path: the file to replace.
        durable: whether the new file is flushed before it replaces the old one.
        via: the path of the new file until then; beside `path` by default.

    Raises:
        OSError: it cannot replace the old file.
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
            new.unlink()  # left by a dead process
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(raw)
