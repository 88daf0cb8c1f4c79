"""Quotes for DuckDB: literals, column names, file names, and its error messages."""

from __future__ import annotations

import re

from kedge.core import codec


def quoted(text: object) -> str:
    """Return a quoted literal."""
    return "'" + str(text).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a quoted column name."""
    return '"' + name.replace('"', '""') + '"'


def one_file(path: object) -> str:
    """Return a literal for one file: brackets, stars and question marks would be a pattern."""
    return quoted(re.sub(r"[\[*?]", r"[\g<0>]", str(path)))


def first_line(error: Exception) -> str:
    """Return an error message without the class and the advice that DuckDB adds."""
    first, _, rest = str(error).strip().partition("\n")
    said = _CLASS.sub("", first, count=1)
    line = _CSV_LINE.fullmatch(said)
    if line is None:
        return _reworded(said)
    # DuckDB writes the line first, then the reason, an empty line and advice.
    return (
        f"line {line[1]}: {_reworded((rest.partition(_EMPTY_LINE)[0].splitlines() or [said])[-1])}"
    )


def _reworded(text: str) -> str:
    for pattern, wording in _WORDINGS:
        text = pattern.sub(wording, text, count=1)
    return text[:_LONGEST]


_CLASS = re.compile(r"^[A-Z][A-Za-z]*( [A-Z][A-Za-z]*)* Error: ")
_CSV_LINE = re.compile(r"CSV Error on Line: (\d+)")
_EMPTY_LINE = "\n\n"
_WORDINGS = (
    (
        re.compile("^Error when sniffing file .*"),
        (
            "cannot be read as CSV: its rows differ in how many values they have, in quotes, or in"
            " line ends"
        ),
    ),
    (re.compile("^Invalid unicode .* not utf-8 encoded.*"), codec.NOT_UTF8),
)
"""DuckDB's messages, each with kedge's wording."""
_LONGEST = 300
"""Maximum length of a message in characters: some contain a whole line of the file."""
