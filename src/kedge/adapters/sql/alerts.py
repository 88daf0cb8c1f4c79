"""Alerts, in the ledger's database: a page must not be lost with telemetry.

Writes are rare: one to open an alert, two for each message, one for its end. Every change is a
function of the stored alert, run while no other process writes. So two processes never overwrite
each other's changes, and of two that claim the same message one learns that it was second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.ledger import chain_head, noted
from kedge.adapters.sql.rows import entries_of, read_all
from kedge.adapters.sql.sqlite.connection import Database
from kedge.adapters.sql.sqlite.revisions import read_revision
from kedge.core import codec
from kedge.core.alerts.alerts import Alert, Raise, SuccessAnnouncement, again, opened
from kedge.core.stored.head import Head
from kedge.core.stored.ledger import LOCAL, Author, Entry
from kedge.core.stored.notes import (
    AlertAcknowledged,
    AlertContinued,
    AlertOpened,
    AlertResolved,
    build_note,
)
from kedge.core.stored.upcast import decode_alert as _decode
from kedge.system.files import name_aside

_alert, _cursor, _ledger = tables.alert, tables.alert_cursor, tables.ledger
_announcement = tables.announcement

_NEWS = (
    select(_ledger)
    .where(
        _ledger.c.seq > bindparam("after"),
        _ledger.c.seq > select(_cursor.c.seq).scalar_subquery(),
    )
    .order_by(_ledger.c.seq)
    .limit(bindparam("most"))
)
_SEEN = _cursor.update().where(_cursor.c.seq < bindparam("upto")).values(seq=bindparam("upto"))
_FIND = select(_alert.c.body).where(_alert.c.number == bindparam("which"))
_OPEN = select(_alert.c.body).where(
    _alert.c.endpoint == bindparam("of"), _alert.c.key == bindparam("what"), _alert.c.open == 1
)
_ASIDE = (
    _alert.update()
    .where(
        _alert.c.endpoint == bindparam("of"), _alert.c.key == bindparam("what"), _alert.c.open == 1
    )
    .values(key=bindparam("kept"), live=0)
)
_LIVE = select(_alert.c.body).where(_alert.c.live == 1).order_by(_alert.c.number)
_LISTED = select(_alert.c.body).order_by(_alert.c.number.desc()).limit(bindparam("most"))
_LISTED_OPEN = _LISTED.where(_alert.c.open == 1)
_OF = _alert.c.endpoint == bindparam("of")
_LISTS = {
    (True, False): _LISTED,
    (False, False): _LISTED_OPEN,
    (True, True): _LISTED.where(_OF),
    (False, True): _LISTED_OPEN.where(_OF),
}
"""By whether they may be over, and whether they are of one endpoint. They are made once, because a
page reads the alerts of each endpoint."""
_FINISH = _alert.update().where(_alert.c.number == bindparam("which")).values(live=0)

_ANNOUNCE = insert(_announcement).on_conflict_do_nothing(index_elements=[_announcement.c.seq])
_UNSENT = (
    select(_announcement.c.body).where(_announcement.c.live == 1).order_by(_announcement.c.seq)
)
_FIND_ANNOUNCED = select(_announcement.c.body).where(_announcement.c.seq == bindparam("which"))
_SENT = _announcement.update().where(_announcement.c.seq == bindparam("which")).values(live=0)


class SqlAlerts:
    """Alerts in a database from `open_ledger`."""

    def __init__(self, database: Database, *, author: Author = LOCAL) -> None:
        """Read from and write to this database; `author` is the component that writes."""
        self._database = database
        self._author = author

    def news(self, after: int, limit: int) -> tuple[Entry, ...]:
        """Return the later entries of the ledger that raised no alert yet, oldest first."""

        def work(connection: Connection) -> tuple[Entry, ...]:
            found = connection.execute(_NEWS, {"after": after, "most": limit})
            return entries_of(found.mappings().all())

        return self._database.read(work)

    def raise_all(
        self,
        found: Sequence[tuple[str, Raise]],
        *,
        by: str,
        at: str,
        now: float,
        seen: int | None = None,
        announced: Sequence[SuccessAnnouncement] = (),
    ) -> tuple[Alert, ...]:
        """Open an alert for each (endpoint, thing) without an open one; return the new ones."""

        def work(connection: Connection) -> tuple[Alert, ...]:
            if seen is not None:
                moved = connection.execute(_SEEN, {"upto": seen})
                if not moved.rowcount:
                    return ()  # another process processed these
            # On an earlier ledger nothing is announced until `kedge restart` migrates it.
            for each in announced if read_revision(connection) >= "0009" else ():
                row = {"seq": each.number, "live": 1, "body": codec.encode(each)}
                connection.execute(_ANNOUNCE, row)
            new = (
                _raise(connection, endpoint, one, by, at, now, self._author)
                for endpoint, one in found
            )
            return tuple(alert for alert in new if alert is not None)

        return self._database.write(work)

    def adopt(self, alert: Alert, *, by: str) -> Alert:
        """Number and store an alert that began without a ledger; or return the open one like it."""

        def work(connection: Connection) -> Alert:
            row = connection.execute(_OPEN, {"of": alert.endpoint, "what": alert.key}).first()
            if row is not None:
                return _decode(row.body)
            return _insert(connection, alert, by, self._author)

        return self._database.write(work)

    def change(
        self, number: int, edit: Callable[[Alert], Alert], *, by: str, at: str
    ) -> Alert | None:
        """Let `edit` change an alert while no other process writes; return it, None if missing."""

        def work(connection: Connection) -> Alert | None:
            row = connection.execute(_FIND, {"which": number}).first()
            if row is None:
                return None
            before = _decode(row.body)
            after = edit(before)
            if after != before:
                _write(connection, after)
                _note_change(connection, before, after, by, at, self._author)
            return after

        return self._database.write(work)

    def finish(self, number: int) -> None:
        """Record that no work is left for an alert."""
        self._database.write(lambda c: c.execute(_FINISH, {"which": number}))

    def live(self) -> tuple[Alert, ...]:
        """Return every alert that may have work left, in order of number."""
        return read_all(_decode, self._database.read(lambda c: list(c.execute(_LIVE).scalars())))

    def listed(self, endpoint: str | None, *, over: bool, limit: int) -> tuple[Alert, ...]:
        """Return alerts, newest first: the open ones, or with `over` all of them."""
        query, given = _LISTS[over, endpoint is not None], {"most": limit, "of": endpoint}
        return read_all(
            _decode, self._database.read(lambda c: list(c.execute(query, given).scalars()))
        )

    def announcements(self) -> tuple[SuccessAnnouncement, ...]:
        """Return the announcements that are still to be sent, oldest first."""
        found = self._database.read(lambda c: list(c.execute(_UNSENT).scalars()))
        return read_all(_decode_announcement, found)

    def change_announcement(
        self, seq: int, edit: Callable[[SuccessAnnouncement], SuccessAnnouncement]
    ) -> SuccessAnnouncement | None:
        """Let `edit` change an announcement while no other process writes; None: not found."""

        def work(connection: Connection) -> SuccessAnnouncement | None:
            row = connection.execute(_FIND_ANNOUNCED, {"which": seq}).first()
            if row is None:
                return None
            before = _decode_announcement(row.body)
            after = edit(before)
            if after != before:
                mine = _announcement.update().where(_announcement.c.seq == seq)
                connection.execute(mine.values(body=codec.encode(after)))
            return after

        return self._database.write(work)

    def finish_announcement(self, seq: int) -> None:
        """Record that nothing is left to send of an announcement."""
        self._database.write(lambda c: c.execute(_SENT, {"which": seq}))

    def find(self, number: int) -> Alert | None:
        """Return the alert with this number."""

        def work(connection: Connection) -> Alert | None:
            row = connection.execute(_FIND, {"which": number}).first()
            return _decode(row.body) if row is not None else None

        return self._database.read(work)


def _decode_announcement(raw: bytes) -> SuccessAnnouncement:
    return codec.decode(raw, SuccessAnnouncement)


def _raise(
    connection: Connection,
    endpoint: str,
    found: Raise,
    by: str,
    at: str,
    now: float,
    author: Author,
) -> Alert | None:
    """Open it, or raise the open one again; return the new one, if any."""
    row = connection.execute(_OPEN, {"of": endpoint, "what": found.key}).first()
    known = read_all(_decode, [row.body]) if row is not None else ()
    if row is not None and not known:  # an unreadable alert must not block this one
        asked = {"of": endpoint, "what": found.key, "kept": name_aside(found.key)}
        connection.execute(_ASIDE, asked)
    if not known:
        return _insert(connection, opened(found, endpoint, at=at, now=now), by, author)
    before = known[0]
    after = again(before, found)
    if after != before:
        _write(connection, after)
    return None


def _insert(connection: Connection, alert: Alert, by: str, author: Author) -> Alert:
    row = {"endpoint": alert.endpoint, "key": alert.key, "open": 1, "live": 1, "body": b""}
    key = connection.execute(_alert.insert(), row).inserted_primary_key
    assert key is not None, "a row that was inserted has its number"
    number = key[0]
    seq, newest = chain_head(connection)
    head = Head(seq, newest).short if seq else ""
    numbered = msgspec.structs.replace(alert, number=number, head=head)
    _write(connection, numbered)
    body = AlertOpened(
        alert=number,
        level=alert.level,
        key=alert.key,
        summary=alert.summary,
        topic=alert.topic,
        subject=alert.subject,
    )
    note = build_note(body)
    noted(
        connection,
        alert.endpoint,
        note,
        by=by,
        reason=alert.detail,
        at=alert.opened_at,
        author=author,
    )
    return numbered


def _write(connection: Connection, alert: Alert) -> None:
    mine = _alert.update().where(_alert.c.number == alert.number)
    connection.execute(mine.values(open=int(alert.open), body=codec.encode(alert)))


def _note_change(
    connection: Connection, before: Alert, after: Alert, by: str, at: str, author: Author
) -> None:
    if after.acknowledged_by and not before.acknowledged_by:
        note = build_note(AlertAcknowledged(alert=after.number, key=after.key))
        noted(
            connection,
            after.endpoint,
            note,
            by=after.acknowledged_by,
            reason="",
            at=at,
            author=author,
        )
    if before.open and not after.open:
        how = AlertContinued if after.ended == "continued" else AlertResolved
        note = build_note(how(alert=after.number, key=after.key))
        noted(connection, after.endpoint, note, by=by, reason=after.resolved, at=at, author=author)
