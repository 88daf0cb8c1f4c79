"""Alerts and the channels to their recipients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kedge.core.alerts.alerts import Alert, Message, Raise
from kedge.core.stored.ledger import Entry


class AlertStore(Protocol):
    """Alerts, in the ledger's database: they survive whatever the ledger survives.

    Raises `Unavailable` from every method as the ledger does.
    """

    def news(self, after: int, limit: int) -> tuple[Entry, ...]:
        """The ledger's entries after this one that raised no alert yet, oldest first."""

    def raise_all(
        self,
        found: Sequence[tuple[str, Raise]],
        *,
        by: str,
        at: str,
        now: float,
        seen: int | None = None,
    ) -> tuple[Alert, ...]:
        """Open an alert for each (endpoint, thing) that has none open; those that are new.

        `seen`: up to this entry the news have been looked at, in the same transaction; nothing is
        raised when another process has looked at them.
        """

    def adopt(self, alert: Alert, *, by: str) -> Alert:
        """Number and keep an alert that began without a ledger; or the like one that is open."""

    def change(
        self, number: int, edit: Callable[[Alert], Alert], *, by: str, at: str
    ) -> Alert | None:
        """Let `edit` change an alert while no other process writes; what it is then. None: there is none.

        An acknowledgement or an end becomes a note in the history too.
        """

    def finish(self, number: int) -> None:
        """Say that nothing is left to do about an alert."""

    def live(self) -> tuple[Alert, ...]:
        """Every alert about which something may be left to do, in order of number."""

    def listed(self, endpoint: str | None, *, over: bool, limit: int) -> tuple[Alert, ...]:
        """Alerts, newest first: the open ones, or with `over` all of them."""

    def find(self, number: int) -> Alert | None:
        """The alert of this number."""


class Channels(Protocol):
    """The channels to the alert recipients."""

    timeout_s: float
    """Seconds of one attempt as a whole."""

    def send(self, url: str, message: Message) -> None:
        """Say something, and return when the other end has taken it.

        Raises:
            KedgeError: it has not; without any secret in its words.
        """
