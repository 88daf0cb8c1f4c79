"""Progress bar on a terminal, on one line of stderr; messages are printed above it."""

from __future__ import annotations

import unicodedata

from kedge.operations.progress import Advance, Meter
from kedge.system.terminal import get_size, printable, rewrite, show

WIDEST = 30
"""Columns of the bar itself."""
LEAST = 10
"""A shorter bar shows less than its number."""


class Bar(Meter):
    """The bar of one command; nothing is drawn until a task reports how far it is."""

    def __init__(self) -> None:
        self._drawn = ""

    def __call__(self, text: str) -> None:
        """Print a message above the bar."""
        drawn = self._drawn
        self.clear()
        show(text, err=True)
        if drawn:
            self._draw(drawn)

    def move(self, advance: Advance) -> None:
        """Draw how far a task is."""
        self._draw(get_line(advance, get_size().columns - 1))

    def clear(self) -> None:
        """Remove the bar."""
        if self._drawn:
            self._draw("")

    def _draw(self, line: str) -> None:
        self._drawn = line
        rewrite(line)


def get_line(advance: Advance, width: int) -> str:
    """Return the share done as a bar, in per cent and in words, in at most `width` columns."""
    text = printable(advance.text)
    if not advance.total:
        return cut(text, width)
    share = min(advance.done / advance.total, 1.0)
    number = f"{share:4.0%} "
    size = min(WIDEST, width - len(number) - len(text) - 2)
    if size < LEAST:
        return cut(f"{number}{text}", width)
    full = round(share * size)
    return cut(f"{number}{'━' * full}{'─' * (size - full)}  {text}", width)


def cut(text: str, width: int) -> str:
    """Return as much of a text as fits into some columns; a wide character takes two."""
    used = 0
    for place, character in enumerate(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > width:
            return text[:place]
    return text
