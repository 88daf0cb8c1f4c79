"""Keys: one spelling for the value that names a row of what was computed ahead.

Sources, materialisation, look-ups, training sets and spines spell a key here, so that they all find
the same row, or none. Whole numbers stay whole. 7, 7.0 and the text "7" are one key, "007" and " 7 "
are others, and a number that a float may have rounded is no key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

JOINED = "\x1f"
"""Between the parts of a key of several columns."""
_NOT_IN_TEXT = re.compile("[\x1e\x1f]")
"""What joins the parts, and what a store's own keys begin with."""
EXACT = 2**53
"""From here on a float no longer tells neighbouring whole numbers apart (IEEE 754 binary64)."""


def spell(value: Any) -> str | None:
    """Return the text of a part of a key; None when it is none.

    No keys are: what is missing (None, NaN, ""), numbers that are not whole or that a float may have
    rounded, and text with a character that keys use.
    """
    if type(value) is str:
        return value if value and not _NOT_IN_TEXT.search(value) else None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < EXACT else None
    if value is None:
        return None
    return str(value) or None


def spell_all(columns: Sequence[Sequence[Any]]) -> list[str | None]:
    """Return the keys of rows.

    Args:
        columns: one a part of the key, of Python values, equally long.

    Returns:
        A key a row; None where a part is none.
    """
    if len(columns) == 1:
        return [spell(value) for value in columns[0]]
    return [_joined(map(spell, row)) for row in zip(*columns, strict=True)]


def _joined(parts: Iterable[str | None]) -> str | None:
    found = list(parts)
    return None if None in found else JOINED.join(part or "" for part in found)
