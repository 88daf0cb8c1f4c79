"""History as text: one sentence for each entry of the ledger, in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kedge.cli.text.report import story
from kedge.core.stored.ledger import Entry, Note
from kedge.system.terminal import one_line

NOISE = {"runbook"}
"""Kinds of notes that follow from another entry: left out of a history for people, unless all of it is asked for."""
TOGETHER_S = 60.0
"""Entries that were written within this time are shown by their times; else a clock was set, and the ledger's order is true."""


def history_text(entries: Sequence[Entry]) -> str:
    """Return the ledger's entries, newest first."""
    return "\n".join(
        one_line(
            f"{entry.at[:23]}Z  epoch {entry.epoch:<4} {entry.by}: {story(entry.event)}"
            + (f" — {entry.reason}" if entry.reason else "")
        )
        for entry in by_time(entries)
    )


def is_noise(entry: Entry) -> bool:
    """Whether an entry says what another entry brought with it."""
    return isinstance(entry.event, Note) and entry.event.kind in NOISE


def by_time(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries, newest first, by their times.

    A note is written after what it measures and may bear an earlier time, so that the ledger's own order looks wrong.
    """
    found: list[tuple[float, Entry]] = []
    for entry in entries:
        at, place = datetime.fromisoformat(entry.at).timestamp(), len(found)
        while place and 0 < at - found[place - 1][0] < TOGETHER_S:
            place -= 1
        found.insert(place, (at, entry))
    return [entry for _, entry in found]
