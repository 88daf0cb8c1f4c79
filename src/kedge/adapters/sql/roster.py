"""Roster: the state and the counts that replicas report. Telemetry: it may be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Executable, bindparam, select, text
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.creation import read_beginning
from kedge.adapters.sql.rows import read_all
from kedge.adapters.sql.sqlite.connection import Database
from kedge.core import codec
from kedge.core.errors import Unavailable
from kedge.core.stored.roster import Member, ReplicaHold, Tally
from kedge.core.values import Beginning
from kedge.ports import Clock
from kedge.system.files import ASIDE, ASIDE_COUNT, name_aside

_replica, _tally = tables.replica, tables.tally
_member = msgspec.json.Decoder(Member)
_counted = msgspec.json.Decoder(Tally)
_MEMBER_FIELDS = frozenset(Member.__struct_fields__)
_HOLD_FIELDS = frozenset(ReplicaHold.__struct_fields__)

_insert_member = insert(_replica)
_PUBLISH = _insert_member.on_conflict_do_update(
    index_elements=[_replica.c.name],
    set_={"beat_at": _insert_member.excluded.beat_at, "body": _insert_member.excluded.body},
)
_LEAVE = _replica.delete().where(_replica.c.name == bindparam("whom"))
_MEMBERS = select(_replica.c.name, _replica.c.body).order_by(_replica.c.name)
_ASIDE = text("UPDATE replica SET name = :kept WHERE name = :whom AND body = :body")
_DROP_ASIDE = text(
    "DELETE FROM replica WHERE rowid IN (SELECT rowid FROM replica"
    " WHERE instr(name, :mark) ORDER BY rowid DESC LIMIT -1 OFFSET :most)"
)

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


def _read_member(body: bytes) -> Member:
    """Read a row back, or the known part of a newer kedge's: its replica may still acknowledge."""
    try:
        return _member.decode(body)
    except msgspec.ValidationError:
        known = {k: v for k, v in msgspec.json.decode(body).items() if k in _MEMBER_FIELDS}
        known["holds"] = [
            {k: v for k, v in hold.items() if k in _HOLD_FIELDS} for hold in known.get("holds", ())
        ]
        for name in ("faults", "limited"):  # for people; the process that has them reports them
            known.pop(name, None)
        return msgspec.convert(known, Member)


NOW_S = 1.0
"""Maximum difference of clocks: a row is written at once; another time is of another clock, and
kept."""
AHEAD_S = 2.0
"""How far another machine's clock may be ahead of this one; more means that a clock is wrong."""
TALLIES_KEPT = 2000
"""Maximum number of tallies. A tally is a worker's life times a comparison: with 8 workers and a
restart a day, months."""
_PRUNE = text(
    "DELETE FROM tally WHERE rowid NOT IN (SELECT rowid FROM tally ORDER BY rowid DESC LIMIT :kept)"
)


class HostClock(Clock, Protocol):
    """Clock whose monotonic readings other processes can compare with theirs."""

    @property
    def boot(self) -> str:
        """Return an id of the monotonic clock that processes share; empty if it is unknown."""


class _Telemetry:
    """Common part of the two stores."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stamp(self) -> tuple[int, int, int]:
        """Return a value that differs after any later write."""
        return self._database.stamp()

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.close()

    def _run(self, statement: Executable, rows: Any) -> None:
        """Write once, in its own short transaction."""

        def work(connection: Connection) -> None:
            connection.execute(statement, rows)

        self._database.write(work)


class SqlRoster(_Telemetry):
    """The known replicas, in a database from `open_roster`.

    The database is recreated when it is missing or damaged: every replica writes its full row with
    its next beat. Until then a command may count too few replicas; it reports those that it
    counted.
    """

    def __init__(self, database: Database, clock: HostClock | None = None) -> None:
        """Use this database; without a clock, `beat_at` is the stored value."""
        super().__init__(database)
        self._clock = clock

    def publish(self, member: Member) -> None:
        """Write a replica's report, whole; the newest report counts."""
        if self._clock is not None and abs(self._clock.unix() - member.beat_at) < NOW_S:
            member = replace(member, boot=self._clock.boot, beat=self._clock.monotonic())
        row = {"name": member.name, "beat_at": member.beat_at, "body": codec.encode(member)}
        self._run(_PUBLISH, row)

    def leave(self, name: str) -> None:
        """Remove a replica; an unknown one is no fault."""
        self._run(_LEAVE, {"whom": name})

    def members(self) -> tuple[Member, ...]:
        """Return all replicas by name. Rename an unreadable row; its replica writes another."""

        def work(connection: Connection) -> list[tuple[str, bytes]]:
            return [(row.name, row.body) for row in connection.execute(_MEMBERS)]

        found, unreadable = [], []
        for name, body in self._database.read(work):
            if ASIDE in name:
                continue
            try:
                found.append(self._timed(_read_member(body)))
            except (msgspec.MsgspecError, ValueError, TypeError, AttributeError):
                unreadable.append({"whom": name, "body": body, "kept": name_aside(name)})
        if unreadable:
            self._set_aside(unreadable)
        return tuple(found)

    def _timed(self, member: Member) -> Member:
        """Convert the time of a row to this process's wall clock, whatever that clock did since.

        A row of another monotonic clock (before a reboot, or on a machine that shares the
        directory) keeps its stated time, within bounds. A replica whose row is in the future counts
        as silent.
        """
        if self._clock is None or not member.boot:
            return member
        now = self._clock.unix()
        age = now - member.beat_at
        if member.boot == self._clock.boot:
            age = self._clock.monotonic() - member.beat
        if age < -AHEAD_S:
            return replace(member, beat_at=0.0, ledger_at=0.0)
        beat_at = now - max(age, 0.0)
        return replace(
            member, beat_at=beat_at, ledger_at=member.ledger_at + beat_at - member.beat_at
        )

    def _set_aside(self, rows: Sequence[Mapping[str, object]]) -> None:
        def work(connection: Connection) -> None:
            connection.execute(_ASIDE, rows)
            connection.execute(_DROP_ASIDE, {"mark": ASIDE, "most": ASIDE_COUNT})

        with suppress(Unavailable):  # if the rename fails, the other rows were still read
            self._database.write(work)

    def list_aside(self) -> tuple[str, ...]:
        """Return the names under which unreadable rows are stored."""
        names = self._database.read(lambda c: [row.name for row in c.execute(_MEMBERS)])
        return tuple(name for name in names if ASIDE in name)

    def beginning(self) -> Beginning | None:
        """Return when the database was created; None if it is unknown."""
        return read_beginning(self._database.path)


class SqlEvidence(_Telemetry):
    """Counts by replica and comparison, in a database from `open_evidence`.

    Counts are cumulative and replace those with the same key, so writing twice counts once. The
    database is recreated when it is missing or damaged; a replica's next tally then restores all
    counts since its start. The newest `TALLIES_KEPT` are stored; each process removes older ones
    once.
    """

    def __init__(self, database: Database) -> None:
        """Use this database."""
        super().__init__(database)
        self._pruned = False

    def publish(self, tallies: Sequence[Tally]) -> None:
        """Write the tallies in one transaction; each replaces the tally with its key."""
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
        """Return an endpoint's tallies, except damaged ones and those of a newer kedge."""

        def work(connection: Connection) -> list[bytes]:
            return list(connection.execute(_TALLIES, {"of": endpoint}).scalars())

        return read_all(_counted.decode, self._database.read(work))
