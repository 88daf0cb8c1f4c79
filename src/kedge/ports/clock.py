"""Clock: where time comes from."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> str:
        """The instant, RFC 3339 in UTC with microseconds."""

    def unix(self) -> float:
        """Seconds since 1970, for comparing instants written by different processes."""

    def monotonic(self) -> float:
        """Seconds since some start; for durations and deadlines."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
