"""Chain heads: whether a history has the entries that other processes saw at its end.

A process that can write the ledger's file can recompute its chain, or restore an older copy; the
chain is then whole. So its newest hash is also stored outside of it, and compared here.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, func, select

from kedge.adapters.sql import tables
from kedge.adapters.sql.rows import Row, entry_of
from kedge.core.release.commands import Restored
from kedge.core.stored.head import Head
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import LedgerAccepted

ACCEPTED = "ledger_accepted"
"""Kind of the note by which an operator accepts a history with missing heads."""

_ledger = tables.ledger
_HASH = select(_ledger.c.hash).where(_ledger.c.seq == bindparam("at"))
_NEWEST = select(func.max(_ledger.c.seq))
_BEGINS = f'{{"event":"noted","kind":"{ACCEPTED}"'
_RESTORED = '{"event":"restored"'
_NEXT = select(_ledger).where(_ledger.c.seq > bindparam("at")).order_by(_ledger.c.seq).limit(1)
_NOTES = select(_ledger).where(func.substr(_ledger.c.event, 1, len(_BEGINS)) == _BEGINS)


def missing(connection: Connection, heads: Iterable[Head]) -> dict[Head, str]:
    """Return the heads missing from the history, each with the entry in its place, in words.

    A head may have only the first digits of its hash. Accepted heads are excluded, and so are heads
    of entries that a restore from a backup is known to have lost.
    """
    found: dict[Head, str] = {}
    for head in heads:
        there = connection.execute(_HASH, {"at": head.seq}).scalar()
        if there is None and _lost_by_restore(connection, head.seq):
            continue
        if there is None:
            newest = connection.execute(_NEWEST).scalar() or 0
            found[head] = f"the history ends at entry {newest}"
        elif not _same(there, head.hash):
            found[head] = f"entry {head.seq} is {Head(head.seq, there).short}"
    if not found:
        return found
    known = _accepted(connection)
    return {
        head: text
        for head, text in found.items()
        if not any(head.seq == one.seq and _same(head.hash, one.hash) for one in known)
    }


def _lost_by_restore(connection: Connection, seq: int) -> bool:
    """Return whether an entry is in a restore's gap: only the earlier history had its number."""
    after = connection.execute(_NEXT, {"at": seq}).mappings().first()
    if after is None or not after["event"].startswith(_RESTORED):
        return False
    event = entry_of(after).event
    return isinstance(event, Restored) and event.seq < seq


def goes_on_from(row: Row, seq: int, previous: str) -> bool:
    """Return whether an entry begins a restored history right after this one."""
    if not row["event"].startswith(_RESTORED) or row["seq"] <= seq:
        return False
    event = entry_of(row).event
    return isinstance(event, Restored) and (event.seq, event.hash) == (seq, previous)


def _accepted(connection: Connection) -> list[Head]:
    """Return the heads that operators accepted as lost."""
    found: list[Head] = []
    for row in connection.execute(_NOTES).mappings():
        event = entry_of(row).event
        if isinstance(event, Note) and isinstance(event.body, LedgerAccepted):
            found += [Head(seq, of) for seq, of in event.body.heads]
    return found


def _same(one: str, other: str) -> bool:
    """Return whether two hashes are equal in the digits of the shorter one."""
    length = min(len(one), len(other))
    return length > 0 and one[:length] == other[:length]
