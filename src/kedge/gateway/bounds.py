"""Bounds of values: a contract's limits of a field beyond its type, checked before a model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.core.errors import BadRequest
from kedge.core.phrases import tell_value
from kedge.core.values import Field
from kedge.gateway.fields import SMALL, bad

if TYPE_CHECKING:
    from numpy.typing import NDArray

LISTED = 10
"""Maximum number of categories that an error lists."""


class FieldBounds:
    """The bounds of one field. Null is within all of them; another check decides on nulls."""

    def __init__(self, field: Field) -> None:
        self.name = field.name
        self._dtype = field.dtype
        self._stated = self._range = None if field.range is msgspec.UNSET else field.range
        if self._range is not None and field.dtype.startswith("float"):
            # In the column's type: 0.1 in a float32 is larger than 0.1.
            low, high = np.asarray(self._range, field.dtype).tolist()
            self._range = low, high
        self._codes = _codes(field)
        self._categories = () if field.categories is msgspec.UNSET else field.categories
        self._known = frozenset(self._categories)
        bounded = self._range is not None or field.max_length is not msgspec.UNSET
        self._words = None if bounded or not self._known else self._known | {None}
        """All values that are allowed, if categories are the only bound; else None."""
        self._length = 0 if field.max_length is msgspec.UNSET else field.max_length
        self._open = [axis + 1 for axis, size in enumerate(field.shape) if size == -1]
        """The axes whose length callers choose; without any, a length is that of a text."""

    def check(self, column: NDArray[Any], *, is_row: bool) -> None:
        """Raise if a column has a value out of bounds.

        Args:
            column: the values; its first axis is the rows.
            is_row: whether the caller sent rows, so that the error has the number of the row.

        Raises:
            BadRequest: `out_of_bounds`: the first such value, its row, and the bound.
        """
        if self._length:
            for axis in self._open:
                if column.shape[axis] > self._length:
                    raise _out(
                        self.name,
                        f"has {column.shape[axis]} values in a row; it takes {self._length} at"
                        " most",
                    )
        if self._is_inside(column):
            return
        width = max(column.size // len(column), 1)
        values = column.reshape(-1).tolist()
        if self._words is not None and self._words.issuperset(values):
            return
        for at, value in enumerate(values):
            if value is None or value != value:  # noqa: PLR0124 - NaN, a null
                continue
            found = self._find(value)
            if found is not None:
                row, (what, takes) = at // width, found
                raise _out(
                    self.name, f"{what} in row {row}; it takes {takes}", row if is_row else None
                )

    def _is_inside(self, column: NDArray[Any]) -> bool:
        """Return whether no single value needs a check: there is no bound, or all are within."""
        if self._range is None and not self._known:
            return not self._length or bool(self._open)
        if column.size <= SMALL or column.dtype == object:
            return False
        if self._range is not None:
            low, high = self._range
            # fmin and fmax skip NaN, which is null. If all values are NaN, the result is NaN, and
            # no comparison is true.
            least, most = np.fmin.reduce(column, axis=None), np.fmax.reduce(column, axis=None)
            if least < low or most > high:
                return False
        return not self._known or bool(np.isin(column, self._codes).all())

    def _find(self, value: Any) -> tuple[str, str] | None:
        """Return the fault of a value and the bound that it breaks; None if it is within bounds."""
        if self._range is not None and not self._range[0] <= value <= self._range[1]:
            low, high = self._stated or self._range
            return f"is {self._as_given(value)}", f"{low:.15g} to {high:.15g}"
        if self._length and not self._open and len(value) > self._length:
            return f"has {len(value)} characters", f"{self._length} at most"
        if self._known and value not in self._known:
            some = ", ".join(tell_value(each) for each in self._categories[:LISTED])
            more = f" and {len(self._known) - LISTED} others" if len(self._known) > LISTED else ""
            return f"is {tell_value(value)}", some + more
        return None

    def _as_given(self, value: Any) -> str:
        """Return the shortest text of a number: 0.1 in a float32, not 0.10000000149011612."""
        if self._dtype in ("float16", "float32"):
            return str(np.dtype(self._dtype).type(value))
        return tell_value(value)


def _codes(field: Field) -> NDArray[Any]:
    """Return categories of whole numbers in the column's type: another type would round some."""
    if field.categories is msgspec.UNSET or field.dtype == "string":
        return np.empty(0)
    least, most = np.iinfo(field.dtype).min, np.iinfo(field.dtype).max
    codes = [one for one in field.categories if isinstance(one, int) and least <= one <= most]
    return np.array(codes, field.dtype)


def _out(name: str, what: str, row: int | None = None) -> BadRequest:
    return bad(name, what, "out_of_bounds", "", row)
