"""The segments of many rows at once, with a bound on how many values a field may have.

A column of labels is read in C's loops: the cell of each request, then its label. Only what has no
label yet (a new value, nothing, one value too many) is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kedge.ports import Columns

VALUES = 200
"""Values of one segment field that a worker tells apart; the rest is `other`. A thousand cells a
window is what a second may cost to write."""

Names = tuple[str, ...]
"""Segments, such as origin=JFK."""


class Slices:
    """The segments of requests."""

    def __init__(self, fields: Names) -> None:
        # Python's own values are hashed several times faster than NumPy's.
        self._known: dict[str, dict[Any, str]] = {field: {} for field in fields}
        # One more "=" in a field, and two fields could share a segment.
        self._plain = not any("=" in field for field in fields)
        self.other = 0

    def cut(self, asked: Sequence[Columns], rows: Sequence[int]) -> tuple[list[Names], list[Names]]:
        """By row its segments; and by request where it counts, each time a tuple of its own.

        That is everywhere (`""`), then in each of its rows' segments once.
        """
        labels = [self._labels(field, asked, rows) for field in self._known]
        whole = all(map(all, labels))
        segments: list[Names] = list(zip(*labels, strict=True)) if labels else [()] * sum(rows)
        if not whole:  # a request without one of the fields
            segments = [tuple(filter(None, names)) for names in segments]
        if whole and self._plain and len(segments) == len(rows):
            return segments, list(zip(repeat("", len(rows)), *labels, strict=True))
        slices: list[Names] = []
        end = 0
        for count in rows:
            begin, end = end, end + count
            if count == 1 and self._plain:
                slices.append(("", *segments[begin]))
            else:
                slices.append(("", *sorted({*chain.from_iterable(segments[begin:end])})))
        return segments, slices

    def _labels(self, field: str, asked: Sequence[Columns], rows: Sequence[int]) -> list[Any]:
        """By row the segment of one field; None where a request does not have it."""
        get = self._known[field].get
        try:
            columns = map(itemgetter(field), asked)
            if max(rows) == 1:
                found = list(map(get, map(np.ndarray.item, columns)))
            else:
                lists = list(map(np.ndarray.tolist, columns))
                found = list(map(get, chain.from_iterable(lists)))
                if list(map(len, lists)) != list(rows):
                    found = [None] * sum(rows)
        except (KeyError, TypeError, ValueError):  # no such field, a list, more than one number
            found = [None] * sum(rows)
        if not all(found):
            cells = [
                (one, row) for one, count in zip(asked, rows, strict=True) for row in range(count)
            ]
            for at, label in enumerate(found):
                if label is None:
                    found[at] = self._label(field, *cells[at])
        return found

    def _label(self, field: str, columns: Columns, row: int) -> str | None:
        """The segment of one field of one row."""
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
