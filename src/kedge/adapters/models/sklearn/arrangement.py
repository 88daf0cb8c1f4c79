"""Arrangement: the conversion of columns by name to the table that an estimator was fitted on.

A caller has one form of a missing value. The estimator has the form that it was fitted on: NaN,
None, pandas' NA, or a value of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from kedge.adapters.models.sklearn.columns import InputColumn
from kedge.adapters.models.sklearn.signature import EstimatorInputs
from kedge.core.errors import UnfitModel
from kedge.core.values import Field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

    Array = NDArray[Any]

Convert = Callable[["Array"], "Array"]


def arrangement(inputs: EstimatorInputs) -> Callable[[Columns], Any]:
    """Build the conversion of named columns to the estimator's input.

    Raises:
        UnfitModel: `needs_pandas`: it was fitted on a frame.
    """
    if inputs.is_text:
        name = inputs.fields[0].name
        return lambda given: given[name]
    if inputs.frame is None and inputs.fields[0].shape:
        return _tensor(inputs.fields[0], inputs.columns)
    converts = {
        field.name: _conversion(field, column)
        for field, column in zip(inputs.fields, inputs.columns, strict=True)
    }
    if inputs.frame is not None:
        return _framed(inputs.frame, converts)
    return _table(inputs, converts)


def _framed(names: tuple[str, ...], converts: Mapping[str, Convert]) -> Callable[[Columns], Any]:
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise _no_pandas(error) from error
    frame, series = pandas.DataFrame, pandas.Series

    def build(given: Columns) -> Any:
        table = {}
        for name in names:
            column = converts[name](given[name])
            # The dtype is explicit, because pandas would guess: it replaces None in text of its own
            # dtype.
            table[name] = series(column, dtype=object) if column.dtype.kind == "O" else column
        return frame(table)

    return build


def _no_pandas(error: ImportError) -> UnfitModel:
    is_absent = isinstance(error, ModuleNotFoundError) and error.name == "pandas"
    why = "which is not installed" if is_absent else f"which cannot be imported: {error}"
    return UnfitModel(
        f"the model was fitted on a DataFrame and needs pandas, {why}",
        code="needs_pandas",
        hint="pip install 'kedge[sklearn]', or fit the model on a NumPy array",
    )


def _tensor(field: Field, columns: tuple[InputColumn, ...]) -> Callable[[Columns], Any]:
    name = field.name
    if field.dtype == "string":
        return lambda given: _words(given[name], field, columns)
    marks = [column.missing for column in columns]
    marked = [isinstance(mark, int | float) and not isnan(mark) for mark in marks]
    if not any(marked):
        return lambda given: np.ascontiguousarray(given[name], np.float64)
    row = np.array([mark if is_one else np.nan for mark, is_one in zip(marks, marked, strict=True)])

    def build(given: Columns) -> Array:
        x = np.ascontiguousarray(given[name], np.float64)
        return np.where(np.isnan(x), row, x)

    return build


def _words(given: Array, field: Field, columns: tuple[InputColumn, ...]) -> Array:
    """Return a table of words, with each column's own missing value."""
    table = np.ascontiguousarray(given, np.dtype(object))
    if not field.nullable or len(columns) != table.shape[1]:
        return table
    converts = [_conversion(field, column) for column in columns]
    return np.stack([convert(table[:, n]) for n, convert in enumerate(converts)], axis=1)


def _table(inputs: EstimatorInputs, converts: Mapping[str, Convert]) -> Callable[[Columns], Any]:
    """Build an array of one column a field: of objects if it was fitted on one."""
    mixed = any(f.dtype == "string" or (f.dtype == "bool" and f.nullable) for f in inputs.fields)
    mixed = mixed or any(not isinstance(column.missing, int | float) for column in inputs.columns)
    dtype = np.dtype(object if mixed else np.float64)
    names = [field.name for field in inputs.fields]

    def build(given: Columns) -> Array:
        rows = np.empty((len(given[names[0]]), len(names)), dtype)
        for i, name in enumerate(names):
            rows[:, i] = converts[name](given[name])
        return rows

    return build


def _conversion(field: Field, column: InputColumn) -> Convert:
    """Return the conversion of a column's missing values to those of the fit."""
    missing = column.missing
    if field.dtype == "string":
        # A file reader turns an empty cell into a missing value; so does this, unless "" was a word
        # in the fit.
        blank = field.nullable and not column.reads_blank and column.nullable
        return lambda given: _replaced(given, missing, blank=blank)
    if field.dtype == "bool":
        return (lambda given: _replaced(given, missing)) if field.nullable else lambda given: given
    if not field.nullable and not field.dtype.startswith("float"):
        return lambda given: given
    return lambda given: _numbers(given, missing)


def _replaced(given: Array, missing: Any, *, blank: bool = False) -> Array:
    """Return the values as objects, with the estimator's missing value instead of None."""
    values = given.astype(object) if given.dtype.kind != "O" else given
    nothing: tuple[Any, ...] = (None, "") if blank else (None,)
    gone = np.array([value in nothing for value in values.tolist()], np.bool_)
    if (missing is None and not blank) or not gone.any():
        return values
    values = values.copy()
    values[gone] = missing
    return values


def _numbers(given: Array, missing: Any) -> Array:
    """Return numbers with NaN, or its substitute, where one is missing."""
    numbers = given if given.dtype.kind == "f" else given.astype(np.float64)  # None becomes NaN
    if isinstance(missing, float) and isnan(missing):
        return numbers
    gone = np.isnan(numbers)
    if not gone.any():
        return numbers
    if not isinstance(missing, int | float):
        numbers = numbers.astype(object)
        numbers[gone] = missing
        return numbers
    return np.where(gone, missing, numbers)
