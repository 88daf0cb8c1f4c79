"""Durations as people write them in a configuration: 500ms, 90s, 10m, 1h, 7d."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
WRITTEN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)


def seconds(text: str) -> float:
    """Read a duration: a number, not negative, and one of ms, s, m, h, d.

    Raises:
        ValueError: it is anything else; says what a duration looks like.
    """
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration; write 500ms, 90s, 10m, 1h or 7d")
    return float(found[1]) * _SECONDS[found[2]]
