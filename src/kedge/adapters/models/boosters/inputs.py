"""Inputs of a booster: its fields, and the conversion of columns by name to its matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kedge.adapters.models.stated import Stated
from kedge.core.errors import UnfitModel
from kedge.core.golden import Known
from kedge.core.inputs import SIGNATURE_FILE
from kedge.core.values import Dtype, Field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

    Array = NDArray[Any]

TENSOR = "X"
"""Name of the only input of a booster whose columns have no names."""
WORDS_TAKEN = 200
"""Maximum number of categories of a column that are kept for made rows."""


class BoosterColumn(NamedTuple):
    """One column of a booster, as its file states it."""

    name: str
    dtype: Dtype = "float64"
    nullable: bool = False
    """Whether a missing value is answered as the fit knew it."""
    words: tuple[str, ...] | None = None
    """Its categories in the order of their codes, if they are words."""
    numbers: tuple[float, ...] | None = None
    """Its categories in the order of their codes, if they are numbers."""
    is_raw: bool = False
    """Whether the library takes its values as they are: words, or numbers of categories."""


class BoosterInputs(NamedTuple):
    """The inputs of a booster."""

    fields: tuple[Field, ...]
    columns: tuple[BoosterColumn, ...]
    unnamed: int = 0

    @property
    def known(self) -> dict[str, Known]:
        """The categories by field, for rows that are made."""
        return {
            column.name: Known(words=column.words[:WORDS_TAKEN])
            if column.words is not None
            else Known(numbers=(column.numbers or ())[:WORDS_TAKEN])
            for column in self.columns
            if column.words or column.numbers
        }


def settle_inputs(
    columns: Sequence[BoosterColumn],
    stated: Stated,
    *,
    is_named: bool,
    spell: Callable[[str], str] = str,
) -> BoosterInputs:
    """Return the inputs: as the files beside the model state them, else as the model does.

    Args:
        columns: of the model, in its order.
        stated: what signature.json or MLmodel states.
        is_named: whether the model knows the names of its columns.
        spell: what the library makes of a column's name.

    Raises:
        UnfitModel: `bad_signature`: the statement does not fit the model.
    """
    plain = all(column.dtype == "float64" for column in columns)
    if stated.inputs is not None:
        return _as_stated(columns, stated, spell, is_named=is_named)
    if not is_named and plain:
        nullable = all(column.nullable for column in columns)
        field = Field(TENSOR, "float64", (len(columns),), nullable=nullable)
        return BoosterInputs((field,), tuple(columns), len(columns))
    fields = tuple(Field(one.name, one.dtype, nullable=one.nullable) for one in columns)
    return BoosterInputs(fields, tuple(columns), 0 if is_named else len(columns))


def _as_stated(
    columns: Sequence[BoosterColumn], stated: Stated, spell: Callable[[str], str], *, is_named: bool
) -> BoosterInputs:
    fields = stated.inputs or ()
    if len(fields) == 1 and len(fields[0].shape) == 1:
        if is_named or fields[0].shape[0] not in (len(columns), -1):
            raise _unfit(stated, [field.name for field in fields], columns)
        return BoosterInputs(fields, tuple(columns))
    told = [field.name for field in fields]
    if any(field.shape for field in fields) or len(told) != len(columns):
        raise _unfit(stated, told, columns)
    called = [one.name for one in columns]
    if not is_named or (told != called and [*map(spell, told)] == called):  # in the fit's order
        renamed = (
            one._replace(name=field.name) for one, field in zip(columns, fields, strict=True)
        )
        return BoosterInputs(fields, tuple(renamed))
    if sorted(told) != sorted(called):
        raise _unfit(stated, told, columns)
    return BoosterInputs(fields, tuple(columns))


def _unfit(stated: Stated, told: Sequence[str], columns: Sequence[BoosterColumn]) -> UnfitModel:
    return UnfitModel(
        f"{stated.file} names {told}, but the model was fitted on {[one.name for one in columns]}",
        code="bad_signature",
        hint=f"a {SIGNATURE_FILE} beside the model names each column once, as a scalar",
    )


def matrix_of(inputs: BoosterInputs) -> Callable[[Columns], Array]:
    """Return the function from columns by name to the model's matrix.

    It is of float64, or of objects if a column is taken as it is. A known category is its code; a
    missing value is NaN.
    """
    if inputs.fields[0].shape:
        name = inputs.fields[0].name
        return lambda given: np.ascontiguousarray(given[name], np.float64)
    converts = [(one.name, _conversion(one)) for one in inputs.columns]
    dtype = np.dtype(object if any(one.is_raw for one in inputs.columns) else np.float64)

    def build(given: Columns) -> Array:
        rows = np.empty((len(given[converts[0][0]]), len(converts)), dtype)
        for place, (name, convert) in enumerate(converts):
            rows[:, place] = convert(given[name])
        return rows

    return build


def _conversion(column: BoosterColumn) -> Callable[[Array], Array]:
    if column.is_raw:
        return lambda given: given
    known: Mapping[Any, int] | None = None
    if column.words is not None:
        known = {word: code for code, word in enumerate(column.words)}
    elif column.numbers is not None:
        known = {number: code for code, number in enumerate(column.numbers)}
    if known is None:
        return lambda given: given.astype(np.float64)  # None becomes NaN
    return lambda given: _codes(given, known, column.name)


def _codes(given: Array, known: Mapping[Any, int], name: str) -> Array:
    """Return the codes of categories.

    Raises:
        ValueError: a category that the fit did not have.
    """
    found = np.empty(len(given))
    for place, value in enumerate(given.tolist()):
        if value is None or (isinstance(value, float) and isnan(value)):
            found[place] = np.nan
        elif value in known:
            found[place] = known[value]
        else:
            raise ValueError(f"{name}: the model was not fitted on the category {value!r}")
    return found
