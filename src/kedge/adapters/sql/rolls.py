"""Rolls: old windows as minutes and hours. A late window makes a second roll; readers add both."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select

from kedge.adapters.sql import tables
from kedge.adapters.sql.rows import read_all
from kedge.adapters.sql.sqlite.connection import Database
from kedge.core.evidence.rollup import HOUR, MINUTE, Roll, roll_of, rolled
from kedge.core.evidence.windows import Window

WINDOWS_S = HOUR
"""Time for which windows are stored: an hour, longer than a patrol may be away and still fold
them."""
MINUTES_S = 24 * HOUR
"""Time for which minutes are stored: a day, the time in which an incident is examined."""
HOURS_S = 90 * 24 * HOUR
"""Time for which hours are stored: a quarter; a year's season needs the warehouse."""
BATCH = 1_000
"""Windows or minutes that one transaction takes: the file is locked for some 50 ms at most."""

_window, _roll = tables.window, tables.roll
_as_window = msgspec.msgpack.Decoder(Window).decode
_as_roll = msgspec.msgpack.Decoder(Roll).decode
_encode = msgspec.msgpack.Encoder().encode
_SECONDS = (
    select(_window.c.seq, _window.c.body)
    .where(_window.c.at < bindparam("before"))
    .order_by(_window.c.at)
    .limit(BATCH)
)
_MINUTES = (
    select(_roll.c.id, _roll.c.body)
    .where(_roll.c.span == MINUTE, _roll.c.at < bindparam("before"))
    .order_by(_roll.c.at)
    .limit(BATCH)
)
_READ = (
    select(_roll.c.body)
    .where(_roll.c.endpoint == bindparam("of"), _roll.c.at >= bindparam("since"))
    .order_by(_roll.c.at)
)


def _window_as_roll(body: bytes) -> Roll:
    return roll_of(_as_window(body))


def _unpack(body: bytes) -> Roll:
    try:
        return _as_roll(zlib.decompress(body))
    except zlib.error as error:
        raise ValueError(str(error)) from None


class SqlRolls:
    """Rolls in a database from `open_evidence`."""

    def __init__(self, database: Database) -> None:
        """Read from and write to this database."""
        self._database = database

    def age(self, now: float) -> int:
        """Make minutes of old windows and hours of old minutes, and drop old hours.

        Each batch is one transaction: a window in a roll is no longer a window. Return how many
        windows and minutes were added to a larger roll.
        """
        seconds, minutes = int(now) - WINDOWS_S, int(now) - MINUTES_S
        done = self._all(seconds - seconds % MINUTE, _window.c.seq, _SECONDS, MINUTE)
        done += self._all(minutes - minutes % HOUR, _roll.c.id, _MINUTES, HOUR)
        old = delete(_roll).where(_roll.c.span == HOUR, _roll.c.at < int(now) - HOURS_S)

        def drop(connection: Connection) -> None:
            connection.execute(old)

        self._database.write(drop)
        return done

    def _all(self, before: int, column: object, query: object, span: int) -> int:
        """Process everything older than `before`, batch after batch."""
        done = 0
        while True:
            taken = 0

            def work(connection: Connection) -> None:
                nonlocal taken
                found = connection.execute(query, {"before": before}).all()  # type: ignore[call-overload]
                taken = len(found)
                if not found:
                    return
                bodies = [row.body for row in found]
                rolls = read_all(_window_as_roll if span == MINUTE else _unpack, bodies)
                rows = [
                    {
                        "endpoint": roll.endpoint,
                        "span": span,
                        "at": roll.at,
                        "body": zlib.compress(_encode(roll), 1),
                    }
                    for roll in rolled(rolls, span)
                ]
                if rows:
                    connection.execute(insert(_roll), rows)
                table = _window if span == MINUTE else _roll
                connection.execute(delete(table).where(column.in_([row[0] for row in found])))  # type: ignore[attr-defined]

            self._database.write(work)
            done += taken
            if taken < BATCH:
                return done

    def read(self, endpoint: str, since: float) -> Sequence[Roll]:
        """Return an endpoint's rolls that began at `since` (Unix seconds) or later, in order."""

        def work(connection: Connection) -> list[bytes]:
            asked = {"of": endpoint, "since": int(since)}
            return list(connection.execute(_READ, asked).scalars())

        found = read_all(_unpack, self._database.read(work))
        return [
            part
            for span in (HOUR, MINUTE)
            for part in rolled((roll for roll in found if roll.span == span), span)
        ]
