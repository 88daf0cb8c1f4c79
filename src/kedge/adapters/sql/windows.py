"""What workers counted by the second, and what the judge made of it. Telemetry: may be lost."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.database import Database
from kedge.core.windows import Window

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
_HIGHEST = text("SELECT seq FROM sqlite_sequence WHERE name = 'window'")


class SqlWindows:
    """On a database from `open_evidence`, which is made again when it is missing or damaged."""

    def __init__(self, database: Database) -> None:
        """Read from and write to this database."""
        self._database = database

    def write(self, windows: Sequence[Window]) -> None:
        """Write the windows in one transaction; one that is there already stays as it is."""
        rows = [
            {"replica": window.replica, "number": window.number, "endpoint": window.endpoint,
             "at": window.at, "body": _encode(window)}
            for window in windows
        ]  # fmt: skip
        if rows:
            self._write(lambda connection: connection.execute(_WRITE, rows))

    def read(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Window, ...]]:
        """The windows that were written after a position, oldest first, and the last position."""

        def work(connection: Connection) -> tuple[int, tuple[Window, ...]]:
            found = connection.execute(_READ, {"of": endpoint, "after": after, "most": limit}).all()
            if not found and (connection.execute(_HIGHEST).scalar() or 0) < after:
                return 0, ()  # the database was made again: from the beginning
            last = found[-1].seq if found else after
            return last, tuple(_decode(row.body) for row in found)

        return self._database.read(work)

    def newest(self, endpoint: str) -> float | None:
        """The second, Unix time, of the window that was written last; None when there is none."""
        return self._database.read(lambda c: c.execute(_NEWEST, {"of": endpoint}).scalar())

    def keep(self, endpoint: str, comparison: str, body: bytes) -> None:
        """Keep what the judge knows of a comparison."""
        row = {"endpoint": endpoint, "comparison": comparison, "body": body}
        self._write(lambda connection: connection.execute(_KEEP, row))

    def kept(self, endpoint: str, comparison: str) -> bytes | None:
        """What was kept, if anything."""

        def work(connection: Connection) -> bytes | None:
            return connection.execute(_KEPT, {"of": endpoint, "which": comparison}).scalar()

        return self._database.read(work)

    def _write(self, work: object) -> None:
        def once(connection: Connection) -> None:
            work(connection)  # type: ignore[operator]

        self._database.write(once)
