"""The system's clock: the only module that reads the time."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path

from kedge.core.time.instants import stamp
from kedge.system.pause import pause

BOOT = Path("/proc/sys/kernel/random/boot_id")
TIME = Path("/proc/self/ns/time")
"""Link whose target names the time namespace: within one, monotonic clocks are the same."""


class SystemClock:
    """The clock of this machine."""

    @cached_property
    def boot(self) -> str:
        """Return an id of the monotonic clock that processes share; empty if it is unknown."""
        try:
            boot = BOOT.read_text().strip()
        except OSError:
            return ""
        try:
            return f"{boot} {TIME.readlink()}"
        except OSError:  # a kernel without time namespaces
            return boot

    def now(self) -> str:
        """Return the current time, RFC 3339 in UTC with microseconds."""
        return stamp(time.time())

    def unix(self) -> float:
        """Return the seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some start; the same for every process of this host on Linux."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        pause(seconds)
