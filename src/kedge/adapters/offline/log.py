"""Materialised values over time, as Parquet: one file a slice, read back as of any instant.

    <root>/<view>/<n>/<transformation>/<generation>/<end>.parquet

A slice's name is its end in microseconds since 1970. A file has the key columns, the fields as
FLOAT (FLOAT[] where they have a shape; NULL is NaN), and `kedge_at`, the slice's end in Unix
seconds. It becomes visible by one rename, after its bytes are on the disk. NaN is kept as NULL, so
of its payload nothing is kept; every other float32 comes back bit by bit.

Also reads what is materialised: Parquet or CSV files, as columns.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import lru_cache
from math import inf, isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kedge.core.errors import Refused, Unavailable
from kedge.core.features.generations import Run
from kedge.core.features.schema import Schema
from kedge.core.keys import spell
from kedge.core.time.instants import ISO, SPELLINGS, bounds, untrue
from kedge.tabular.parquet import (
    Kind,
    column_as,
    database,
    kind_of,
    kinds_of,
    load_duckdb,
    seconds_of,
)
from kedge.tabular.quoting import first_line, identifier, one_file, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import Columns

    Arrays = dict[str, NDArray[Any]]

OFFLINE_DIR = "offline"
AT = "kedge_at"
"""The column that says when a row became known."""
_MICRO = 1_000_000
_PARTIAL = ".partial"
KEEPING = "keeping values over time"
"""What needs DuckDB here."""


class OfflineLog:
    """The values of every run, in one directory. Needs the extra `analytics`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, run: Run, end: float, keys: Sequence[str], columns: Columns) -> int:
        """Write a slice, whole, over what was written of it before; how many rows it has.

        Args:
            run: whose.
            end: of the slice, Unix seconds; to the microsecond.
            keys: the names of the key columns: strings or whole numbers.
            columns: those, and float32 fields with a row a key. A key stands once.

        Raises:
            Refused: `needs_analytics`.
            Unavailable: `offline_unavailable`: it cannot be written; nothing of it is seen.
        """
        given, picked, shapes = _split(keys, columns)
        picked.append(f"CAST({_micros(end) / _MICRO!r} AS DOUBLE) AS {AT}")
        told = json.dumps({"keys": list(keys), "shapes": shapes})
        with _faults("written", self._root), self._alone(run) as folder:
            for leftover in folder.glob(f"*{_PARTIAL}"):
                leftover.unlink()
            path = folder / f"{_micros(end):020d}.parquet"
            partial = path.with_suffix(_PARTIAL)
            with database(KEEPING) as db:
                db.register("given", given)
                db.execute(
                    f"COPY (SELECT {', '.join(picked)} FROM given) TO {quoted(partial)} "  # noqa: S608 - ours, quoted
                    f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{kedge: {quoted(told)}}})"
                )
            _sync(partial)
            partial.replace(path)
            _sync(folder)
        return len(next(iter(given.values())))

    def ends(self, run: Run) -> tuple[float, ...]:
        """The ends of the slices that are there, in order."""
        found = (path.stem for path in self._folder(run).glob("*.parquet"))
        return tuple(n / _MICRO for n in sorted(int(stem) for stem in found if _whole(stem)))

    def read(self, run: Run, end: float) -> Arrays:
        """A slice's columns as they were written, and `kedge_at`.

        Raises:
            Refused: `needs_analytics`; `no_slice`: there is none with this end.
            Unavailable: `offline_unavailable`: it cannot be read.
        """
        path = self._path(run, end)
        if not path.exists():
            raise Refused(f"{run.label} has no slice that ends at {end}", code="no_slice")
        with _faults("read", path), database(KEEPING) as db:
            raw = db.execute(
                f"SELECT value FROM parquet_kv_metadata({quoted(path)}) "  # noqa: S608 - ours, quoted
                "WHERE decode(key) = 'kedge'"
            ).fetchone()
            told = json.loads(raw[0]) if raw else {"keys": [], "shapes": {}}
            shapes = {name: tuple(shape) for name, shape in told["shapes"].items()}
            plain = [*map(identifier, told["keys"]), *_parts(shapes), AT]
            found = db.execute(f"SELECT {', '.join(plain)} FROM {_files([path])}").fetchnumpy()  # noqa: S608 - ours, quoted
        columns = {name: filled(found[name]) for name in told["keys"]}
        columns |= _joined(found, shapes)
        columns[AT] = found[AT]
        return columns

    def drop(self, run: Run) -> None:
        """Remove a run; nothing when it is not there.

        Raises:
            Unavailable: `offline_unavailable`.
        """
        if self._folder(run).is_dir():
            with _faults("removed", self._root), self._alone(run) as folder:
                shutil.rmtree(folder)

    def runs(self, schema: str) -> tuple[Run, ...]:
        """The runs of a schema of which something is there, in order."""
        found = (path for path in (self._root / schema).glob("*/*") if path.is_dir())
        named = ((path.parent.name, path.name) for path in found if any(path.glob("*.parquet")))
        return tuple(
            sorted(
                Run(schema, int(code), int(number))
                for code, number in named
                if code.isdigit() and number.isdigit()
            )
        )

    def asof(
        self, spine: Columns, at: NDArray[Any], run: Run, schema: Schema, ttl_s: float | None = None
    ) -> tuple[Arrays, NDArray[np.bool_]]:
        """What was known of each row's key at its time: the newest slice that had ended by then.

        A slice that ends at the very time is known.

        Args:
            spine: the schema's key columns among others.
            at: Unix seconds a row. NaN: nothing was known.
            run: of which run.
            schema: which keys and fields; its keys name the columns.
            ttl_s: a value that is older than this is missing. None: none is.

        Returns:
            The fields in the spine's order, float32, NaN where missing; and which rows are.

        Raises:
            Refused: `needs_analytics`.
            Unavailable: `offline_unavailable`: a file cannot be read.
        """
        rows = len(at)
        shapes = {name: feature.shape for name, feature in schema.fields.items()}
        files = [self._path(run, end) for end in self._within(run, at, ttl_s)]
        if not files or not rows:
            return _nothing(shapes, rows), np.ones(rows, dtype=np.bool_)
        given: Arrays = {f"k{n}": _spelt(spine[key]) for n, key in enumerate(schema.keys)}
        given |= {"at": np.asarray(at, np.float64), "row": np.arange(rows)}
        with _faults("read", self._folder(run)), database(KEEPING) as db:
            db.register("given", given)
            source = _files(files)
            same = [
                f"CAST(given.k{n} AS VARCHAR) = CAST(log.{identifier(key)} AS VARCHAR)"
                for n, key in enumerate(schema.keys)
            ]
            found = db.execute(
                f"SELECT {', '.join([*_parts(shapes), AT])} FROM given ASOF LEFT JOIN {source} AS log "  # noqa: S608 - ours, quoted
                f"ON {' AND '.join(same)} AND given.at >= log.{AT} ORDER BY given.row"
            ).fetchnumpy()
        missing = _mask(found[AT])
        if ttl_s is not None:
            missing |= given["at"] - np.ma.getdata(found[AT]) > ttl_s
        columns = _joined(found, shapes)
        for column in columns.values():
            column[missing] = np.nan
        return columns, missing

    def _within(self, run: Run, at: NDArray[Any], ttl_s: float | None) -> list[float]:
        """The ends that can matter to these times."""
        known = at[np.isfinite(at)]
        if not len(known):
            return []
        oldest = -inf if ttl_s is None else float(known.min()) - ttl_s
        return [end for end in self.ends(run) if oldest <= end <= float(known.max())]

    def _folder(self, run: Run) -> Path:
        return self._root / run.namespace

    def _path(self, run: Run, end: float) -> Path:
        return self._folder(run) / f"{_micros(end):020d}.parquet"

    @contextmanager
    def _alone(self, run: Run) -> Iterator[Path]:
        """The run's folder, to one writer at a time: what is partial there is a dead one's."""
        folder = self._folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(handle)


# ---------------------------------------------------------------- sources


class Times(NamedTuple):
    """What the times of a source are, all checked.

    Attributes:
        first: Unix seconds of the first row.
        last: of the last row.
        without: rows whose time is missing; they belong to no slice.
        keyless: rows in which a key is missing; nothing can be kept of them.
    """

    first: float
    last: float
    without: int
    keyless: int = 0


def source_rows(
    path: str | Path,
    time: str,
    after: float = -inf,
    until: float = inf,
    form: str | None = None,
    keys: Sequence[str] = (),
) -> Arrays:
    """The rows of a source that became known in (after, until], as columns, in the files' order.

    Timestamps (without a zone: UTC) and dates become Unix seconds. A missing value is NaN, so that
    whole numbers among which one is missing are float64; a missing string is "".

    Args:
        path: a Parquet or CSV file, or a pattern of several.
        time: the column that says when a row became known: a timestamp, a date, or Unix seconds.
        after: Unix seconds, exclusive.
        until: Unix seconds, inclusive.
        form: how `time` is written, as for strptime. None: ISO 8601 where it is text.
        keys: columns whose missing values have no row: one missing number would make a column of
            whole numbers one of floats, which do not tell large ones apart. Others are passed over.

    Raises:
        Refused: `bad_source`: it cannot be read, or has no such column; `needs_analytics`.
    """
    with _source(path, time) as (db, source):
        kinds = kinds_of(db, source)
        instant = instant_of(time, kinds, path, form, ceil=True)
        within = [
            f"isfinite({instant})",
            *(f"NOT ({_is_keyless(key, kinds[key])})" for key in keys if key in kinds),
            *_bounds(time, kinds[time], instant, after, until),
        ]
        picked = [column_as(name, kind) for name, kind in kinds.items()]
        picked[list(kinds).index(time)] = f"{instant} AS {identifier(time)}"
        found = db.execute(
            f"SELECT {', '.join(picked)} FROM {source} WHERE {' AND '.join(within)}"  # noqa: S608 - quoted
        ).fetchnumpy()
    return {name: filled(column) for name, column in found.items()}


def source_times(
    path: str | Path, time: str, now: float, form: str | None = None, keys: Sequence[str] = ()
) -> Times | None:
    """The times of a source; None when no row has one.

    Args:
        path: as `source_rows`.
        time: as `source_rows`.
        now: Unix seconds, by which a time lies in the future.
        form: as `source_rows`.
        keys: as `source_rows`.

    Raises:
        Refused: as `source_rows`; `untrue_time`: rows whose time cannot be read, or cannot be true.
    """
    with _source(path, time) as (db, source):
        kinds = kinds_of(db, source)
        instant = instant_of(time, kinds, path, form, ceil=True)
        check_times(db, source, identifier(time), instant, now, f"{path}: {time}")
        none = " OR ".join(_is_keyless(key, kinds[key]) for key in keys if key in kinds) or "false"
        first, last, known, rows, keyless = db.execute(
            f"SELECT min({instant}), max({instant}), count({instant}), count(*), count(*) FILTER ({none}) "  # noqa: S608 - quoted
            f"FROM {source}"
        ).fetchone()
    return None if first is None else Times(float(first), float(last), rows - known, keyless)


def source_slices(
    path: str | Path, time: str, every_s: float, form: str | None = None
) -> list[tuple[int, float]]:
    """The numbers of the slices in which rows of a source became known, and the newest row of each.

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
            f"SELECT CAST(ceil(seen / {every_s!r}) AS BIGINT) AS slice, max(seen) FROM "  # noqa: S608 - quoted
            f"(SELECT {instant} AS seen FROM {source}) WHERE isfinite(seen) GROUP BY slice ORDER BY"
            " slice"
        ).fetchall()


def _is_keyless(key: str, kind: str) -> str:
    """Return the condition that a column has no value that could be a key: missing, "" or NaN."""
    column = identifier(key)
    if kind in ("FLOAT", "DOUBLE"):
        return f"{column} IS NULL OR isnan({column})"
    return f"{column} IS NULL OR CAST({column} AS VARCHAR) = ''"


SHOWN = 3
"""Rows that a refusal names; the others are counted."""


def check_times(db: Any, source: str, column: str, instant: str, now: float, where: str) -> None:
    """Refuse times that cannot be read, or cannot be true; a missing time is neither.

    Args:
        db: the database.
        source: what stands after FROM.
        column: the quoted column.
        instant: the expression of its Unix seconds; see `instant_of`.
        now: Unix seconds.
        where: what the refusal begins with.

    Raises:
        Refused: `untrue_time`; `details.rows` has the first rows, counted from 1.
    """
    low, high = bounds(now)
    given = f"nullif(trim(CAST({column} AS VARCHAR)), '')"
    bad = (
        f"{given} IS NOT NULL AND ({instant} IS NULL OR NOT ({instant} >= {low!r} AND {instant} <="
        f" {high!r}))"
    )
    (count,) = db.execute(f"SELECT count(*) FROM {source} WHERE {bad}").fetchone()  # noqa: S608 - quoted
    if not count:
        return
    found = db.execute(
        f"SELECT kedge_row, {given}, {instant} FROM (SELECT *, row_number() OVER () AS kedge_row "  # noqa: S608 - quoted
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
    """A database, and what stands after FROM."""
    source = reader_of(path, [time])
    try:
        with database(KEEPING) as db:
            yield db, source
    except (OSError, load_duckdb(KEEPING).Error) as error:
        raise Refused(f"{path}: {first_line(error)}", code="bad_source") from None


def reader_of(path: str | Path, text: Sequence[str] = ()) -> str:
    """What stands after FROM to read a Parquet or CSV file, or several by a pattern.

    Args:
        path: which.
        text: columns of a CSV that are text, whatever they look like.

    Raises:
        Refused: `bad_source`: there is no such file, or it is of another kind; `needs_analytics`.
    """
    load_duckdb(KEEPING)
    files = [str(path)] if Path(path).is_file() else sorted(glob.iglob(str(path), recursive=True))  # noqa: PTH207 - a pattern with its folder
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
    """Return the columns of CSV files that are read as another type than their first rows look like.

    DuckDB looks at 20,480 rows and takes what follows for the same: a code 007 further on would become 7.
    It also takes 01/02/2026 for a date and chooses which number is the month. Such columns are text, and so
    are those that are asked for, and those that files hold differently.
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
    """Return the type that holds all; empty where a column has no value."""
    if len(kinds) > 1:
        return "DOUBLE" if kinds <= {"BIGINT", "DOUBLE"} else "VARCHAR"
    return next(iter(kinds), "")


class _Sniffed(NamedTuple):
    """What DuckDB takes a CSV file for: forms of dates and timestamps, and columns with their types."""

    date: str | None
    timestamp: str | None
    kinds: tuple[tuple[str, str], ...]


def _sniffed_whole(file: str) -> _Sniffed:
    """Look at all rows of a file, once while it stays as it is: that takes 2 s a million rows.

    Columns without a value are left out: they look like text.
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
                f"SELECT DateFormat, TimestampFormat, Columns FROM sniff_csv({one_file(file)}{how})"  # noqa: S608 - quoted
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


def instant_of(
    time: str,
    kinds: Mapping[str, str],
    where: object,
    form: str | None = None,
    *,
    ceil: bool = False,
) -> str:
    """The expression that gives a column's time in Unix seconds; NULL where text is no time.

    What is finer than a microsecond is rounded: the time of a value up, and that of a question down, so
    that no value is known before its time.

    Args:
        time: the column.
        kinds: the columns with their types; see `kinds_of`.
        where: what a refusal begins with.
        form: how text is written, as for strptime. None: ISO 8601, or Unix seconds.
        ceil: round up; else down.

    Raises:
        Refused: `bad_source`: there is no such column, or it holds no time; the form is none.
    """
    if time not in kinds:
        raise Refused(
            f"{where} has no column {time}", code="bad_source", hint=f"it has {', '.join(kinds)}"
        )
    kind, column = kinds[time], identifier(time)
    held = kind_of(kind)
    if kind == "VARCHAR":
        return _written(column, form, ceil=ceil)
    if form is not None:
        raise Refused(
            f"{where}: {time} is {kind}, and time_format is for text",
            code="bad_source",
            hint="leave the format out",
        )
    if kind in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):
        whole = (
            f"epoch_ns({column})"
            if kind == "TIMESTAMP_NS"
            else f"epoch_ns(CAST({column} AS TIMESTAMP_NS))"
        )
        return f"CAST(({whole} + {999 if ceil else 0}) // 1000 AS DOUBLE) / 1e6"
    if held in (Kind.ZONED, Kind.NAIVE, Kind.DATE):
        return seconds_of(column, kind)
    if held in (Kind.WHOLE, Kind.REAL, Kind.WIDE):
        return f"CAST({column} AS DOUBLE)"
    raise Refused(
        f"{where}: {time} is {kind}, not a time",
        code="bad_source",
        hint="a timestamp, a date, Unix seconds, or text in ISO 8601",
    )


_NUMBER = r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?"


_FINER = r"[.,][0-9]{6}[0-9]*[1-9]"
"""Digits of a fraction that are finer than a microsecond."""


def _written(column: str, form: str | None, *, ceil: bool) -> str:
    """The expression that reads a column of text as Unix seconds; `ceil`: see `instant_of`."""
    text = f"trim({column})"
    if form is not None:
        return f"CAST(epoch(CAST(try_strptime({text}, {quoted(form)}) AS TIMESTAMPTZ)) AS DOUBLE)"
    spelt = text
    for pattern, spelling in SPELLINGS:
        spelt = f"regexp_replace({spelt}, {quoted(pattern)}, {quoted(spelling)})"
    more = (
        f" + CASE WHEN regexp_matches({text}, {quoted(_FINER)}) THEN 1e-6 ELSE 0 END"
        if ceil
        else ""
    )
    # Text that DuckDB reads beyond ISO 8601 ("epoch", "2026-1-2", names of zones) is no time.
    return (
        f"CASE WHEN regexp_full_match({text}, {quoted(_NUMBER)}) THEN TRY_CAST({text} AS DOUBLE) "
        f"WHEN regexp_full_match({text}, {quoted(ISO)}) "
        f"THEN CAST(epoch(TRY_CAST(upper({spelt}) AS TIMESTAMPTZ)) AS DOUBLE){more} END"
    )


def _bounds(time: str, kind: str, instant: str, after: float, until: float) -> Iterator[str]:
    """Conditions for (after, until]. A timestamp is compared as it is stored: files skip by it."""
    for sign, limit in ((">", after), ("<=", until)):
        if isfinite(limit) and kind == "TIMESTAMP":
            yield f"{identifier(time)} {sign} make_timestamp({_micros(limit)})"
        elif isfinite(limit):
            yield f"{instant} {sign} {limit!r}"


# ---------------------------------------------------------------- DuckDB


@contextmanager
def _faults(doing: str, where: Path) -> Iterator[None]:
    fault = load_duckdb(KEEPING).Error
    try:
        yield
    except (OSError, fault) as error:
        raise Unavailable(
            f"{where} cannot be {doing}: {first_line(error)}",
            code="offline_unavailable",
            hint=(
                "free disk space, and check that this user may write there; kedge features backfill"
                " writes a damaged slice again"
            ),
        ) from error


def _files(paths: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(map(quoted, paths))}])"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------- columns


def _split(keys: Sequence[str], columns: Columns) -> tuple[Arrays, list[str], dict[str, list[int]]]:
    """What DuckDB is given (it knows flat columns only), what is selected of it, and the shapes."""
    given: Arrays = {}
    picked = []
    for key in keys:
        column = _plain(columns[key])
        kind = "VARCHAR" if column.dtype.kind == "O" else "BIGINT"
        picked.append(f"CAST(c{len(given)} AS {kind}) AS {identifier(key)}")
        given[f"c{len(given)}"] = column
    shapes: dict[str, list[int]] = {}
    for name in [name for name in columns if name not in keys]:
        column = np.asarray(columns[name], np.float32)
        shapes[name] = list(column.shape[1:])
        numbers = flat(column)
        parts = [f"c{len(given) + n}" for n in range(len(numbers))]
        given |= dict(zip(parts, numbers, strict=True))
        one = f"list_value({', '.join(parts)})" if shapes[name] else parts[0]
        picked.append(f"{one} AS {identifier(name)}")
    return given, picked, shapes


def _parts(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """What to select of fields: each number a column by itself, which is the fast way out."""
    picked = []
    for number, (name, shape) in enumerate(shapes.items()):
        if not shape:
            picked.append(f"{identifier(name)} AS f{number}_0")
        picked += [
            f"{identifier(name)}[{n + 1}] AS f{number}_{n}" for n in range(prod(shape)) if shape
        ]
    return picked


def _joined(found: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """The fields out of what `_parts` selected."""
    columns: Arrays = {}
    for number, (name, shape) in enumerate(shapes.items()):
        parts = [filled(found[f"f{number}_{n}"]) for n in range(prod(shape))]
        columns[name] = (
            np.stack(parts, axis=1).reshape(len(parts[0]), *shape) if shape else parts[0]
        )
    return columns


def flat(column: NDArray[Any]) -> list[NDArray[Any]]:
    """The numbers of a column with a shape, each as a column by itself."""
    wide = column.reshape(len(column), prod(column.shape[1:]))
    return [np.ascontiguousarray(wide[:, n]) for n in range(wide.shape[1])]


def _nothing(shapes: Mapping[str, Sequence[int]], rows: int) -> Arrays:
    return {name: np.full((rows, *shape), np.nan, np.float32) for name, shape in shapes.items()}


def _spelt(column: Any) -> NDArray[Any]:
    """A key column as text; None where a row has no key."""
    words = np.empty(len(column), object)
    words[:] = [spell(value) for value in np.asarray(column).tolist()]
    return words


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """A column that DuckDB takes: strings as objects."""
    return column.astype(object) if column.dtype.kind == "U" else np.ascontiguousarray(column)


def _mask(column: NDArray[Any]) -> NDArray[np.bool_]:
    return np.array(np.ma.getmaskarray(column))


def filled(column: NDArray[Any]) -> NDArray[Any]:
    """A column of DuckDB's without a mask: NaN among numbers, "" among strings."""
    if not isinstance(column, np.ma.MaskedArray):
        return column
    mask, data = np.ma.getmaskarray(column), np.ma.getdata(column)
    if data.dtype.kind == "O":
        data = data.copy()
        data[mask] = ""
    elif mask.any():
        data = data.copy() if data.dtype.kind == "f" else data.astype(np.float64)
        data[mask] = np.nan
    return data


def _micros(end: float) -> int:
    return round(end * _MICRO)


def _whole(stem: str) -> bool:
    return stem.removeprefix("-").isdigit()
