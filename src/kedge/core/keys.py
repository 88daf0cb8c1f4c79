"""Keys: the one spelling of the value that names a materialised row.

Sources, materialisation, look-ups, training sets and spines spell a key here, so that they all find
the same row, or none. Whole numbers stay whole. 7, 7.0 and the text "7" are one key. "007" and " 7
" are other keys. A number that a float can have rounded is not a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

JOINED = "\x1f"
"""Separator of the parts of a key of several columns."""
_NOT_IN_TEXT = re.compile("[\x1e\x1f]")
"""The separator of parts, and the first character of a store's own keys."""
EXACT = 2**53
"""The size from which a float cannot tell neighbouring whole numbers apart (IEEE 754 binary64)."""


def spell(value: Any) -> str | None:
    """Return the text of a part of a key; None if the value is not valid in a key.

    Missing values (None, NaN, "") are not valid. Neither are numbers that are not whole or can have
    been rounded, and text with a character that keys use.
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
        columns: one per part of the key, of Python values, equally long.

    Returns:
        One key per row; None if a part is not valid.
    """
    if len(columns) == 1:
        return [spell(value) for value in columns[0]]
    return [_joined(map(spell, row)) for row in zip(*columns, strict=True)]


def _joined(parts: Iterable[str | None]) -> str | None:
    found = list(parts)
    return None if None in found else JOINED.join(part or "" for part in found)
