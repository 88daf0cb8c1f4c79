"""Correction of labels by a request: the query that requests it, and the person who corrects."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from kedge.core.access import Access
from kedge.core.errors import BadRequest

LONGEST = 128
"""Maximum characters of a name: it is stored with every corrected label."""
_STRICT: Any = {
    "keep_blank_values": True,
    "strict_parsing": True,
    "errors": "strict",
    "max_num_fields": 2,
}
HINT = "POST /api/outcomes/ENDPOINT?correct=true&by=NAME"


def corrector(query: bytes, access: Access) -> str:
    """Return the name of the person who corrects recorded labels; empty if no correction is asked.

    The caller chooses the name, as with KEDGE_ACTOR for the command. What allowed the request is
    recorded beside it.

    Raises:
        BadRequest: `bad_query`: the query has anything else. A misspelt parameter is not ignored,
            because the labels would be joined in another way than the caller meant.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), **_STRICT) if query else []
    except ValueError:
        shown = query[:LONGEST].decode("ascii", "replace")
        raise _refused(f"the query cannot be read, got {shown!r}") from None
    given = dict(pairs)
    if given.keys() - {"correct", "by"} or len(given) < len(pairs):
        names = ", ".join(name for name, _ in pairs)[:LONGEST]
        raise _refused(f"the query may have correct and by, once each, got {names!r}")
    correct = given.get("correct", "false")
    if correct not in ("true", "false"):
        raise _refused(f"correct must be true or false, got {correct[:LONGEST]!r}")
    by = given.get("by", access.name)
    if not by.strip() or len(by) > LONGEST or not by.isprintable():
        raise _refused(f"by must have 1 to {LONGEST} printable characters, got {by[:LONGEST]!r}")
    if "by" in given and correct == "false":
        raise _refused("by names who corrects labels, and needs correct=true")
    return f"{by} ({access.holder})" if correct == "true" else ""


def _refused(why: str) -> BadRequest:
    return BadRequest(why, code="bad_query", hint=HINT)
