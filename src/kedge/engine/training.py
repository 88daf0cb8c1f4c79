"""The training set: statistics of its columns and some of its rows, read once in bounded memory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from math import nan, prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kedge.core import codec
from kedge.core.errors import BadRequest, Refused
from kedge.core.golden import spread
from kedge.core.values import Dtype, Field, Signature, Value
from kedge.ports import ColumnStatistics
from kedge.tensors import Summary, column_of

MAX_ROWS = 1_000_000
"""Read no further: a million rows describe a column, and the reader may be waiting."""
_CHUNK = 10_000
SAMPLE = 32
"""Rows that are kept, evenly spread over the file: enough to meet most categories, and few enough to be
asked by every replica before a model may serve."""
NUMBERS = 200_000
"""Numbers that the kept rows may hold together: a few megabytes as JSON."""
_NULLS = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What a missing number or truth value is written as. In a column of words only "" is missing: NA is a
country, a grade and an airport."""
_BOOLS = {"true": "true", "false": "false", "1": "true", "0": "false", "t": "true", "f": "false"}

_Rows = Iterator[tuple[int, dict[str, Any]]]


class Training(Value, frozen=True):
    """What is kept of a training set."""

    statistics: dict[str, ColumnStatistics]
    rows: dict[str, list[Any]]
    """Rows as a model of the signature takes them; those that it could not be sent are left out."""
    raw: dict[str, list[Any]]
    """Rows of further columns, those before a transformation; {} where one of them is not there."""


def read_training(file: Path, signature: Signature, raw: Sequence[Field] = ()) -> Training:
    """Summarise the columns that the signature asks for, and keep some rows of them and of `raw`.

    Others (the label, an id) are passed over.

    Raises:
        Refused: it cannot be read, a column is missing, or a value is not of its dtype.
    """
    summaries = {field.name: Summary() for field in signature.inputs}
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise Refused(
            f"{file.name}: a training set is one of {', '.join(_READERS)}", code="bad_training"
        )
    kept = _Sample(signature.inputs)
    try:
        names = {field.name for field in (*signature.inputs, *raw)}
        rows = islice(reader(file, names), MAX_ROWS)
        while chunk := list(islice(rows, _CHUNK)):
            for field in signature.inputs:
                column = _column(field, chunk, file, text=reader is _csv)
                summaries[field.name].add(column)
            kept.add(chunk)
    except UnicodeDecodeError as error:
        raise Refused(f"{file} {codec.NOT_UTF8}", code="bad_training") from error
    except (OSError, csv.Error, msgspec.DecodeError) as error:
        raise Refused(f"{file}: {error}", code="bad_training") from error
    found = {name: summary.done() for name, summary in summaries.items()}
    if not all(each.count for each in found.values()):
        raise Refused(f"{file} holds no rows", code="bad_training")
    text = reader is _csv
    return Training(
        found, kept.rows(signature.inputs, file, text=text), kept.rows(raw, file, text=text)
    )


class _Sample:
    """Rows evenly spread over a file whose length is not known: every n-th, n doubled when they are many."""

    def __init__(self, fields: Sequence[Field]) -> None:
        width = sum(prod(map(abs, field.shape)) for field in fields)
        self._most = max(2, min(SAMPLE, NUMBERS // max(width, 1)))
        self._every, self._seen = 1, 0
        self._kept: list[tuple[int, dict[str, Any]]] = []

    def add(self, chunk: Sequence[tuple[int, dict[str, Any]]]) -> None:
        for row in chunk:
            if self._seen % self._every == 0:
                self._kept.append(row)
                if len(self._kept) > 2 * self._most:
                    self._kept, self._every = self._kept[::2], 2 * self._every
            self._seen += 1

    def rows(self, fields: Sequence[Field], file: Path, *, text: bool) -> dict[str, list[Any]]:
        """These columns of the kept rows; {} where one is missing or of another dtype."""
        some = [self._kept[n] for n in spread(len(self._kept), self._most)]
        if not fields or any(field.name not in row for field in fields for _, row in some):
            return {}
        try:
            columns = [_plain(f, _column(f, some, file, text=text).tolist()) for f in fields]
        except Refused:  # raw columns may be of another time; statistics have refused the others
            return {}
        found: dict[str, list[Any]] = {field.name: [] for field in fields}
        for values in zip(*columns, strict=True):
            try:
                for field, value in zip(fields, values, strict=True):
                    column_of(field, [value])
            except BadRequest:  # a null, where callers may send none
                continue
            for field, value in zip(fields, values, strict=True):
                found[field.name].append(value)
        return found


def _plain(field: Field, values: list[Any]) -> list[Any]:
    """Values of a column of statistics as callers send them."""
    if field.dtype == "string":
        return values
    if field.dtype == "bool":
        return [None if value is None else value == "true" for value in values]
    whole = not field.dtype.startswith("float")
    return [_number_of(value, whole=whole) for value in values]


def _number_of(value: Any, *, whole: bool) -> Any:
    if isinstance(value, list):
        return [_number_of(each, whole=whole) for each in value]
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    return int(value) if whole and float(value).is_integer() else value


def _column(
    field: Field, chunk: list[tuple[int, dict[str, Any]]], file: Path, *, text: bool
) -> np.ndarray[Any, Any]:
    first, row = chunk[0]
    if field.name not in row:
        raise Refused(
            f"{file.name}:{first} has no column {field.name}, which the model takes",
            code="bad_training",
            hint="a tensor's columns can be named in a signature.json beside the model"
            if field.shape
            else "",
        )
    if text:
        return _parsed(field, chunk, file)
    values = [row.get(field.name) for _, row in chunk]
    try:
        if field.dtype == "bool":
            return _words([None if value is None else _bool(field, value) for value in values])
        # Only here: a training set may miss a whole number, which no integer column can hold.
        dtype: Dtype = "string" if field.dtype == "string" else "float64"
        return column_of(msgspec.structs.replace(field, dtype=dtype, nullable=True), values)
    except BadRequest as error:
        raise Refused(f"{file.name} from line {first}: {error}", code="bad_training") from error


def _parsed(
    field: Field, chunk: list[tuple[int, dict[str, Any]]], file: Path
) -> np.ndarray[Any, Any]:
    if field.shape:
        raise Refused(
            f"{file.name}: {field.name} has the shape {list(field.shape)}, "
            "which a CSV file cannot hold",
            code="bad_training",
            hint="give JSON lines or Parquet",
        )
    values: list[Any] = []
    for line, row in chunk:
        said = row.get(field.name)
        missing = ("",) if field.dtype == "string" else _NULLS
        if said is None or said.strip().lower() in missing:
            values.append(None)
            continue
        try:
            values.append(_PARSERS.get(field.dtype, _number)(said))
        except (ValueError, KeyError):
            raise Refused(
                f"{file.name}:{line}: {field.name} is {said!r:.60}, not {field.dtype}",
                code="bad_training",
            ) from None
    if field.dtype in ("string", "bool"):
        return _words(values)
    return np.array([nan if value is None else value for value in values], np.float64)


def _bool(field: Field, value: Any) -> str:
    if not isinstance(value, bool):
        raise BadRequest(f"{field.name} is {value!r:.60}, not bool")
    return "true" if value else "false"


def _words(values: list[Any]) -> np.ndarray[Any, Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _number(said: str) -> float:
    return float(said)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "bool": lambda said: _BOOLS[said.strip().lower()],
}


def _csv(file: Path, names: Collection[str]) -> _Rows:  # noqa: ARG001 - as the other readers
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            yield reader.line_num, row


def _json_lines(file: Path, names: Collection[str]) -> _Rows:  # noqa: ARG001 - as the other readers
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, codec.read_written(line, dict[str, Any])
                except msgspec.DecodeError as error:
                    raise msgspec.DecodeError(f"line {number}: {error}") from None


def _parquet(file: Path, names: Collection[str]) -> _Rows:
    try:
        import duckdb  # noqa: PLC0415 - the extra `analytics`: heavy, and only for those who have Parquet
    except ImportError:
        raise Refused("reading Parquet needs the extra analytics", code="needs_analytics",
                      hint="pip install 'kedge[analytics]', or give CSV or JSON lines") from None  # fmt: skip
    number = 0
    try:
        with duckdb.connect() as db:
            described = db.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(file)]).fetchall()
            kinds = {name: kind for name, kind, *_ in described if name in names}
            picked = ", ".join(_picked(name, kind, file) for name, kind in kinds.items()) or "1"
            cursor = db.execute(f"SELECT {picked} FROM read_parquet(?)", [str(file)])  # noqa: S608 - quoted
            while rows := cursor.fetchmany(_CHUNK):
                for row in rows:
                    number += 1
                    yield number, dict(zip(kinds, row, strict=False))
    except duckdb.Error as error:
        raise Refused(
            f"{file}: {str(error).strip().partition(chr(10))[0]}", code="bad_training"
        ) from None


def _picked(name: str, kind: str, file: Path) -> str:
    """A column as callers send it; an instant as Unix seconds, as in sources and spines.

    Raises:
        Refused: `bad_training`: no field has such values.
    """
    column = '"' + name.replace('"', '""') + '"'
    if kind.startswith(_NO_FIELD):
        raise Refused(f"{file.name}: column {name} is {kind:.60}, which no field is", code="bad_training",
                      hint="write numbers, words, truth values, or lists of them")  # fmt: skip
    if kind.endswith("]"):
        return column
    if kind.startswith(("TIMESTAMP", "DATE")):
        return f"CAST(epoch({column}) AS DOUBLE) AS {column}"
    if kind.startswith(("DECIMAL", "HUGEINT", "UHUGEINT", "BIGNUM")):
        return f"CAST({column} AS DOUBLE) AS {column}"
    if kind.startswith(("UUID", "ENUM", "TIME", "INTERVAL")):
        return f"CAST({column} AS VARCHAR) AS {column}"
    return column


_NO_FIELD = ("STRUCT", "MAP", "UNION", "BLOB", "BIT", "VARIANT", "GEOMETRY")


_READERS: dict[str, Callable[[Path, Collection[str]], _Rows]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
