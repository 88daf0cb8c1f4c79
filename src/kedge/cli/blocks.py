"""Blocks of a screen: paragraphs and tables as values, without colours of a certain terminal.

A tone only stresses what the text already says: a terminal without colour shows the same facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Tone(StrEnum):
    """The meaning of a piece of text, from which its colour follows."""

    PLAIN = "plain"
    STRONG = "strong"
    FAINT = "faint"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


class Phrase(NamedTuple):
    """A text with a tone."""

    text: str
    tone: Tone = Tone.PLAIN


Cell = str | Phrase | tuple[str | Phrase, ...]
"""The content of a cell; several pieces follow each other without a space."""


class Column(NamedTuple):
    """A column of a table."""

    title: str = ""
    right: bool = False
    """Whether it is aligned to the right."""
    whole: bool = False
    """Whether its cells are never wrapped, such as numbers and times."""


class Grid(NamedTuple):
    """A table. On a terminal too narrow for its columns, each row is a list of titles and cells."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    indent: int = 0
    narrow: Grid | None = None
    """The table for a narrow terminal instead of such lists."""


class Paragraph(NamedTuple):
    """A text that is wrapped between words."""

    content: Cell
    indent: int = 0


BLANK = Paragraph("")
"""An empty line."""
Screen = Sequence[Grid | Paragraph]
"""The blocks of one result, from above."""


def strong(text: str) -> Phrase:
    """Return a text that stands out, such as a name."""
    return Phrase(text, Tone.STRONG)


def faint(text: str) -> Phrase:
    """Return a text that is less important than the text around it."""
    return Phrase(text, Tone.FAINT)


def good(text: str) -> Phrase:
    """Return a text that reports that something is as it should be."""
    return Phrase(text, Tone.GOOD)


def warn(text: str) -> Phrase:
    """Return a text that an operator should read."""
    return Phrase(text, Tone.WARN)


def bad(text: str) -> Phrase:
    """Return a text that reports a fault."""
    return Phrase(text, Tone.BAD)


def facts(rows: Sequence[tuple[Cell, Cell]], indent: int = 2) -> Grid:
    """Return a table of names and facts, without a head."""
    return Grid((Column(whole=True), Column()), rows, indent)


def faults(texts: Sequence[str]) -> list[Paragraph]:
    """Return a paragraph for each fault, with the sign that `kedge status` has before it."""
    return [Paragraph((bad("! "), text), 2) for text in texts]
