"""Absence of production's processes: its requests wait until one is started again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MOST = 64
"""Limit of waiting requests of one release in one worker: a quarter of `max_in_flight`, so that the
requests of other endpoints keep their places."""
LASTS_S = 30.0
"""Longest wait for a process. A load takes seconds; a release whose processes keep dying must not
make every caller wait."""
LOOK_S = 0.02


class Absence:
    """The time since the last process of a release was lost, on one worker."""

    __slots__ = ("_since", "_waiting")

    def __init__(self) -> None:
        self._since: float | None = None
        self._waiting = 0

    def over(self) -> None:
        """Note that a process answered."""
        self._since = None

    async def wait(
        self, is_there: Callable[[], bool], monotonic: Callable[[], float], until: float
    ) -> bool:
        """Wait until a process is there; return False if it is not worth it, or took too long."""
        now = monotonic()
        if self._since is None:
            self._since = now
        until = min(until, self._since + LASTS_S)
        if self._waiting >= MOST:
            return False
        self._waiting += 1
        try:
            while not is_there():
                if monotonic() >= until:
                    return False
                await asyncio.sleep(LOOK_S)
        finally:
            self._waiting -= 1
        return True
