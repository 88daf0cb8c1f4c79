"""Screens of drills and speed: the result of a drill, and how long past rollbacks took."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import (
    Column,
    Grid,
    Paragraph,
    Screen,
    bad,
    facts,
    faint,
    faults,
    good,
    strong,
)
from kedge.cli.text.drills import (
    get_answered,
    get_counts,
    get_events,
    get_figures,
    get_ladder,
    get_notes,
)
from kedge.core.speed import Speed
from kedge.core.stored.stories import drill_story
from kedge.operations.drills import DrillReport

COLUMNS = (Column("TIME (UTC)", whole=True), Column("WHAT"))


def speed_screen(found: Sequence[Speed]) -> Screen:
    """Return the times of rollbacks, one part for each endpoint."""
    blocks: list[Grid | Paragraph] = []
    for of in found:
        figures = [(faint(name), text) for name, text in get_figures(of)]
        blocks += [
            Paragraph(strong(get_counts(of))),
            facts(figures),
            Grid(COLUMNS, get_events(of), 2),
            *faults(get_notes(of)),
        ]
    return blocks


def drill_screen(endpoint: str, filed: DrillReport) -> Screen:
    """Return the result of a drill: milliseconds since each command, by step."""
    ways, rows = get_ladder(filed)
    times = (Column(way.upper(), right=True, whole=True) for way in ways)
    head = good if filed.ok else bad
    return [
        Paragraph((strong(f"{endpoint}: "), head(drill_story(filed)))),
        Grid((Column("STEP", whole=True), *times), rows, 2),
        *(Paragraph(text, 2) for text in get_answered(filed)),
    ]
