"""Bounds of a field: limits of its values beyond their type, from a contract or training data.

A gateway refuses other values before it calls a model (`gateway/bounds.py`). Models ignore bounds,
and unset bounds are omitted from what is stored of a field.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from math import ceil, floor, isfinite, log10
from typing import Any

import msgspec

from kedge.core.values import Dtype, Field, Signature

BOUNDS = ("range", "max_length", "categories")
FLOATS = ("float16", "float32", "float64")
MOST_CATEGORIES = 50
"""Limit of words that are learned as categories: as many as column statistics store."""
ROWS_A_CATEGORY = 10
"""Average rows per word from which words are categories and not names."""
SMALLEST = 1e-300
"""Magnitude below which a limit is not rounded: its last digit would not be a float."""
DIGITS = 3
"""Digits of a learned limit, which is rounded outwards: people read and edit limits."""


class TrainingColumn(msgspec.Struct, frozen=True):
    """The content of one column of a training set."""

    rows: int
    """Rows with a value."""
    least: float | None = None
    largest: float | None = None
    words: tuple[str, ...] = ()
    """Every word of the column; () if there are too many."""
    longest: int = 0
    """Values of the longest list where the length is open, else characters of the longest text."""


def misdeclared(field: Field) -> dict[str, str]:
    """Return the faults of a field's bounds, by their names; {} if there are none."""
    found = {}
    is_text, is_number = field.dtype == "string", field.dtype not in ("string", "bool")
    if field.range is not msgspec.UNSET:
        low, high = field.range
        if not is_number:
            found["range"] = f"is for numbers; the field is {field.dtype}"
        elif not (low <= high and isfinite(low) and isfinite(high)):
            found["range"] = f"is [LEAST, LARGEST], both allowed; got [{low:g}, {high:g}]"
    if field.max_length is not msgspec.UNSET:
        if not is_text and -1 not in field.shape:
            found["max_length"] = "is for texts, and for shapes with a length of -1"
        elif field.max_length < 1:
            found["max_length"] = f"must be 1 or more; got {field.max_length}"
    if field.categories is not msgspec.UNSET:
        kind = str if is_text else int
        if not is_text and (not is_number or field.dtype in FLOATS):
            found["categories"] = f"is for texts and whole numbers; the field is {field.dtype}"
        elif not field.categories or any(type(each) is not kind for each in field.categories):
            what = "texts" if is_text else "whole numbers"
            found["categories"] = f"is a list of one or more {what}; got {list(field.categories)}"
    return found or _contradiction(field)


def _contradiction(field: Field) -> dict[str, str]:
    """Return the fault of bounds that exclude every value together, or with the type; else {}."""
    if field.categories is not msgspec.UNSET and not allowed(field):
        return {"categories": "has no value that the other bounds and the type allow"}
    if field.range is not msgspec.UNSET:
        (low, high), (least, largest) = field.range, limits_of(field.dtype)
        if field.dtype not in FLOATS:
            low, high = ceil(low), floor(high)
        if max(low, least) > min(high, largest):
            stated = f"[{field.range[0]:g}, {field.range[1]:g}]"
            return {"range": f"has no value of {field.dtype}; got {stated}"}
    return {}


_LARGEST_FLOATS: dict[str, float] = {
    "float16": 65504.0,
    "float32": 3.4028234663852886e38,
    "float64": 1.7976931348623157e308,
}
"""Largest finite values of IEEE 754 binary16, binary32 and binary64."""


def limits_of(dtype: Dtype) -> tuple[float, float]:
    """Return the least and the largest value of a type of numbers."""
    if dtype in FLOATS:
        largest = _LARGEST_FLOATS[dtype]
        return -largest, largest
    bits = int("".join(filter(str.isdigit, dtype)))
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def allowed(field: Field) -> tuple[str | int, ...]:
    """Return the categories that the other bounds and the type of a field allow; () without any."""
    if field.categories is msgspec.UNSET:
        return ()
    low, high = (0, 0) if field.dtype == "string" else limits_of(field.dtype)
    return tuple(
        each
        for each in field.categories
        if is_within(field, each, len(field.shape))
        and (isinstance(each, str) or low <= each <= high)
    )


def is_within(field: Field, value: Any, depth: int = 0) -> bool:
    """Return whether a value of one row, in JSON, is within the bounds of a field.

    Args:
        field: the field with its bounds.
        value: the value; its lists are nested like the field's shape.
        depth: the number of lists of the row around the value.
    """
    if isinstance(value, list | tuple):
        if field.shape[depth : depth + 1] == (-1,) and _is_long(field, value):
            return False
        return all(is_within(field, each, depth + 1) for each in value)
    if value is None or value != value:  # noqa: PLR0124 - NaN, a null
        return True
    if field.range is not msgspec.UNSET and not field.range[0] <= value <= field.range[1]:
        return False
    if field.categories is not msgspec.UNSET and value not in field.categories:
        return False
    return not isinstance(value, str) or -1 in field.shape or not _is_long(field, value)


def permitted(fields: Sequence[Field], rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return the rows that the bounds of the fields allow: no caller can send the others."""
    bounds = [field for field in fields if field.is_bounded and field.name in rows]
    total = len(next(iter(rows.values()), ()))
    kept = [n for n in range(total) if all(is_within(f, rows[f.name][n]) for f in bounds)]
    return {name: [values[n] for n in kept] for name, values in rows.items()}


def _is_long(field: Field, value: str | Sequence[Any]) -> bool:
    return field.max_length is not msgspec.UNSET and len(value) > field.max_length


def unbounded(signature: Signature) -> Signature:
    """Return the signature without bounds, which do not affect what a model computes."""
    if not any(field.is_bounded for field in signature.inputs):
        return signature
    plain = dict.fromkeys(BOUNDS, msgspec.UNSET)
    inputs = tuple(msgspec.structs.replace(field, **plain) for field in signature.inputs)
    return msgspec.structs.replace(signature, inputs=inputs)


def bounded(fields: Sequence[Field], stated: Mapping[str, Field]) -> tuple[Field, ...]:
    """Return fields in which those without bounds get the stated ones."""
    found = []
    for field in fields:
        other = stated.get(field.name)
        if other is not None and other.is_bounded and not field.is_bounded:
            bounds = {name: getattr(other, name) for name in BOUNDS}
            # The same field, bounded.
            field = msgspec.structs.replace(field, **bounds)  # noqa: PLW2901
        found.append(field)
    return tuple(found)


# ---------------------------------------------------------------- learning


def learn(field: Field, seen: TrainingColumn) -> Field:
    """Return a field with the bounds that a training set proposes; an existing bound stays.

    Whole numbers can be codes that a model looks up, and the places of a list positions. Their
    range and the length are those of the training set. A float can lie beyond: its range is widened
    by its own width on both sides, but not across zero. So the range refuses other units and no
    ordinary row. Words are categories if each occurred often. Else they can be twice as long as the
    longest.
    """
    if field.is_bounded:
        return field
    bounds: dict[str, object] = {}
    if -1 in field.shape and seen.longest:
        bounds["max_length"] = seen.longest
    if field.dtype == "string":
        few = 0 < len(seen.words) <= MOST_CATEGORIES
        if few and seen.rows >= ROWS_A_CATEGORY * len(seen.words):
            bounds["categories"] = tuple(sorted(seen.words))
        elif -1 not in field.shape and seen.longest:
            bounds["max_length"] = int(_round_up(2.0 * seen.longest))
    elif field.dtype != "bool" and seen.least is not None and seen.largest is not None:
        low, high = seen.least, seen.largest
        if field.dtype in FLOATS:
            low, high = _widened(low, high)
        bounds["range"] = float(low), float(high)
    return msgspec.structs.replace(field, **bounds)


def _widened(least: float, largest: float) -> tuple[float, float]:
    width = largest - least or abs(largest) or 1.0
    low, high = -_round_up(width - least), _round_up(largest + width)
    return max(low, 0.0) if least >= 0 else low, min(high, 0.0) if largest <= 0 else high


def _round_up(value: float) -> float:
    """Return a number of few digits that is not below the value."""
    if not isfinite(value) or abs(value) < SMALLEST:
        return value
    unit = 10.0 ** (floor(log10(abs(value))) - DIGITS + 1)
    return float(f"{-floor(-value / unit) * unit:.{DIGITS + 2}g}")


# ---------------------------------------------------------------- kedge.toml


def toml_lines(endpoint: str, fields: Collection[Field]) -> list[str]:
    """Return fields as the request contract of an endpoint in kedge.toml."""
    return [f"[endpoints.{endpoint}.fields]", *map(toml_line, fields)]


def toml_line(field: Field) -> str:
    """Return a field as a line of kedge.toml: the parts that differ from the defaults."""
    parts = [f'dtype = "{field.dtype}"']
    if field.shape:
        parts.append(f"shape = {list(field.shape)}")
    if field.nullable:
        parts.append("nullable = true")
    if field.range is not msgspec.UNSET:
        low, high = (int(one) if float(one).is_integer() else one for one in field.range)
        parts.append(f"range = [{low}, {high}]")
    if field.max_length is not msgspec.UNSET:
        parts.append(f"max_length = {field.max_length}")
    if field.categories is not msgspec.UNSET:
        listed = ", ".join(json.dumps(each, ensure_ascii=False) for each in field.categories)
        parts.append(f"categories = [{listed}]")
    bare = field.name.isascii() and field.name.replace("_", "").replace("-", "").isalnum()
    name = field.name if bare else json.dumps(field.name, ensure_ascii=False)
    return f"{name} = {{{', '.join(parts)}}}"
