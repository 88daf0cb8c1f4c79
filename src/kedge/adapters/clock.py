"""The system's clock: the only place where time is read."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path

from kedge.core.time.instants import stamp
from kedge.system.pause import pause

BOOT = Path("/proc/sys/kernel/random/boot_id")
TIME = Path("/proc/self/ns/time")
"""Its target names the time namespace: within one, monotonic clocks are the same."""


class SystemClock:
    """The clock of this machine."""

    @cached_property
    def boot(self) -> str:
        """What processes have in common that share this monotonic clock; empty where that is not known."""
        try:
            boot = BOOT.read_text().strip()
        except OSError:
            return ""
        try:
            return f"{boot} {TIME.readlink()}"
        except OSError:  # a kernel without them
            return boot

    def now(self) -> str:
        """The instant, RFC 3339 in UTC with microseconds."""
        return stamp(time.time())

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some start; the same for every process of this host on Linux."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        pause(seconds)
