"""Copies of answered requests: collected on the loop, and given away together.

A copy is made after the caller's answer has left. After a promotion copies are collected for a
quarter of a second. On a core that has no time to spare, what counts is how many callers they meet,
and one burst meets fewer than many single ones. A candidate's copies are not collected, since it
is judged by how long each takes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

GATHER_S = 0.25
"""How long copies are collected: a few bursts a second meet few of the requests."""
GATHER_BYTES = 64 << 10
"""Collected bytes that go at once: a quarter of what a process may lag behind with, and large
requests are not kept in memory."""


class Copies:
    """What waits to be given away. It belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        """Whether the next turn of the loop gives everything away."""

    def add(self, give: Callable[[], None], size: int, *, most: int) -> None:
        """Have a copy given away soon: after this turn of the loop at the earliest.

        Args:
            give: gives it away. It may not raise.
            size: its bytes.
            most: how many may be collected; 1: none.
        """
        self._waiting.append(give)
        self._bytes += size
        loop = asyncio.get_running_loop()
        if len(self._waiting) >= most or self._bytes >= GATHER_BYTES:
            if not self._due:
                self._due = True
                loop.call_soon(self.flush)
        elif self._timer is None:
            self._timer = loop.call_later(GATHER_S, self.flush)

    def flush(self) -> None:
        """Give everything away that waits: what is sent in one turn of the loop is one write."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, False
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        for give in waiting:
            give()
