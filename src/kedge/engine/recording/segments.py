"""Segments of many rows at once, with a bound on how many values a field may have.

A column of labels is read in C's loops: the cell of each request, then its label. Only values
without a label (a new value, none, one value too many) are examined singly.

Theory of operation
-------------------
* A field's first `AT_ONCE` values are distinguished at once. A further one is `other` until it was
  met `LEAST` times, so that values which a caller invents get no part of a judge's alpha.
* When `VALUES` are distinguished, a value replaces the lightest once it was met twice as often. The
  heaviest are distinguished, in whatever order values arrive. Each replacement doubles the weight
  of the place, so names grow with the logarithm of the requests.
* Other values are counted in a frequent-items sketch. Misra and Gries, "Finding repeated elements"
  (1982), purged in batches (Anderson et al., "A High-Performance Algorithm for Identifying Frequent
  Items in Data Streams", 2017). Its counts are never too high, and too low by less than a
  `SKETCH`-th of the requests.
* Whether a request is counted under its segment follows from the requests before it and from its
  own value, never from its answer. So a segment's evidence is that of the requests since it is
  distinguished, and a judge may use it; earlier requests stay in `other` and in the whole.
* Each worker decides by the values that it met; a judge adds what the workers report.
"""

from __future__ import annotations

from collections import _count_elements  # type: ignore[attr-defined]
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

VALUES = 200
"""Limit of values of one segment field that a worker distinguishes; the rest is `other`. A thousand
cells a window is what a second may cost to write."""
AT_ONCE = 20
"""Values distinguished from their first request on: fields such as a country or a device have no
more, and lose nothing."""
LEAST = 10
"""Requests of a further value before it is distinguished: a judge ignores a segment below a
hundred."""
SKETCH = 1_000
"""Values counted while they are not distinguished; twice as many between two purges."""
LONG = 64
"""Limit of characters of a value in its label. A longer value is stored as a digest."""

Names = tuple[str, ...]
"""Segments, such as origin=JFK."""

_ITEM = np.ndarray.item


class Segments:
    """The segments of requests, for the fields of a policy."""

    def __init__(self, fields: Names) -> None:
        self._known: dict[str, dict[Any, str]] = {field: {} for field in fields}
        self._places: dict[str, _Places] = {field: _Places() for field in fields}
        # How a field is found in a request, and a value's label.
        self._readers = [(field, itemgetter(field), self._known[field].get) for field in fields]
        # With one more "=" in a field, two fields could share a segment.
        self._plain = not any("=" in field for field in fields)
        self.other = 0

    def cut(self, asked: Sequence[Columns], rows: Sequence[int]) -> tuple[list[Names], list[Names]]:
        """Return the segments of each row; and for each request where it counts, as one tuple.

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
            _count_elements(self._places[field].met, found)
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
        """Find singly the segment of each row that has none yet."""
        at = 0
        for one, count in zip(asked, rows, strict=True):
            for row in range(count):
                if found[at] is None:
                    found[at] = self._label(field, one, row)
                at += 1

    def _label(self, field: str, columns: Columns, row: int) -> str | None:
        """Return the segment of one field of one row; None if the request lacks the field."""
        column, known = columns.get(field), self._known[field]
        if column is None or row >= len(column):
            return None
        value = column.item(row) if column.ndim == 1 else str(column[row])
        try:
            hash(value)
        except TypeError:  # a list in a column of objects
            value = str(value)
        key = value
        if isinstance(value, str | bytes) and len(value) > LONG:
            raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            key = blake2b(raw, digest_size=16).digest()
        label = known.get(key)
        if label is not None:
            met = self._places[field].met
            met[label] = met.get(label, 0) + 1
            return label
        return self._learnt(field, key, column[row])

    def _learnt(self, field: str, value: Any, shown: Any) -> str:
        known = self._known[field]
        if value is None or value != value:  # noqa: PLR0124 - NaN, which no dict finds again
            return f"{field}=null"
        places = self._places[field]
        if len(known) >= AT_ONCE and not self._enters(field, places.sketch.add(value)):
            self.other += 1
            return f"{field}=other"
        label = known[value] = f"{field}={str(shown)[:LONG]}"
        places.met[label] = places.met.get(label, 0) + max(places.sketch.pop(value), 1)
        return label

    def _enters(self, field: str, times: int) -> bool:
        """Return whether a value with this count is distinguished now; it may replace another."""
        known, places = self._known[field], self._places[field]
        if times < LEAST:
            return False
        if len(known) < VALUES:
            return True
        if times <= places.bar:
            return False
        lightest = min(known.values(), key=lambda label: places.met.get(label, 0))
        weight = places.met.get(lightest, 0)
        places.bar = 2 * weight
        if times <= places.bar:
            return False
        for value in [value for value, label in known.items() if label == lightest]:
            del known[value]
            places.sketch.set(value, weight)
        places.met.pop(lightest, None)
        return True


class _Places:
    """How often the values of one field were met."""

    __slots__ = ("bar", "met", "sketch")

    def __init__(self) -> None:
        self.met: dict[Any, int] = {}
        """By label; under None, the values that were examined singly."""
        self.bar = 0
        """Count up to which no value replaces another. It only grows, as the weights do."""
        self.sketch = Sketch(SKETCH)


class Sketch:
    """Counts of the most frequent values of a stream; none is too high."""

    def __init__(self, size: int) -> None:
        """Store this number of values, and twice as many between two purges."""
        self._size = size
        self._counts: dict[Any, int] = {}

    def add(self, value: Any) -> int:
        """Count a value; return how often it was met at least."""
        times = self._counts[value] = self._counts.get(value, 0) + 1
        if len(self._counts) > 2 * self._size:
            self._purge()
            times = self._counts.get(value, 0)
        return times

    def set(self, value: Any, times: int) -> None:
        """Give a value this count."""
        self._counts[value] = times

    def pop(self, value: Any) -> int:
        """Stop counting a value; return how often it was met at least."""
        return self._counts.pop(value, 0)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._counts)

    def _purge(self) -> None:
        """Subtract the count of the first value beyond the size from all; drop the empty ones."""
        less = sorted(self._counts.values(), reverse=True)[self._size]
        self._counts = {value: n - less for value, n in self._counts.items() if n > less}


def _cells(columns: Iterable[NDArray[Any]], rows: Sequence[int]) -> Iterator[Any]:
    """Return all values of columns with these numbers of rows.

    Raises:
        ValueError: one of them has another number of rows.
    """
    lists = [column.tolist() for column in columns]
    if list(map(len, lists)) != list(rows):
        raise ValueError(rows)
    return chain.from_iterable(lists)
