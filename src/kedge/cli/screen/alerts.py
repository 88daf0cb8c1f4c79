"""Screen of alerts: one row each, with the level, the state and what to type."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import Cell, Column, Grid, Paragraph, Screen, bad, faint, strong, warn
from kedge.cli.text.alerts import is_waiting
from kedge.operations.alerts import ListedAlert

COLUMNS = (
    Column("ALERT", right=True, whole=True),
    Column("LEVEL", whole=True),
    Column("ENDPOINT"),
    Column("WHAT"),
    Column("OPENED (UTC)", whole=True),
    Column("STATE"),
)


def alerts_screen(found: Sequence[ListedAlert]) -> Screen:
    """Return alerts, newest first, and the command that acknowledges the waiting ones."""
    waiting = [str(one.number) for one in found if is_waiting(one)]
    hint = f"kedge ack {waiting[0]} acknowledges one: it escalates no further" if waiting else ""
    table = Grid(COLUMNS, [_row(one) for one in found])
    link = next((one.link for one in found if is_waiting(one)), "")
    return [table, *(Paragraph(text) for text in (hint, link) if text)]


def _row(one: ListedAlert) -> tuple[Cell, ...]:
    times = f" ({one.times} times)" if one.times > 1 else ""
    level = faint if not one.open else bad if one.level == "page" else warn
    return (
        strong(str(one.number)),
        level(one.level),
        one.endpoint,
        f"{one.summary}{times}",
        f"{one.opened_at[:16].replace('T', ' ')}",
        one.standing,
    )
