"""Screen of model versions: one row each, and what is special about one below."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import (
    Cell,
    Column,
    Grid,
    Paragraph,
    Phrase,
    Screen,
    faint,
    good,
    strong,
    warn,
)
from kedge.cli.text.models import MARKS
from kedge.operations.registration import ListedVersion

COLUMNS = (
    Column("VERSION", whole=True),
    Column("FLAVOUR"),
    Column("BYTES", right=True, whole=True),
    Column("REGISTERED (UTC)", whole=True),
    Column("DIGEST", whole=True),
    Column("RELEASES"),
    Column("ROLE"),
)
NARROW = (*COLUMNS[:3], *COLUMNS[5:], Column("REGISTERED (UTC)"))
"""The columns for 80 columns and less: the last has the digest below the time."""
TONES = {"production": good, "candidate": strong, "condemned": warn}


def versions_screen(found: Sequence[ListedVersion]) -> Screen:
    """Return registered versions, newest first as they are listed."""
    notes = [note for one in found for note in _notes(one)]
    rows = [_row(one) for one in found]
    narrow = [
        (*row[:3], *row[5:], (f"{_minute(one)} ", faint(_digest(one))))
        for one, row in zip(found, rows, strict=True)
    ]
    table = Grid(COLUMNS, rows, narrow=Grid(NARROW, narrow))
    return [table, *(Paragraph(note, 2) for note in notes)]


def _minute(one: ListedVersion) -> str:
    return one.registered_at[:16].replace("T", " ")


def _digest(one: ListedVersion) -> str:
    return f"{one.digest[:19]}…"


def _row(one: ListedVersion) -> tuple[Cell, ...]:
    roles = [
        phrase for role in one.roles for phrase in (Phrase(", "), TONES.get(role, Phrase)(role))
    ]
    return (
        strong(one.version),
        one.flavour,
        f"{one.size:,}",
        _minute(one),
        faint(_digest(one)),
        ", ".join(one.releases) or faint("-"),
        tuple(roles[1:]),
    )


def _notes(one: ListedVersion) -> list[str]:
    notes = []
    if one.rows != "independent":
        notes.append(f"{one.version}: rows {MARKS[one.rows]}")
    if one.trained_on:
        rows = f"{one.trained_on.rows:,} rows"
        notes.append(f"{one.version}: trained on {one.trained_on.label}: {rows}")
    if one.allowed:
        notes.append(f"{one.version}: runs code when it is loaded, allowed by {one.allowed}")
    return notes
