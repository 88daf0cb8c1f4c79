"""Ledger: the history, the rows, and the signal that wakes its followers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kedge.core.release.commands import AnyEvent
from kedge.core.stored.head import Head
from kedge.core.stored.ledger import Book, Change, Entry, Note, Wanted
from kedge.core.values import ActorKind


class Ledger(Protocol):
    """The append-only log of changes, and the rows.

    Every method raises `Unavailable` if the ledger is missing, read-only, full, or locked for
    longer than its timeout.
    """

    def read(self, known: Head | None = None) -> Book:
        """Return every endpoint's row, and whether the history still has the entry `known`."""

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

        `actor` is the kind of `by`; None: the component for which this ledger was opened.

        Raises:
            Stale: the row is no longer at `expect`; names the epoch, actor and reason of the
            change.
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
        """Append to several endpoints and move their rows and a schema's head, all or nothing.

        Raises:
            Stale: a row is not at the expected epoch; names the epoch, actor and reason.
        """

    def note(self, endpoint: str, note: Note, *, by: str, reason: str, at: str) -> Entry:
        """Append an entry that changes no row."""

    def want(self, wanted: Wanted) -> None:
        """Write or renew a wish, and drop expired ones."""

    def history(self, endpoint: str, limit: int = 50) -> tuple[Entry, ...]:
        """Return the newest entries of an endpoint, newest first."""

    def entries(
        self, endpoint: str, what: str, limit: int = 1, *, within: int = 1_000_000
    ) -> tuple[Entry, ...]:
        """Return the newest entries of one event, or of one kind of note, newest first.

        Only the newest `within` entries of the endpoint are searched.
        """


class Signal(Protocol):
    """A wake-up. It may be spurious; only the ledger is authoritative."""

    def wait(self, timeout_s: float) -> bool:
        """Return True when something may have changed, False after `timeout_s`."""

    def wake(self) -> None:
        """Make the present or next `wait` return at once, from any thread or signal handler."""

    def close(self) -> None:
        """Close the signal."""
