"""Durations as people write them in a configuration: 500ms, 90s, 10m, 1h, 7d."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST_S = 36_500 * 86_400.0
"""A hundred years, the longest duration: an instant further back cannot be written as a date."""
WRITTEN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)


def seconds(text: str) -> float:
    """Parse a duration: a number >= 0 and one of ms, s, m, h, d; a hundred years at most.

    Raises:
        ValueError: the text is not a duration; names the format.
    """
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is not a duration; write 500ms, 90s, 10m, 1h or 7d")
    span = float(found[1]) * _SECONDS[found[2]]
    if span > LONGEST_S:
        raise ValueError(f"{text[:80]} is longer than 36500d, a hundred years")
    return span
