"""Screen of a check: whether a rollback would work now, and how to fix what would stop it."""

from __future__ import annotations

from kedge.cli.blocks import (
    BLANK,
    Cell,
    Column,
    Grid,
    Paragraph,
    Phrase,
    Screen,
    Tone,
    bad,
    facts,
    faults,
    good,
    strong,
)
from kedge.cli.text.check import WORDS, get_standing
from kedge.core.readiness import Check
from kedge.operations.readiness.check import CheckedEndpoint

COLUMNS = (Column("CHECK", whole=True), Column("RESULT", whole=True), Column("WHY"))
TONES = {"pass": Tone.GOOD, "fail": Tone.BAD, "not applicable": Tone.FAINT}


def check_screen(found: CheckedEndpoint) -> Screen:
    """Return the checks, one row each, and below them what fixes those that fail."""
    fixes = [(check.name, check.mend) for check in found.checks if check.mend]
    head = good if found.ready else bad
    return [
        Paragraph(head(get_standing(found))),
        Grid(COLUMNS, [_row(check) for check in found.checks], 2),
        *((BLANK, Paragraph(strong("to fix"), 2), facts(fixes, 4)) if fixes else ()),
        *faults((*found.fence, *found.libraries)),
    ]


def _row(check: Check) -> tuple[Cell, ...]:
    return check.name, Phrase(WORDS[check.outcome], TONES[check.outcome]), check.why
