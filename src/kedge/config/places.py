"""Places of kedge.toml: the lines of each setting.

A place is written as in faults: `endpoints.wine.escalation[0].to`. tomllib returns values without
lines, so the text is scanned again. It is known to be valid TOML, so that only keys and the ends of
values matter.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kedge.core.values import Value

Toml = Mapping[str, object]
"""A table, as tomllib returns it."""
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
"""Blanks, ends of lines and comments between two statements or values."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\r\n#]*")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


class Lines(NamedTuple):
    """The first and last line of a setting with its value, counted from 1."""

    first: int
    last: int


class ConfigFault(Value, frozen=True):
    """A fault of kedge.toml and its place."""

    place: str
    """The place of the setting; empty if the file as a whole is at fault."""
    line: int | None
    """The line of the place, or of the nearest table around it; None: the file has neither."""
    message: str

    def told(self, where: str) -> str:
        """Return the fault as one line, with the file's name."""
        at = where if self.line is None else f"{where}:{self.line}"
        return f"{at}: {self.place}: {self.message}" if self.place else f"{at}: {self.message}"


def locate(line: str, places: Mapping[str, Lines]) -> ConfigFault:
    """Return the fault that a check wrote as `PLACE: WORDS`, with its line."""
    place, _, said = line.partition(": ")
    found = next((places[one] for one in enclosing(place) if one in places), None)
    return ConfigFault(place, found.first if found else None, said)


def enclosing(place: str) -> Iterator[str]:
    """Yield a place, then each table around it, the nearest first."""
    while place:
        yield place
        place = place[: max(place.rfind("."), place.rfind("["), 0)]


def find_in(value: Any, place: str = "") -> Iterator[str]:
    """Yield the place of every setting below a parsed value, without the value's own."""
    if isinstance(value, dict):
        below = [(join(place, name), one) for name, one in value.items()]
    elif isinstance(value, list):
        below = [(f"{place}[{number}]", one) for number, one in enumerate(value)]
    else:
        return
    for at, one in below:
        yield at
        yield from find_in(one, at)


def join(place: str, name: str) -> str:
    """Return the place of a setting in a table."""
    return f"{place}.{name}" if place else name


def find_places(text: str) -> dict[str, Lines]:
    """Return the lines of every table, setting and element of an array.

    Args:
        text: valid TOML.
    """
    return _Scan(text).run()


class _Scan:
    """One scan of a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._found: dict[str, Lines] = {}
        self._arrays: dict[str, int] = {}
        """By the place of an array of tables: the number of its newest table."""

    def run(self) -> dict[str, Lines]:
        """Scan to the end; return the lines of every place."""
        table = ""
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._found

    def _header(self) -> str:
        """Skip `[table]` or `[[table]]`; return its place."""
        start = self._at
        listed = self._text.startswith("[[", start)
        self._at += 1 + listed
        place, parts = "", self._key()
        for number, part in enumerate(parts, 1):
            place = join(place, part)
            if listed and number == len(parts):
                self._arrays[place] = self._arrays.get(place, -1) + 1
                self._note(place, start)
            if place in self._arrays:
                place = f"{place}[{self._arrays[place]}]"
            self._note(place, start)
        self._at = self._text.index("]", self._at) + 1 + listed
        return place

    def _pair(self, table: str) -> None:
        """Skip `key = value`."""
        start, place = self._at, table
        outer = []
        for part in self._key():
            outer.append(place)
            place = join(place, part)
        self._at += 1  # the equals sign
        self._value(place)
        self._note(place, start)
        for one in outer:
            if one:
                self._note(one, start)

    def _note(self, place: str, start: int) -> None:
        lines = Lines(self._line(start), self._line(max(self._at - 1, start)))
        self._found.setdefault(place, lines)

    def _line(self, at: int) -> int:
        return bisect_right(self._starts, at)

    def _key(self) -> list[str]:
        """Skip a key up to the character after it; return its parts."""
        parts = []
        while True:
            self._skip(_BLANK)
            parts.append(self._part())
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _part(self) -> str:
        mark = self._text[self._at]
        if mark == '"':
            return _unescaped(self._skip(_BASIC)[1:-1])
        return self._skip(_LITERAL)[1:-1] if mark == "'" else self._skip(_BARE)

    def _value(self, place: str) -> None:
        """Skip a value and everything in it."""
        self._skip(_BLANK)
        rest = self._text[self._at : self._at + 3]
        if rest == '"""':
            self._skip(_LONG_BASIC)
        elif rest == "'''":
            self._skip(_LONG_LITERAL)
        elif rest.startswith('"'):
            self._skip(_BASIC)
        elif rest.startswith("'"):
            self._skip(_LITERAL)
        elif rest.startswith("["):
            self._inside("]", place)
        elif rest.startswith("{"):
            self._inside("}", place)
        else:
            self._skip(_SCALAR)

    def _inside(self, end: str, place: str) -> None:
        """Skip an array or an inline table."""
        self._at += 1
        number = 0
        while True:
            self._skip(_BLANK)
            if self._text.startswith(end, self._at):
                self._at += 1
                return
            if end == "}":
                self._pair(place)
            else:
                start, element = self._at, f"{place}[{number}]"
                self._value(element)
                self._note(element, start)
                number += 1
            self._skip(_BLANK)
            if self._text.startswith(",", self._at):
                self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Skip the text that matches here; return it."""
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"no valid TOML in line {self._line(self._at)}")
        self._at = found.end()
        return found[0]


def _unescaped(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        digits = found[1] or found[2]
        return chr(int(digits, 16)) if digits else _ESCAPES.get(found[3], found[3])

    return _ESCAPE.sub(plain, text)
