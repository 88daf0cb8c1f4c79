"""Quoting for DuckDB: literals, names of columns, names of files, and what its faults say."""

from __future__ import annotations

import re


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
    """Return what a fault says, without the advice that follows it."""
    first, _, rest = str(error).strip().partition("\n")
    if first.startswith("Invalid Input Error: CSV Error on Line"):  # and the next line says which
        where, why = first.removeprefix("Invalid Input Error: "), rest.strip().partition("\n")[0]
        return f"{where.replace('CSV Error on Line:', 'line')}: {why}"
    return first
