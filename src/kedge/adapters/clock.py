"""The system's clock: the only place where time is read."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """The clock of this machine."""

    def now(self) -> str:
        """The instant, RFC 3339 in UTC with microseconds."""
        return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some start; the same for every process of this host on Linux."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
