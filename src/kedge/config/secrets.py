"""Secrets in kedge.toml: removed from a copy that leaves the machine."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from kedge.config.places import find_places

VARIABLES = {"online.url": "KEDGE_ONLINE_URL", "alerts.smtp": "KEDGE_SMTP_URL"}
"""Settings that can hold a password, and the environment variable that can replace each."""
MASK = "***"
_PASSWORD = re.compile(r"([A-Za-z][\w+.-]*://[^\s\"'/@:]*:)(?!\$\{|\*\*\*@)[^\s\"'/]+@")
_PARAMETER = re.compile(
    r"([?&](?:password|passwd|pwd|token|secret|api_?key|key)=)(?!\$\{|\*\*\*)[^&\s\"'#]+",
    re.IGNORECASE,
)


def has_secret(text: str) -> bool:
    """Return whether a URL in the text has a password; a variable such as `${NAME}` is none."""
    return bool(_PASSWORD.search(text) or _PARAMETER.search(text))


def mask(text: str) -> str:
    """Return the text with each password in a URL replaced."""
    masked = _PASSWORD.sub(rf"\g<1>{MASK}@", text)
    return _PARAMETER.sub(rf"\g<1>{MASK}", masked)


def scrub(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Return kedge.toml without its secrets, and their places; None if that is impossible.

    A setting that an environment variable can replace becomes a comment; others are masked.
    Comments are masked, too. In text that is not valid TOML passwords are masked, without places.
    """
    try:
        values = _strings(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return mask(text), ()
    found = tuple(place for place, value in values.items() if has_secret(value))
    places, lines = find_places(text), text.splitlines(keepends=True)
    for place in found:
        if place not in VARIABLES or not _alone(place, text):
            continue
        first, last = places[place]
        end = "\r\n" if lines[first - 1].endswith("\r\n") else "\n"
        told = (
            f"# Left out by kedge backup, since it held a password: set {VARIABLES[place]}"
            f" instead.{end}"
        )
        lines[first - 1 : last] = [told + "".join(f"# {line}" for line in lines[first - 1 : last])]
        lines[first:first] = [""] * (last - first)  # the lines of later places must not shift
    cleaned = mask("".join(lines))
    if any(has_secret(value) for value in _strings(tomllib.loads(cleaned)).values()):
        return None
    return cleaned, found


def _alone(place: str, text: str) -> bool:
    """Return whether a setting has its lines alone, in a table of its own with a header."""
    name = place.rpartition(".")[2]
    first = find_places(text)[place].first
    line = text.splitlines()[first - 1]
    return re.match(rf"\s*{re.escape(name)}\s*=", line) is not None


def _strings(value: Any, place: str = "") -> dict[str, str]:
    """Return every string below a value, by its place."""
    if isinstance(value, str):
        return {place: value}
    below: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        below = [(f"{place}.{name}" if place else name, one) for name, one in value.items()]
    elif isinstance(value, list):
        below = [(f"{place}[{number}]", one) for number, one in enumerate(value)]
    return {at: text for where, one in below for at, text in _strings(one, where).items()}
