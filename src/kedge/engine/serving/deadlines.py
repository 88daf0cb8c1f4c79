"""Deadlines of the candidate, computed from production's own latency: how long a caller waits.

A deadline limits how long a caller waits before production answers instead. It judges nothing. An
answer after the deadline is latency; a failure is what production's own timeout would call one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedge.core.values import Arm, Limits
from kedge.engine.recording.recorder import Recorder, size_of

if TYPE_CHECKING:
    from kedge.engine.serving.pool import Handle

UNKNOWN_DEADLINE_S = 1.0
"""A candidate's deadline until production's own p99 is known."""
DEADLINE_FLOOR_S, DEADLINE_CEILING_S = 0.05, 2.0
"""Bounds of a computed deadline. The ceiling applies to a single row, and to request sizes that
production has not answered yet."""
DEADLINE_RATIO = 2.0
DEADLINE_MIN_ANSWERS = 200
"""Minimum number of production answers for a deadline from their p99: two of them lie above it."""
SILENT_S = 3.0
"""Shortest silence that counts as no response: a process that was paused or swapped out is back
earlier."""
SILENT_RATIO = 4.0
"""How many times production's slowest answer a candidate may be silent: it works on one batch at a
time, which may contain several requests."""


class Deadlines:
    """The deadlines of one snapshot. The recording calls `refresh` once a second."""

    __slots__ = ("_declared_s", "_seen_s", "_slowest_s", "single_s", "sizes", "timeout_s")

    def __init__(self, limits: Limits) -> None:
        own = limits.candidate_deadline_ms
        self._declared_s = own / 1e3 if own is not None else None
        self.timeout_s = limits.timeout_ms / 1e3
        self.single_s = self._declared_s or UNKNOWN_DEADLINE_S
        """Deadline of a request with a single row."""
        self.sizes: dict[int, float] = {}
        """Deadline by request size (`size_of`), for the sizes that production has answered."""
        self._slowest_s = self.timeout_s
        """Duration of production's slowest answer; its timeout until enough answers are known."""
        self._seen_s = 0.0
        """The same, from any number of answers."""

    def refresh(self, recorder: Recorder) -> None:
        """Compute the deadlines from the durations of production's answers so far."""
        slowest, n = recorder.quantile_us(Arm.PRODUCTION, 1.0)
        p99, _ = recorder.quantile_us(Arm.PRODUCTION, 0.99)
        self._seen_s = (slowest or 0) / 1e6
        if slowest is None or p99 is None or n < DEADLINE_MIN_ANSWERS:
            return
        self._slowest_s = slowest / 1e6
        if self._declared_s is not None:
            return
        wished = DEADLINE_RATIO * p99 / 1e6
        self.single_s = min(max(wished, DEADLINE_FLOOR_S), DEADLINE_CEILING_S)
        self.sizes = {size: self._of(size, *known) for size, known in recorder.sized().items()}

    def _of(self, size: int, p99: int, slowest: int, n: int) -> float:
        """Return the deadline of a size that production has answered, limited by its timeout."""
        if n >= DEADLINE_MIN_ANSWERS:
            wished = DEADLINE_RATIO * p99 / 1e6
        else:
            wished = max(self._grown(size), DEADLINE_RATIO * slowest / 1e6)
        return min(max(wished, DEADLINE_FLOOR_S), self.timeout_s)

    def _grown(self, size: int) -> float:
        """Return the deadline of an unknown size, as if every row took as long as a single one."""
        return min(self.single_s * (1 << size), max(DEADLINE_CEILING_S, self.single_s))

    def by_rows(self, rows: int) -> float:
        """Return how long a caller waits for the candidate's answer to this number of rows."""
        if rows <= 1 or self._declared_s is not None:
            return self.single_s
        size = size_of(rows)
        return self.sizes.get(size) or self._grown(size)

    def behind(self, handle: Handle, rows: int, now: float) -> float:
        """Return the deadline of a request that may wait behind a larger one in the process."""
        return max(self.by_rows(rows), self.by_rows(handle.before(now)))

    def patience(self, rows: int) -> float:
        """Return how long a candidate may be silent over this number of rows."""
        usual = max(SILENT_RATIO * self._slowest_s, self.single_s * (1 << size_of(rows)))
        return min(max(SILENT_S, usual), self.timeout_s)

    def copy_patience(self, ours_s: float, deadline_s: float) -> float:
        """Return how long to wait for the answer to a copy of a request.

        A later answer is lost coverage and not a failure, so a few answers of production suffice
        here. `ours_s` is how long production took for this request.
        """
        usual = max(SILENT_RATIO * max(self._seen_s, ours_s), deadline_s)
        return min(max(SILENT_S, usual), self.timeout_s)
