"""Parquet columns: what each type is, and the one expression by which Python takes it.

Only what is asked for is read, so that a type that Python cannot hold does no harm in another
column. What is read comes as a number, text, true or false, or a list of those: an instant as Unix
seconds. No library for time zones is needed for that.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from kedge.core.errors import Refused
from kedge.tabular.quotes import first_line, identifier, one_file, quoted

MEMORY = "1GB"
"""What DuckDB may use before it goes to the disk."""
BATCH = 10_000
"""Rows fetched at once."""


class ColumnKind(StrEnum):
    """What a column holds, whatever its width."""

    BOOL = "bool"
    WHOLE = "whole"
    """Whole numbers of up to 64 bits."""
    REAL = "real"
    WIDE = "wide"
    """Decimals, and whole numbers of more than 64 bits."""
    TEXT = "text"
    ZONED = "zoned"
    """An instant with a time zone."""
    NAIVE = "naive"
    """A timestamp without a time zone."""
    DATE = "date"
    SPAN = "span"
    """A time of day or a duration."""
    LIST = "list"
    NESTED = "nested"
    """A struct, a map or a union."""
    BINARY = "binary"
    NULL = "null"
    OTHER = "other"


_KINDS = {
    **dict.fromkeys(
        (
            "TINYINT",
            "SMALLINT",
            "INTEGER",
            "BIGINT",
            "UTINYINT",
            "USMALLINT",
            "UINTEGER",
            "UBIGINT",
        ),
        ColumnKind.WHOLE,
    ),
    **dict.fromkeys(("FLOAT", "DOUBLE"), ColumnKind.REAL),
    **dict.fromkeys(("DECIMAL", "HUGEINT", "UHUGEINT", "BIGNUM"), ColumnKind.WIDE),
    **dict.fromkeys(("VARCHAR", "UUID", "ENUM", "JSON"), ColumnKind.TEXT),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), ColumnKind.NAIVE),
    **dict.fromkeys(
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ", "TIMESTAMPTZ_NS"), ColumnKind.ZONED
    ),
    **dict.fromkeys(
        ("TIME", "TIME_NS", "TIME WITH TIME ZONE", "TIMETZ", "INTERVAL"), ColumnKind.SPAN
    ),
    **dict.fromkeys(("STRUCT", "MAP", "UNION"), ColumnKind.NESTED),
    **dict.fromkeys(("BLOB", "BIT"), ColumnKind.BINARY),
    "BOOLEAN": ColumnKind.BOOL,
    "DATE": ColumnKind.DATE,
    "NULL": ColumnKind.NULL,
    '"NULL"': ColumnKind.NULL,
}
_LIST = re.compile(r"(.*?)((?:\[\d*\])+)", re.DOTALL)
"""A type of elements, and the brackets of its lists: DECIMAL(9,2)[][3]."""


def kind_of(type_name: str) -> ColumnKind:
    """Return what a column of one of DuckDB's types holds."""
    if type_name.endswith("]"):
        return ColumnKind.LIST
    return _KINDS.get(type_name.partition("(")[0].strip(), ColumnKind.OTHER)


def column_as(
    name: str, type_name: str, *, exact: bool = False, naive: ColumnKind = ColumnKind.ZONED
) -> str:
    """Return the expression that gives a column as Python and NumPy can hold it, under its own name.

    Args:
        name: of the column.
        type_name: DuckDB's name of its type.
        exact: wide numbers stay whole numbers and decimals. Else they are floats of 64 bits.
        naive: what timestamps without a zone and dates are read as: `ZONED`, as UTC in Unix seconds, or
            `TEXT`, so that the reader sees that they have none.
    """
    column, kind = identifier(name), kind_of(type_name)
    if kind is ColumnKind.LIST:
        return f"{_list(column, type_name)} AS {column}"
    if kind in (ColumnKind.NAIVE, ColumnKind.DATE):
        kind = naive
    if kind is ColumnKind.ZONED:
        return f"{seconds_of(column, type_name)} AS {column}"
    if kind is ColumnKind.WIDE and not exact:
        return f"CAST({column} AS DOUBLE) AS {column}"
    if (
        kind
        in (ColumnKind.BOOL, ColumnKind.WHOLE, ColumnKind.REAL, ColumnKind.WIDE, ColumnKind.NULL)
        or type_name == "VARCHAR"
    ):
        return column
    return f"CAST({column} AS VARCHAR) AS {column}"


def seconds_of(column: str, type_name: str) -> str:
    """Return the expression of an instant's Unix seconds; `column` is quoted."""
    # DuckDB has no `epoch` of this one type.
    whole = f"CAST({column} AS TIMESTAMPTZ)" if type_name == "TIMESTAMPTZ_NS" else column
    return f"CAST(epoch({whole}) AS DOUBLE)"


def _list(column: str, type_name: str) -> str:
    """Return a list as one of numbers, truth values or text."""
    found = _LIST.fullmatch(type_name)
    inner, brackets = (found[1], found[2]) if found is not None else (type_name, "[]")
    kind = kind_of(inner)
    if kind in (ColumnKind.BOOL, ColumnKind.WHOLE, ColumnKind.REAL) or inner == "VARCHAR":
        return column
    return f"CAST({column} AS {'DOUBLE' if kind is ColumnKind.WIDE else 'VARCHAR'}{brackets})"


# ---------------------------------------------------------------- DuckDB


def load_duckdb(what: str = "reading Parquet", hint: str = "pip install 'kedge[analytics]'") -> Any:
    """Return the library.

    Raises:
        Refused: `needs_analytics`.
    """
    try:
        # The extra `analytics`: heavy, and only for those who have Parquet.
        import duckdb  # noqa: PLC0415
    except ImportError:
        raise Refused(
            f"{what} needs the extra analytics", code="needs_analytics", hint=hint
        ) from None
    return duckdb


@contextmanager
def database(
    what: str = "reading Parquet", hint: str = "pip install 'kedge[analytics]'"
) -> Iterator[Any]:
    """A database that is gone afterwards; what does not fit into its memory goes to the disk.

    Raises:
        Refused: `needs_analytics`.
    """
    duckdb = load_duckdb(what, hint)
    with tempfile.TemporaryDirectory(prefix="kedge-") as scratch, duckdb.connect() as db:
        db.execute(f"SET memory_limit = {quoted(MEMORY)}")
        db.execute(f"SET temp_directory = {quoted(scratch)}")
        db.execute("SET TimeZone = 'UTC'")  # of text without a zone, as everywhere
        yield db


def kinds_of(db: Any, source: str) -> dict[str, str]:
    """Return the columns of what stands after FROM, with DuckDB's names of their types."""
    described = db.execute(f"DESCRIBE SELECT * FROM {source}")  # noqa: S608 - quoted
    return {name: kind for name, kind, *_ in described.fetchall()}


class UnreadableFile(ValueError):
    """Why a file cannot be read, in words."""

    rows = 1
    """How many rows are not read for it; 1 where that is not known."""


Picking = Callable[[Mapping[str, str]], Mapping[str, str]]
"""Given a file's columns and their types: the columns to read, each with its expression."""


def parquet_rows(path: Path, pick: Picking, hint: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of one Parquet file, with the columns that `pick` names; {} for each where it names none.

    Args:
        path: of the file.
        pick: see `Picking`; may raise, and nothing is read then.
        hint: what to do where DuckDB is not installed.

    Raises:
        Refused: `needs_analytics`.
        UnreadableFile: it is no Parquet, or a value in it cannot be read.
    """
    with opened(path, hint) as (db, source):
        try:
            picked = dict(pick(kinds_of(db, source)))
        except UnreadableFile as error:
            (rows,) = db.execute(f"SELECT count(*) FROM {source}").fetchone()  # noqa: S608 - quoted
            error.rows = max(rows, 1)
            raise
        # Every name and value in it is quoted.
        cursor = db.execute(f"SELECT {', '.join(picked.values()) or '1'} FROM {source}")  # noqa: S608
        while rows := cursor.fetchmany(BATCH):
            for row in rows:
                yield dict(zip(picked, row, strict=False))


@contextmanager
def opened(path: Path, hint: str) -> Iterator[tuple[Any, str]]:
    """A database to read one Parquet file with, and what stands after FROM.

    Raises:
        Refused: `needs_analytics`.
        UnreadableFile: what DuckDB or the file system says meanwhile.
    """
    duckdb = load_duckdb(hint=hint)
    # A folder called id=5 is no column.
    source = f"read_parquet({one_file(path)}, hive_partitioning = false)"
    try:
        with database(hint=hint) as db:
            yield db, source
    except (duckdb.Error, OSError, UnicodeError, ArithmeticError) as error:
        raise UnreadableFile(first_line(error)) from error
