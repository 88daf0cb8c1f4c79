"""Course of a comparison: the rates of bad requests of both arms in the last minutes."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from kedge.core.evidence.rollup import Roll, roll_of, rolled
from kedge.core.evidence.windows import METRICS
from kedge.core.values import Value
from kedge.workspace import Workplace

STEP_S = 10
"""Seconds of one point."""
POINTS = 180
"""Points that are kept: half an hour."""
BATCH = 5_000
BATCHES = 4
"""Batches of windows in one reading; later readings continue."""


class CourseLine(Value, frozen=True):
    """The rate of one metric over time, by arm."""

    metric: str
    at: tuple[float, ...]
    production: tuple[float | None, ...]
    """Share of bad requests; None: there was no request."""
    candidate: tuple[float | None, ...]


class Course:
    """The course of one endpoint, continued from window to window."""

    def __init__(self) -> None:
        """Start before the first window."""
        self._cursor = 0
        self._rolls: tuple[Roll, ...] = ()

    def read(self, place: Workplace, endpoint: str, pair: tuple[int, int]) -> list[CourseLine]:
        """Read the windows since the last call, and return the lines of a comparison.

        Raises:
            Unavailable: the evidence cannot be read.
        """
        fresh: list[Roll] = []
        for _ in range(BATCHES):
            self._cursor, windows = place.windows.read(endpoint, self._cursor, BATCH)
            fresh += [replace(roll_of(w), at=w.at - w.at % STEP_S) for w in windows]
            if len(windows) < BATCH:
                break
        if fresh:
            kept = rolled((*self._rolls, *fresh), STEP_S)
            oldest = kept[-1].at - STEP_S * POINTS
            self._rolls = tuple(roll for roll in kept if roll.at >= oldest)
        mine = [r for r in self._rolls if (r.production, r.candidate) == pair]
        return lines_of(mine)


def lines_of(rolls: list[Roll]) -> list[CourseLine]:
    """Return a line for each metric."""
    metrics = sorted({*METRICS, *(metric for roll in rolls for metric in roll.bad)})
    return [
        CourseLine(
            metric,
            tuple(float(roll.at) for roll in rolls),
            tuple(_rate(roll.exposed, roll.bad.get(metric, {}), 0) for roll in rolls),
            tuple(_rate(roll.exposed, roll.bad.get(metric, {}), 1) for roll in rolls),
        )
        for metric in metrics
    ]


def _rate(
    exposed: Mapping[str, tuple[int, int]], bad: Mapping[str, tuple[int, int]], arm: int
) -> float | None:
    asked = exposed.get("", (0, 0))[arm]
    return min(bad.get("", (0, 0))[arm] / asked, 1.0) if asked else None
