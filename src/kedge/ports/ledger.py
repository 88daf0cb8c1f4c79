"""Ledger: the history, the rows, and the signal that wakes those who follow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kedge.core.release.commands import AnyEvent
from kedge.core.stored.head import Head
from kedge.core.stored.ledger import Book, Change, Entry, Note, Wanted
from kedge.core.values import ActorKind


class Ledger(Protocol):
    """The append-only truth.

    Raises `Unavailable` from every method when the ledger is gone, locked for longer than
    its patience, read-only, or full.
    """

    def read(self, known: Head | None = None) -> Book:
        """Read every endpoint's row, and whether the history still has the entry that is known."""

    def append(
        self,
        endpoint: str,
        events: Sequence[AnyEvent],
        *,
        expect: int,
        by: str,
        reason: str,
        at: str,
        actor: ActorKind | None = None,
    ) -> tuple[Entry, ...]:
        """Append the events and move the row, in one durable transaction.

        `actor` is what `by` is; None: the component that this ledger was opened for.

        Raises:
            Stale: the row is not at `expect` any more; says at which epoch, by whom and why.
        """

    def append_all(
        self,
        changes: Sequence[Change],
        *,
        by: str,
        reason: str,
        at: str,
        head: tuple[str, int] | None = None,
    ) -> tuple[tuple[Entry, ...], ...]:
        """Append to several endpoints and move their rows, and the head of a schema: all or nothing.

        Raises:
            Stale: one of the rows is not where it was expected; says at which epoch, by whom and why.
        """

    def note(self, endpoint: str, note: Note, *, by: str, reason: str, at: str) -> Entry:
        """Append an entry that changes no row."""

    def want(self, wanted: Wanted) -> None:
        """Write (or renew) a wish; drops wishes that ran out."""

    def history(self, endpoint: str, limit: int = 50) -> tuple[Entry, ...]:
        """The newest entries of an endpoint, newest first."""

    def entries(
        self, endpoint: str, what: str, limit: int = 1, *, within: int = 1_000_000
    ) -> tuple[Entry, ...]:
        """The newest entries of one event, or of one kind of note, newest first.

        Looked for among the newest `within` entries of the endpoint.
        """


class Signal(Protocol):
    """A wake-up. It may come for nothing; the ledger is the truth."""

    def wait(self, timeout_s: float) -> bool:
        """Return True when something may have changed, False after `timeout_s`."""

    def wake(self) -> None:
        """Make the present `wait`, or the next, return at once; from any thread or handler."""

    def close(self) -> None:
        """Let go of it."""
