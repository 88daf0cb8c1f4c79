"""The stand-in of control: when it is needed, since control keeps ending."""

from __future__ import annotations

from collections import deque

ENDINGS = 3
"""One crash is a crash, and two may have one cause that has passed: the third is a habit."""
WITHIN_S = 600.0
ALIVE_S = 10.0
"""A control that has lived for so long sends its alerts itself. Its imports take a second or two."""


class Endings:
    """The newest ends of control without a stop."""

    def __init__(self) -> None:
        """Know of none."""
        self._at: deque[float] = deque(maxlen=ENDINGS)

    def note(self, now: float) -> None:
        """Note that control ended by itself."""
        self._at.append(now)

    def calls_for_stand_in(self, now: float, alive_since: float | None) -> bool:
        """Whether another process must send alerts; `alive_since` is None while control does not run."""
        if alive_since is not None and now - alive_since >= ALIVE_S:
            return False
        return len(self._at) == ENDINGS and now - self._at[0] <= WITHIN_S
