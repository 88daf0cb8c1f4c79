"""Pace of the demo's traffic: as many requests a second as this machine can take.

A busy machine answers later. More requests than it can answer only wait for each
other, until the client's own limit ends them; that would say something about the machine and
nothing about kedge. So the rate falls while requests wait, and rises again when they do not.
"""

from __future__ import annotations

import os
import time

LEAST = 8.0
"""Requests a second below which no verdict would come within half an hour."""
WAITING = 24
"""Requests under way from which the machine is taken to be behind: an eighth of a second at most rates,
where a rollback under load takes a twentieth."""
MOST_WAITING = 64
"""Requests under way at which none is sent: a gateway worker refuses them at 256."""
BEHIND_S = 0.5
"""Seconds behind its own schedule from which the client counts as slow, too."""
DOWN, UP = 0.7, 1.15
SETTLE_S, STEADY_S = 1.0, 15.0
"""How long a new rate is given before it falls further, or rises."""
PROBE_S = 0.3
"""Seconds of arithmetic that tell how much of a core this process gets."""
FREE = 0.8
"""Share of a core from which a machine is not called busy."""


class Pace:
    """The rate of an open loop, and how often it had to fall.

    Attributes:
        rate: requests a second now.
        most: requests a second that were asked for.
        slowed: how often the rate fell.
    """

    def __init__(self, most: float) -> None:
        """Begin with the rate that was asked for."""
        self.most = self.rate = most
        self.slowed = 0
        self._changed = float("-inf")

    def next_due(self, due: float, now: float, waiting: int) -> float:
        """Return when the next request is due.

        Args:
            due: when the last one was; seconds of a monotonic clock.
            now: of the same clock.
            waiting: requests that are under way.
        """
        behind = now - due
        if (behind > BEHIND_S or waiting >= WAITING) and now - self._changed >= SETTLE_S:
            self.rate = max(min(LEAST, self.most), self.rate * DOWN)
            self.slowed += 1
            self._changed = now
        elif self.rate < self.most and now - self._changed >= STEADY_S:
            self.rate = min(self.most, self.rate * UP)
            self._changed = now
        # What could not be sent in time is left out: sent at once, it would be a flood.
        return (now if behind > BEHIND_S else due) + 1 / self.rate


def share_of_core() -> float:
    """Return how much of one core this process gets: 1.0 on an idle machine, 0.4 beside four busy loops on two cores."""
    wall, own = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < PROBE_S:
        sum(range(1_000))
    return min(1.0, (time.process_time() - own) / (time.perf_counter() - wall))


def load() -> str:
    """Describe the load of the machine."""
    return f"load {os.getloadavg()[0]:.0f} on {len(os.sched_getaffinity(0))} cores"
