"""Store of predictions by the hour, and of the labels that are joined to them.

    DIR/spool/            what workers write (`spool`)
       /hours/HOUR.db     predictions of one hour since 1970 (`hours`)
       /labels.db         labels in the order of joining, and waiting outcomes (`joining`)
       /lock              held while anything is written

There is one writer at a time. So two processes cannot both join one outcome, and no outcome is
parked while its prediction is stored. Readers do not wait. A spool file is removed when all of it
is stored. After a crash it is read again, and rows that exist already are counted and dropped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from kedge.adapters.records import corrections, reuse, unrecorded
from kedge.adapters.records.files import (
    begun,
    damaged,
    locked,
    make,
    opened,
    refuse_when_short,
    told,
)
from kedge.adapters.records.hours import NO_CANDIDATE, Hours, Several, SpooledPrediction
from kedge.adapters.records.joining import NAMES, TABLES, Joining, forget, hashed, unpark
from kedge.adapters.records.spool import begun_at, frames, takeable
from kedge.core.errors import BadRequest, Unavailable
from kedge.core.evidence.records import (
    HORIZON_S,
    HOUR_S,
    ID_REUSED,
    PARKED_S,
    Conflict,
    Correction,
    Coverage,
    Ingested,
    Joined,
    JoinRow,
    Known,
    Labelled,
    Outcome,
    Reused,
    requests_of,
    row_hour,
)
from kedge.core.evidence.unrecorded import ALL_BYTES, HOUR_BYTES, RETRY

SPOOL = "spool"
"""Directory that workers write to, under the directory of the records."""
SETTLED_S = 10.0
"""Maximum time from an answer until its prediction is in a spool file: workers write once a second,
and count as silent after five."""
FILES = 16
"""Maximum number of spool files that one call of `ingest` takes."""
PIECE_ROWS, PIECE_BYTES = 50_000, 16 << 20
"""Maximum part of a spool file that is held in memory."""
CACHE_KB = 64_000
"""Cache for the indexes of labels.db: labels come in any order."""

_row = msgspec.msgpack.Decoder(JoinRow).decode
_value = msgspec.msgpack.Decoder(Known).decode


class Records:
    """Predictions, stored while a label may still come, and the labels that are joined to them.

    Several processes and threads may use one directory at once. Every call opens what it needs.

    Every method raises `Unavailable`: `records_unavailable` (the disk), `records_busy` (another
    process writes for too long), `records_damaged` (labels.db cannot be read).
    """

    def __init__(self, directory: Path) -> None:
        """Remember the directory; no file is opened yet."""
        self._labels_path = directory / "labels.db"
        self._lock = directory / "lock"
        self._hours = Hours(directory / "hours", self._lock)
        self.spool = directory / SPOOL

    def keep(self, gigabytes: float) -> None:
        """Limit the predictions of this host to so many gigabytes, instead of `KEEP_GB`."""
        self._hours.keep_bytes = int(gigabytes * 2**30)

    # ------------------------------------------------------------ predictions come in

    def waiting(self) -> int:
        """Return how many spool files can be taken now."""
        return len(takeable(self.spool))

    def ingest(self, now: float) -> Ingested:
        """Store what workers wrote, then join the outcomes that had arrived earlier.

        One call takes at most `FILES` files, so that other processes get their turn; `waiting`
        returns whether more are left.
        """
        refuse_when_short(self.spool.parent)
        taking = _Taking(now)
        with told():
            for path in takeable(self.spool)[:FILES]:
                with locked(self._lock):
                    self._take(path, taking)
                    taking.hours += self._shrink()
            taking.damaged = self._count_damaged()
        return taking.done()

    def _shrink(self) -> int:
        """Remove hours beyond the space limit; return how many."""
        dropped = self._hours.shrink()
        if dropped:
            with self._made_labels() as labels, begun(labels):
                for hour, counts in dropped.items():
                    unrecorded.add(labels, ALL_BYTES, hour, counts)
        return len(dropped)

    def _take(self, path: Path, taking: _Taking) -> None:
        if not path.exists():
            return  # another process took it
        with self._made_labels() as labels:
            taking.forgotten = dict(labels.execute("SELECT hash, until FROM forgotten"))
            for piece in _pieces(path, taking):
                stored = self._hours.store(piece)
                taking.count += stored.new
                taking.duplicates += stored.duplicates
                taking.reused += len(stored.second)
                taking.bare += stored.bare
                taking.over += len(stored.over)
                rows = [each.row for each in piece]
                with begun(labels):
                    again = reuse.second(labels, rows)
                    taking.withdrawn += reuse.mark(labels, [*stored.second, *again])
                    unrecorded.add_rows(labels, ID_REUSED, stored.second)
                    unrecorded.add_rows(labels, RETRY, stored.retried)
                    unrecorded.add_rows(labels, HOUR_BYTES, stored.over)
                    self._adopt(labels, rows, taking)
                    unpark(labels, taking.dropped)
                taking.dropped.clear()
        path.unlink(missing_ok=True)

    def _adopt(self, labels: sqlite3.Connection, rows: list[JoinRow], taking: _Taking) -> None:
        """Join the outcomes parked for these rows. The rows may be old, after a crash."""
        if labels.execute("SELECT 1 FROM parked LIMIT 1").fetchone() is None:
            return
        asked = dict.fromkeys((row.endpoint, name) for row in rows for name in requests_of(row.id))
        parked: dict[str, list[tuple[float, bool, Outcome]]] = {}
        query = (
            "SELECT id, label_version, value, at, parked_at FROM parked"
            " WHERE endpoint = ? AND id = ?"
        )
        for key in asked:
            for name, version, value, at, since in labels.execute(query, key):
                known = since if at is None else at
                one = Outcome(name, _value(value), known, version)
                parked.setdefault(key[0], []).append((since, at is not None, one))
        for endpoint, some in parked.items():
            some.sort(key=lambda each: each[0])
            waiting = [one for *_, one in some]
            undated = {place for place, (_, dated, _) in enumerate(some) if not dated}
            taking.adopted = taking.adopted.plus(
                self._join(labels, endpoint, waiting, taking.now, parked=True, undated=undated)
            )

    def _join(
        self,
        labels: sqlite3.Connection,
        endpoint: str,
        outcomes: list[Outcome],
        now: float,
        *,
        parked: bool = False,
        undated: AbstractSet[int] = frozenset(),
        by: str = "",
    ) -> Joined:
        """Join outcomes with one prediction, refuse ambiguous ones, and park the rest.

        `undated`: the outcomes without a given time. `by`: the author of corrections.
        """
        found = self._hours.find(endpoint, (one.id for one in outcomes))
        reuse.mark(
            labels,
            [row for named in found.values() if isinstance(named, Several) for row in named.rows],
        )
        twice = reuse.marked(labels, endpoint, (one.id for one in outcomes))
        settled = min(begun_at(self.spool), now) - SETTLED_S
        joining = Joining(labels, endpoint, now, settled=settled, by=by)
        for place, one in enumerate(outcomes):
            named = found.get(one.id)
            if parked and (named is not None or one.id in twice):
                joining.unpark(one)
            if one.id in twice:
                reuse.refuse(labels, endpoint, one.id)
                joining.refuse(ID_REUSED)
            elif isinstance(named, Several):
                joining.refuse(named.cause)
            elif named is not None:
                joining.join(one, named, place, dated=place not in undated)
            elif not parked:
                joining.park(one)
        return joining.done()

    def _count_damaged(self) -> int:
        """Return how many partitions any process has set aside since the last count."""
        names = [path.name for path in self._hours.damaged()]
        if not names:
            return 0
        with locked(self._lock), self._made_labels() as labels:
            fresh = "INSERT OR IGNORE INTO aside VALUES (?)"
            return sum(labels.execute(fresh, (name,)).rowcount for name in names)

    # ------------------------------------------------------------ outcomes come in

    def join(
        self, endpoint: str, outcomes: Iterable[Outcome], now: float, *, by: str = ""
    ) -> Joined:
        """Join outcomes to their predictions: all of them or, if this process is killed, none.

        The first value under a label version stands, unless `by` names the author of corrections.
        An outcome without its prediction waits for it. Pass batches of some ten thousand: each is
        held in memory, and other writers wait for it.
        """
        batch = list(outcomes)
        if not batch:
            return Joined()
        refuse_when_short(self.spool.parent)
        with told(), locked(self._lock), self._made_labels() as labels, begun(labels):
            return self._join(labels, endpoint, batch, now, by=by)

    # ------------------------------------------------------------ reading

    def labels(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Labelled, ...]]:
        """Return at most `limit` labels in the order of joining, and the next cursor.

        A cursor beyond every label belongs to a lost labels.db: the next cursor is then 0.
        """
        with self._having("label") as labels:
            if labels is None:
                return 0, ()
            rows = labels.execute(
                "SELECT seq, id, label_version, value, at, joined_at, body"
                " FROM label INDEXED BY label_order"
                " WHERE endpoint = ? AND seq > ? ORDER BY seq LIMIT ?",
                (endpoint, after, limit),
            ).fetchall()
            if not rows:
                query = "SELECT seq FROM sqlite_sequence WHERE name = 'label'"
                (highest,) = labels.execute(query).fetchone() or (0,)
                return after if after <= highest else 0, ()
        return rows[-1][0], tuple(_readable(row[1:] for row in rows))

    def coverage(self, endpoint: str) -> tuple[Coverage, ...]:
        """Return how many predictions of each arm have a label, comparison by comparison."""
        with told():
            given = self._hours.coverage(endpoint)
        labelled: dict[tuple[int, int, str, str], tuple[dict[str, int], dict[str, int]]] = {}
        for production, candidate, salt, arm, version, declined, n in self._asked(
            "SELECT production, candidate, salt, arm, label_version, declined, sum(n)"
            " FROM tally WHERE endpoint = ? GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(n) > 0",
            (endpoint,),
        ):
            both = labelled.setdefault((production, candidate, salt, arm), ({}, {}))
            both[declined][version] = n
        found = []
        for key in sorted({*given, *labelled}):
            production, candidate, salt, arm = key
            known, declined = labelled.get(key, ({}, {}))
            found.append(
                Coverage(
                    production=production,
                    candidate=None if candidate == NO_CANDIDATE else candidate,
                    salt=salt,
                    arm=arm,
                    predictions=given[key],
                    labelled=known,
                    declined=declined,
                )
            )
        return tuple(found)

    def reused(self, endpoint: str) -> Reused:
        """Return how many ids were reused, and the labels that are not joined because of it."""
        with self._having("reused") as labels:
            return Reused() if labels is None else reuse.counted(labels, endpoint)

    def unrecorded(self, endpoint: str) -> dict[str, int]:
        """Return by cause how many predictions from the spool are missing from the records."""
        with self._having("unrecorded") as labels:
            return {} if labels is None else unrecorded.counted(labels, endpoint)

    def corrected(self, endpoint: str, after: int) -> tuple[int, int | None]:
        """Return the newest correction's number, and the first label corrected after `after`."""
        with self._having("correction") as labels:
            return (after, None) if labels is None else corrections.newest(labels, endpoint, after)

    def corrections(self, endpoint: str, limit: int) -> tuple[int, tuple[Correction, ...]]:
        """Return how many labels were corrected, and the newest corrections, at most `limit`."""
        with self._having("correction") as labels:
            if labels is None:
                return 0, ()
            return corrections.count(labels, endpoint), corrections.listed(labels, endpoint, limit)

    def conflicts(self, endpoint: str, limit: int) -> tuple[Conflict, ...]:
        """Return at most `limit` refused values, the newest first."""
        rows = self._asked(
            "SELECT id, label_version, stands, refused, at, joined_at FROM conflict"
            " WHERE endpoint = ? ORDER BY seq DESC LIMIT ?",
            (endpoint, limit),
        )
        return tuple(
            Conflict(name, endpoint, version, _value(stands), _value(refused), at, joined_at)
            for name, version, stands, refused, at, joined_at in rows
        )

    def rows(
        self, endpoint: str, since: float, until: float, *, newest: bool = False
    ) -> Iterator[JoinRow]:
        """Yield predictions given in [since, until), hour by hour; with their inputs if stored.

        `newest`: the newest hour first.
        """
        with told():
            yield from self._hours.rows(endpoint, since, until, newest=newest)

    def row(self, endpoint: str, name: str) -> JoinRow | None:
        """Return one prediction by its id, with its inputs if stored; None: it is not found."""
        with told():
            return self._hours.row(endpoint, name)

    def counted(self, endpoint: str, since: float, until: float) -> int:
        """Return how many predictions the hours of [since, until) hold, without reading them."""
        with told():
            return self._hours.counted(endpoint, since, until)

    def torn(self, since: float, until: float) -> tuple[int, ...]:
        """Return the damaged hours of [since, until) that were set aside, as hours since 1970."""
        with told():
            stems = [path.name.partition(".")[0] for path in self._hours.damaged()]
        hours = sorted({int(stem) for stem in stems if stem.isdecimal()})
        return tuple(h for h in hours if since // HOUR_S <= h <= until // HOUR_S)

    def labelled(
        self, endpoint: str, since: float, until: float, limit: int
    ) -> tuple[Labelled, ...]:
        """Return at most `limit` labels of predictions in [since, until), from the newest hours."""
        if not self._labels_path.exists():
            return ()
        hours = int(since // HOUR_S) - 1, int(until // HOUR_S) + 1
        with told(), self._present_labels() as labels:
            rows = labels.execute(
                "SELECT id, label_version, value, at, joined_at, body"
                " FROM label INDEXED BY label_hour"
                " WHERE hour BETWEEN ? AND ? AND endpoint = ? ORDER BY hour DESC",
                (*hours, endpoint),
            )
            found = _readable(rows)
            return tuple(islice((one for one in found if since <= one.row.at < until), limit))

    def newest_label(self, endpoint: str) -> int:
        """Return the cursor after the newest label; 0 if there is none."""
        rows = self._asked(
            "SELECT seq FROM label INDEXED BY label_order WHERE endpoint = ?"
            " ORDER BY seq DESC LIMIT 1",
            (endpoint,),
        )
        return int(rows[0][0]) if rows else 0

    # ------------------------------------------------------------ removing

    def forget(
        self,
        unit: str,
        endpoint: str | None = None,
        *,
        until: float = inf,
        also: Sequence[str] = (),
    ) -> int:
        """Remove all predictions and labels of a unit; return how many there were.

        A hash of the unit is stored, so that its predictions given before `until` are also dropped
        when they come from the spool. Partitions that were set aside as damaged are removed,
        because they cannot be searched.

        Args:
            unit: the entity.
            endpoint: the only endpoint to search. None: all endpoints.
            until: Unix seconds.
            also: other spellings of the unit.

        Raises:
            BadRequest: `no_unit`.
        """
        if not unit:
            raise BadRequest("no unit was named", code="no_unit", hint="name the entity to forget")
        with told():
            with locked(self._lock), self._made_labels() as labels:
                labels.executemany(
                    "INSERT INTO forgotten VALUES (?, ?)"
                    " ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
                    [(hashed(each, endpoint), until) for each in (unit, *also)],
                )
            self._hours.remove_damaged()
            gone = self._hours.forget([unit, *also], endpoint)
            # Last: an outcome may have been joined while the hours were searched one by one.
            with locked(self._lock), self._made_labels() as labels:
                return len(gone) + forget(labels, [unit, *also], endpoint, gone)

    def under_way(self, units: Sequence[str], endpoint: str | None) -> int:
        """Return how many predictions of a unit are in spool files that are not taken yet."""
        with suppress(OSError):  # the directory does not exist yet
            return sum(
                row.unit in units and endpoint in (None, row.endpoint)
                for path in self.spool.iterdir()
                for row in _rows_of(path)
            )
        return 0

    def prune(self, now: float) -> int:
        """Remove data beyond the horizon; return how many outcomes never found a prediction."""
        first = int((now - HORIZON_S) // HOUR_S)
        with told(), locked(self._lock):
            self._hours.prune(first)
            if not self._labels_path.exists():
                return 0
            with self._made_labels() as labels, begun(labels):
                labels.execute("DELETE FROM label WHERE hour < ?", (first,))
                labels.execute("DELETE FROM tally WHERE hour < ?", (first,))
                labels.execute("DELETE FROM conflict WHERE joined_at < ?", (now - HORIZON_S,))
                labels.execute("DELETE FROM reused WHERE hour < ?", (first,))
                labels.execute("DELETE FROM unrecorded WHERE hour < ?", (first,))
                labels.execute("DELETE FROM correction WHERE hour < ?", (first,))
                labels.execute("DELETE FROM forgotten WHERE until < ?", (now - HORIZON_S,))
                return labels.execute(
                    "DELETE FROM parked WHERE parked_at < ?", (now - PARKED_S,)
                ).rowcount

    def strip(self, now: float, retention_s: float, endpoint: str) -> int:
        """Remove the raw inputs of predictions older than this; return how many had them."""
        with told():
            return self._hours.strip(now - retention_s, endpoint)

    # ------------------------------------------------------------ labels.db

    @contextmanager
    def _made_labels(self) -> Iterator[sqlite3.Connection]:
        """Open or create labels.db for a holder of the lock."""
        if not self._labels_path.exists():
            make(self._labels_path, TABLES)
        with self._present_labels() as connection:
            connection.executescript(reuse.TABLE + unrecorded.TABLE + corrections.TABLE)
            yield connection

    @contextmanager
    def _having(self, table: str) -> Iterator[sqlite3.Connection | None]:
        """Open labels.db if it has a table; else, or without a file, yield None."""
        if not self._labels_path.exists():
            yield None
            return
        with told(), self._present_labels() as labels:
            there = "SELECT 1 FROM sqlite_schema WHERE name = ?"
            yield labels if labels.execute(there, (table,)).fetchone() is not None else None

    @contextmanager
    def _present_labels(self) -> Iterator[sqlite3.Connection]:
        """Open the existing labels.db."""
        try:
            with closing(opened(self._labels_path, NAMES, cache_kb=CACHE_KB)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            if not damaged(error):
                raise
            raise Unavailable(
                f"{self._labels_path} is damaged: {error}",
                code="records_damaged",
                hint="move it aside, with its -wal, and hand the labels in again",
            ) from error

    def _asked(self, query: str, given: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Return the answer of labels.db; empty if it does not exist."""
        if not self._labels_path.exists():
            return []
        with told(), self._present_labels() as labels:
            return labels.execute(query, given).fetchall()


def _readable(rows: Iterable[tuple[Any, ...]]) -> Iterator[Labelled]:
    """Yield labels as values; skip those that are damaged or of a newer kedge."""
    for name, version, value, at, joined_at, body in rows:
        with suppress(msgspec.MsgspecError):
            yield Labelled(_row(body), Outcome(name, _value(value), at, version), joined_at)


# ---------------------------------------------------------------- taking


@dataclass
class _Taking:
    """Progress of one call of `ingest`."""

    now: float
    count: int = 0
    torn: int = 0
    duplicates: int = 0
    reused: int = 0
    withdrawn: int = 0
    bare: int = 0
    over: int = 0
    hours: int = 0
    dropped_rows: int = 0
    damaged: int = 0
    adopted: Joined = field(default_factory=Joined)
    forgotten: Mapping[bytes, float] = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    def drops(self, row: JoinRow) -> bool:
        """Return whether the row's unit asked to be forgotten; if so, count it."""
        if not self.forgotten or not row.unit:
            return False
        hashes = hashed(row.unit, row.endpoint), hashed(row.unit, None)
        if row.at >= max(self.forgotten.get(each, -inf) for each in hashes):
            return False
        self.dropped_rows += 1
        self.dropped += ((row.endpoint, name) for name in requests_of(row.id))
        return True

    def done(self) -> Ingested:
        """Return the progress as a value."""
        return Ingested(
            count=self.count,
            torn=self.torn,
            duplicates=self.duplicates,
            reused=self.reused,
            withdrawn=self.withdrawn,
            bare=self.bare,
            over=self.over,
            hours=self.hours,
            forgotten=self.dropped_rows,
            damaged=self.damaged,
            adopted=self.adopted,
        )


def _rows_of(path: Path) -> Iterator[JoinRow]:
    """Yield the rows of a spool file, even of one that is being written or is gone."""
    with suppress(OSError):
        for frame in frames(path):
            yield from frame.rows


def _pieces(path: Path, taking: _Taking) -> Iterator[list[SpooledPrediction]]:
    """Yield a spool file piece by piece, without the rows of forgotten units."""
    piece: list[SpooledPrediction] = []
    size = 0
    for frame in frames(path):
        taking.torn += frame.torn
        for row, raw in zip(frame.rows, frame.raw, strict=True):
            if not taking.drops(row):
                piece.append(SpooledPrediction(row, raw, *row_hour(row)))
                size += len(raw)
        if len(piece) >= PIECE_ROWS or size >= PIECE_BYTES:
            yield piece
            piece, size = [], 0
    yield piece
