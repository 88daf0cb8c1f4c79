"""Alerts and the channels to their recipients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kedge.core.alerts.alerts import Alert, Message, Raise, SuccessAnnouncement
from kedge.core.links import PageLinks
from kedge.core.stored.ledger import Entry


class AlertStore(Protocol):
    """The alerts, in the ledger's database: they survive whatever the ledger survives.

    Every method raises `Unavailable`, as the ledger does.
    """

    def news(self, after: int, limit: int) -> tuple[Entry, ...]:
        """Return the ledger's entries after this one that raised no alert yet, oldest first."""

    def raise_all(
        self,
        found: Sequence[tuple[str, Raise]],
        *,
        by: str,
        at: str,
        now: float,
        seen: int | None = None,
        announced: Sequence[SuccessAnnouncement] = (),
    ) -> tuple[Alert, ...]:
        """Open an alert for each (endpoint, subject) that has none open, and return the new ones.

        `seen`: the patrol has read the entries up to this one, in the same transaction. Nothing is
        raised or announced if another process has read them.
        """

    def announcements(self) -> tuple[SuccessAnnouncement, ...]:
        """Return the announcements that are still to be sent, oldest first."""

    def change_announcement(
        self, seq: int, edit: Callable[[SuccessAnnouncement], SuccessAnnouncement]
    ) -> SuccessAnnouncement | None:
        """Let `edit` change an announcement while no other process writes; None: not found."""

    def finish_announcement(self, seq: int) -> None:
        """Record that nothing is left to send of an announcement."""

    def adopt(self, alert: Alert, *, by: str) -> Alert:
        """Number and store an alert that began without a ledger, unless a like one is open."""

    def change(
        self, number: int, edit: Callable[[Alert], Alert], *, by: str, at: str
    ) -> Alert | None:
        """Let `edit` change an alert while no other process writes; None: not found.

        An acknowledgement or an end is also recorded as a note in the history.
        """

    def finish(self, number: int) -> None:
        """Record that nothing is left to do about an alert."""

    def live(self) -> tuple[Alert, ...]:
        """Return every alert that may still need an action, in order of number."""

    def listed(self, endpoint: str | None, *, over: bool, limit: int) -> tuple[Alert, ...]:
        """Return alerts, newest first: the open ones, or all of them with `over`."""

    def find(self, number: int) -> Alert | None:
        """Return the alert with this number, or None."""


class Channels(Protocol):
    """The channels to the alert recipients."""

    timeout_s: float
    """Timeout of one whole attempt, in seconds."""
    links: PageLinks
    """The addresses of pages, for messages."""

    def send(self, url: str, message: Message) -> None:
        """Send a message, and return when the channel has accepted it.

        Raises:
            KedgeError: the channel did not accept it; the message contains no secret.
        """
