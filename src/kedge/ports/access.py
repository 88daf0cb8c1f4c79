"""Access: the stored tokens and sessions that control compares its callers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from kedge.core.sessions import Session
from kedge.core.tokens import Token


class TokenStore(Protocol):
    """The tokens, in the ledger's database."""

    def stamp(self) -> tuple[int, int, int]:
        """Return a value that differs when any process has committed since."""

    def all(self) -> tuple[Token, ...]:
        """Return every token that was ever created, oldest first."""


class SessionStore(Protocol):
    """The sessions of browsers and the last uses of tokens; both may be lost."""

    def save(self, session: Session, *, instead_of: str = "") -> None:
        """Store a session; remove the one with the digest `instead_of`."""

    def take(self, digest: str) -> Session | None:
        """Remove a session or link and return it; None if there is none."""

    def all(self) -> tuple[Session, ...]:
        """Return every session and link."""

    def note_uses(self, uses: Mapping[int, float]) -> None:
        """Store the last use of tokens, by their number, as Unix time."""
