"""Online store: values by key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class OnlineStore(Protocol):
    """Values by key, one packed row each, in namespaces that are generations of a view."""

    def write(self, namespace: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """Upsert rows and return their number. Writing them again changes nothing."""

    def read(self, namespace: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return the rows of these keys, in their order; None for a missing one.

        Raises:
            Unavailable: `online_unavailable`.
        """

    def drop(self, namespace: str) -> None:
        """Remove a namespace, if it exists."""

    def namespaces(self) -> tuple[str, ...]:
        """Return the existing namespaces."""

    def count(self, namespace: str) -> int:
        """Return the number of keys in a namespace; 0 if missing. May be slow: for display."""
