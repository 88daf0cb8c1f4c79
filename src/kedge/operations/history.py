"""History of an endpoint: pages of its entries in the ledger, newest first."""

from __future__ import annotations

import base64
import binascii

from kedge.core.errors import BadRequest
from kedge.core.stored.ledger import Entry, Note
from kedge.core.values import Value
from kedge.workspace import Workplace

NOISE = {"runbook"}
"""Kinds of notes that follow from another entry: a history omits them unless all is requested."""


class HistoryPage(Value, frozen=True):
    """A part of a history, and the cursor of the next part."""

    entries: tuple[Entry, ...]
    next: str | None
    """None: there are no older entries."""


def history_of(
    place: Workplace, endpoint: str, limit: int, *, whole: bool, cursor: str = ""
) -> HistoryPage:
    """Return the newest entries of an endpoint, or those after a cursor; without noise by default.

    Raises:
        BadRequest: `bad_cursor`.
    """
    before = _read_cursor(cursor) if cursor else None
    most = limit + 1
    while True:
        entries = place.ledger.history(endpoint, most, before=before)
        kept = [entry for entry in entries if whole or not is_noise(entry)]
        if len(kept) > limit:
            return HistoryPage(tuple(kept[:limit]), write_cursor(kept[limit - 1]))
        if len(entries) < most:
            return HistoryPage(tuple(kept), None)
        most *= 4


def is_noise(entry: Entry) -> bool:
    """Return whether an entry only follows from another entry."""
    return isinstance(entry.event, Note) and entry.event.kind in NOISE


def write_cursor(entry: Entry) -> str:
    """Return the cursor of the entries that are older than this one."""
    return base64.urlsafe_b64encode(f"{entry.epoch}.{entry.seq}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, int]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        epoch, seq = base64.b64decode(padded, b"-_", validate=True).split(b".")
        found = int(epoch), int(seq)
    except (ValueError, binascii.Error):
        found = -1, -1
    if not all(0 <= part < 1 << 62 for part in found):
        raise BadRequest(
            f"{cursor[:80]!r} is not a cursor of a history",
            code="bad_cursor",
            hint="take it from the page before: its link with rel=next, or under kedge history",
        )
    return found
