"""Windows: counts of workers by the second, and the judge's records. Telemetry: may be lost."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.creation import read_beginning
from kedge.adapters.sql.rows import read_all
from kedge.adapters.sql.sqlite.connection import Database
from kedge.core.evidence.windows import Window
from kedge.core.values import Beginning
from kedge.system.files import ASIDE, ASIDE_COUNT, name_aside

_window, _judged = tables.window, tables.judged
_decode = msgspec.msgpack.Decoder(Window).decode
_encode = msgspec.msgpack.Encoder().encode

_WRITE = insert(_window).on_conflict_do_nothing(index_elements=["replica", "number"])
_READ = (
    select(_window.c.seq, _window.c.body)
    .where(_window.c.endpoint == bindparam("of"), _window.c.seq > bindparam("after"))
    .order_by(_window.c.seq)
    .limit(bindparam("most"))
)
_insert_judged = insert(_judged)
_NEWEST = (
    select(_window.c.at)
    .where(_window.c.endpoint == bindparam("of"))
    .order_by(_window.c.seq.desc())
    .limit(1)
)
_KEEP = _insert_judged.on_conflict_do_update(
    index_elements=list(_judged.primary_key.columns),
    set_={"body": _insert_judged.excluded.body},
)
_KEPT = select(_judged.c.body).where(
    _judged.c.endpoint == bindparam("of"), _judged.c.comparison == bindparam("which")
)
_ASIDE = text("UPDATE judged SET comparison = :kept WHERE endpoint = :of AND comparison = :which")
_LIST_ASIDE = text(
    "SELECT comparison FROM judged WHERE endpoint = :of"
    " AND substr(comparison, 1, length(:like)) = :like ORDER BY rowid"
)
_DROP_ASIDE = text(
    "DELETE FROM judged WHERE rowid IN (SELECT rowid FROM judged WHERE endpoint = :of"
    " AND instr(comparison, :mark) ORDER BY rowid DESC LIMIT -1 OFFSET :most)"
)
_HIGHEST = text("SELECT seq FROM sqlite_sequence WHERE name = 'window'")


class SqlWindows:
    """Windows in a database from `open_evidence`, which is recreated when missing or damaged."""

    def __init__(self, database: Database) -> None:
        """Read from and write to this database."""
        self._database = database
        self._skipped: dict[str, int] = {}

    def write(self, windows: Sequence[Window]) -> None:
        """Write the windows in one transaction; an existing window stays unchanged."""
        rows = [
            {
                "replica": window.replica,
                "number": window.number,
                "endpoint": window.endpoint,
                "at": window.at,
                "body": _encode(window),
            }
            for window in windows
        ]
        if rows:
            self._write(lambda connection: connection.execute(_WRITE, rows))

    def read(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Window, ...]]:
        """Return the windows written after a position, oldest first, and the last position."""

        def work(connection: Connection) -> tuple[int, tuple[bytes, ...]]:
            found = connection.execute(_READ, {"of": endpoint, "after": after, "most": limit}).all()
            if not found and (connection.execute(_HIGHEST).scalar() or 0) < after:
                return 0, ()  # the database was recreated: from the beginning
            last = found[-1].seq if found else after
            return last, tuple(row.body for row in found)

        last, bodies = self._database.read(work)
        windows = read_all(_decode, bodies)
        if len(windows) < len(bodies):
            self._skipped[endpoint] = self.skipped(endpoint) + len(bodies) - len(windows)
        return last, windows

    def skipped(self, endpoint: str) -> int:
        """Return how many unreadable windows this reader skipped."""
        return self._skipped.get(endpoint, 0)

    def beginning(self) -> Beginning | None:
        """Return when the database was created; None if it is unknown."""
        return read_beginning(self._database.path)

    def newest(self, endpoint: str) -> float | None:
        """Return the second, Unix time, of the last written window; None if there is none."""
        return self._database.read(lambda c: c.execute(_NEWEST, {"of": endpoint}).scalar())

    def keep(self, endpoint: str, comparison: str, body: bytes) -> None:
        """Store the judge's record of a comparison."""
        row = {"endpoint": endpoint, "comparison": comparison, "body": body}
        self._write(lambda connection: connection.execute(_KEEP, row))

    def kept(self, endpoint: str, comparison: str) -> bytes | None:
        """Return the stored record, if any."""

        def work(connection: Connection) -> bytes | None:
            return connection.execute(_KEPT, {"of": endpoint, "which": comparison}).scalar()

        return self._database.read(work)

    def set_aside(self, endpoint: str, comparison: str, body: bytes) -> str:
        """Rename an unreadable record, store `body` instead, and return the new name."""
        kept = name_aside(comparison)
        row = {"endpoint": endpoint, "comparison": comparison, "body": body}

        def work(connection: Connection) -> None:
            connection.execute(_ASIDE, {"of": endpoint, "which": comparison, "kept": kept})
            connection.execute(_KEEP, row)
            connection.execute(_DROP_ASIDE, {"of": endpoint, "mark": ASIDE, "most": ASIDE_COUNT})

        self._write(work)
        return kept

    def list_aside(self, endpoint: str, comparison: str) -> tuple[str, ...]:
        """Return the names of a comparison's unreadable records, the oldest first."""
        asked = {"of": endpoint, "like": f"{comparison}{ASIDE}"}
        return self._database.read(lambda c: tuple(c.execute(_LIST_ASIDE, asked).scalars()))

    def _write(self, work: object) -> None:
        def once(connection: Connection) -> None:
            work(connection)  # type: ignore[operator]

        self._database.write(once)
