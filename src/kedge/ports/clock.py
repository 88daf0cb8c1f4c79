"""Clock: the source of time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The source of time."""

    def now(self) -> str:
        """Return the present time, RFC 3339 in UTC with microseconds."""

    def unix(self) -> float:
        """Return seconds since 1970, to compare times that different processes wrote."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start, for durations and deadlines."""

    def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""
