"""Sources of values: Parquet, CSV and JSON lines, with their times read and checked."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import lru_cache
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kedge.core.errors import Refused
from kedge.core.time.instants import bounds, untrue
from kedge.tabular.parquet import (
    column_as,
    database,
    kinds_of,
    load_duckdb,
    whole_types,
)
from kedge.tabular.quotes import first_line, identifier, one_file, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]
from kedge.adapters.offline.log import KEEPING, Times, _micros, filled, instant_of


def source_rows(
    path: str | Path,
    time: str,
    after: float = -inf,
    until: float = inf,
    form: str | None = None,
    keys: Sequence[str] = (),
) -> Arrays:
    """Return a source's rows that became known in (after, until], as columns, in file order.

    Timestamps (without a zone: UTC) and dates become Unix seconds. A missing value is NaN, so that
    whole numbers with a missing one are float64; a missing string is "". Wide whole numbers are of
    64 bits if all values fit, else float64, or text in a key.

    Args:
        path: a Parquet or CSV file, or a pattern for several.
        time: the column with the time when a row became known: a timestamp, a date, or Unix
            seconds.
        after: Unix seconds, exclusive.
        until: Unix seconds, inclusive.
        form: the format of `time`, as for strptime. None: ISO 8601 where it is text.
        keys: columns whose missing values exclude their rows: one missing number would turn
            whole numbers into floats, which cannot tell large ones apart. Missing columns are
            ignored.

    Raises:
        Refused: `bad_source`: the source cannot be read, or the column is missing;
            `needs_analytics`.
    """
    with _source(path, time) as (db, source):
        kinds = kinds_of(db, source)
        instant = instant_of(time, kinds, path, form, ceil=True)
        within = [
            f"isfinite({instant})",
            *(f"NOT ({_is_keyless(key, kinds[key])})" for key in keys if key in kinds),
            *_bounds(time, kinds[time], instant, after, until),
        ]
        # Of the whole source, so that a column has one type in all of its slices.
        whole = {**dict.fromkeys(keys, "VARCHAR"), **whole_types(db, source, kinds)}
        picked = [
            column_as(name, kind, whole=whole.get(name, "DOUBLE")) for name, kind in kinds.items()
        ]
        picked[list(kinds).index(time)] = f"{instant} AS {identifier(time)}"
        found = db.execute(
            # Every name and value in the query is quoted.
            f"SELECT {', '.join(picked)} FROM {source} WHERE {' AND '.join(within)}"  # noqa: S608
        ).fetchnumpy()
    return {name: filled(column) for name, column in found.items()}


def source_times(
    path: str | Path, time: str, now: float, form: str | None = None, keys: Sequence[str] = ()
) -> Times | None:
    """Return the times of a source; None if no row has one.

    Args:
        path: as `source_rows`.
        time: as `source_rows`.
        now: Unix seconds, after which a time is in the future.
        form: as `source_rows`.
        keys: as `source_rows`.

    Raises:
        Refused: as `source_rows`; `untrue_time`: a row's time is unreadable, or cannot be true.
    """
    with _source(path, time) as (db, source):
        kinds = kinds_of(db, source)
        instant = instant_of(time, kinds, path, form, ceil=True)
        check_times(db, source, identifier(time), instant, now, f"{path}: {time}")
        none = " OR ".join(_is_keyless(key, kinds[key]) for key in keys if key in kinds) or "false"
        first, last, known, rows, keyless = db.execute(
            # Every name and value in the query is quoted.
            f"SELECT min({instant}), max({instant}), count({instant}), "  # noqa: S608
            f"count(*), count(*) FILTER ({none}) "
            f"FROM {source}"
        ).fetchone()
    return None if first is None else Times(float(first), float(last), rows - known, keyless)


def source_slices(
    path: str | Path, time: str, every_s: float, form: str | None = None
) -> list[tuple[int, float]]:
    """Return the numbers of the slices in which a source's rows became known, and each newest row.

    Args:
        path: as `source_rows`.
        time: as `source_rows`.
        every_s: the length of a slice; the end of number n is n times as long after 1970.
        form: as `source_rows`.

    Raises:
        Refused: as `source_rows`.
    """
    with _source(path, time) as (db, source):
        instant = instant_of(time, kinds_of(db, source), path, form, ceil=True)
        return db.execute(  # type: ignore[no-any-return]
            # Every name and value in the query is quoted.
            f"SELECT CAST(ceil(seen / {every_s!r}) AS BIGINT) AS slice, max(seen) FROM "  # noqa: S608
            f"(SELECT {instant} AS seen FROM {source}) WHERE isfinite(seen) GROUP BY slice ORDER BY"
            " slice"
        ).fetchall()


def _is_keyless(key: str, kind: str) -> str:
    """Return the condition that a column has no value usable as a key: missing, "" or NaN."""
    column = identifier(key)
    if kind in ("FLOAT", "DOUBLE"):
        return f"{column} IS NULL OR isnan({column})"
    return f"{column} IS NULL OR CAST({column} AS VARCHAR) = ''"


SHOWN = 3
"""Number of rows that a refusal names; the others are counted."""


def check_times(db: Any, source: str, column: str, instant: str, now: float, where: str) -> None:
    """Refuse times that are unreadable, or cannot be true; a missing time is neither.

    Args:
        db: the database.
        source: the FROM source.
        column: the quoted column.
        instant: the expression of its Unix seconds; see `instant_of`.
        now: Unix seconds.
        where: the beginning of the refusal.

    Raises:
        Refused: `untrue_time`; `details.rows` has the first rows, counted from 1.
    """
    low, high = bounds(now)
    given = f"nullif(trim(CAST({column} AS VARCHAR)), '')"
    bad = (
        f"{given} IS NOT NULL AND ({instant} IS NULL OR NOT ({instant} >= {low!r} AND {instant} <="
        f" {high!r}))"
    )
    # Every name and value in the query is quoted.
    (count,) = db.execute(f"SELECT count(*) FROM {source} WHERE {bad}").fetchone()  # noqa: S608
    if not count:
        return
    found = db.execute(
        # Every name and value in the query is quoted.
        f"SELECT kedge_row, {given}, {instant} FROM (SELECT *, row_number() OVER () AS kedge_row "  # noqa: S608
        f"FROM {source}) WHERE {bad} ORDER BY kedge_row LIMIT {SHOWN}"
    ).fetchall()
    rows = [
        {
            "row": row,
            "given": text[:64],
            "reason": f"{text[:64]!r} is not a valid time" if at is None else untrue(at, now),
        }
        for row, text, at in found
    ]
    more = f" (and {count - len(rows):,} more)" if count > len(rows) else ""
    said = "; ".join(f"row {each['row']}: {each['reason']}" for each in rows)
    raise Refused(
        f"{where}, {said}{more}",
        code="untrue_time",
        details={"count": count, "rows": rows},
        hint=(
            "a time is Unix seconds, or ISO 8601 such as 2026-11-26T09:30:00Z; state another form"
            " with time_format (--time-format of a training set), and leave out rows without a"
            " valid time"
        ),
    )


@contextmanager
def _source(path: str | Path, time: str) -> Iterator[tuple[Any, str]]:
    """Yield a database, and the FROM source."""
    source = reader_of(path, [time])
    try:
        with database(KEEPING) as db:
            yield db, source
    except (OSError, load_duckdb(KEEPING).Error) as error:
        raise Refused(f"{path}: {first_line(error)}", code="bad_source") from None


def reader_of(path: str | Path, text: Sequence[str] = ()) -> str:
    """Return the FROM source for a Parquet or CSV file, or several by a pattern.

    Args:
        path: the file or pattern.
        text: columns of a CSV that are text, whatever they look like.

    Raises:
        Refused: `bad_source`: the file is missing, or is of another kind; `needs_analytics`.
    """
    load_duckdb(KEEPING)
    # The pattern includes its folder.
    files = [str(path)] if Path(path).is_file() else sorted(glob.iglob(str(path), recursive=True))  # noqa: PTH207
    if not files:
        raise Refused(f"{path}: there is no such file", code="bad_source")
    name = str(path).lower()
    named = one_file(path) if Path(path).is_file() else quoted(path)
    if name.endswith((".parquet", ".pq")):
        return f"read_parquet({named})"
    if name.endswith((".csv", ".csv.gz", ".tsv")):
        kinds = ", ".join(f"{quoted(n)}: {quoted(kind)}" for n, kind in _types(files, text).items())
        return f"read_csv({named}" + (f", types = {{{kinds}}})" if kinds else ")")
    raise Refused(f"{path} is neither .parquet nor .csv", code="bad_source")


def _types(files: Sequence[str], text: Sequence[str]) -> dict[str, str]:
    """Return the CSV columns that must be read as another type than their first rows suggest.

    DuckDB checks 20,480 rows and assumes the same of later ones: a later code 007 would become 7.
    It also takes 01/02/2026 for a date and chooses which number is the month. Such columns are
    text, and so are requested ones, and those whose types differ between files.
    """
    looks = dict(_sniffed(files[0]).kinds)
    words = {name for name in looks if name in text}
    found: dict[str, set[str]] = {name: set() for name in looks}
    for file in files:
        whole = _sniffed_whole(file)
        forms = {"DATE": whole.date, "TIMESTAMP": whole.timestamp}
        for name, kind in whole.kinds:
            found.get(name, set()).add(kind)
            if not (forms.get(kind) or ISO_FORM).startswith(ISO_FORM):
                words.add(name)
    types = {name: "VARCHAR" if name in words else _common(found[name]) for name in looks}
    return {
        name: kind for name, kind in types.items() if name in words or kind not in ("", looks[name])
    }


def _common(kinds: AbstractSet[str]) -> str:
    """Return the type that holds all; empty if a column has no value."""
    if len(kinds) > 1:
        return "DOUBLE" if kinds <= {"BIGINT", "DOUBLE"} else "VARCHAR"
    return next(iter(kinds), "")


class _Sniffed(NamedTuple):
    """DuckDB's reading of a CSV file: formats of dates and timestamps, and columns with types."""

    date: str | None
    timestamp: str | None
    kinds: tuple[tuple[str, str], ...]


def _sniffed_whole(file: str) -> _Sniffed:
    """Check all rows of a file, once while it is unchanged: that takes 2 s a million rows.

    Columns without a value are excluded: they look like text.
    """
    try:
        there = Path(file).stat()
    except OSError as error:
        raise Refused(f"{file}: {error.strerror or error}", code="bad_source") from None
    return _remembered(file, there.st_mtime_ns, there.st_size, there.st_ino)


@lru_cache(1024)
def _remembered(file: str, *_: int) -> _Sniffed:
    return _sniffed(file, whole=True)


def _sniffed(file: str, *, whole: bool = False) -> _Sniffed:
    how = ", sample_size = -1" if whole else ""
    try:
        with database(KEEPING) as db:
            date, timestamp, columns = db.execute(
                # Every name and value in the query is quoted.
                f"SELECT DateFormat, TimestampFormat, Columns FROM sniff_csv({one_file(file)}{how})"  # noqa: S608
            ).fetchone()
            kinds = {each["name"]: each["type"] for each in columns}
            text = [name for name, kind in kinds.items() if kind == "VARCHAR"] if whole else []
            if text:
                counts = ", ".join(f"count({identifier(name)})" for name in text)
                rows = f"read_csv({one_file(file)}{how})"
                held = db.execute(f"SELECT {counts} FROM {rows}").fetchone()  # noqa: S608 - quoted
                empty = {name for name, count in zip(text, held, strict=True) if not count}
                kinds = {name: kind for name, kind in kinds.items() if name not in empty}
    except (OSError, load_duckdb(KEEPING).Error) as error:
        raise Refused(f"{file}: {first_line(error)}", code="bad_source") from None
    return _Sniffed(date, timestamp, tuple(kinds.items()))


ISO_FORM = "%Y-%m-%d"


def _bounds(time: str, kind: str, instant: str, after: float, until: float) -> Iterator[str]:
    """Yield conditions for (after, until]. A timestamp is compared as stored: files skip by it."""
    for sign, limit in ((">", after), ("<=", until)):
        if isfinite(limit) and kind == "TIMESTAMP":
            yield f"{identifier(time)} {sign} make_timestamp({_micros(limit)})"
        elif isfinite(limit):
            yield f"{instant} {sign} {limit!r}"
