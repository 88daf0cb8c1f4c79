"""What the training set looked like, column by column: read once, in bounded memory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import islice
from math import nan
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kedge.core.errors import BadRequest, Refused
from kedge.core.values import Dtype, Field, Signature
from kedge.ports import ColumnStatistics
from kedge.tensors import Summary, column_of

MAX_ROWS = 1_000_000
"""Read no further: a million rows describe a column, and the reader may be waiting."""
_CHUNK = 10_000
_NULLS = frozenset({"", "na", "n/a", "nan", "null", "none"})
_BOOLS = {"true": "true", "false": "false", "1": "true", "0": "false", "t": "true", "f": "false"}

_Rows = Iterator[tuple[int, dict[str, Any]]]


def read_statistics(file: Path, signature: Signature) -> dict[str, ColumnStatistics]:
    """Summarise the columns that the signature asks for. Others (the label, an id) are passed over.

    Raises:
        Refused: it cannot be read, a column is missing, or a value is not of its dtype.
    """
    summaries = {field.name: Summary() for field in signature.inputs}
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise Refused(
            f"{file.name}: a training set is one of {', '.join(_READERS)}", code="bad_training"
        )
    try:
        rows = islice(reader(file), MAX_ROWS)
        while chunk := list(islice(rows, _CHUNK)):
            for field in signature.inputs:
                column = _column(field, chunk, file, text=reader is _csv)
                summaries[field.name].add(column)
    except (OSError, UnicodeDecodeError, csv.Error, msgspec.DecodeError) as error:
        raise Refused(f"{file}: {error}", code="bad_training") from error
    found = {name: summary.done() for name, summary in summaries.items()}
    if not all(each.count for each in found.values()):
        raise Refused(f"{file} holds no rows", code="bad_training")
    return found


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
        if said is None or said.strip().lower() in _NULLS:
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


def _csv(file: Path) -> _Rows:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            yield reader.line_num, row


def _json_lines(file: Path) -> _Rows:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, decoder.decode(line)


def _parquet(file: Path) -> _Rows:
    try:
        import duckdb  # noqa: PLC0415 - the extra `analytics`: heavy, and only for those who have Parquet
    except ImportError:
        raise Refused("reading Parquet needs the extra analytics", code="needs_analytics",
                      hint="pip install 'kedge[analytics]', or give CSV or JSON lines") from None  # fmt: skip
    number = 0
    try:
        with duckdb.connect() as db:
            cursor = db.execute("SELECT * FROM read_parquet(?)", [str(file)])
            names = [column[0] for column in cursor.description or ()]
            while rows := cursor.fetchmany(_CHUNK):
                for row in rows:
                    number += 1
                    yield number, dict(zip(names, row, strict=True))
    except duckdb.Error as error:
        raise Refused(f"{file}: {error}", code="bad_training") from None


_READERS: dict[str, Callable[[Path], _Rows]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
