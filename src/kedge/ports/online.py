"""Online store: values by key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class OnlineStore(Protocol):
    """Values by key, one packed row each, in namespaces that are generations of a view."""

    def write(self, namespace: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """Upsert rows; how many. Writing them again changes nothing."""

    def read(self, namespace: str, keys: Sequence[str]) -> list[bytes | None]:
        """The rows of these keys, in their order; None where there is none.

        Raises:
            Unavailable: `online_unavailable`.
        """

    def drop(self, namespace: str) -> None:
        """Remove a namespace; nothing when it is not there."""

    def namespaces(self) -> tuple[str, ...]:
        """Those that are there."""

    def count(self, namespace: str) -> int:
        """How many keys a namespace has; 0 when it is not there. May take time: for people."""
