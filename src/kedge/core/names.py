"""Names of endpoints and models: one type, since they become parts of paths, URLs and commands."""

from __future__ import annotations

import re

from kedge.core.errors import Refused

RULE = "a name starts with a letter, has letters, digits, - and _, and at most 40 of them"
"""Forty letters leave room for a release and a copy in the name of a Unix socket."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


def is_name(text: str) -> bool:
    """Whether a text can name an endpoint or a model."""
    return NAME.fullmatch(text) is not None


def check_name(text: str) -> None:
    """Raise unless a text can name an endpoint or a model.

    Raises:
        Refused: `bad_name`.
    """
    if not is_name(text):
        raise Refused(f"{text[:80]!r} cannot name an endpoint: {RULE}", code="bad_name",
                      hint="choose such a name")  # fmt: skip
