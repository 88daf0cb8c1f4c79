"""Entities: the one spelling of the subject of a request.

The header `kedge-entity`, the field that the policy names, and the command line all spell an entity
here. So one caller meets one release and `kedge log forget` finds it. 42, 42.0 and the texts "42"
and "42.0" are one entity. Texts are compared in Unicode's composed form (NFC), since the same name
is typed in two ways. Blanks around them are ignored, since a header cannot carry them.
"""

from __future__ import annotations

import re
from math import isnan
from typing import Any
from unicodedata import normalize

from kedge.core.errors import BadRequest
from kedge.core.keys import EXACT

MOST_BYTES = 256
"""Longest entity, in bytes of UTF-8: it is stored in memory and in records."""
_BLANKS = " \t"
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.0+)?")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, which headers cannot hold, and lone surrogates, which UTF-8 cannot hold."""
_TEXT_HINT = "an entity is text in UTF-8 without control characters"


def spell(value: Any, *, exact: int = EXACT) -> str | None:
    """Return the text of an entity; None for a missing one: None, NaN, "" and blanks.

    Args:
        value: a string, a number or a boolean of Python.
        exact: the size from which a float can have been rounded when it was read.

    Raises:
        BadRequest: `bad_entity`: the value is a number that is not whole or can have been rounded,
            or a text with control characters; `entity_too_long`.
    """
    if type(value) is str:
        return _spell_text(value)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if isnan(value):
            return None
        if not value.is_integer():
            raise _bad(f"is {value}, which is not a whole number", "send a whole number, or text")
        if abs(value) >= exact:
            raise _bad(
                f"is {value:g}, which may have been rounded",
                "declare the field as int64 or string",
            )
        return str(int(value))
    return _spell_text(str(value))


def spell_header(raw: bytes) -> str | None:
    """Return the entity that the bytes of a header name; None for a missing one.

    Percent signs are text: the bytes are decoded as UTF-8 only.

    Raises:
        BadRequest: as `spell`; also `bad_entity` if the bytes are not UTF-8.
    """
    if len(raw) > MOST_BYTES:
        raise _too_long(len(raw))
    try:
        return _spell_text(raw.decode())
    except UnicodeDecodeError:
        raise _bad(
            "is not UTF-8",
            "send the header's bytes in UTF-8: many clients write Latin-1 unless they are given"
            " bytes",
        ) from None


def _spell_text(value: str) -> str | None:
    if len(value) > MOST_BYTES:
        raise _too_long(len(value.encode(errors="surrogatepass")))
    value = value.strip(_BLANKS)
    if not value.isascii():
        value = normalize("NFC", value)
        size = len(value.encode(errors="surrogatepass"))
        if size > MOST_BYTES:
            raise _too_long(size)
    if not value.isprintable() and (unfit := _UNFIT.search(value)):
        raise _bad(f"has the character U+{ord(unfit[0]):04X}", _TEXT_HINT)
    if value[-1:] == "0" and _WHOLE.fullmatch(value):
        digits = value.partition(".")[0]
        return "0" if digits == "-0" else digits
    return value or None


def _bad(what: str, hint: str) -> BadRequest:
    return BadRequest(f"the entity {what}", code="bad_entity", hint=hint)


def _too_long(size: int) -> BadRequest:
    return BadRequest(
        f"the entity has {size} bytes (limit {MOST_BYTES})",
        code="entity_too_long",
        hint="send a shorter name, or a hash of it",
    )
