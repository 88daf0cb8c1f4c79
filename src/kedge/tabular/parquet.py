"""Parquet columns: the kind of each type, and the expression that makes it readable for Python.

Only the requested columns are read, so that a type that Python cannot hold does no harm in another
column. Values come as numbers, text, truth values, or lists of those; an instant comes as Unix
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
"""Memory that DuckDB uses before it writes to the disk."""
BATCH = 10_000
"""Rows fetched at once."""


class ColumnKind(StrEnum):
    """Kind of value in a column, whatever its width."""

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
"""Type of elements, and the brackets of its lists: DECIMAL(9,2)[][3]."""


def kind_of(type_name: str) -> ColumnKind:
    """Return the kind of value in a column of one of DuckDB's types."""
    if type_name.endswith("]"):
        return ColumnKind.LIST
    return _KINDS.get(type_name.partition("(")[0].strip(), ColumnKind.OTHER)


_NO_FRACTION = re.compile(r"U?HUGEINT|BIGNUM|DECIMAL\(\d+,0\)")
"""Wide types of whole numbers; databases export their ids as DECIMAL(38,0)."""


def is_wide_whole(type_name: str) -> bool:
    """Return whether a type holds whole numbers of more than 64 bits."""
    return _NO_FRACTION.fullmatch(type_name.replace(" ", "")) is not None


def whole_types(db: Any, source: str, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return the 64-bit type that holds all values of each wide column of whole numbers.

    A column without such a type is left out: no type of NumPy holds it.

    Args:
        db: the database.
        source: the FROM source.
        kinds: the columns with their types; see `kinds_of`.
    """
    wide = [name for name, kind in kinds.items() if is_wide_whole(kind)]
    if not wide:
        return {}
    least = ", ".join(
        f"min({column}) >= -9223372036854775808 AND max({column}) <= 9223372036854775807, "
        f"min({column}) >= 0 AND max({column}) <= 18446744073709551615"
        for column in map(identifier, wide)
    )
    found = db.execute(f"SELECT {least} FROM {source}").fetchone()  # noqa: S608 - quoted
    fits = zip(wide, found[::2], found[1::2], strict=True)
    # Without any value both are null.
    return {
        name: "UBIGINT" if signed is False else "BIGINT"
        for name, signed, unsigned in fits
        if signed is not False or unsigned
    }


def column_as(
    name: str,
    type_name: str,
    *,
    exact: bool = False,
    naive: ColumnKind = ColumnKind.ZONED,
    whole: str = "DOUBLE",
) -> str:
    """Return the expression that reads a column as Python and NumPy can hold it.

    Args:
        name: the column's name, which the result has too.
        type_name: DuckDB's name of its type.
        exact: whether wide numbers stay whole numbers and decimals; else they become 64-bit
            floats.
        naive: how timestamps without a zone and dates are read: `ZONED`, as UTC in Unix
            seconds, or `TEXT`, so that a missing zone is visible.
        whole: DuckDB's type for wide whole numbers unless `exact`; see `whole_types`.
    """
    column, kind = identifier(name), kind_of(type_name)
    if kind is ColumnKind.LIST:
        return f"{_list(column, type_name)} AS {column}"
    if kind in (ColumnKind.NAIVE, ColumnKind.DATE):
        kind = naive
    if kind is ColumnKind.ZONED:
        return f"{seconds_of(column, type_name)} AS {column}"
    if kind is ColumnKind.WIDE and not exact:
        return f"CAST({column} AS {whole if is_wide_whole(type_name) else 'DOUBLE'}) AS {column}"
    if (
        kind
        in (ColumnKind.BOOL, ColumnKind.WHOLE, ColumnKind.REAL, ColumnKind.WIDE, ColumnKind.NULL)
        or type_name == "VARCHAR"
    ):
        return column
    return f"CAST({column} AS VARCHAR) AS {column}"


def seconds_of(column: str, type_name: str) -> str:
    """Return the expression for an instant's Unix seconds; `column` is quoted."""
    # DuckDB has no `epoch` of this one type.
    whole = f"CAST({column} AS TIMESTAMPTZ)" if type_name == "TIMESTAMPTZ_NS" else column
    return f"CAST(epoch({whole}) AS DOUBLE)"


def _list(column: str, type_name: str) -> str:
    """Return the expression for a list of numbers, truth values or text."""
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
        # The extra `analytics` is heavy, and only users of Parquet need it.
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
    """Open a temporary database; data beyond its memory goes to the disk.

    Raises:
        Refused: `needs_analytics`.
    """
    duckdb = load_duckdb(what, hint)
    with tempfile.TemporaryDirectory(prefix="kedge-") as scratch, duckdb.connect() as db:
        db.execute(f"SET memory_limit = {quoted(MEMORY)}")
        db.execute(f"SET temp_directory = {quoted(scratch)}")
        db.execute("SET TimeZone = 'UTC'")  # for text without a zone, as everywhere
        yield db


def kinds_of(db: Any, source: str) -> dict[str, str]:
    """Return the columns of a FROM source, with DuckDB's names of their types."""
    described = db.execute(f"DESCRIBE SELECT * FROM {source}")  # noqa: S608 - quoted
    return {name: kind for name, kind, *_ in described.fetchall()}


class UnreadableFile(ValueError):
    """Error of a file that cannot be read; its text is the reason."""

    rows = 1
    """Number of rows that were not read because of it; 1 where that is unknown."""


Picking = Callable[[Mapping[str, str]], Mapping[str, str]]
"""Function from a file's columns and their types to the columns to read, each with its
expression."""


def parquet_rows(path: Path, pick: Picking, hint: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a Parquet file, with the columns that `pick` names; {} if it names none.

    Args:
        path: the file.
        pick: see `Picking`; when it raises, nothing is read.
        hint: the hint if DuckDB is not installed.

    Raises:
        Refused: `needs_analytics`.
        UnreadableFile: it is not Parquet, or a value in it cannot be read.
    """
    with opened(path, hint) as (db, source):
        try:
            picked = dict(pick(kinds_of(db, source)))
        except UnreadableFile as error:
            (rows,) = db.execute(f"SELECT count(*) FROM {source}").fetchone()  # noqa: S608 - quoted
            error.rows = max(rows, 1)
            raise
        # Every name and value in the query is quoted.
        cursor = db.execute(f"SELECT {', '.join(picked.values()) or '1'} FROM {source}")  # noqa: S608
        while rows := cursor.fetchmany(BATCH):
            for row in rows:
                yield dict(zip(picked, row, strict=False))


@contextmanager
def opened(path: Path, hint: str) -> Iterator[tuple[Any, str]]:
    """Open a database for one Parquet file; yield it and the FROM source.

    Raises:
        Refused: `needs_analytics`.
        UnreadableFile: DuckDB or the file system reports an error.
    """
    duckdb = load_duckdb(hint=hint)
    # A folder called id=5 is not a column.
    source = f"read_parquet({one_file(path)}, hive_partitioning = false)"
    try:
        with database(hint=hint) as db:
            yield db, source
    except (duckdb.Error, OSError, UnicodeError, ArithmeticError) as error:
        raise UnreadableFile(first_line(error)) from error
