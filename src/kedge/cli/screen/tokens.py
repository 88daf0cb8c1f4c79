"""Screen of tokens: one row each, with what it may do, its end and its last use."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import Cell, Column, Grid, Screen, bad, faint, strong
from kedge.cli.text.tokens import get_cells
from kedge.operations.tokens import ListedToken

COLUMNS = (
    Column("NAME"),
    Column("MAY"),
    Column("ENDPOINTS"),
    Column("EXPIRES", whole=True),
    Column("LAST USED", whole=True),
    Column("STATE", whole=True),
)


def tokens_screen(found: Sequence[ListedToken]) -> Screen:
    """Return tokens; one that is not valid has its reason."""
    return [Grid(COLUMNS, [_row(one) for one in found])]


def _row(one: ListedToken) -> tuple[Cell, ...]:
    name, *cells, _ = get_cells(one)
    state = faint("valid") if one.state == "valid" else bad(one.state)
    return strong(name), *cells, state
