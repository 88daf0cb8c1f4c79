"""Statistics of a training set's columns and some of its rows, read once in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from math import nan, prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kedge.columns import Summary, column_of
from kedge.core.errors import BadRequest, Refused
from kedge.core.golden import spread
from kedge.core.values import ColumnStatistics, Dtype, Field, Signature, Value
from kedge.tabular.parquet import UnreadableFile, kinds_of, opened
from kedge.tabular.quotes import identifier
from kedge.tabular.rows import HINT, READERS, Numbered, csv_names, csv_rows

MAX_ROWS = 1_000_000
"""Maximum number of rows to read: a million rows describe a column, and the reader may be
waiting."""
_CHUNK = 10_000
SAMPLE = 32
"""Number of sample rows, evenly spread over the file: enough to meet most categories. Every replica
can ask so few before a model serves."""
NUMBERS = 200_000
"""Limit of numbers in all sample rows together: a few megabytes as JSON."""
_NULLS = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""Spellings of a missing number or truth value. In a text column only "" is missing: NA is a
country, a grade and an airport."""
_BOOLS = {"true": "true", "false": "false", "1": "true", "0": "false", "t": "true", "f": "false"}


class Training(Value, frozen=True):
    """Statistics and sample rows of a training set."""

    statistics: dict[str, ColumnStatistics]
    rows: dict[str, list[Any]]
    """Rows as a model of the signature takes them; rows that cannot be sent to it are omitted."""
    raw: dict[str, list[Any]]
    """Rows of further columns, those before a transformation; {} if one of them is missing."""


def read_training(file: Path, signature: Signature, raw: Sequence[Field] = ()) -> Training:
    """Summarise the columns of the signature, and sample some rows of them and of `raw`.

    Other columns (the label, an id) are skipped.

    Raises:
        Refused: it cannot be read, a column is missing, or a value is not of its dtype.
    """
    summaries = {field.name: Summary() for field in signature.inputs}
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise Refused(
            f"{file.name}: a training set is one of {', '.join(READERS)}", code="bad_training"
        )
    kept = _Sample(signature.inputs)
    with _refusing(file):
        names = {field.name for field in (*signature.inputs, *raw)}
        rows = islice(reader(file, names), MAX_ROWS)
        while chunk := list(islice(rows, _CHUNK)):
            for field in signature.inputs:
                parts = _parts(field, chunk, file, text=reader is csv_rows)
                flat = np.concatenate([part.reshape(-1) for part in parts])
                summaries[field.name].add(flat, _longest(field, parts))
            kept.add(chunk)
    found = {name: summary.done() for name, summary in summaries.items()}
    if not all(each.count for each in found.values()):
        raise Refused(f"{file} holds no rows", code="bad_training")
    text = reader is csv_rows
    return Training(
        found, kept.rows(signature.inputs, file, text=text), kept.rows(raw, file, text=text)
    )


def read_names(file: Path) -> list[str]:
    """Return the names of a training set's columns, in their order.

    Raises:
        Refused: it cannot be read.
    """
    with _refusing(file):
        if file.suffix.lower() == ".parquet":
            with opened(file, HINT) as (db, source):
                return list(kinds_of(db, source))
        if file.suffix.lower() == ".csv":
            return csv_names(file)
        reader = READERS.get(file.suffix.lower(), csv_rows)
        return list(next(reader(file, ()), (0, {}))[1])


def read_types(file: Path, names: Collection[str]) -> dict[str, Field]:
    """Return the dtype of some columns of a training set, and whether values are missing.

    Columns are omitted that are missing, have no value, or have values that no field can hold. In
    Parquet the file gives the type. A column of CSV or JSON has truth values or numbers when all
    its values do.

    Raises:
        Refused: it cannot be read.
    """
    if file.suffix.lower() == ".parquet":
        with _refusing(file), opened(file, HINT) as (db, source):
            return _parquet_types(db, source, names)
    reader = READERS.get(file.suffix.lower(), csv_rows)
    columns = {name: _Kinds() for name in names}
    with _refusing(file):
        for _, row in islice(reader(file, names), MAX_ROWS):
            for name, kinds in columns.items():
                kinds.add(row.get(name), text=reader is csv_rows)
    return {
        name: Field(name, dtype, nullable=kinds.missing(dtype) > 0)
        for name, kinds in columns.items()
        if (dtype := kinds.dtype()) is not None
    }


class _Kinds:
    """Counts of the types that the values of a column fit."""

    def __init__(self) -> None:
        self._blank = self._missing = self._words = self._flags = self._numbers = self._others = 0

    def add(self, value: Any, *, text: bool) -> None:
        if value is None or (text and not value.strip()):
            self._blank += 1
        elif isinstance(value, str) and text and value.strip().lower() in _NULLS:
            self._missing += 1
        elif isinstance(value, str):
            flag = text and value.strip().lower() in ("true", "false")
            self._flags += flag
            self._numbers += text and not flag and _is_number(value)
            self._words += not flag and not (text and _is_number(value))
        else:
            self._flags += isinstance(value, bool)
            self._numbers += isinstance(value, int | float) and not isinstance(value, bool)
            self._others += not isinstance(value, int | float)

    def dtype(self) -> Dtype | None:
        """Return the dtype that all values have; text where the types differ."""
        if self._others or not (self._words or self._flags or self._numbers):
            return None
        if self._words or (self._flags and self._numbers):
            return "string"
        return "bool" if self._flags else "float64"

    def missing(self, dtype: Dtype) -> int:
        """Return how many values are missing; in a text column NA is a word."""
        return self._blank + (self._missing if dtype != "string" else 0)


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Turn a reader's error into a refusal."""
    try:
        yield
    except UnreadableFile as error:
        raise Refused(f"{file}: {error}", code="bad_training") from error


class _Sample:
    """Rows evenly spread over a file of unknown length: every n-th, with n doubled at the limit."""

    def __init__(self, fields: Sequence[Field]) -> None:
        width = sum(prod(map(abs, field.shape)) for field in fields)
        self._most = max(2, min(SAMPLE, NUMBERS // max(width, 1)))
        self._every, self._seen = 1, 0
        self._kept: list[Numbered] = []

    def add(self, chunk: Sequence[Numbered]) -> None:
        for row in chunk:
            if self._seen % self._every == 0:
                self._kept.append(row)
                if len(self._kept) > 2 * self._most:
                    self._kept, self._every = self._kept[::2], 2 * self._every
            self._seen += 1

    def rows(self, fields: Sequence[Field], file: Path, *, text: bool) -> dict[str, list[Any]]:
        """Return these columns of the sample rows; {} where one is missing or of another dtype."""
        some = [self._kept[n] for n in spread(len(self._kept), self._most)]
        if not fields or any(field.name not in row for field in fields for _, row in some):
            return {}
        try:
            columns = [
                _plain(
                    f,
                    list(chain.from_iterable(p.tolist() for p in _parts(f, some, file, text=text))),
                )
                for f in fields
            ]
        except Refused:  # raw columns may be of another time; the statistics refused the others
            return {}
        fit = list[tuple[Any, ...]]()
        for values in zip(*columns, strict=True):
            try:
                for field, value in zip(fields, values, strict=True):
                    column_of(field, [value])
            except BadRequest:  # a null where callers must not send one
                continue
            fit.append(values)
        alike = _alike(fields, fit)
        return {field.name: [row[n] for row in alike] for n, field in enumerate(fields)}


def _alike(fields: Sequence[Field], rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the rows whose open-length lists have the commonest length: only those are batched."""
    places = [n for n, field in enumerate(fields) if -1 in field.shape]
    if not places or not rows:
        return rows
    shapes = [tuple(np.shape(row[n]) for n in places) for row in rows]
    most = Counter(shapes).most_common(1)[0][0]
    return [row for row, shape in zip(rows, shapes, strict=True) if shape == most]


def _longest(field: Field, parts: Sequence[np.ndarray[Any, Any]]) -> int | None:
    """Return the longest open-length list, else the longest text; None if there is neither."""
    if -1 in field.shape:
        places = [n for n, size in enumerate(field.shape, 1) if size == -1]
        return max(int(part.shape[n]) for part in parts for n in places)
    if field.dtype != "string":
        return None
    lengths = [len(text) for part in parts for text in part.flat if text is not None]
    return max(lengths, default=None)


def _plain(field: Field, values: list[Any]) -> list[Any]:
    """Return values of a column as callers send them."""
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


def _parts(
    field: Field, chunk: list[Numbered], file: Path, *, text: bool
) -> list[np.ndarray[Any, Any]]:
    """Return a field's values: one array, or one for each row with a list of open length."""
    if -1 not in field.shape:
        return [_column(field, chunk, file, text=text)]
    return [_column(field, [row], file, text=text) for row in chunk]


def _column(field: Field, chunk: list[Numbered], file: Path, *, text: bool) -> np.ndarray[Any, Any]:
    first, row = chunk[0]
    if field.name not in row:
        raise Refused(
            f"{file.name}:{first} has no column {field.name}, which the model takes",
            code="bad_training",
            hint=(
                "a tensor's columns can be named in a signature.json beside the model"
                if field.shape
                else ""
            ),
        )
    if text:
        return _parsed(field, chunk, file)
    values = [row.get(field.name) for _, row in chunk]
    try:
        if field.dtype == "bool":
            return _words([None if value is None else _bool(field, value) for value in values])
        # Only a training set can have a missing whole number, which no integer column can hold.
        dtype: Dtype = "string" if field.dtype == "string" else "float64"
        return column_of(msgspec.structs.replace(field, dtype=dtype, nullable=True), values)
    except BadRequest as error:
        raise Refused(
            f"{file.name} from line {first}: {error}", code="bad_training", hint=_OTHER
        ) from error


_OTHER = (
    "give the file that the model was trained on; its inputs and their dtypes are those of the"
    " model, or of a signature.json or MLmodel beside it"
)


def _parsed(field: Field, chunk: list[Numbered], file: Path) -> np.ndarray[Any, Any]:
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
                hint=_OTHER,
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
    if "_" in said:  # Python would read 1_000 as a number
        raise ValueError(said)
    return float(said)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "bool": lambda said: _BOOLS[said.strip().lower()],
}


def _parquet_types(db: Any, source: str, names: Collection[str]) -> dict[str, Field]:
    """Return as `read_types`. Whole numbers with missing values are floats, as in a frame."""
    found = {}
    for name, kind in kinds_of(db, source).items():
        dtype = _FIELDS.get(kind, "string" if kind.startswith("ENUM") else None)
        if name not in names or dtype is None:
            continue
        column = identifier(name)
        gone = f"{column} IS NULL" + (f" OR isnan({column})" if kind in ("FLOAT", "DOUBLE") else "")
        counted = f"SELECT count(*) FILTER ({gone}) FROM {source}"  # noqa: S608 - quoted
        missing = db.execute(counted).fetchall()[0][0]
        whole = dtype.startswith(("int", "uint"))
        found[name] = Field(name, "float64" if whole and missing else dtype, nullable=missing > 0)
    return found


_FIELDS: dict[str, Dtype] = {
    "BOOLEAN": "bool",
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "VARCHAR": "string",
    "UUID": "string",
}
"""DuckDB's type names, with the dtypes of fields that hold them."""
