"""Nested figures of an entry or a policy as flat lines of text."""

from __future__ import annotations

from collections.abc import Mapping

DEPTH = 3
"""Levels of nested figures that are shown."""
TEXT = 200
"""Characters of one figure."""


def flatten(seen: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return nested figures as pairs of a name and a text."""
    return tuple(_flat(seen, "", DEPTH))


def _flat(seen: Mapping[str, object], prefix: str, depth: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in seen.items():
        if isinstance(value, Mapping) and depth > 1:
            found += _flat(value, f"{prefix}{name} · ", depth - 1)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            for number, one in enumerate(value, 1):
                if isinstance(one, Mapping) and depth > 1:
                    found += _flat(one, f"{prefix}{name} {number} · ", depth - 1)
        else:
            found.append((f"{prefix}{name}".replace("_", " "), _text(value)))
    return found


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value)[:TEXT]
    return str(value)[:TEXT]
