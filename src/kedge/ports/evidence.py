"""Evidence: tallies, windows and rolls. It is telemetry, which may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kedge.core.evidence.rollup import Roll
from kedge.core.evidence.windows import Window
from kedge.core.stored.roster import Tally
from kedge.core.values import Beginning


class EvidenceStore(Protocol):
    """The store of tallies. It may be lost, and never delays a flip."""

    def publish(self, tallies: Sequence[Tally]) -> None:
        """Write the tallies over those with the same key."""

    def tallies(self, endpoint: str) -> tuple[Tally, ...]:
        """Return every tally of an endpoint."""


class WindowStore(Protocol):
    """The store of the workers' windows and of the judge's state. It may be lost."""

    def write(self, windows: Sequence[Window]) -> None:
        """Write the windows; an existing one stays unchanged."""

    def read(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Window, ...]]:
        """Return the windows that were written after a position, oldest first.

        The first value is the position of the last one.
        """

    def keep(self, endpoint: str, comparison: str, body: bytes) -> None:
        """Store the judge's state of a comparison, over the earlier one."""

    def kept(self, endpoint: str, comparison: str) -> bytes | None:
        """Return the judge's stored state, or None."""

    def set_aside(self, endpoint: str, comparison: str, body: bytes) -> str:
        """Rename an unreadable stored state, store `body` in its place; return the new name."""

    def beginning(self) -> Beginning | None:
        """Return when the store was made; None if that is not known."""

    def skipped(self, endpoint: str) -> int:
        """Return how many windows this reader skipped because they cannot be read."""


class RollStore(Protocol):
    """The store of rolls: old windows added up to minutes and hours. It may be lost."""

    def age(self, now: float) -> int:
        """Roll old windows into minutes and these into hours; drop old hours; return the count."""

    def read(self, endpoint: str, since: float) -> Sequence[Roll]:
        """Return the rolls that began at `since` (Unix seconds) or later, oldest first."""
