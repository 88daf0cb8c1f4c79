"""Log of materialised values as Parquet: one file a slice, read as of any time.

    <root>/<view>/<n>/<transformation>/<generation>/<end>.parquet

A slice's name is its end in microseconds since 1970. A file has the key columns, the fields, and
`kedge_at`, the slice's end in Unix seconds. Fields are FLOAT, or FLOAT[] where they have a shape;
NULL is NaN. A file becomes visible by one rename, after its bytes are on the disk. NaN is stored as
NULL, so its payload is lost; every other float32 is read back bit by bit.

The module also reads sources of materialised values: Parquet or CSV files, as columns.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kedge.core.errors import Refused, Unavailable
from kedge.core.features.generations import Run
from kedge.core.features.schema import Schema
from kedge.core.keys import spell
from kedge.core.time.instants import ISO, SPELLINGS
from kedge.system.durable import replacing, sync
from kedge.system.locks import wait_for_lock
from kedge.tabular.parquet import (
    ColumnKind,
    database,
    kind_of,
    load_duckdb,
    seconds_of,
)
from kedge.tabular.quotes import first_line, identifier, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

    Arrays = dict[str, NDArray[Any]]

OFFLINE_DIR = "offline"
AT = "kedge_at"
"""Column with the time when a row became known."""
_MICRO = 1_000_000
_PARTIAL = ".partial"
KEEPING = "keeping values over time"
"""Task that needs DuckDB here, as messages name it."""


class OfflineLog:
    """Values of every run, in one directory. It needs the extra `analytics`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, run: Run, end: float, keys: Sequence[str], columns: Columns) -> int:
        """Write a slice, whole, in place of its earlier rows; return how many rows it has.

        Args:
            run: the run.
            end: the slice's end, Unix seconds; to the microsecond.
            keys: the names of the key columns: strings or whole numbers.
            columns: these, and float32 fields with a row for each key. A key occurs once.

        Raises:
            Refused: `needs_analytics`.
            Unavailable: `offline_unavailable`: the slice cannot be written; readers see no part
                of it.
        """
        given, picked, shapes = _split(keys, columns)
        picked.append(f"CAST({_micros(end) / _MICRO!r} AS DOUBLE) AS {AT}")
        told = json.dumps({"keys": list(keys), "shapes": shapes})
        with _faults("written", self._root), self._alone(run) as folder:
            for leftover in folder.glob(f"*{_PARTIAL}"):
                leftover.unlink()
            path = folder / f"{_micros(end):020d}.parquet"
            via = path.with_suffix(_PARTIAL)
            with replacing(path, via=via) as partial, database(KEEPING) as db:
                db.register("given", given)
                db.execute(
                    # Every name and value in the query is quoted.
                    f"COPY (SELECT {', '.join(picked)} FROM given) TO {quoted(partial)} "  # noqa: S608
                    f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{kedge: {quoted(told)}}})"
                )
            sync(folder)
        return len(next(iter(given.values())))

    def ends(self, run: Run) -> tuple[float, ...]:
        """Return the ends of the stored slices, in order."""
        found = (path.stem for path in self._folder(run).glob("*.parquet"))
        return tuple(n / _MICRO for n in sorted(int(stem) for stem in found if _whole(stem)))

    def read(self, run: Run, end: float) -> Arrays:
        """Return a slice's columns as they were written, and `kedge_at`.

        Raises:
            Refused: `needs_analytics`; `no_slice`: no slice has this end.
            Unavailable: `offline_unavailable`: the slice cannot be read.
        """
        path = self._path(run, end)
        if not path.exists():
            raise Refused(f"{run.label} has no slice that ends at {end}", code="no_slice")
        with _faults("read", path), database(KEEPING) as db:
            told = _told(db, path)
            shapes = {name: tuple(shape) for name, shape in told["shapes"].items()}
            plain = [*map(identifier, told["keys"]), *_parts(shapes), AT]
            # Every name and value in the query is quoted.
            found = db.execute(f"SELECT {', '.join(plain)} FROM {_files([path])}").fetchnumpy()  # noqa: S608
        columns = {name: filled(found[name]) for name in told["keys"]}
        columns |= _joined(found, shapes)
        columns[AT] = found[AT]
        return columns

    def drop(self, run: Run) -> None:
        """Remove a run; do nothing if it is missing.

        Raises:
            Unavailable: `offline_unavailable`.
        """
        if self._folder(run).is_dir():
            with _faults("removed", self._root), self._alone(run) as folder:
                shutil.rmtree(folder)

    def runs(self, schema: str) -> tuple[Run, ...]:
        """Return the runs of a schema that have stored values, in order."""
        found = (path for path in (self._root / schema).glob("*/*") if path.is_dir())
        named = ((path.parent.name, path.name) for path in found if any(path.glob("*.parquet")))
        return tuple(
            sorted(
                Run(schema, int(code), int(number))
                for code, number in named
                if code.isdigit() and number.isdigit()
            )
        )

    def holds(self, schema: str, keys: Sequence[str]) -> bool:
        """Return whether a key column of a schema's stored values has one of these spelled values.

        Raises:
            Refused: `needs_analytics`.
            Unavailable: `offline_unavailable`: a file cannot be read.
        """
        for run in self.runs(schema):
            files = sorted(self._folder(run).glob("*.parquet"))
            with _faults("read", self._folder(run)), database(KEEPING) as db:
                words = ", ".join(map(quoted, keys))
                same = " OR ".join(
                    f"CAST({identifier(name)} AS VARCHAR) IN ({words})"
                    for name in _told(db, files[0])["keys"]
                )
                # Every name and value in the query is quoted.
                query = f"SELECT 1 FROM {_files(files)} WHERE {same or 'false'} LIMIT 1"  # noqa: S608
                if db.execute(query).fetchone() is not None:
                    return True
        return False

    def asof(
        self, spine: Columns, at: NDArray[Any], run: Run, schema: Schema, ttl_s: float | None = None
    ) -> tuple[Arrays, NDArray[np.bool_]]:
        """Return each row's values known at its time: the newest slice that had ended by then.

        A slice that ends exactly at a row's time is known.

        Args:
            spine: columns that include the schema's key columns.
            at: Unix seconds of each row. NaN: nothing was known.
            run: the run.
            schema: gives keys and fields; its keys name the columns.
            ttl_s: age above which a value is missing. None: no limit.

        Returns:
            The fields in the spine's order, float32, NaN where missing; and which rows are missing.

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
                f"SELECT {', '.join([*_parts(shapes), AT])} "  # noqa: S608
                f"FROM given ASOF LEFT JOIN {source} AS log "
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
        """Return the ends of slices that are relevant to these times."""
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
        """Yield the run's folder to one writer at a time: partial files are a dead writer's."""
        folder = self._folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            wait_for_lock(handle)
            yield folder
        finally:
            os.close(handle)


# ---------------------------------------------------------------- sources


class Times(NamedTuple):
    """Times of a source, all checked.

    Attributes:
        first: Unix seconds of the first row.
        last: Unix seconds of the last row.
        without: rows whose time is missing; they belong to no slice.
        keyless: rows in which a key is missing; none of their values is stored.
    """

    first: float
    last: float
    without: int
    keyless: int = 0


def instant_of(
    time: str,
    kinds: Mapping[str, str],
    where: object,
    form: str | None = None,
    *,
    ceil: bool = False,
) -> str:
    """Return the expression for a column's time in Unix seconds; NULL if text is no time.

    Fractions finer than a microsecond are rounded: the time of a value up, that of a question down.
    So no value is known before its time.

    Args:
        time: the column.
        kinds: the columns with their types; see `kinds_of`.
        where: the beginning of a refusal.
        form: the format of text, as for strptime. None: ISO 8601, or Unix seconds.
        ceil: whether to round up; else down.

    Raises:
        Refused: `bad_source`: the column is missing or holds no time; or the format is invalid.
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
    if held in (ColumnKind.ZONED, ColumnKind.NAIVE, ColumnKind.DATE):
        return seconds_of(column, kind)
    if held in (ColumnKind.WHOLE, ColumnKind.REAL, ColumnKind.WIDE):
        return f"CAST({column} AS DOUBLE)"
    raise Refused(
        f"{where}: {time} is {kind}, not a time",
        code="bad_source",
        hint="a timestamp, a date, Unix seconds, or text in ISO 8601",
    )


_NUMBER = r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?"


_FINER = r"[.,][0-9]{6}[0-9]*[1-9]"
"""Pattern of a fraction finer than a microsecond."""


def _written(column: str, form: str | None, *, ceil: bool) -> str:
    """Return the expression that reads a text column as Unix seconds; `ceil`: see `instant_of`."""
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
    # Text that only DuckDB accepts, beyond ISO 8601 ("epoch", "2026-1-2", names of zones), is no
    # time.
    return (
        f"CASE WHEN regexp_full_match({text}, {quoted(_NUMBER)}) THEN TRY_CAST({text} AS DOUBLE) "
        f"WHEN regexp_full_match({text}, {quoted(ISO)}) "
        f"THEN CAST(epoch(TRY_CAST(upper({spelt}) AS TIMESTAMPTZ)) AS DOUBLE){more} END"
    )


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


def _told(db: Any, path: Path) -> dict[str, Any]:
    """Return what a file says of itself: the names of its keys, and the shapes of its fields."""
    raw = db.execute(
        # Every name and value in the query is quoted.
        f"SELECT value FROM parquet_kv_metadata({quoted(path)}) "  # noqa: S608
        "WHERE decode(key) = 'kedge'"
    ).fetchone()
    return json.loads(raw[0]) if raw else {"keys": [], "shapes": {}}


def _files(paths: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(map(quoted, paths))}])"


# ---------------------------------------------------------------- columns


def _split(keys: Sequence[str], columns: Columns) -> tuple[Arrays, list[str], dict[str, list[int]]]:
    """Return DuckDB's input (it knows flat columns only), the selection from it, and the shapes."""
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
    """Return the selection of fields: each number as its own column, which is the fast way."""
    picked = []
    for number, (name, shape) in enumerate(shapes.items()):
        if not shape:
            picked.append(f"{identifier(name)} AS f{number}_0")
        picked += [
            f"{identifier(name)}[{n + 1}] AS f{number}_{n}" for n in range(prod(shape)) if shape
        ]
    return picked


def _joined(found: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """Return the fields from the selection of `_parts`."""
    columns: Arrays = {}
    for number, (name, shape) in enumerate(shapes.items()):
        parts = [filled(found[f"f{number}_{n}"]) for n in range(prod(shape))]
        columns[name] = (
            np.stack(parts, axis=1).reshape(len(parts[0]), *shape) if shape else parts[0]
        )
    return columns


def flat(column: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the numbers of a column with a shape, each as its own column."""
    wide = column.reshape(len(column), prod(column.shape[1:]))
    return [np.ascontiguousarray(wide[:, n]) for n in range(wide.shape[1])]


def _nothing(shapes: Mapping[str, Sequence[int]], rows: int) -> Arrays:
    return {name: np.full((rows, *shape), np.nan, np.float32) for name, shape in shapes.items()}


def _spelt(column: Any) -> NDArray[Any]:
    """Return a key column as text; None where a row has no key."""
    words = np.empty(len(column), object)
    words[:] = [spell(value) for value in np.asarray(column).tolist()]
    return words


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column that DuckDB accepts: strings as objects."""
    return column.astype(object) if column.dtype.kind == "U" else np.ascontiguousarray(column)


def _mask(column: NDArray[Any]) -> NDArray[np.bool_]:
    return np.array(np.ma.getmaskarray(column))


def filled(column: NDArray[Any]) -> NDArray[Any]:
    """Return a DuckDB column without a mask: NaN among numbers, "" among strings."""
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
