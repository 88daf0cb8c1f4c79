"""Bursts: many bad units in one second are one event.

A process that pauses for a moment fails every request under way. If each of them counted, a healthy
candidate whose process pauses every two hours would be rolled back on most days.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import floor, sqrt

HISTORY_S = 600
"""Seconds of production's own bad units that define a burst."""
SETTLED_S, STEADY_S = 1, 30
"""Least seconds of such a mean: for the candidate's bursts, and for production's own. With ten, the
first seconds of a step would contain no failures, and any two would be a burst."""
SPREAD = 4.5
"""Standard deviations above its mean at which a second is a burst: 1 of 300,000 by chance. With 3.5 a
candidate with five times the errors loses a tenth of its evidence. With two units more allowed instead,
pauses of a process roll 3 % of identical candidates back (`bench/detection.py`)."""


class History:
    """Production's bad units of the last ten minutes: callers, and requests without an entity."""

    def __init__(self, kept: Iterable[tuple[float, int, int]] = ()) -> None:
        self._past: deque[tuple[float, int, int]] = deque()
        self._callers = self._keyless = 0
        for one in kept:
            self.add(one)

    def add(self, one: tuple[float, int, int]) -> None:
        """Add a second: its time, and the number of each."""
        self._past.append(one)
        self._callers += one[1]
        self._keyless += one[2]

    def recent(self, at: float) -> tuple[int, int]:
        """Return the number of each in the ten minutes before."""
        past = self._past
        while past and past[0][0] < at - HISTORY_S:
            _, callers, keyless = past.popleft()
            self._callers -= callers
            self._keyless -= keyless
        return self._callers, self._keyless

    def kept(self) -> tuple[tuple[float, int, int], ...]:
        """Return every second, oldest first."""
        return tuple(self._past)


def allowed(bad: int, expected: float) -> int | None:
    """Return how many of one second's bad units count singly; None: all, as it is no burst.

    A burst is more than production's own bad units make likely even for a candidate three times as
    bad. The number expected of such a candidate counts as usual, and one more stands for the rest.
    """
    mean = 3 * expected
    return floor(mean) if bad > 1 + floor(mean + SPREAD * sqrt(mean)) else None
