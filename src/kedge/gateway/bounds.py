"""Bounds of values: what a contract says of a field beyond its type, checked before a model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.core.errors import BadRequest
from kedge.core.values import Field
from kedge.gateway.fields import SMALL, bad
from kedge.gateway.wording import tell_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

LISTED = 10
"""Categories that an error lists."""


class FieldBounds:
    """The bounds of one field. Null is within all of them: whether it is allowed is another question."""

    def __init__(self, field: Field) -> None:
        self.name = field.name
        self._range = None if field.range is msgspec.UNSET else field.range
        if self._range is not None and field.dtype.startswith("float"):
            # As the column has them: 0.1 in a float32 is larger than 0.1.
            low, high = np.asarray(self._range, field.dtype).tolist()
            self._range = low, high
        self._categories = () if field.categories is msgspec.UNSET else field.categories
        self._known = frozenset(self._categories)
        self._length = 0 if field.max_length is msgspec.UNSET else field.max_length
        self._open = [axis + 1 for axis, size in enumerate(field.shape) if size == -1]
        """The axes whose length callers choose; without one a length is that of a text."""

    def check(self, column: NDArray[Any], *, is_row: bool) -> None:
        """Refuse a column with a value out of bounds.

        Args:
            column: the values; its first axis is the rows.
            is_row: whether the caller sent rows, so that the error has the number of the row.

        Raises:
            BadRequest: `out_of_bounds`: the first value, its row, and what is allowed.
        """
        if self._length:
            for axis in self._open:
                if column.shape[axis] > self._length:
                    raise _out(
                        self.name,
                        f"has {column.shape[axis]} values in a row; it takes {self._length} at most",
                    )
        if self._is_inside(column):
            return
        width = max(column.size // len(column), 1)
        for at, value in enumerate(column.reshape(-1).tolist()):
            if value is None or value != value:  # noqa: PLR0124 - NaN, a null
                continue
            found = self._find(value)
            if found is not None:
                row, (what, takes) = at // width, found
                raise _out(
                    self.name, f"{what} in row {row}; it takes {takes}", row if is_row else None
                )

    def _is_inside(self, column: NDArray[Any]) -> bool:
        """Whether no value needs a look of its own: there is no bound, or many numbers are in range."""
        if self._range is None:
            return not self._known and (not self._length or bool(self._open))
        if self._known or column.size <= SMALL or column.dtype == object:
            return False
        low, high = self._range
        # NaN, which is null, is passed over.
        return bool(
            np.fmin.reduce(column, axis=None) >= low and np.fmax.reduce(column, axis=None) <= high
        )

    def _find(self, value: Any) -> tuple[str, str] | None:
        """What is wrong with a value, and what the field takes; None when it is within bounds."""
        if self._range is not None and not self._range[0] <= value <= self._range[1]:
            low, high = self._range
            return f"is {tell_value(value)}", f"{low:.15g} to {high:.15g}"
        if self._length and not self._open and len(value) > self._length:
            return f"has {len(value)} characters", f"{self._length} at most"
        if self._known and value not in self._known:
            some = ", ".join(tell_value(each) for each in self._categories[:LISTED])
            more = f" and {len(self._known) - LISTED} others" if len(self._known) > LISTED else ""
            return f"is {tell_value(value)}", some + more
        return None


def _out(name: str, what: str, row: int | None = None) -> BadRequest:
    return bad(name, what, "out_of_bounds", "", row)
