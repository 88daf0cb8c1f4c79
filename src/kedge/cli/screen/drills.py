"""Screen of speed: how long past rollbacks and drills took."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import Column, Grid, Paragraph, Screen, facts, faint, faults, strong
from kedge.cli.text.drills import get_counts, get_events, get_figures, get_notes
from kedge.core.speed import Speed

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
