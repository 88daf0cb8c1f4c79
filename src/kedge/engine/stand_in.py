"""Stand-in of control: when it is needed because control keeps ending."""

from __future__ import annotations

from collections import deque

ENDINGS = 3
"""Ends of control from which a stand-in is needed. One crash is one crash, and two may have one
cause that has passed: the third shows a pattern."""
WITHIN_S = 600.0
ALIVE_S = 10.0
"""Lifetime from which control sends its alerts itself. Its imports take a second or two."""


class Endings:
    """The newest ends of control without a stop."""

    def __init__(self) -> None:
        """Start with no ends."""
        self._at: deque[float] = deque(maxlen=ENDINGS)

    def note(self, now: float) -> None:
        """Note that control ended by itself."""
        self._at.append(now)

    def calls_for_stand_in(self, now: float, alive_since: float | None) -> bool:
        """Return whether a stand-in must send alerts; `alive_since` is None if control is down."""
        if alive_since is not None and now - alive_since >= ALIVE_S:
            return False
        return len(self._at) == ENDINGS and now - self._at[0] <= WITHIN_S
