"""Phrases for faults in JSON, which name no part of kedge and nothing of Python.

The gateway uses them for infer calls, `kedge outcomes` and control's API for lines of outcomes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

CLIPPED = 60
"""Limit of characters of a caller's value that an error repeats."""
DIGIT_BITS = 128
"""Limit of bits of a whole number that an error repeats."""
_QUOTED = re.compile("`([^`]*)`")
_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def tell_fault(error: Exception) -> str:
    """Return the fault that a decoder of JSON found, with its place in the body."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {error.start})"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error).removeprefix("JSON is malformed: ")
    text = _QUOTED.sub(_word, text).replace(", got ", ", not ").replace(" - at ", " at ")
    text = text.removesuffix(" at [...]")  # somewhere in data that is read without a type
    return text[:1].lower() + text[1:]


def _word(found: re.Match[str]) -> str:
    token = found[1]
    if token.startswith("$"):
        return token.removeprefix("$").removeprefix(".") or "the top"
    parts = token.split(" | ")
    if all(part in _NAMES for part in parts):
        return " or ".join(_NAMES[part] for part in parts)
    return token


def tell_value(value: Any) -> str:
    """Return a JSON value as text that fits into a sentence."""
    match value:
        case str():
            return msgspec.json.encode(clip(value)).decode()
        case None | bool():
            return msgspec.json.encode(value).decode()
        case dict():
            return "an object"
        case list():
            return "a list"
        case int() if value.bit_length() > DIGIT_BITS:
            return "a number with too many digits"
    return str(value)


def tell_shape(shape: Sequence[Any]) -> str:
    """Return a shape as callers write it: [rows, 3]."""
    return f"[{', '.join(map(str, shape))}]"


def clip(text: str) -> str:
    """Return a caller's text, cut to a length that fits into a sentence."""
    return text if len(text) <= CLIPPED else text[:CLIPPED] + "..."


def tell_name(name: str) -> str:
    """Return a caller's name, cut as by `clip`; an empty one is made visible."""
    return clip(name) or '""'
