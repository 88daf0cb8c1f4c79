"""Series: a quantity of a comparison over its whole time, in a bounded number of points."""

from __future__ import annotations

from kedge.core.values import Value

POINTS = 240
"""Limit of points: a line of a chart has about two pixels for each."""
EVERY_S = 5
"""Least seconds between the first points."""


class EvidenceSeries(Value, frozen=True, array_like=True):
    """Points of a quantity, oldest first. Where it is full, every second point is dropped."""

    every_s: int = EVERY_S
    """Least seconds between two points; it doubles whenever the series is full."""
    at: tuple[int, ...] = ()
    """Unix seconds."""
    values: tuple[tuple[float, ...], ...] = ()
    """What was known at that time."""

    def is_due(self, at: float) -> bool:
        """Return whether a point of this time belongs to the series."""
        return not self.at or at - self.at[-1] >= self.every_s

    def plus(self, at: float, *values: float) -> EvidenceSeries:
        """Return the series with one more point."""
        times, points = (*self.at, int(at)), (*self.values, tuple(map(float, values)))
        if len(times) <= POINTS:
            return EvidenceSeries(self.every_s, times, points)
        return EvidenceSeries(self.every_s * 2, times[::2], points[::2])
