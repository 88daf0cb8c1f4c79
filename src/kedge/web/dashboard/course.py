"""Course of a comparison: the rates of both arms over its whole time, in a bounded number of points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from kedge.core.evidence.rollup import MINUTE, Roll, roll_of
from kedge.core.evidence.windows import METRICS, Sums
from kedge.core.values import Value
from kedge.workspace import Workplace

STEPS = (10, 30, 60, 300, 900, 3_600, 3 * 3_600, 12 * 3_600, 24 * 3_600)
"""Seconds of one point: the least with which the comparison has at most `POINTS`."""
POINTS = 180
BATCH = 5_000
BATCHES = 4
"""Batches of windows in one reading; later readings continue."""
COST = "cost"


class ComparedPair(Value, frozen=True, kw_only=True):
    """The comparison that a course is about."""

    production: int
    compared: int
    salt: str
    paired: bool
    reverse: bool
    """Whether the compared release is the measure, as after a promotion."""

    def covers(self, roll: Roll) -> bool:
        """Return whether counts belong to the comparison."""
        of = (roll.production, roll.candidate, roll.salt, roll.paired)
        return of == (self.production, self.compared, self.salt, self.paired)


class CourseLine(Value, frozen=True):
    """One metric over time, the measure and the release that it judges."""

    metric: str
    at: tuple[float, ...]
    production: tuple[float | None, ...]
    """Share of bad requests, or the mean cost; None: there was no request."""
    candidate: tuple[float | None, ...]


class PointSums:
    """The sums of one point of a course, by arm."""

    def __init__(self) -> None:
        """Start from zero."""
        self.asked = [0, 0]
        self.bad: dict[str, list[int]] = {}
        self.spent: list[Sums] = [(0, 0.0, 0.0), (0, 0.0, 0.0)]

    def add(
        self, asked: Sequence[int], bad: dict[str, Sequence[int]], spent: Sequence[Sums]
    ) -> None:
        """Add counts."""
        for arm in (0, 1):
            self.asked[arm] += asked[arm]
            for metric, cell in bad.items():
                self.bad.setdefault(metric, [0, 0])[arm] += cell[arm]
            mine, more = self.spent[arm], spent[arm]
            self.spent[arm] = (mine[0] + more[0], mine[1] + more[1], mine[2] + more[2])


class Course:
    """The course of one comparison, continued from window to window."""

    def __init__(self, pair: ComparedPair) -> None:
        """Start before the first window."""
        self.pair = pair
        self._cursor = 0
        self._is_begun = False
        self._step_s = STEPS[0]
        self._points: dict[int, PointSums] = {}

    def read(self, place: Workplace, endpoint: str, since: float) -> list[CourseLine]:
        """Read the windows since the last call, and return the lines of the comparison.

        Args:
            place: the state directory.
            endpoint: the endpoint.
            since: Unix time of the comparison's first windows: only the first call reads so far back.

        Raises:
            Unavailable: the evidence cannot be read.
        """
        if not self._is_begun:
            self.add(place.rolls.read(endpoint, since - MINUTE))
            self._is_begun = True
        for _ in range(BATCHES):
            self._cursor, windows = place.windows.read(endpoint, self._cursor, BATCH)
            self.add(replace(roll_of(window), at=window.at) for window in windows)
            if len(windows) < BATCH:
                break
        return self.lines()

    def add(self, rolls: Iterable[Roll]) -> None:
        """Add counts; those of other comparisons are left out."""
        for roll in rolls:
            if not self.pair.covers(roll):
                continue
            spent = roll.costs.get("")
            sums = (spent.production, spent.candidate) if spent else ((0, 0.0, 0.0),) * 2
            asked = roll.exposed.get("", (0, 0))
            bad: dict[str, Sequence[int]] = {
                metric: cells.get("", (0, 0)) for metric, cells in roll.bad.items()
            }
            self._point(roll.at).add(asked, bad, sums)
            while len(self._points) > POINTS and self._step_s < STEPS[-1]:
                self._widen()
        while len(self._points) > POINTS:
            del self._points[min(self._points)]

    def _point(self, at: int) -> PointSums:
        return self._points.setdefault(at - at % self._step_s, PointSums())

    def _widen(self) -> None:
        """Give each point the next longer step."""
        self._step_s = STEPS[STEPS.index(self._step_s) + 1]
        points, self._points = self._points, {}
        for at, point in points.items():
            self._point(at).add(point.asked, dict(point.bad), point.spent)

    def lines(self) -> list[CourseLine]:
        """Return a line for each metric."""
        points = sorted(self._points.items())
        at = tuple(float(second) for second, _ in points)
        arms = (1, 0) if self.pair.reverse else (0, 1)
        metrics = sorted({*METRICS, *(metric for _, point in points for metric in point.bad)})
        found = [
            CourseLine(
                metric, at, *(tuple(_rate(p, metric, arm) for _, p in points) for arm in arms)
            )
            for metric in metrics
        ]
        costs = [tuple(_cost(point.spent[arm]) for _, point in points) for arm in arms]
        if any(value is not None for line in costs for value in line):
            found.append(CourseLine(COST, at, *costs))
        return found


def _rate(point: PointSums, metric: str, arm: int) -> float | None:
    asked = point.asked[arm]
    return min(point.bad.get(metric, [0, 0])[arm] / asked, 1.0) if asked else None


def _cost(spent: Sums) -> float | None:
    return spent[1] / spent[0] if spent[0] else None
