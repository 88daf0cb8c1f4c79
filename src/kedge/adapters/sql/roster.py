"""What replicas say of themselves, and what they count. Telemetry: it may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Executable, bindparam, select, text
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.database import Database
from kedge.core import codec
from kedge.ports import Member, Tally

_replica, _tally = tables.replica, tables.tally
_member = msgspec.json.Decoder(Member)
_counted = msgspec.json.Decoder(Tally)

_insert_member = insert(_replica)
_PUBLISH = _insert_member.on_conflict_do_update(
    index_elements=[_replica.c.name],
    set_={"beat_at": _insert_member.excluded.beat_at, "body": _insert_member.excluded.body},
)
_LEAVE = _replica.delete().where(_replica.c.name == bindparam("whom"))
_MEMBERS = select(_replica.c.body).order_by(_replica.c.name)

_insert_tally = insert(_tally)
_COUNT = _insert_tally.on_conflict_do_update(
    index_elements=list(_tally.primary_key.columns),
    set_={"body": _insert_tally.excluded.body},
)
_TALLIES = (
    select(_tally.c.body)
    .where(_tally.c.endpoint == bindparam("of"))
    .order_by(*_tally.primary_key.columns)
)


TALLIES_KEPT = 2000
"""A tally is a worker's life times a comparison: with 8 workers and a restart a day, months."""
_PRUNE = text(
    "DELETE FROM tally WHERE rowid NOT IN (SELECT rowid FROM tally ORDER BY rowid DESC LIMIT :kept)"
)


class _Telemetry:
    """What the two have in common."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stamp(self) -> tuple[int, int, int]:
        """A value that differs when anybody has written since."""
        return self._database.stamp()

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        self._database.close()

    def _run(self, statement: Executable, rows: Any) -> None:
        """Write once, in a transaction of its own: as short as it can be."""

        def work(connection: Connection) -> None:
            connection.execute(statement, rows)

        self._database.write(work)


class SqlRoster(_Telemetry):
    """The replicas that are known; on a database from `open_roster`.

    The database is made again when it is missing or damaged: every replica writes itself whole
    with its next beat. Until then a command may count too few of them, and says whom it counted.
    """

    def publish(self, member: Member) -> None:
        """Write what a replica says of itself, whole; the newest word counts."""
        row = {"name": member.name, "beat_at": member.beat_at, "body": codec.encode(member)}
        self._run(_PUBLISH, row)

    def leave(self, name: str) -> None:
        """Forget a replica; no fault when it is not known."""
        self._run(_LEAVE, {"whom": name})

    def members(self) -> tuple[Member, ...]:
        """Everyone known, by name."""

        def work(connection: Connection) -> tuple[Member, ...]:
            return tuple(_member.decode(body) for body in connection.execute(_MEMBERS).scalars())

        return self._database.read(work)


class SqlEvidence(_Telemetry):
    """What was counted, by replica and comparison; on a database from `open_evidence`.

    Counts are cumulative and written over those with the same key, so writing twice counts
    once. The database is made again when it is missing or damaged; a replica's next tally then
    brings back all that it has counted since it started. The newest `TALLIES_KEPT` are kept;
    each process drops the older ones once.
    """

    def __init__(self, database: Database) -> None:
        """Count into this database."""
        super().__init__(database)
        self._pruned = False

    def publish(self, tallies: Sequence[Tally]) -> None:
        """Write the tallies over those with the same key, all in one transaction."""
        rows = [
            {
                "replica": tally.replica,
                "endpoint": tally.endpoint,
                "production": tally.production,
                "candidate": tally.candidate or 0,
                "salt": tally.salt,
                "body": codec.encode(tally),
            }
            for tally in tallies
        ]
        if rows:
            self._run(_COUNT, rows)
            if not self._pruned:
                self._run(_PRUNE, {"kept": TALLIES_KEPT})
                self._pruned = True

    def tallies(self, endpoint: str) -> tuple[Tally, ...]:
        """Everything counted for an endpoint."""

        def work(connection: Connection) -> tuple[Tally, ...]:
            bodies = connection.execute(_TALLIES, {"of": endpoint}).scalars()
            return tuple(_counted.decode(body) for body in bodies)

        return self._database.read(work)
