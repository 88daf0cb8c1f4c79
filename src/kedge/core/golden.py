"""Golden rows: their origins, what they can show, and made rows if there are no others.

A comparison on rows from the log or a training set is evidence. One on made rows is not: a
function's answer to zeros proves little. Made rows still differ from each other in every column.
Only rows that differ can show that an answer depends on the other rows of its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite, isnan, prod
from typing import Any

import msgspec

from kedge.core.bounds import allowed, limits_of
from kedge.core.values import Field, Origin, Value

Lists = Mapping[str, Sequence[Any]]

MADE = 8
"""Number of made rows. Scales repeat after four rows, so each scale meets a row of either sign."""
ROOM = 200_000
"""Limit of numbers in all made rows together: a few megabytes as JSON."""
LEAST = 3
"""Least number of made rows, however wide they are: one pair and one more."""
SCALES = (1.0, 10.0, 0.1, 100.0)
"""Scales of made floats of unknown range. Rows of several magnitudes reveal a scale that a model
takes over the whole batch, as a dynamically quantised model does."""
COUNTS = (2, 4, 2, 11)
"""Counts of whole numbers, from 0, that are made if no range is known. A model that looks a code up
is likely to know small ones."""
WORDS = ("", "a", "b")
NULL_ROWS = 32
"""Limit of rows that are added for nulls: every replica asks each of them before a model may
serve."""
_ROW, _COLUMN, _ITEM = 0.6180339887498949, 0.7548776662466927, 0.5698402909980532
"""Steps of an additive sequence: its values are evenly spread and equal in every process."""


class Known(Value, frozen=True):
    """The known content of a column: its least and largest number, or its values."""

    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    """The only numbers that occur in it, if they are categories."""


def made_rows(
    fields: Sequence[Field], known: Mapping[str, Known], like: Lists | None = None
) -> dict[str, list[Any]]:
    """Return rows that differ in every column; the last ones have nulls in nullable columns.

    Args:
        fields: the columns. Values that their bounds refuse are not made: no caller can send them.
        known: the ranges and words to stay within.
        like: rows whose first one gives the length of an open length.
    """
    shapes = {field.name: _shape(field, like) for field in fields}
    within = {field.name: _within(field, known.get(field.name) or Known()) for field in fields}
    width = sum(prod(shape) for shape in shapes.values())
    count = max(LEAST, min(MADE, ROOM // max(width, 1)))
    found = {
        field.name: [
            _filled(field, shapes[field.name], within[field.name], row, column, [0])
            for row in range(count)
        ]
        for column, field in enumerate(fields)
    }
    _add_nulls(fields, found)
    return found


def blank_rows(fields: Sequence[Field]) -> dict[str, list[Any]]:
    """Return `LEAST` rows of zeros and blanks: no evidence, but most code can run on them."""
    return {
        field.name: [_blank(field, _shape(field, None)) for _ in range(LEAST)] for field in fields
    }


def _blank(field: Field, shape: tuple[int, ...]) -> Any:
    if shape:
        return [_blank(field, shape[1:]) for _ in range(shape[0])]
    if field.categories is not msgspec.UNSET:
        return (allowed(field) or field.categories)[0]
    if field.dtype in ("string", "bool"):
        return "" if field.dtype == "string" else False
    return _number(field, 0.0)


def _within(field: Field, known: Known) -> Known:
    """Return the known content of a column, without what the bounds of its field refuse."""
    if field.categories is not msgspec.UNSET:
        categories = allowed(field)
        words = tuple(each for each in categories if isinstance(each, str))
        numbers = tuple(float(each) for each in categories if not isinstance(each, str))
        return Known(
            words=tuple(word for word in words if word in known.words) or words,
            numbers=tuple(each for each in numbers if each in known.numbers) or numbers,
        )
    if field.range is not msgspec.UNSET:
        (low, high), (smallest, largest) = field.range, limits_of(field.dtype)
        low, high = max(low, smallest), min(high, largest)
        least = low if known.low is None else max(low, known.low)
        most = high if known.high is None else min(high, known.high)
        numbers = tuple(each for each in known.numbers if low <= each <= high)
        return Known(*((least, most) if least <= most else (low, high)), numbers=numbers)
    if field.max_length is not msgspec.UNSET and -1 not in field.shape:
        most = field.max_length
        return Known(words=tuple(word for word in known.words if len(word) <= most))
    return known


def _shape(field: Field, like: Lists | None) -> tuple[int, ...]:
    value = like[field.name][0] if like and like.get(field.name) else None
    shape = []
    for size in field.shape:
        held = len(value) if isinstance(value, list | tuple) else None
        if size < 0 and held and field.max_length is not msgspec.UNSET:
            held = min(held, field.max_length)
        shape.append(size if size >= 0 else held or 1)
        value = value[0] if isinstance(value, list | tuple) and value else None
    return tuple(shape)


def _filled(
    field: Field,
    shape: tuple[int, ...],
    known: Known,
    row: int,
    column: int,
    item: list[int],
) -> Any:
    """Return one row of this shape; `item` counts the places that are already filled."""
    if not shape:
        item[0] += 1
        return _scalar(field, known, row, column, item[0] - 1)
    return [_filled(field, shape[1:], known, row, column, item) for _ in range(shape[0])]


def _scalar(field: Field, known: Known, row: int, column: int, item: int) -> Any:
    at = (0.5 + row * _ROW + column * _COLUMN + item * _ITEM) % 1.0
    if field.dtype == "bool":
        return row > 0 and at >= 0.5  # row 0 is blank where nothing is known
    if field.dtype == "string":
        words = known.words or WORDS
        return words[floor(at * len(words))] if known.words else words[row % len(words)]
    whole = not field.dtype.startswith("float")
    value: float
    if known.numbers:
        value = known.numbers[floor(at * len(known.numbers))]
    elif known.low is not None and known.high is not None:
        value = known.low + at * (known.high - known.low)
    elif row == 0:
        value = 0.0  # what most models can answer, whatever their columns mean
    elif whole:
        value = floor(at * COUNTS[row % len(COUNTS)])
    else:
        value = SCALES[row % len(SCALES)] * (at if row % 2 else 2 * at - 1)
    return _number(field, value)


def _number(field: Field, value: float) -> int | float:
    """Return a number in its column's type, short as text, and within its range."""
    whole = not field.dtype.startswith("float")
    found = round(value) if whole else float(f"{value:.6g}")
    if field.range is msgspec.UNSET:
        return found
    (low, high), (least, largest) = field.range, limits_of(field.dtype)
    low, high = max(low, least), min(high, largest)
    return min(max(found, ceil(low)), floor(high)) if whole else min(max(found, low), high)


def _add_nulls(fields: Sequence[Field], rows: dict[str, list[Any]]) -> None:
    """Repeat two rows with nulls: in every nullable column, then in every second one."""
    may = [f.name for f in fields if f.nullable or (not f.shape and f.dtype.startswith("float"))]
    for step in (1, 2) if len(may) > 1 else (1,) if may else ():
        gone = set(may[::step])
        for name, values in rows.items():
            values.append(_gone(values[step]) if name in gone else values[step])


def _gone(value: Any) -> Any:
    """Return a value with null in each of its places, like that of a missing field."""
    return [_gone(each) for each in value] if isinstance(value, list | tuple) else None


def null_rows(fields: Sequence[Field], rows: Lists) -> tuple[dict[str, list[Any]], list[str]]:
    """Return further rows, so that each nullable field is null in one, and these fields.

    More than `NULL_ROWS` fields share rows. A field that is already null in a row is left out.

    Args:
        fields: the columns.
        rows: at least one; the first row without nulls is repeated.
    """
    lacking = [f.name for f in fields if f.nullable and not any(map(_is_gone, rows[f.name]))]
    full = whole(rows)
    like = taken(full if count(full) else rows, [0])
    further: dict[str, list[Any]] = {name: [] for name in rows}
    for row in range(min(len(lacking), NULL_ROWS)):
        gone = set(lacking[row::NULL_ROWS])
        for name, (value,) in like.items():
            further[name].append(_gone(value) if name in gone else value)
    return further, lacking


def _is_gone(value: Any) -> bool:
    """Return whether a value is null in each of its places."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_gone, value))
    return value is None or (isinstance(value, float) and isnan(value))


# ---------------------------------------------------------------- what rows can show


def count(rows: Lists) -> int:
    """Return how many rows there are."""
    return len(next(iter(rows.values()), ()))


def distinct(rows: Lists) -> int:
    """Return how many different rows there are."""
    return len({repr(row) for row in zip(*rows.values(), strict=True)})


def is_real(rows: Lists, origin: Origin) -> bool:
    """Return whether rows are not made. Rows that earlier versions of kedge made are all equal."""
    return count(rows) > 0 and (distinct(rows) > 1 if origin == "unknown" else origin != "made")


def joined(parts: Sequence[Lists]) -> dict[str, list[Any]]:
    """Return the rows of all parts that have the same columns as the first."""
    some = [part for part in parts if count(part)]
    same = [part for part in some if part.keys() == some[0].keys()]
    return (
        {name: [value for part in same for value in part[name]] for name in some[0]} if some else {}
    )


def unlike(rows: Lists, known: Lists) -> dict[str, list[Any]]:
    """Return each distinct row that is not among the known ones; all have the same columns."""
    order = tuple(rows)
    met = (
        {repr(row) for row in zip(*(known[name] for name in order), strict=True)}
        if known
        else set()
    )
    fresh = []
    for n, row in enumerate(zip(*rows.values(), strict=True)):
        said = repr(row)
        if said not in met:
            met.add(said)
            fresh.append(n)
    return taken(rows, fresh)


def taken(rows: Lists, which: Sequence[int]) -> dict[str, list[Any]]:
    """Return the rows at these positions."""
    return {name: [values[n] for n in which] for name, values in rows.items()}


def whole(rows: Lists) -> dict[str, list[Any]]:
    """Return the rows without a null."""
    full = [n for n, row in enumerate(zip(*rows.values(), strict=True)) if None not in _flat(row)]
    return taken(rows, full)


def spread(total: int, most: int) -> list[int]:
    """Return at most `most` of the numbers below `total`, evenly spread."""
    if total <= most:
        return list(range(total))
    return [n * total // most for n in range(most)]


def seen(rows: Lists) -> dict[str, Known]:
    """Return the content of each column. A column of one number is widened around it."""
    found = {}
    for name, values in rows.items():
        flat = _flat(values)
        words = tuple(sorted({value for value in flat if isinstance(value, str)}))
        numbers = [
            float(value)
            for value in flat
            if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        ]
        if words:
            found[name] = Known(words=words)
        elif numbers:
            low, high = min(numbers), max(numbers)
            if low == high:
                low, high = low - abs(low or 1.0), high + abs(high or 1.0)
                low = max(low, 0.0) if min(numbers) >= 0 else low
            found[name] = Known(low, high)
    return found


def _flat(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, list | tuple) else (value,))
    return found
