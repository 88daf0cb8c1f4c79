"""LMDB: the fast store on one host, with a database for each namespace, in shared memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lmdb

from kedge.core.errors import Unavailable

LARGEST = 1 << 36
"""Maximum size of a store: 64 GB of address space, not of disk."""
MOST = 1024
"""Maximum number of namespaces."""


def opened(where: str) -> LmdbOnline:
    """Return the store at this path; the entry point `kedge.online`."""
    return LmdbOnline(Path(where))


class LmdbOnline:
    """One LMDB environment. Readers never wait; there is one writer at a time."""

    def __init__(self, path: Path) -> None:
        """Remember the directory; it is opened at the first use, and created if missing."""
        self._path = path
        self._opened: Any = None
        self._open: dict[str, object] = {}

    @property
    def _env(self) -> Any:
        if self._opened is None:
            try:
                self._path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unavailable(self._path, error) from error
            self._opened = lmdb.open(
                str(self._path), map_size=LARGEST, max_dbs=MOST, readahead=False, max_readers=512
            )
        return self._opened

    def write(self, namespace: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """Upsert rows in one transaction: after a crash all of them are stored, or none."""
        try:
            database = self._env.open_db(namespace.encode(), create=True)
            with self._env.begin(write=True, db=database) as txn:
                packed = [(key.encode(), row) for key, row in rows]
                txn.cursor().putmulti(packed)
        except lmdb.Error as error:
            raise _unavailable(self._path, error) from error
        return len(packed)

    def read(self, namespace: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return the rows of these keys, in order; None where there is none.

        Raises:
            Unavailable: `online_unavailable`: there is no such namespace, or it cannot be read.
        """
        try:
            database = self._open.get(namespace)
            if database is None:
                database = self._open[namespace] = self._env.open_db(
                    namespace.encode(), create=False
                )
            with self._env.begin(db=database) as txn:
                get = txn.get
                return [get(key.encode()) for key in keys]
        except lmdb.Error as error:
            self._open.pop(namespace, None)
            raise _unavailable(self._path, error) from error

    def drop(self, namespace: str) -> None:
        """Remove a namespace; do nothing if it is missing."""
        self._open.pop(namespace, None)
        try:
            database = self._env.open_db(namespace.encode(), create=False)
            with self._env.begin(write=True) as txn:
                txn.drop(database, delete=True)
        except lmdb.NotFoundError:
            return
        except lmdb.Error as error:
            raise _unavailable(self._path, error) from error

    def namespaces(self) -> tuple[str, ...]:
        """Return the existing namespaces."""
        try:
            with self._env.begin() as txn:
                return tuple(sorted(bytes(key).decode() for key, _ in txn.cursor()))
        except lmdb.Error as error:
            raise _unavailable(self._path, error) from error

    def count(self, namespace: str) -> int:
        """Return how many keys a namespace has; 0 if it is missing."""
        try:
            database = self._env.open_db(namespace.encode(), create=False)
            with self._env.begin(db=database) as txn:
                return int(txn.stat(database)["entries"])
        except lmdb.NotFoundError:
            return 0
        except lmdb.Error as error:
            raise _unavailable(self._path, error) from error


def copy(source: Path, target: Path) -> str:
    """Copy a store as of one time into an empty directory, without free pages.

    Other processes read and write it meanwhile. This process must not have it open: a process opens
    a store once.

    Returns:
        The damage that prevents a copy; empty if the copy was made.

    Raises:
        FileNotFoundError: the store is missing.
        Unavailable: `online_unavailable`: it cannot be read, or the copy cannot be written.
    """
    if not (source / "data.mdb").exists():
        raise FileNotFoundError(str(source))
    try:
        with lmdb.open(str(source), create=False, max_dbs=MOST, max_readers=512) as env:
            env.copy(str(target), compact=True)
    except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError) as error:
        return str(error)
    except lmdb.Error as error:
        raise _unavailable(source, error) from error
    return ""


def _unavailable(path: Path, error: Exception) -> Unavailable:
    return Unavailable(
        f"{path}: {type(error).__name__}: {error}",
        code="online_unavailable",
        hint="check the disk and the directory; kedge features materialise writes it again",
    )
