"""Text of history: one sentence for each entry of the ledger, in order of time."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.core.stored.ledger import Entry
from kedge.core.stored.stories import story
from kedge.core.time.instants import read_instant
from kedge.system.terminal import one_line

TOGETHER_S = 60.0
"""Entries written within these seconds are sorted by their times. If times differ more, a clock was
set, and the ledger's order is right."""


def history_text(entries: Sequence[Entry]) -> str:
    """Return the ledger's entries, newest first."""
    return "\n".join(
        one_line(
            f"{entry.at[:23]}Z  epoch {entry.epoch:<4} {entry.by}: {story(entry.event)}"
            + (f" — {entry.reason}" if entry.reason else "")
        )
        for entry in by_time(entries)
    )


def by_time(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries, newest first, by their times.

    A note is written after the change that it measures and may have an earlier time, so that the
    ledger's own order looks wrong.
    """
    found: list[tuple[float, Entry]] = []
    for entry in entries:
        at, place = read_instant(entry.at), len(found)
        while place and 0 < at - found[place - 1][0] < TOGETHER_S:
            place -= 1
        found.insert(place, (at, entry))
    return [entry for _, entry in found]
