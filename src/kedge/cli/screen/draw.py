"""Drawing of a screen as text with colours. It imports rich: import it for a terminal only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kedge.cli.blocks import Cell, Column, Grid, Paragraph, Phrase, Screen, Tone, faint, strong
from kedge.cli.text.layout import UNIT
from kedge.system.terminal import one_line

STYLES = {
    Tone.PLAIN: "",
    Tone.STRONG: "bold",
    Tone.FAINT: "dim",
    Tone.GOOD: "green",
    Tone.WARN: "yellow",
    Tone.BAD: "bold red",
}
"""Colours of the terminal's own palette, so that they suit its background."""
GAP = 2
"""Columns between two cells."""
WRAPPED = 10
"""Least width of a column whose cells are wrapped; a narrower one is hard to read."""
_KEPT = "\ufdd0"
"""Stands for a space between a number and its unit, at which no line is broken; no character."""
_BLANKS = re.compile("(?: |\x1b\\[0m)+$")
"""Spaces at the end of a line, and the ends of their colours."""
HEIGHT = 1_000
"""Lines of the console; the text has as many as it needs."""


def draw(screen: Screen, width: int, environ: Mapping[str, str] = os.environ) -> str:
    """Return a screen as text, in lines of at most `width` cells.

    Args:
        screen: the blocks. Their texts are text only: rich's markup in them means nothing.
        width: cells of a line.
        environ: rich chooses the colours by NO_COLOR, TERM and COLORTERM.
    """
    buffer = StringIO()
    console = Console(
        file=buffer,
        force_terminal=True,
        width=width,
        height=HEIGHT,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ=environ,
    )
    for block in screen:
        for part in _rendered(block, width):
            console.print(part)
    lines = buffer.getvalue().replace(_KEPT, " ").split("\n")[:-1]
    return "\n".join(_BLANKS.sub(lambda found: found[0].replace(" ", ""), line) for line in lines)


def _rendered(block: Grid | Paragraph, width: int) -> Iterator[RenderableType]:
    match block:
        case Paragraph(content, indent):
            yield Padding(_text(content), (0, 0, 0, indent))
        case Grid(columns, rows, indent, narrow) if rows:
            room = width - indent - GAP * (len(columns) - 1)
            fits = sum(_least(columns, rows)) <= room
            if not fits and narrow is not None:
                yield from _rendered(narrow, width)
                return
            inner = _table(columns, rows, room) if fits else _cards(columns, rows)
            yield Padding(inner, (0, 0, 0, indent), expand=False)


def _text(cell: Cell) -> Text:
    """Return a cell as text that no value can style, escape or break into lines."""
    pieces = (cell,) if isinstance(cell, str | Phrase) else cell
    found = Text(overflow="fold")
    for piece in pieces:
        text, tone = (piece, Tone.PLAIN) if isinstance(piece, str) else piece
        found.append(UNIT.sub(f"{_KEPT}\\1", one_line(text)), STYLES[tone])
    return found


def _widest(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[int]:
    """Return the width of each column's widest cell, without its title."""
    return [
        max(cell_len(_text(row[number]).plain) for row in rows) for number in range(len(columns))
    ]


def _least(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[int]:
    """Return the width of each column below which it cannot be read."""
    return [
        max(widest if column.whole else min(widest, WRAPPED), cell_len(column.title), 1)
        for column, widest in zip(columns, _widest(columns, rows), strict=True)
    ]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], room: int) -> Sequence[int]:
    """Return the width of each column: the widest ones give, and none gets unreadable.

    rich alone would also break a title, or a short word, where another column is wide.
    """
    least = _least(columns, rows)
    found = [
        max(widest, cell_len(column.title))
        for column, widest in zip(columns, _widest(columns, rows), strict=True)
    ]
    while sum(found) > room:
        at = max(range(len(found)), key=lambda n: (found[n] > least[n], found[n]))
        found[at] -= 1
    return found


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], room: int) -> Table:
    """Return rows under titles, with aligned cells; `room`: cells without the gaps."""
    headed = any(column.title for column in columns)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=headed)
    table.header_style = ""
    for column, width in zip(columns, _widths(columns, rows, room), strict=True):
        table.add_column(
            _text(strong(column.title)),
            justify="right" if column.right else "left",
            no_wrap=column.whole,
            overflow="fold",
            width=width,
        )
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def _cards(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Table:
    """Return each row as lines of a title and a cell, for a narrow terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, row in enumerate(rows):
        if number and len(columns) > 2:
            table.add_row("", "")
        for column, cell in zip(columns, row, strict=True):
            text = _text(cell)
            if text.plain:
                table.add_row(_text(faint(column.title)), text)
    return table
