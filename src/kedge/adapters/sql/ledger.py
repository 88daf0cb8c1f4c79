"""The ledger in SQLite: the append-only truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import chain_heads, tables, verify
from kedge.adapters.sql.rows import (
    LedgerRow,
    columns_of,
    damaged,
    entries_of,
    entry_of,
    policy_of,
    release_of,
    row_of,
    state_of,
)
from kedge.adapters.sql.sqlite.connection import Database
from kedge.adapters.sql.sqlite.revisions import require
from kedge.core import codec
from kedge.core.codec import GENESIS
from kedge.core.errors import Refused, Stale
from kedge.core.names import check_name
from kedge.core.release.commands import AnyEvent, Configured, Restored
from kedge.core.release.machine import apply
from kedge.core.stored.head import Head
from kedge.core.stored.ledger import LOCAL, Author, Book, Change, Entry, Note, Wanted
from kedge.core.values import ActorKind, Placement, Policy, Release, State

_ledger, _endpoint, _release = tables.ledger, tables.endpoint, tables.release
_appended = tables.appended

_newest = (
    select(func.max(_ledger.c.epoch)).where(_ledger.c.endpoint == _endpoint.c.endpoint)
).scalar_subquery()
_ROWS = select(_endpoint, _newest.label("newest")).order_by(_endpoint.c.endpoint)
_NEW_RELEASES = (
    select(_release.c.id, _release.c.endpoint, _release.c.number, _release.c.body)
    .where(_release.c.id > bindparam("known"))
    .order_by(_release.c.id)
)
_REMOVED = (
    select(_release.c.endpoint, _release.c.number)
    .join(
        tables.model_version,
        (tables.model_version.c.model == _release.c.model)
        & (tables.model_version.c.number == _release.c.version),
    )
    .where(tables.model_version.c.removed_at.is_not(None))
)
_CONDEMNED = select(tables.condemned.c.endpoint, tables.condemned.c.release).order_by(
    tables.condemned.c.seq
)
_WANTED = select(tables.wanted).where(tables.wanted.c.until > bindparam("now"))
_POLICY = select(tables.policy.c.body).where(tables.policy.c.digest == bindparam("wanted"))
_HEAD = select(_ledger.c.seq, _ledger.c.hash).order_by(_ledger.c.seq.desc()).limit(1)
_HISTORY = (
    select(_ledger)
    .where(_ledger.c.endpoint == bindparam("of"))
    .order_by(_ledger.c.epoch.desc(), _ledger.c.seq.desc())
    .limit(bindparam("most"))
)
_EARLIER = _HISTORY.where(
    (_ledger.c.epoch < bindparam("epoch"))
    | ((_ledger.c.epoch == bindparam("epoch")) & (_ledger.c.seq < bindparam("seq")))
)
_LATER = (
    select(_ledger)
    .where(_ledger.c.seq > bindparam("after"))
    .order_by(_ledger.c.seq)
    .limit(bindparam("most"))
)
_RECENT = (
    select(_ledger)
    .where(_ledger.c.endpoint == bindparam("of"))
    .order_by(_ledger.c.epoch.desc(), _ledger.c.seq.desc())
    .limit(bindparam("within"))
    .subquery()
)
_OF_KIND = (
    select(_RECENT)
    .where(func.substr(_RECENT.c.event, 1, func.length(bindparam("begins"))) == bindparam("begins"))
    .order_by(_RECENT.c.epoch.desc(), _RECENT.c.seq.desc())
    .limit(bindparam("most"))
)
"""Query for one kind of note: an event is stored with its tag first, and a note's kind follows
it."""
_CHANGES = (
    select(_ledger)
    .where(_ledger.c.endpoint == bindparam("of"), _ledger.c.epoch == bindparam("at_epoch"))
    .order_by(_ledger.c.seq)
    .limit(1)
)
_EPOCH = select(_endpoint.c.epoch).where(_endpoint.c.endpoint == bindparam("of"))
_ROW_MOVES = (
    _endpoint.update()
    .where(_endpoint.c.endpoint == bindparam("of"), _endpoint.c.epoch == bindparam("expect"))
    .values({c.name: bindparam(f"to_{c.name}") for c in _endpoint.c if c.name != "endpoint"})
)
_PARDON = tables.condemned.delete().where(
    tables.condemned.c.endpoint == bindparam("of"), tables.condemned.c.release == bindparam("whom")
)


class SqlLedger:
    """Ledger of one state directory, on its own thread's connection.

    An append that returned is on the disk; one that raised has changed nothing. The exception is a
    file that was deleted during the write (`ledger_gone`). After `Unavailable` the next call opens
    the file again.
    """

    def __init__(
        self,
        database: Database,
        *,
        unix: Callable[[], float] = time.time,  # noqa: TID251 - for callers without a Clock
        author: Author = LOCAL,
    ) -> None:
        """Follow a database from `open_ledger`.

        Args:
            database: the file.
            unix: the clock that decides when a wish expires.
            author: the component that writes through this ledger, and its token.
        """
        self._database = database
        self._author = author
        self._unix = unix
        self._incarnation = 0
        self._policies: dict[str, Policy] = {}
        self._releases: dict[str, dict[int, Release]] = {}
        self._known = 0

    def read(self, known: Head | None = None) -> Book:
        """Read every endpoint's row, and the wishes that have not expired.

        The result includes endpoints that have releases but were never changed, at epoch 0. It
        excludes releases of a removed model version: no request may go to them.

        `known` is the newest entry that the reader saw before: `Book.follows` reports whether the
        history contains it.
        """
        return self._database.read(lambda connection: self._read(connection, known))

    def stamp(self) -> tuple[int, int, int]:
        """Return a value that differs when any process has committed since.

        While it is the same, `read` returns the same, except for wishes that expire.

        Raises:
            Unavailable: as any other method; so this also detects a lost ledger.
        """
        return self._database.stamp()

    def append(
        self,
        endpoint: str,
        events: Sequence[AnyEvent],
        *,
        expect: int,
        by: str,
        reason: str,
        at: str,
        actor: ActorKind | None = None,
    ) -> tuple[Entry, ...]:
        """Append the events and move the row, in one durable transaction.

        `actor` is the kind of `by`; None: the component that this ledger was opened for.

        Raises:
            Stale: the row is no longer at `expect`; the error names the epoch, the author and
                the reason.
            Refused: the events name something that the endpoint does not have.
        """
        if not events:
            return ()
        change, who = Change(endpoint, tuple(events), expect), self._author
        if actor is not None:
            who = replace(who, kind=actor)
        (entries,) = self._append_all((change,), by, reason, at, who)
        return entries

    def append_all(
        self,
        changes: Sequence[Change],
        *,
        by: str,
        reason: str,
        at: str,
        head: tuple[str, int] | None = None,
    ) -> tuple[tuple[Entry, ...], ...]:
        """Append to several endpoints and move their rows, in one durable transaction.

        Args:
            changes: each with at least one event.
            by: the author's name.
            reason: the reason.
            at: the time, RFC 3339.
            head: (schema, transformation): also moves the head that the schema's followers use.

        Raises:
            Stale: one of the rows is no longer at its `expect`.
            Refused: the events name something that the endpoint does not have.
        """
        return self._append_all(changes, by, reason, at, self._author, head)

    def _append_all(
        self,
        changes: Sequence[Change],
        by: str,
        reason: str,
        at: str,
        author: Author,
        head: tuple[str, int] | None = None,
    ) -> tuple[tuple[Entry, ...], ...]:
        for change in changes:
            if change.expect == 0:  # an endpoint from before the rule can still be rolled back
                check_name(change.endpoint)

        def work(connection: Connection) -> tuple[tuple[Entry, ...], ...]:
            for change in changes:
                self._unchanged(connection, change.endpoint, change.expect)
            if head is not None:
                moves = tables.feature_schema.update().values(head=head[1])
                connection.execute(moves.where(tables.feature_schema.c.schema_id == head[0]))
            states = self._states(connection)
            return tuple(
                self._append(connection, states, change, by, reason, at, author)
                for change in changes
            )

        return self._database.write(work)

    def note(self, endpoint: str, note: Note, *, by: str, reason: str, at: str) -> Entry:
        """Append an entry that changes no row; it carries the endpoint's current epoch."""
        return self._database.write(
            lambda c: noted(c, endpoint, note, by=by, reason=reason, at=at, author=self._author)
        )

    def begin_restored(
        self, *, backup: str, above: int, by: str, reason: str, at: str
    ) -> tuple[Entry, ...]:
        """Record that this ledger was restored: one entry for each endpoint, in one transaction.

        Entries and epochs continue above every number that others may have seen in the lost
        history. So a number in between belongs to the lost history only.

        Args:
            backup: the time of the backup.
            above: the maximum: no lost entry has a larger number, and none took an endpoint to
                a larger epoch.
            by: the author's name.
            reason: the reason.
            at: the time, RFC 3339.
        """

        def work(connection: Connection) -> tuple[Entry, ...]:
            newest, digest = chain_head(connection)
            seq, previous, entries = max(newest, above), digest, []
            for state in self._states(connection).values():
                seq += 1
                event = Restored(
                    seq=newest, hash=digest, epoch=max(state.epoch, above) + 1, backup=backup, at=at
                )
                columns = columns_of(
                    seq=seq,
                    endpoint=state.endpoint,
                    epoch=event.epoch,
                    at=at,
                    by=by,
                    reason=reason,
                    event=event,
                    previous_hash=previous,
                    author=self._author,
                )
                previous = columns["hash"]
                _write(connection, columns)
                _move(connection, apply(state, event), state.epoch)
                entries.append(entry_of(columns))
            return tuple(entries)

        return self._database.write(work)

    def want(self, wanted: Wanted) -> None:
        """Write (or renew) a wish; remove expired wishes."""
        table = tables.wanted
        upsert = insert(table).on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={"until": wanted.until, "by": wanted.by, "copies": wanted.copies},
        )
        row = {
            "endpoint": wanted.endpoint,
            "release": wanted.release,
            "placement": wanted.placement.value,
            "until": wanted.until,
            "by": wanted.by,
            "copies": wanted.copies,
        }

        def work(connection: Connection) -> None:
            connection.execute(table.delete().where(table.c.until <= self._unix()))
            connection.execute(upsert, row)

        self._database.write(work)

    def history(
        self, endpoint: str, limit: int = 50, *, before: tuple[int, int] | None = None
    ) -> tuple[Entry, ...]:
        """Return the newest entries of an endpoint, newest first.

        `before` is the epoch and the number of an entry: only older ones are returned.
        """

        def work(connection: Connection) -> tuple[Entry, ...]:
            asked = {"of": endpoint, "most": limit}
            if before is None:
                found = connection.execute(_HISTORY, asked)
            else:
                found = connection.execute(
                    _EARLIER, {**asked, "epoch": before[0], "seq": before[1]}
                )
            return entries_of(found.mappings().all())

        return self._database.read(work)

    def later(self, after: int, limit: int) -> tuple[Entry, ...]:
        """Return the entries of all endpoints with a number above `after`, oldest first."""

        def work(connection: Connection) -> tuple[Entry, ...]:
            found = connection.execute(_LATER, {"after": after, "most": limit})
            return entries_of(found.mappings().all())

        return self._database.read(work)

    def entries(
        self, endpoint: str, what: str, limit: int = 1, *, within: int = 1_000_000
    ) -> tuple[Entry, ...]:
        """Return the newest entries of one event, or of one kind of note, newest first.

        The search covers the newest `within` entries of the endpoint.
        """

        def work(connection: Connection) -> tuple[Entry, ...]:
            found: list[Any] = []
            for begins in (f'{{"event":"noted","kind":"{what}"', f'{{"event":"{what}"'):
                asked = {"of": endpoint, "begins": begins, "most": limit, "within": within}
                found += connection.execute(_OF_KIND, asked).mappings().all()
            return entries_of(found)

        return self._database.read(work)

    def missing(self, heads: Iterable[Head]) -> dict[Head, str]:
        """Return the heads missing from the history, each with the entry in its place, in words.

        Heads that an operator accepted are excluded.
        """
        return self._database.read(lambda connection: chain_heads.missing(connection, heads))

    def verify(self) -> list[str]:
        """Verify the whole ledger; return the faults, in words.

        It reads everything: the hash chain, the epochs, every row against all its events folded
        again, the digests of releases, and SQLite's own checks.
        """

        def work(connection: Connection) -> list[str]:
            self._forget()
            return verify.faults(connection, self._states)

        return self._database.read(work)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.close()

    # ------------------------------------------------------------ reading

    def _read(self, connection: Connection, known: Head | None) -> Book:
        states = self._states(connection)
        wanted = tuple(
            Wanted(
                endpoint=row.endpoint,
                release=row.release,
                placement=Placement(row.placement),
                until=row.until,
                by=row.by,
                copies=row.copies,
            )
            for row in connection.execute(_WANTED, {"now": self._unix()})
        )
        seq, newest = chain_head(connection)
        return Book(
            states=states,
            wanted=wanted,
            head=Head(seq, newest) if seq else None,
            follows=known is None or not chain_heads.missing(connection, (known,)),
        )

    def _states(self, connection: Connection) -> dict[str, State]:
        releases = self._all_releases(connection)
        condemned: dict[str, list[int]] = {}
        for name, number in connection.execute(_CONDEMNED):
            condemned.setdefault(name, []).append(number)
        states = {
            name: State(endpoint=name, releases=numbers) for name, numbers in releases.items()
        }
        for row in connection.execute(_ROWS).mappings():
            name = row["endpoint"]
            if row["epoch"] != row["newest"]:
                raise damaged(f"{name} is at epoch {row['epoch']}, its entries at {row['newest']}")
            states[name] = state_of(
                row,
                policy=self._policy(connection, row["policy_digest"]),
                condemned=tuple(condemned.get(name, ())),
                releases=releases.get(name, {}),
            )
        return states

    def _all_releases(self, connection: Connection) -> dict[str, dict[int, Release]]:
        """Return every release of a version that was not removed. Only new ones are decoded.

        Cached releases are not changed later, because states given to callers hold them.
        """
        if self._incarnation != self._database.incarnation:
            self._forget()
            self._incarnation = self._database.incarnation
        for row in connection.execute(_NEW_RELEASES, {"known": self._known}).all():
            known = self._releases.get(row.endpoint, {})
            self._releases[row.endpoint] = {**known, row.number: release_of(row.body)}
            self._known = row.id
        removed = connection.execute(_REMOVED).all()
        if not removed:
            return dict(self._releases)
        gone = {(row.endpoint, row.number) for row in removed}
        return {
            name: {n: release for n, release in numbers.items() if (name, n) not in gone}
            for name, numbers in self._releases.items()
        }

    def _policy(self, connection: Connection, digest: str | None) -> Policy:
        if digest is None:
            return Policy()
        if digest not in self._policies:
            body = connection.execute(_POLICY, {"wanted": digest}).scalar_one()
            self._policies[digest] = policy_of(body)
        return self._policies[digest]

    def _forget(self) -> None:
        self._policies, self._releases, self._known = {}, {}, 0

    # ------------------------------------------------------------ appending

    def _unchanged(self, connection: Connection, endpoint: str, expect: int) -> None:
        """Raise if the row's epoch differs from the epoch that the command saw."""
        found = connection.execute(_EPOCH, {"of": endpoint}).scalar() or 0
        if found == expect:
            return
        newest = (
            connection.execute(_CHANGES, {"of": endpoint, "at_epoch": found}).mappings().first()
        )
        by, reason = (newest["by"], newest["reason"]) if newest is not None else ("", "")
        raise Stale(
            f"stale: {endpoint} is now at epoch {found}"
            + (f", by {by}" if by else "")
            + (f", because {reason}" if reason else ""),
            hint=f"kedge status {endpoint} shows what it is now",
            details={"epoch": found, "by": by, "reason": reason},
        )

    def _append(
        self,
        connection: Connection,
        states: dict[str, State],
        change: Change,
        by: str,
        reason: str,
        at: str,
        author: Author,
    ) -> tuple[Entry, ...]:
        before = states.get(change.endpoint, State(endpoint=change.endpoint))
        entries: list[Entry] = []
        after = before
        chained = self._chained(connection, before, change.events, by, reason, at, author)
        for event, columns in chained:
            after = apply(after, event)
            if isinstance(event, Configured):
                self._keep_policy(connection, event)
            _write(connection, columns)
            _condemn(connection, after, columns["seq"])
            entries.append(entry_of(columns))
        _move(connection, after, change.expect)
        return tuple(entries)

    @staticmethod
    def _chained(
        connection: Connection,
        before: State,
        events: Sequence[AnyEvent],
        by: str,
        reason: str,
        at: str,
        author: Author,
    ) -> Iterator[tuple[AnyEvent, LedgerRow]]:
        seq, previous = chain_head(connection)
        for epoch, event in enumerate(events, start=before.epoch + 1):
            seq += 1
            columns = columns_of(
                seq=seq,
                endpoint=before.endpoint,
                epoch=epoch,
                at=at,
                by=by,
                reason=reason,
                event=event,
                previous_hash=previous,
                author=author,
            )
            previous = columns["hash"]
            yield event, columns

    def _keep_policy(self, connection: Connection, event: Configured) -> None:
        body = codec.encode(event.policy)
        row = {"digest": event.digest, "body": body}
        connection.execute(insert(tables.policy).on_conflict_do_nothing(), row)
        stored = connection.execute(_POLICY, {"wanted": event.digest}).scalar_one()
        if stored != body and policy_of(stored) != event.policy:
            raise Refused(f"{event.digest} is the digest of another policy", code="policy_digest")


def noted(
    connection: Connection,
    endpoint: str,
    note: Note,
    *,
    by: str,
    reason: str,
    at: str,
    author: Author,
) -> Entry:
    """Append a note, as part of a transaction."""
    seq, previous = chain_head(connection)
    epoch = connection.execute(_EPOCH, {"of": endpoint}).scalar() or 0
    columns = columns_of(
        seq=seq + 1,
        endpoint=endpoint,
        epoch=epoch,
        at=at,
        by=by,
        reason=reason,
        event=note,
        previous_hash=previous,
        author=author,
    )
    _write(connection, columns)
    return entry_of(columns)


def _write(connection: Connection, columns: LedgerRow) -> None:
    """Append an entry.

    Raises:
        Unavailable: `ledger_revision`: it names a token, and the ledger is older than tokens.
    """
    if columns.get("token"):
        require(connection, "0008")
    connection.execute(_appended.insert(), columns)


def chain_head(connection: Connection) -> tuple[int, str]:
    """Return the newest entry's number and hash; the next entry is chained to it."""
    head = connection.execute(_HEAD).first()
    return (head.seq, head.hash) if head is not None else (0, GENESIS)


def _condemn(connection: Connection, after: State, seq: int) -> None:
    """Update the table of condemned releases from the state."""
    table = tables.condemned
    found = connection.execute(select(table.c.release).where(table.c.endpoint == after.endpoint))
    stored = {row.release for row in found}
    for number in stored - set(after.condemned):
        connection.execute(_PARDON, {"of": after.endpoint, "whom": number})
    for number in after.condemned:
        if number not in stored:
            row = {"endpoint": after.endpoint, "release": number, "seq": seq}
            connection.execute(table.insert(), row)


def _move(connection: Connection, after: State, expect: int) -> None:
    """Set the row, only if it is still at the compared epoch."""
    row = row_of(after)
    if expect == 0:
        connection.execute(_endpoint.insert(), row)
        return
    values = {f"to_{name}": value for name, value in row.items() if name != "endpoint"}
    moved = connection.execute(_ROW_MOVES, {"of": after.endpoint, "expect": expect, **values})
    assert moved.rowcount == 1, f"{after.endpoint} moved under a write lock"
