"""Copies of answered requests: collected on the event loop, and sent together.

A copy is made after the caller's answer has left. After a promotion, copies are collected for a
quarter of a second. On a busy core, what counts is how many callers the copies delay, and one burst
delays fewer than many single copies. A candidate's copies are not collected, since it is judged by
the duration of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

GATHER_S = 0.25
"""How long copies are collected: a few bursts a second delay few requests."""
GATHER_BYTES = 64 << 10
"""Collected bytes that are sent at once: a quarter of what a process may lag behind with. Large
requests therefore do not stay in memory."""


class Copies:
    """The copies that wait to be sent. They belong to one event loop."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        """Whether the next turn of the loop sends all copies."""

    def add(self, give: Callable[[], None], size: int, *, most: int) -> None:
        """Schedule a copy: it is sent after this turn of the loop at the earliest.

        Args:
            give: sends it. It must not raise.
            size: its bytes.
            most: limit of collected copies; 1: collect none.
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
        """Send all waiting copies: what one turn of the loop sends is one write."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, False
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        for give in waiting:
            give()
