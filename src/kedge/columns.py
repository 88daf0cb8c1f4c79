"""Columns as arrays: conversion, comparison with golden rows, checks of answers, statistics.

This is the only module that maps kedge's dtype names onto NumPy's. Its functions depend on their
arguments alone; none reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite, isnan, nan, sqrt
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from kedge.core.errors import BadRequest
from kedge.core.inputs import Described
from kedge.core.values import (
    ColumnStatistics,
    Dtype,
    Field,
    Plainness,
    Proof,
    RowsMark,
    Signature,
    Value,
)
from kedge.ports import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype("O" if name == "string" else name) for name in get_args(Dtype)
}
"""kedge's dtype names with NumPy's dtypes. A string column is an object array of str."""

KINDS = {name: "OU" if name == "string" else dtype.kind for name, dtype in DTYPES.items()}
TOP_VALUES = 50
DISTINCT_LIMIT = 10_000
"""Distinct values that a column is counted up to: with more they are names, not categories. It
bounds memory."""
_SMALL = 64
"""Length up to which a Python loop tests finiteness faster than a NumPy call."""


class Offered(Value, frozen=True):
    """Rows for a model's trial."""

    golden: dict[str, list[Any]] = {}
    """Rows that the model must answer."""
    sample: dict[str, list[Any]] = {}
    """Rows that are used without `golden`: those that the model answers become its golden rows."""
    made: dict[str, list[Any]] = {}
    """Rows that are used without either, as `sample` is, except rows with nulls. They are always
    asked beside the golden rows, to test whether an answer depends on other rows."""
    rtol: float = Proof({}, {}).rtol
    atol: float = Proof({}, {}).atol
    nulls: bool = False
    """Whether rows are added to the golden ones, until each nullable input is null in one."""
    grouped: bool = True
    """Whether the rows are also asked alone, in pairs and all together."""
    single: bool = False
    """Whether `golden` is answered row by row, each row as its own request."""


class Grouped(Value, frozen=True):
    """Result of asking the same rows alone, in pairs and all together."""

    rows: RowsMark = "unknown"
    tested: int = 0
    why: str = ""
    """The first answer that differed, or the reason why nothing was tested; in words, for
    people."""
    random: bool = False
    """Whether the same rows in the same grouping got two answers: then no mark can be given."""


class ProbeResult(Value, frozen=True):
    """Result of trying a model out: its description of itself and its golden rows."""

    signature: Signature
    load_s: float
    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    again: dict[str, list[Any]]
    """The answer to the same rows, asked a second time."""
    fault: str | None = None
    """The fault in the form of the answer, in words: see `check_answer`."""
    used: Literal["golden", "sample", "made"] = "golden"
    """The offered rows that became the golden rows."""
    grouped: Grouped = Grouped()
    plain: Plainness | None = None
    """Result of the walk over the loaded model; None for a transformation."""
    described: Described = Described()
    """The model's description of itself beside its signature."""


# ---------------------------------------------------------------- conversion


def columns_of(lists: Mapping[str, Sequence[Any]], signature: Signature) -> dict[str, NDArray[Any]]:
    """Turn lists, as JSON gives them, into the columns that a signature asks for.

    Raises:
        BadRequest: a name, dtype, shape, null or length does not fit; the error names the
            field.
    """
    wanted = [field.name for field in signature.inputs]
    missing = [name for name in wanted if name not in lists]
    unknown = [name for name in lists if name not in wanted]
    if missing or unknown:
        faults = [f"{name} is missing" for name in missing]
        faults += [f"{name} is not an input of this model" for name in unknown]
        raise BadRequest("; ".join(faults), code="bad_column", hint=f"inputs: {', '.join(wanted)}")
    columns = {field.name: column_of(field, lists[field.name]) for field in signature.inputs}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadRequest(f"columns differ in length: {lengths}", code="bad_column")
    return columns


def column_of(field: Field, values: Sequence[Any]) -> NDArray[Any]:
    """Turn one list into a column of this field.

    Raises:
        BadRequest: a value does not fit; the error names the field and the row.
    """
    if not isinstance(values, list | tuple):
        raise BadRequest(f"{field.name} is not a list of rows", code="bad_column")
    rows = [
        _cell(field, value, field.shape, f"{field.name}[{i}]") for i, value in enumerate(values)
    ]
    gaps = field.nullable and KINDS[field.dtype] != "f" and _has_null(rows)
    if (field.dtype == "string" or gaps) and not field.shape:
        column = np.empty(len(rows), dtype=object)
        column[:] = rows
        return column
    try:
        column = np.array(rows, dtype=object if gaps else DTYPES[field.dtype])
    except ValueError:
        raise BadRequest(
            f"{field.name} has lists of different lengths, which are not asked together",
            code="bad_column",
        ) from None
    except OverflowError:
        raise BadRequest(
            f"{field.name} has a number that is too large for {field.dtype}", code="bad_column"
        ) from None
    return column if rows else column.reshape(0, *(max(n, 0) for n in field.shape))


def _has_null(values: Sequence[Any]) -> bool:
    return any(each is None or (isinstance(each, list) and _has_null(each)) for each in values)


def _cell(field: Field, value: Any, shape: tuple[int, ...], where: str) -> Any:
    if not shape:
        return _scalar(field, value, where)
    if not isinstance(value, list | tuple) or shape[0] not in (-1, len(value)):
        length = "any length" if shape[0] == -1 else f"length {shape[0]}"
        raise BadRequest(f"{where} is not a list of {length}", code="bad_column")
    return [_cell(field, item, shape[1:], f"{where}[{i}]") for i, item in enumerate(value)]


def _scalar(field: Field, value: Any, where: str) -> Any:
    kind = KINDS[field.dtype]
    if kind == "f" and value is None:
        return nan
    if value is None and field.nullable:
        return None
    fits: bool
    match kind:
        case "f":
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        case "b":
            fits = isinstance(value, bool)
        case "OU":
            fits = isinstance(value, str)
        case _:
            bounds = np.iinfo(field.dtype)
            fits = (
                isinstance(value, int)
                and not isinstance(value, bool)
                and int(bounds.min) <= value <= int(bounds.max)
            )
    if not fits:
        said = "null" if value is None else f"{value!r:.60}"
        raise BadRequest(f"{where} is {said}, not {field.dtype}", code="bad_column")
    return value


def lists_of(columns: Columns) -> dict[str, list[Any]]:
    """Return columns as lists. NaN stays NaN, which JSON writes as null."""
    return {name: column.tolist() for name, column in columns.items()}


# ---------------------------------------------------------------- answers


def check_answer(
    columns: Columns, signature: Signature, rows: int, *, nan_allowed: bool = False
) -> str | None:
    """Check that an answer has the promised form. Return the fault in words, or None.

    A float must be finite; `nan_allowed` lets NaN pass, because golden rows may expect it.

    The check costs about 1 µs for one row of two outputs, so that it can check every candidate's
    answer.
    """
    try:
        if len(columns) != len(signature.outputs):
            return _names_fault(columns, signature)
        for field in signature.outputs:
            column = columns.get(field.name)
            if column is None:
                return _names_fault(columns, signature)
            shape = column.shape
            if shape[0] != rows or (shape[1:] != field.shape and not _fits(shape, field)):
                return f"{field.name} has shape {list(shape)}, not {[rows, *field.shape]}"
            kind = column.dtype.kind
            if kind not in KINDS[field.dtype]:
                return f"{field.name} is {column.dtype}, not {field.dtype}"
            if kind == "f":
                if not _all_finite(column):
                    fault = _finite_fault(field.name, column, nan_allowed)
                    if fault is not None:
                        return fault
            elif kind == "O":
                for value in column.flat:
                    if not isinstance(value, str):
                        return f"{field.name} has {value!r:.60} among its strings"
    except (AttributeError, IndexError, TypeError):
        # The code waits for the failure: an isinstance per column would cost as much as the rest.
        return "the answer is not a mapping of names to arrays with one entry a row"
    return None


def _fits(shape: tuple[int, ...], field: Field) -> bool:
    given = shape[1:]
    return len(given) == len(field.shape) and all(
        want in (-1, have) for have, want in zip(given, field.shape, strict=True)
    )


def _all_finite(column: NDArray[Any]) -> bool:
    if column.size <= _SMALL:
        return all(map(isfinite, (column if column.ndim == 1 else column.reshape(-1)).tolist()))
    return bool(np.isfinite(column).all())


def _finite_fault(name: str, column: NDArray[Any], nan_allowed: bool) -> str | None:
    faulty = np.isinf(column) if nan_allowed else ~np.isfinite(column)
    if not faulty.any():
        return None
    row = int(np.argwhere(faulty)[0][0])
    return f"{name} is not finite in row {row}: {column[row]}"


def _names_fault(columns: Columns, signature: Signature) -> str:
    want = ", ".join(field.name for field in signature.outputs)
    return f"the answer has the outputs {', '.join(map(str, columns)) or 'nothing'}, not {want}"


# ---------------------------------------------------------------- golden rows


def check_proof(
    model: Model, proof: Proof, met: Callable[[BaseException], object] = lambda _: None
) -> str | None:
    """Ask the golden rows. Return None when all answers fit, else the fault in words.

    This never raises for an error of the model: a model that raises has failed its proof. `met` is
    called with the error.
    """
    try:
        columns = columns_of(proof.inputs, model.signature)
    except BadRequest as error:
        return str(error)
    try:
        answers = model.predict(columns)
    except BaseException as error:  # noqa: BLE001 - a model may raise anything, and may even exit
        met(error)
        return f"the model raised {type(error).__name__}: {error}"
    rows = len(next(iter(columns.values()), ()))
    fault = check_answer(answers, model.signature, rows, nan_allowed=True)
    return fault or compare(lists_of(answers), proof.outputs, rtol=proof.rtol, atol=proof.atol)


def compare(
    got: Mapping[str, Sequence[Any]],
    expected: Mapping[str, Sequence[Any]],
    *,
    rtol: float,
    atol: float,
) -> str | None:
    """Compare two answers row by row: floats within tolerance, NaN equal to NaN, all else exactly.

    Only the expected outputs are compared. Return the first fault in words, or None.
    """
    for name, wanted in expected.items():
        given = got.get(name)
        if given is None:
            return f"the model has no output {name}; it has {', '.join(got)}"
        if len(given) != len(wanted):
            return f"{name} has {len(given)} rows, expected {len(wanted)}"
        for row, (have, want) in enumerate(zip(given, wanted, strict=True)):
            if not _same(have, want, rtol, atol):
                return f"golden row {row}: {name} is {have!r:.200}, expected {want!r:.200}"
    return None


def _same(have: Any, want: Any, rtol: float, atol: float) -> bool:
    if isinstance(want, list | tuple):
        return (
            isinstance(have, list | tuple)
            and len(have) == len(want)
            and all(_same(a, b, rtol, atol) for a, b in zip(have, want, strict=True))
        )
    if isinstance(have, float) and isinstance(want, int | float) and not isinstance(want, bool):
        # NumPy's rule, |have - want| <= atol + rtol * |want|, is the usual meaning of rtol and
        # atol.
        both_nan = isnan(have) and isnan(want)
        return both_nan or have == want or abs(have - want) <= atol + rtol * abs(want)
    if isinstance(have, float) and want is None:
        return isnan(have)
    if have is None and isinstance(want, float):
        return isnan(want)
    if type(have) is int and type(want) is float:
        return have == want
    return type(have) is type(want) and bool(have == want)


# ---------------------------------------------------------------- statistics


def statistics(columns: Columns) -> dict[str, ColumnStatistics]:
    """Summarise columns that are in memory."""
    found = {}
    for name, column in columns.items():
        summary = Summary()
        summary.add(column)
        found[name] = summary.done()
    return found


class Summary:
    """Statistics of one column that is added in chunks, in bounded memory.

    Counts are exact. Mean and standard deviation are merged by Chan's form of Welford's recurrence,
    which avoids cancellation. An infinity is counted but is part of no moment.
    """

    def __init__(self) -> None:
        self._count = self._nulls = self._n = 0
        self._mean = self._m2 = 0.0
        self._low, self._high = float("inf"), float("-inf")
        self._values: dict[str, int] = {}
        self._seen: set[Any] = set()
        self._longest: int | None = None

    def add(self, column: NDArray[Any], longest: int | None = None) -> None:
        """Add a chunk; `longest` is its longest list of an open length, or its longest text."""
        if longest is not None:
            self._longest = max(longest, self._longest or 0)
        flat = column.reshape(-1)
        self._count += flat.size
        if flat.dtype.kind in "OU":
            self._add_strings(flat.tolist())
        elif flat.dtype.kind == "b":
            ones = int(flat.sum())
            self._tell("true", ones)
            self._tell("false", flat.size - ones)
        else:
            self._add_numbers(flat)

    def _add_strings(self, values: Iterable[str | None]) -> None:
        for value in values:
            if value is None:
                self._nulls += 1
            else:
                self._tell(value, 1)

    def _tell(self, value: str, times: int) -> None:
        if times and (value in self._values or len(self._values) < DISTINCT_LIMIT):
            self._values[value] = self._values.get(value, 0) + times

    def _add_numbers(self, flat: NDArray[Any]) -> None:
        numbers = flat.astype(np.float64, copy=False)
        nulls = np.isnan(numbers)
        self._nulls += int(nulls.sum())
        numbers = numbers[np.isfinite(numbers)]
        if len(self._seen) < DISTINCT_LIMIT:
            self._seen.update(np.unique(flat[~nulls])[:DISTINCT_LIMIT].tolist())
        n = numbers.size
        if not n:
            return
        mean = float(numbers.mean())
        m2 = float(((numbers - mean) ** 2).sum())
        total, delta = self._n + n, mean - self._mean
        self._mean += delta * n / total
        self._m2 += m2 + delta * delta * self._n * n / total
        self._n = total
        self._low = min(self._low, float(numbers.min()))
        self._high = max(self._high, float(numbers.max()))

    def done(self) -> ColumnStatistics:
        """Return the statistics of all added chunks. `std` is that of the population."""
        top = sorted(self._values.items(), key=lambda item: (-item[1], item[0]))[:TOP_VALUES]
        some = self._n > 0
        return ColumnStatistics(
            count=self._count,
            nulls=self._nulls,
            minimum=self._low if some else None,
            maximum=self._high if some else None,
            mean=self._mean if some else None,
            std=sqrt(self._m2 / self._n) if some else None,
            values=dict(top),
            distinct=min(len(self._seen) + len(self._values), DISTINCT_LIMIT),
            longest=self._longest,
        )
