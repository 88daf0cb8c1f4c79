"""Quotes for DuckDB: literals, names of columns, names of files, and what its faults say."""

from __future__ import annotations

import re

from kedge.core import codec


def quoted(text: object) -> str:
    """Return a literal."""
    return "'" + str(text).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a column's name."""
    return '"' + name.replace('"', '""') + '"'


def one_file(path: object) -> str:
    """Return a literal that names one file: DuckDB takes brackets, stars and question marks for a pattern."""
    return quoted(re.sub(r"[\[*?]", r"[\g<0>]", str(path)))


def first_line(error: Exception) -> str:
    """Return what a fault says, without the class and the advice that DuckDB puts around it."""
    first, _, rest = str(error).strip().partition("\n")
    said = _CLASS.sub("", first, count=1)
    line = _CSV_LINE.fullmatch(said)
    if line is None:
        return _reworded(said)
    # The line itself comes first, then the reason, then an empty line and advice.
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
"""What DuckDB says, and how it is told here."""
_LONGEST = 300
"""Characters of a fault: some have a whole line of the file."""
