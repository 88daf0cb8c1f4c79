"""Connection to one SQLite file: opened at first use, never created, reopened after a fault."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from msgspec import MsgspecError
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

from kedge.adapters.sql.sqlite.ballast import Ballast
from kedge.adapters.sql.sqlite.faults import explain, full, gone
from kedge.adapters.sql.sqlite.version import dbapi
from kedge.core.errors import Refused, Unavailable
from kedge.system.reserve import NO_SPACE, get_free, is_short

T = TypeVar("T")

INDEX = 32 << 10
"""Initially mapped bytes of the log's index."""

log = logging.getLogger("kedge.database")
"""Logger instead of events: a command prints no events on its standard output."""

_REMADE = ("_gone", "_damaged", "_read_only")
"""Faults after which telemetry is recreated: a file that this user must not write is useless except
to the other user's command that left it."""


class _Opening(threading.local):
    """What opens the driver's connection, for the engine's `connect` in the same thread."""

    connect: Callable[[], Any]


_opening = _Opening()


def _connect_now() -> Any:
    return _opening.connect()


_engine = create_engine("sqlite://", module=dbapi, creator=_connect_now, poolclass=NullPool)
"""One engine for all files of a process: an engine compiles each statement once, and control opens
the state directory for each command."""


def _open(connect: Callable[[], Any]) -> Connection:
    """Return a connection of the engine to what `connect` opens."""
    _opening.connect = connect
    return _engine.connect()


class Database:
    """Short transactions on one file. Used from one thread at a time, and never across a fork.

    A missing file is never created. One that was deleted or replaced while open is detected at the
    next use, and once more after a commit. Data written to a file that no longer exists is not
    reported as written.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        patience_s: float,
        synchronous: str = "FULL",
        ballast: Ballast | None = None,
        yields: bool = False,
        check: Callable[[Connection], None] | None = None,
        remake: Callable[[Path], None] | None = None,
    ) -> None:
        """Remember how to open the file; nothing is opened before the first use.

        Args:
            path: the file.
            name: the name in faults; the first half of their code.
            patience_s: how long to wait for another process's lock.
            synchronous: FULL (a commit survives a power cut) or NORMAL (the newest may be lost).
            ballast: the reserve to free when the disk is full.
            yields: whether writing stops while the disk has less than its reserve.
            check: runs on each new connection; raises when the content is incompatible.
            remake: recreates the file when it is missing or damaged. Only for telemetry.
        """
        self.path = path.absolute()
        self.incarnation = 0
        """Number that grows with each connection: caches of an earlier one are invalid."""
        self._name = name
        self._patience_s = patience_s
        self._synchronous = synchronous
        self._ballast = ballast
        self._yields = yields
        self._check = check
        self._remake = remake
        self._begin = "BEGIN"
        self._opened: Connection | None = None
        self._raw: Any = None
        self._identity = (0, 0)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the file and return its result."""
        return self._repaired(lambda: self._transaction("BEGIN", work))

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` while no other process writes, and commit it: all of it or nothing.

        On a full disk this frees the ballast and runs `work` once more, so `work` must change only
        the database.

        Raises:
            Refused: `constraint`: the database's own rules (append-only) forbid it.
        """
        if self._yields and is_short(self.path.parent):
            raise Unavailable(
                f"the disk is nearly full, and the {self._name} is not written: {self.path.parent}",
                code="disk_reserve",
                hint="free some space; it continues automatically",
            )
        try:
            result = self._repaired(lambda: self._transaction("BEGIN IMMEDIATE", work))
        except Unavailable as error:
            if error.code != "disk_full" or self._ballast is None or not self._ballast.free():
                raise
            result = self._transaction("BEGIN IMMEDIATE", work)
        self._ring()
        if self._ballast is not None:
            self._ballast.restore()
        return result

    def stamp(self) -> tuple[int, int, int]:
        """Return a value that differs when any process has committed to the file since."""
        try:
            self._connection()
            (version,) = self._raw.execute("PRAGMA data_version").fetchone()
        except (DBAPIError, dbapi.Error) as error:
            raise self._fault(error) from error
        return (self.incarnation, version, self._raw.total_changes)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        opened, self._opened, self._raw = self._opened, None, None
        if opened is not None:
            # Closing a broken file may fail too; the descriptor closes with the connection.
            try:
                opened.close()
            except (DBAPIError, dbapi.Error):
                opened.invalidate()

    # ------------------------------------------------------------ one transaction

    def _transaction(self, begin: str, work: Callable[[Connection], T]) -> T:
        try:
            connection = self._connection()
            self._begin = begin
            with connection.begin():
                result = work(connection)
        except IntegrityError as error:
            raise Refused(
                f"the {self._name} refuses it: {error.orig}", code="constraint"
            ) from error
        except (DBAPIError, dbapi.Error, MsgspecError) as error:
            raise self._fault(error) from error
        if begin != "BEGIN":
            self._same_file()
        return result

    def _on_begin(self, _: Connection) -> None:
        # The driver's own BEGIN is deferred: a read that turns into a write would then fail
        # at once, without waiting, when another process wrote in between.
        self._raw.execute(self._begin)

    def _repaired(self, attempt: Callable[[], T]) -> T:
        """Try; if telemetry is unusable, try once more, and only then recreate it.

        A call that failed once (a read error, a flag that was set for a moment) is no damage.
        """
        try:
            return attempt()
        except Unavailable as error:
            if self._remake is None or not error.code.endswith(_REMADE):
                raise
            first = error
        if not first.code.endswith("_gone"):
            cause = first.__cause__
            log.warning("the %s failed, and is tried again: %s (%s)", self._name, first, cause)
            try:
                return attempt()
            except Unavailable as error:
                if not error.code.endswith(_REMADE):
                    raise
        if first.code.endswith("_read_only") and not os.access(self.path.parent, os.W_OK):
            raise first  # there is no replacement
        self._remake(self.path)
        return attempt()

    def _fault(self, error: Exception) -> Unavailable:
        fault = explain(error, name=self._name, path=self.path, patience_s=self._patience_s)
        # On a full disk an open connection still reads, and there may be no room to open a new one.
        # A connection whose transaction could not be rolled back begins no other.
        stuck = self._opened is not None and (
            self._opened.in_transaction() or self._raw.in_transaction
        )
        if stuck or not fault.code.endswith(("_locked", "_full")):
            self.close()
        return fault

    def _ring(self) -> None:
        """Touch the file after the commit, so that watchers wake once the commit is visible.

        Writing the WAL wakes them too, but before the commit is visible, by up to the time of an
        fsync. After a writer that is killed in between, that first wake-up and polling remain.
        """
        try:
            os.utime(self.path)
        except OSError:
            return  # another process's file, or just deleted; the commit stands

    # ------------------------------------------------------------ the connection

    def _connection(self) -> Connection:
        if self._opened is not None:
            self._same_file()
            return self._opened
        before = self._where()
        self._make_room()
        opened = _open(self._connect)
        event.listen(opened, "begin", self._on_begin)
        try:
            if self._check is not None:
                self._begin = "BEGIN"
                with opened.begin():
                    self._check(opened)
        except BaseException:
            opened.close()
            raise
        self._opened, self._identity = opened, before
        self._same_file()
        self.incarnation += 1
        return opened

    def _make_room(self) -> None:
        """Let SQLite map the log's index: a page that a full disk lacks is a fatal SIGBUS."""
        if get_free(self.path.parent) >= NO_SPACE:
            return
        with suppress(OSError):
            index = os.stat(f"{self.path}-shm")  # noqa: PTH116
            if index.st_blocks * 512 >= INDEX:
                return
        if self._ballast is None or not self._ballast.free():
            raise full(self.path)

    def _connect(self) -> Any:
        raw = dbapi.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=self._patience_s,
            check_same_thread=False,
        )
        try:
            raw.execute("PRAGMA foreign_keys=ON")
            raw.execute("PRAGMA recursive_triggers=ON")
            raw.execute(f"PRAGMA synchronous={self._synchronous}")
            raw.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except BaseException:
            raw.close()
            raise
        self._raw = raw
        return raw

    def _where(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)  # noqa: PTH116 - on every use, and Path.stat costs twice
        except (FileNotFoundError, NotADirectoryError):
            raise gone(self._name, self.path) from None
        except OSError as error:
            raise Unavailable(
                f"the {self._name} cannot be looked at: {self.path}: {error.strerror}",
                code=f"{self._name}_unreadable",
                hint="look at its file system; it is tried again",
            ) from error
        return (found.st_ino, found.st_dev)

    def _same_file(self) -> None:
        try:
            found = self._where()
        except Unavailable:
            self.close()
            raise
        if found != self._identity:
            self.close()
            raise gone(self._name, self.path)
