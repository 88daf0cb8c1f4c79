"""Screen of history: one row for each entry of the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import Cell, Column, Grid, Phrase, Screen, Tone, faint
from kedge.cli.text.history import by_time
from kedge.core.release import commands as r
from kedge.core.stored.ledger import Entry, Note
from kedge.core.stored.notes import AlertOpened, DrillResult, EvidenceLost, ReadinessNote
from kedge.core.stored.stories import story

COLUMNS = (
    Column("TIME (UTC)", whole=True),
    Column("EPOCH", right=True, whole=True),
    Column("BY"),
    Column("WHAT"),
)


def history_screen(entries: Sequence[Entry]) -> Screen:
    """Return the ledger's entries, newest first."""
    return [Grid(COLUMNS, [_row(entry) for entry in by_time(entries)])]


def _row(entry: Entry) -> tuple[Cell, ...]:
    what: tuple[Phrase, ...] = (Phrase(story(entry.event), _tone(entry.event)),)
    if entry.reason:
        what = (*what, faint(f" — {entry.reason}"))
    return f"{entry.at[:19].replace('T', ' ')}", str(entry.epoch), entry.by, what


def _tone(event: r.AnyEvent | Note) -> Tone:
    """Return the tone of an entry: releases that go and come, and what failed."""
    match event:
        case r.RolledBack() | r.CandidateRolledBack() | r.ComparisonFailed():
            return Tone.BAD
        case Note(body=DrillResult(ok=False) | ReadinessNote(ready=False) | EvidenceLost()):
            return Tone.WARN
        case Note(body=AlertOpened(level=level)):
            return Tone.BAD if level == "page" else Tone.WARN
        case r.Promoted() | r.ShadowPassed():
            return Tone.GOOD
    return Tone.FAINT if isinstance(event, Note) else Tone.PLAIN
