"""Layout of text: lines that fit the terminal, aligned columns, spans of time, and shares."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

from kedge.core.time.instants import to_minute

PLAIN_WIDTH = 80
"""Columns if the output is no terminal: a file, a pipe, a log."""
NARROWEST, WIDEST = 60, 120
"""Limits of the columns: a narrower table does not fit, and a wider line is hard to read."""
_KEPT = "\u00a0"
UNIT = re.compile(r"(?<=\d) (%|s|min|h|days|requests/s|requests/h)(?=\W|$)")
"""The space between a number and its unit, at which no line is broken."""


def get_width() -> int:
    """Return the columns of the terminal, within the limits; 80 if the output is none."""
    if not sys.stdout.isatty():
        return PLAIN_WIDTH
    return min(max(shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns, NARROWEST), WIDEST)


def wrap(text: str, width: int, indent: str = "", hanging: str | None = None) -> list[str]:
    """Return a paragraph as lines of at most `width`, with words and units uncut."""
    lines = textwrap.wrap(
        UNIT.sub(f"{_KEPT}\\1", text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  " if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_KEPT, " ") for line in lines]


def table(
    rows: Sequence[Sequence[str]], width: int, *, right: Sequence[bool], shortened: int = 0
) -> list[str]:
    """Return rows as aligned lines, two spaces apart.

    Args:
        rows: the rows, all with the same number of cells.
        width: columns of a line; in wider lines, the middle of one column's cells is cut out.
        right: whether each column is aligned to the right.
        shortened: the column whose cells are cut.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(right))]
    over = sum(widths) + 2 * len(widths) - width
    if over > 0:
        widths[shortened] = max(widths[shortened] - over, min(widths[shortened], 8))
    lines = []
    for row in rows:
        cells = [shorten(cell, widths[n]) if n == shortened else cell for n, cell in enumerate(row)]
        aligned = [
            f"{cell:>{widths[n]}}" if right[n] else f"{cell:<{widths[n]}}"
            for n, cell in enumerate(cells)
        ]
        lines.append(("  " + "  ".join(aligned)).rstrip())
    return lines


def shorten(text: str, width: int) -> str:
    """Return a text, without its middle if it is too long."""
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[: width - 1 - half]}…{text[len(text) - half :]}"


def span(seconds: float) -> str:
    """Return a span of time in one unit."""
    for least, unit, size in ((129_600, "days", 86_400), (5_400, "h", 3_600), (90, "min", 60)):
        if seconds >= least:
            number = seconds / size
            return (
                f"{number:.0f} {unit}"
                if number >= 10
                else f"{number:.1f} {unit}".replace(".0 ", " ")
            )
    return f"{seconds:.0f} s"


def rough(seconds: float) -> str:
    """Return an estimated span, rounded: more digits would promise too much precision."""
    for least, unit, size in ((129_600, "days", 86_400), (5_400, "h", 3_600), (90, "min", 60)):
        if seconds >= least:
            return f"about {max(round(seconds / size), 1)} {unit}"
    return f"about {max(round(seconds / 10) * 10, 10)} s"


def rate(per_second: float) -> str:
    """Return a rate of requests."""
    if per_second >= 10:
        return f"{per_second:,.0f} requests/s"
    if per_second >= 0.1:
        return f"{per_second:.1f} requests/s"
    return f"{per_second * 3600:.0f} requests/h"


def get_period(since: float, until: float) -> str:
    """Return a period of Unix time as text: 2026-03-01 09:00 to 2026-03-02 09:00 UTC."""
    return f"{to_minute(since)} to {to_minute(until)} UTC"
