"""Text of tokens: a list of them, and the permissions of a new one."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.text.layout import get_width, table
from kedge.operations.tokens import CreatedToken, ListedToken


def tokens_text(found: Sequence[ListedToken]) -> str:
    """Return tokens as text, one line each."""
    if not found:
        return ""
    head = ["name", "may", "endpoints", "expires", "last used", ""]
    rows = [get_cells(one) for one in found]
    return "\n".join(table([head, *rows], get_width(), right=[False] * len(head)))


def get_cells(one: ListedToken) -> list[str]:
    """Return a token in six cells; the last is empty for a valid one."""
    return [
        one.name,
        ", ".join(_grants(one)),
        "all" if one.endpoints is None else ", ".join(one.endpoints),
        _day(one.expires_at, "never"),
        _day(one.last_used_at, "-"),
        "" if one.state == "valid" else one.state,
    ]


def created_text(made: CreatedToken) -> str:
    """Return what a new token may do, and how to use it."""
    where = "all endpoints" if made.endpoints is None else ", ".join(made.endpoints)
    return (
        f"token {made.name}: {', '.join(_grants(made))}, {where},"
        f" expires {_day(made.expires_at, 'never')}\n"
        "It is shown this once. Store it in a file of mode 0600, and name that in KEDGE_TOKEN_FILE."
    )


def _grants(one: ListedToken) -> list[str]:
    return [*([one.role.value] if one.role is not None else []), *(s.value for s in one.scopes)]


def _day(at: str | None, otherwise: str) -> str:
    return otherwise if at is None else at[:10]
