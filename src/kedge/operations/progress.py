"""Progress of a command that takes longer than a second: its share done, and the time left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import ceil
from typing import NamedTuple

FIRST_S = 1.0
"""Time without a progress message: a shorter command needs none."""
EVERY_S = 5.0
DRAWN_S = 0.2
"""The same intervals where progress is drawn in place."""


class Advance(NamedTuple):
    """How far a task is."""

    done: int
    total: int
    """0: unknown."""
    text: str
    """The same in words, with the time left."""


class Meter(ABC):
    """A receiver of messages that draws progress in place, as a terminal can."""

    @abstractmethod
    def __call__(self, text: str) -> None:
        """Print a message."""

    @abstractmethod
    def move(self, advance: Advance) -> None:
        """Draw how far a task is, over what was drawn before."""


class Progress:
    """Reports at intervals how much of a task is done."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float], what: str, total: int = 0
    ) -> None:
        """Start at zero.

        Args:
            say: called with each message; a `Meter` draws them in place, and more often.
            clock: monotonic seconds.
            what: the counted things, with a verb: "labels read".
            total: their number. 0: unknown.
        """
        self._say, self._clock, self._what, self._total = say, clock, what, total
        self._meter = say if isinstance(say, Meter) else None
        self._began = clock()
        self._due = self._began + (DRAWN_S if self._meter else FIRST_S)
        self._done = 0

    def add(self, count: int = 1, note: str = "") -> None:
        """Add a count of things done since the last call; `note` follows the message."""
        self._done += count
        now = self._clock()
        if now < self._due:
            return
        self._due = now + (DRAWN_S if self._meter else EVERY_S)
        of = f" of {self._total:,}" if self._total else ""
        text = f"{self._done:,}{of} {self._what}{note}{self._left(now)}"
        if self._meter is not None:
            self._meter.move(Advance(self._done, self._total, text))
        else:
            self._say(text)

    def _left(self, now: float) -> str:
        if not 0 < self._done < self._total:
            return ""
        left_s = (now - self._began) / self._done * (self._total - self._done)
        return f"; about {duration(left_s)} left"


def duration(seconds: float) -> str:
    """Return a duration for people, rounded up: 20 s, 3 min, 2.5 h."""
    if seconds < 60:
        return f"{max(ceil(seconds), 1)} s"
    return f"{ceil(seconds / 60)} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
