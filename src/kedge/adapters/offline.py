"""The offline log: what was computed ahead, slice by slice, as Parquet; and the sources it is made of.

DuckDB reads and writes it (extra `analytics`). A file of the log is written beside its place,
synced and then moved there, so a slice is there whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kedge.core.errors import Refused, Unavailable
from kedge.core.generations import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import Columns

AT = "kedge_at"
"""The column that says at which slice's end a value was computed, in Unix seconds."""
NUMBERS = ("DOUBLE", "FLOAT", "DECIMAL", "BIGINT", "INTEGER", "UBIGINT", "UINTEGER", "HUGEINT")
"""Types of a column that holds Unix seconds."""
THREADS = 2
"""Of DuckDB: materialising shares a host with what serves."""


class OfflineLog:
    """The slices of every run under one directory."""

    def __init__(self, root: Path) -> None:
        """Say where; nothing is made before something is written."""
        self._root = root

    def write(self, run: Run, end: float, keys: Sequence[str], columns: Columns) -> int:
        """Write a slice whole; writing it again replaces it. Returns its rows.

        Raises:
            Unavailable: `offline_unavailable`: the disk is full, or the directory cannot be written.
        """
        folder = self._root / run.namespace
        path = folder / f"{round(end * 1e6):020d}.parquet"
        temporary = folder / f".{path.name}.{os.getpid()}"
        rows = len(columns[keys[0]])
        given = {name: _plain(column) for name, column in columns.items()}
        given[AT] = np.full(rows, end)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*.parquet.*"):  # of a writer that was killed
                left.unlink(missing_ok=True)
            with _duckdb() as db:
                db.register("given", given)
                names = ", ".join(_quoted(name) for name in given)
                query = f"COPY (SELECT {names} FROM given) TO {_text(temporary)} (FORMAT parquet)"  # noqa: S608
                db.execute(query)
            _sync(temporary)
            temporary.replace(path)
            _sync(folder)
        except OSError as error:
            raise _unavailable(folder, error) from error
        return rows

    def ends(self, run: Run) -> tuple[float, ...]:
        """The ends of the slices that are there, in order."""
        names = sorted(path.stem for path in (self._root / run.namespace).glob("*.parquet"))
        return tuple(int(name) / 1e6 for name in names if name.isdigit())

    def read(self, run: Run, end: float) -> Columns:
        """A slice's columns, as they were written.

        Raises:
            Unavailable: `offline_unavailable`: it is not there, or is damaged.
        """
        path = self._root / run.namespace / f"{round(end * 1e6):020d}.parquet"
        with _duckdb() as db:
            return _fetched(db, f"SELECT * EXCLUDE ({AT}) FROM read_parquet({_text(path)})", path)  # noqa: S608

    def files(self, run: Run) -> str:
        """A pattern that names every slice of a run."""
        return str(self._root / run.namespace / "[0-9]*.parquet")

    def drop(self, run: Run) -> None:
        """Remove a run's slices; nothing when there are none."""
        shutil.rmtree(self._root / run.namespace, ignore_errors=True)


# ---------------------------------------------------------------- sources


class Source:
    """A Parquet or CSV file, or several by a pattern, whose rows became known at some time."""

    def __init__(self, path: Path, time: str) -> None:
        """Open it, and look at its columns.

        Raises:
            Refused: `bad_source`: it is not there or cannot be read, or has no such column;
                `needs_analytics`.
        """
        self._path = path
        kind = "read_csv" if path.suffix.lower() in (".csv", ".tsv") else "read_parquet"
        self._from = f"FROM {kind}({_text(path)})"
        with _duckdb() as db:
            columns = self._asked(db, f"DESCRIBE SELECT * {self._from}").fetchall()
        types = {name: kind for name, kind, *_ in columns}
        if time not in types:
            raise Refused(f"{path} has no column {time}", code="bad_source",
                          hint=f"it has: {', '.join(types)}")  # fmt: skip
        number = types[time].startswith(NUMBERS)
        self._time = f"{_quoted(time)}::DOUBLE" if number else f"epoch({_quoted(time)}::TIMESTAMP)"
        if not number and not types[time].startswith(("TIMESTAMP", "DATE")):
            raise Refused(f"{time} of {path} is {types[time]}, and no time", code="bad_source",
                          hint="a timestamp, a date, or Unix seconds")  # fmt: skip

    def span(self) -> tuple[float, float]:
        """When the first and the last row became known, Unix seconds.

        Raises:
            Refused: `bad_source`: there is no row.
        """
        with _duckdb() as db:
            found = self._asked(
                db, f"SELECT min({self._time}), max({self._time}) {self._from}"
            ).fetchone()
        if found is None or found[0] is None:
            raise Refused(f"{self._path} has no rows", code="bad_source")
        return float(found[0]), float(found[1])

    def rows(self, after: float, until: float) -> Columns:
        """The rows that became known in (after, until], in the order of time; NumPy columns.

        A NULL is NaN in a number and "" in a string.
        """
        begin = f"{self._time} > {after!r} AND " if after > float("-inf") else ""
        query = (
            f"SELECT * {self._from} WHERE {begin}{self._time} <= {until!r} ORDER BY {self._time}"
        )
        with _duckdb() as db:
            return _fetched(db, query, self._path)

    def _asked(self, db: Any, query: str) -> Any:
        import duckdb  # noqa: PLC0415 - the extra `analytics`

        try:
            return db.execute(query)
        except (duckdb.Error, OSError) as error:
            raise Refused(f"{self._path}: {str(error).splitlines()[0]}", code="bad_source",
                          hint="a Parquet or CSV file, beside kedge.toml") from error  # fmt: skip


# ---------------------------------------------------------------- DuckDB


@contextmanager
def _duckdb() -> Iterator[Any]:
    """A database in memory, in UTC.

    Raises:
        Refused: `needs_analytics`.
    """
    try:
        import duckdb  # noqa: PLC0415 - the extra `analytics`: heavy, and only for those who need it
    except ImportError:
        raise Refused("values that are computed ahead need the extra analytics", code="needs_analytics",
                      hint="pip install 'kedge[analytics]'") from None  # fmt: skip
    with duckdb.connect() as db:
        db.execute(f"SET threads = {THREADS}; SET TimeZone = 'UTC'")
        yield db


def _fetched(db: Any, query: str, path: Path) -> Columns:
    import duckdb  # noqa: PLC0415 - the extra `analytics`

    try:
        raw = db.execute(query).fetchnumpy()
    except (duckdb.Error, OSError) as error:
        raise _unavailable(path, error) from error
    return {name: column_of(column) for name, column in raw.items()}


def column_of(given: Any) -> NDArray[Any]:
    """A column as kedge has it: no masks, strings as objects, NULL as NaN or ""."""
    masked = isinstance(given, np.ma.MaskedArray) and bool(np.ma.getmaskarray(given).any())
    plain = np.asarray(given.data if isinstance(given, np.ma.MaskedArray) else given)
    if plain.dtype == object or plain.dtype.kind in "US":
        listed = plain.tolist()
        if any(isinstance(value, list | tuple | np.ndarray) for value in listed):
            return np.asarray([np.asarray(value, np.float32) for value in listed], np.float32)
        column = np.empty(len(listed), object)
        hidden = np.ma.getmaskarray(given) if masked else None
        column[:] = ["" if value is None or (hidden is not None and hidden[n]) else value
                     for n, value in enumerate(listed)]  # fmt: skip
        return column
    if masked and plain.dtype.kind in "iuf":
        wide = plain.astype(np.float32 if plain.dtype == np.float32 else np.float64)
        wide[np.ma.getmaskarray(given)] = np.nan
        return wide
    return plain.copy()


def _plain(column: Any) -> NDArray[Any]:
    """A column as DuckDB takes it quickly: text as objects, rows of several numbers as lists."""
    given = np.asarray(column)
    if given.ndim == 1:
        return given.astype(object) if given.dtype.kind == "U" else given
    listed = np.empty(len(given), object)
    listed[:] = given.reshape(len(given), -1).astype(float).tolist()
    return listed


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unavailable(path: Path, error: Exception) -> Unavailable:
    return Unavailable(f"{path}: {str(error).splitlines()[0]}", code="offline_unavailable",
                       hint="is the disk full, or the directory gone?")  # fmt: skip
