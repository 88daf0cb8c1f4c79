"""Screen of a receipt: the result of a command, the time of each part, and the newest finding."""

from __future__ import annotations

from kedge.cli.blocks import Column, Grid, Paragraph, Screen, bad, facts, faint, strong
from kedge.cli.text.receipt import get_finding, get_head, get_notes, get_times
from kedge.operations.receipts import CommandReceipt, FindingBeside

COLUMNS = (Column(), Column(right=True, whole=True))


def receipt_screen(done: CommandReceipt, finding: FindingBeside | None = None) -> Screen:
    """Return a receipt: milliseconds since the command was submitted."""
    times = [(faint(name), f"{ms:.1f} ms") for name, ms in get_times(done)]
    told = get_finding(finding) if finding is not None else []
    beside = [(bad(name) if against else faint(name), text) for name, text, against in told]
    return [
        Paragraph((strong(f"{done.endpoint} epoch {done.epoch}"), f": {get_head(done)}")),
        Grid(COLUMNS, times, 2),
        *(Paragraph(text, 2) for text in get_notes(done)),
        facts(beside),
    ]
