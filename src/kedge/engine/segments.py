"""The segments of many rows at once, with a bound on how many values a field may have.

A column of labels is read in C's loops: the cell of each request, then its label. Only what has no
label yet (a new value, nothing, one value too many) is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import Columns

VALUES = 200
"""Values of one segment field that a worker tells apart; the rest is `other`. A thousand cells a
window is what a second may cost to write."""

Names = tuple[str, ...]
"""Segments, such as origin=JFK."""

_ITEM = np.ndarray.item


class Segments:
    """The segments of requests, for the fields of a policy."""

    def __init__(self, fields: Names) -> None:
        self._known: dict[str, dict[Any, str]] = {field: {} for field in fields}
        # How a field is found in a request, and a value's label.
        self._readers = [(field, itemgetter(field), self._known[field].get) for field in fields]
        # One more "=" in a field, and two fields could share a segment.
        self._plain = not any("=" in field for field in fields)
        self.other = 0

    def cut(self, asked: Sequence[Columns], rows: Sequence[int]) -> tuple[list[Names], list[Names]]:
        """By row its segments; and by request where it counts, each time a tuple of its own.

        That is everywhere (`""`), then in each of its rows' segments once.
        """
        total = sum(rows)
        whole, labels = True, []
        for field, column, label in self._readers:
            try:
                columns = map(column, asked)
                # Python's own values are hashed several times faster than NumPy's.
                cells = map(_ITEM, columns) if total == len(rows) else _cells(columns, rows)
                found = list(map(label, cells))
            except (KeyError, TypeError, ValueError):  # no such field, a list, another shape
                found = [None] * total
            if not all(found):
                self._complete(field, found, asked, rows)
                whole = whole and all(found)
            labels.append(found)
        segments: list[Names] = list(zip(*labels, strict=True)) if labels else [()] * total
        if not whole:  # a request without one of the fields
            segments = [tuple(filter(None, names)) for names in segments]
        elif self._plain and total == len(rows):
            return segments, list(zip(repeat("", total), *labels, strict=True))
        return segments, self._by_request(segments, rows)

    def _by_request(self, segments: list[Names], rows: Sequence[int]) -> list[Names]:
        slices: list[Names] = []
        end = 0
        for count in rows:
            begin, end = end, end + count
            if count == 1 and self._plain:
                slices.append(("", *segments[begin]))
            else:
                slices.append(("", *sorted({*chain.from_iterable(segments[begin:end])})))
        return slices

    def _complete(
        self, field: str, found: list[Any], asked: Sequence[Columns], rows: Sequence[int]
    ) -> None:
        """Look by itself at each row whose segment was not found."""
        at = 0
        for one, count in zip(asked, rows, strict=True):
            for row in range(count):
                if found[at] is None:
                    found[at] = self._label(field, one, row)
                at += 1

    def _label(self, field: str, columns: Columns, row: int) -> str | None:
        """The segment of one field of one row; None where the request does not have it."""
        column, known = columns.get(field), self._known[field]
        if column is None or row >= len(column):
            return None
        value = column.item(row) if column.ndim == 1 else str(column[row])
        try:
            label = known.get(value)
        except TypeError:  # a list in a column of objects
            value = str(value)
            label = known.get(value)
        return label or self._learnt(field, value, column[row])

    def _learnt(self, field: str, value: Any, shown: Any) -> str:
        known = self._known[field]
        if value is None or value != value:  # noqa: PLR0124 - NaN, which no dict finds again
            return f"{field}=null"
        if len(known) >= VALUES:
            self.other += 1
            return f"{field}=other"
        known[value] = f"{field}={str(shown)[:64]}"
        return known[value]


def _cells(columns: Iterable[NDArray[Any]], rows: Sequence[int]) -> Iterator[Any]:
    """All values of columns that have so many rows.

    Raises:
        ValueError: one of them has another number of rows.
    """
    lists = [column.tolist() for column in columns]
    if list(map(len, lists)) != list(rows):
        raise ValueError(rows)
    return chain.from_iterable(lists)
