"""Names of endpoints and models: one type, since they become parts of paths, URLs and commands."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from kedge.core.errors import Refused

RULE = "a name starts with a letter, has letters, digits, - and _, and at most 40 of them"
"""Forty letters leave room for a release and a copy in the name of a Unix socket."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
"""Digits of a version, a release or an entry: the database holds no longer number."""
_LABEL = re.compile(r"[vr]\d{1,18}", re.ASCII)
"""The spelling of a version or a release."""
_T = TypeVar("_T")


def is_name(text: str) -> bool:
    """Return whether a text can name an endpoint or a model."""
    return NAME.fullmatch(text) is not None


def check_name(text: str) -> None:
    """Raise unless a text can name an endpoint or a model.

    Raises:
        Refused: `bad_name`.
    """
    if not is_name(text):
        raise Refused(
            f"{text[:80]!r} cannot name an endpoint: {RULE}",
            code="bad_name",
            hint="choose such a name",
        )


def read_number(text: str) -> int | None:
    """Return the number in v2, r7 or the head of a chain; None if the text is not a number."""
    return int(text) if _NUMBER.fullmatch(text) is not None else None


def nearest(text: str, known: Iterable[str]) -> str:
    """Return the known word that a text was probably meant to be; empty if none is near."""
    by_lower = {word.lower(): word for word in known}
    found = difflib.get_close_matches(text.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else ""


def unknown_endpoint(text: str, known: Iterable[str], *, configured: bool = False) -> Refused:
    """Return the refusal of an unknown endpoint, in the same words for every command.

    Args:
        text: the given name.
        known: the existing endpoints.
        configured: whether kedge.toml names it, although no `kedge apply` put it in force yet.
    """
    names = sorted(known)
    if configured:
        hint = "kedge.toml names it: kedge apply brings it into force"
    elif not names:
        hint = (
            "there is none yet: kedge init NAME adds one to kedge.toml, kedge apply brings it into"
            " force"
        )
    else:
        near = nearest(text, names)
        hint = f"did you mean {near}? " if near else ""
        if _LABEL.fullmatch(text) is not None:
            hint = f"write the endpoint before {text}: {names[0]} {text}; "
        hint += f"known are: {', '.join(names)}"
        hint += "; kedge init NAME adds another one"
    return Refused(
        f"no endpoint {text[:80] or repr(text)}",
        code="unknown_endpoint",
        hint=hint,
        details={"known": names},
    )


def get_known(known: Mapping[str, _T], endpoint: str) -> _T:
    """Return the value of an endpoint.

    Raises:
        Refused: `unknown_endpoint`.
    """
    if endpoint not in known:
        raise unknown_endpoint(endpoint, known)
    return known[endpoint]


def check_segment(text: str, fields: Iterable[str], endpoint: str) -> None:
    """Raise if no field of this name splits an endpoint's evidence.

    Raises:
        Refused: `unknown_segment`.
    """
    known = list(fields)
    if any(text.startswith(f"{field}=") for field in known):
        return
    hint = f"write FIELD=VALUE; the fields are: {', '.join(known)}"
    if not known:
        hint = (
            f'segments = ["FIELD"] under [endpoints.{endpoint}] names the fields, then kedge apply'
        )
    raise Refused(f"{endpoint} has no segment {text[:80]!r}", code="unknown_segment", hint=hint)


def read_release(text: str) -> int:
    """Return the number of a release that is written as r7.

    Raises:
        Refused: `unknown_release`.
    """
    number = read_number(text.removeprefix("r"))
    if number is None:
        raise Refused(
            f"{text[:80]!r} is not a release",
            code="unknown_release",
            hint="releases are written r7",
        )
    return number
