"""Evidence: tallies, windows and rolls; telemetry, which may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kedge.core.evidence.rollup import Roll
from kedge.core.evidence.windows import Window
from kedge.core.stored.roster import Tally
from kedge.core.values import Beginning


class EvidenceStore(Protocol):
    """Telemetry. It may be lost; it never holds up a flip."""

    def publish(self, tallies: Sequence[Tally]) -> None:
        """Write the tallies over those with the same key."""

    def tallies(self, endpoint: str) -> tuple[Tally, ...]:
        """Everything counted for an endpoint."""


class WindowStore(Protocol):
    """What workers counted by the second, and what the judge made of it. It may be lost."""

    def write(self, windows: Sequence[Window]) -> None:
        """Write the windows; one that is there already stays as it is."""

    def read(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Window, ...]]:
        """The windows of an endpoint that were written after a position, oldest first.

        Returns the position of the last one, and the windows.
        """

    def keep(self, endpoint: str, comparison: str, body: bytes) -> None:
        """Keep what the judge knows of a comparison, over what was kept before."""

    def kept(self, endpoint: str, comparison: str) -> bytes | None:
        """What was kept, if anything."""

    def set_aside(self, endpoint: str, comparison: str, body: bytes) -> str:
        """Rename what was kept and cannot be read, and keep `body` in its place; its new name."""

    def beginning(self) -> Beginning | None:
        """When the store was made; None where that is not known."""

    def skipped(self, endpoint: str) -> int:
        """Windows that this reader passed over, because they cannot be read."""


class RollStore(Protocol):
    """Old windows as minutes and hours: the course of an endpoint's evidence. It may be lost."""

    def age(self, now: float) -> int:
        """Make minutes of old windows and hours of old minutes, drop old hours; how many it took."""

    def read(self, endpoint: str, since: float) -> Sequence[Roll]:
        """The rolls of an endpoint that began at `since` (Unix seconds) or later, oldest first."""
