"""Screen of a plan: the time at each step to find a worse candidate, and to prove a good one."""

from __future__ import annotations

from kedge.cli.blocks import Column, Grid, Paragraph, Screen, warn
from kedge.cli.text.plan import HEADS, OWN, get_notes, get_row, get_traffic
from kedge.operations.evidence.read import RolloutPlan


def plan_screen(found: RolloutPlan) -> Screen:
    """Return the times to find or prove a candidate, one row for each step."""
    own = found.callers is not None
    heads = [*HEADS, OWN] if own else HEADS
    columns = [Column(" ".join(words).strip().upper(), right=True) for words in heads]
    return [
        Paragraph(get_traffic(found)),
        Grid(columns, [get_row(step, callers=own) for step in found.steps], 2),
        *(Paragraph(warn(note), 2) for note in get_notes(found)),
    ]
