"""Stretches of a reference: how a column varies by itself from one to the next.

A test of shares takes each row for a draw of its own. Requests of one hour share its weather, its
prices and its load, so a window may hold a thousand rows and three draws. So the reference itself
shows what a sound column does. It is cut into stretches about as long as today's window, and today
is compared with their spread (batch means; Schmeiser, Operations Research 1982). A column with
independent rows loses nothing by that: its stretches differ by chance only, and only a spread
beyond chance is added.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Column = NDArray[Any]

LEAST_ROWS = 100
"""Least rows of a stretch: a share of fewer is mostly chance."""
FEWEST = 5
"""Least stretches, for a reference that is not much longer than today: fewer show no spread."""
MOST = 200
"""Most stretches, for a much longer reference: more cost time, and show no more."""
CHANCE = 4.0
"""Standard errors from which a heap of one value is not chance: a stretch has some hundred
values."""
COMMON = 0.05
"""Share of all rows from which one value is common, and not a reading that an hour shares."""


class Clump(NamedTuple):
    """Shares of equal values of a column within a stretch as long as today."""

    own: float
    """Largest share of a stretch with today's value, 0 to 1."""
    shared: float
    """Largest share with any one value that is not common: a reading that requests share."""
    draws: float
    """Number of independent rows that today's rows are worth, up to `LEAST_ROWS`.

    Today's rows are divided by the design effect: the variance of a stretch's share over that of
    rows by chance (Kish, Survey Sampling 1965). The number is at most that of readings in a
    stretch.
    """

    @property
    def usual(self) -> float:
        """Return the larger of both."""
        return max(self.own, self.shared)


class Stretches:
    """A reference in the order of time, cut into stretches as long as today's window."""

    def __init__(self, times: tuple[Floats, Floats] | None, rows: tuple[int, int]) -> None:
        """Choose the number of stretches.

        Args:
            times: of the rows of the reference and of today, seconds, (n,) and (m,); without them the
                rows are independent, and the reference is one stretch.
            rows: n and m.
        """
        self._order = np.argsort(times[0], kind="stable") if times is not None else None
        self._number = 1
        if times is not None and min(rows):
            lengths = [float(np.ptp(each)) for each in times]
            longer = lengths[0] / lengths[1] if lengths[1] > 0 else 1.0
            wanted = min(max(longer, rows[0] / rows[1], FEWEST), MOST)
            self._number = max(min(int(wanted), rows[0] // LEAST_ROWS), 1)

    def of(
        self, column: Column, known: NDArray[np.bool_] | None = None, rows: int = 0
    ) -> list[Column]:
        """Return the stretches of a column of the reference, in the order of time; at least one.

        Args:
            column: (n,).
            known: which rows to cut, (n,); the others are skipped. A stretch has at least
                `LEAST_ROWS` of them, where there are as many.
            rows: number of today's known rows, where the stretches should have no more.
        """
        order = self._order if self._order is not None else np.arange(len(column))
        if known is not None:
            order = order[known[order]]
        number = self._number
        if rows and number > 1:
            number = max(number, min(len(order) // rows, MOST))
        number = max(min(number, len(order) // LEAST_ROWS), 1)
        return np.array_split(column[order], number)

    def beyond_chance(self, shares: list[tuple[float, int]]) -> float:
        """Return the variance of a stretch's share that rows drawn by chance would not have.

        Args:
            shares: of each stretch, 0 to 1, and its rows.
        """
        if len(shares) < 2:
            return 0.0
        values = np.array([share for share, _ in shares])
        mean = float(values.mean())
        chance = mean * (1 - mean) * float(np.mean([1 / max(n, 1) for _, n in shares]))
        return max(float(values.var(ddof=1)) - chance, 0.0)

    def rise(self, held: NDArray[np.bool_], now: float, rows: int) -> tuple[float, float]:
        """Return the rise of a share, and its standard error.

        Today counts as one more stretch, which can differ from the mean as each of them does.

        Args:
            held: which rows of the reference count for the share, (n,).
            now: today's share.
            rows: today's rows.
        """
        before, n = float(held.mean()), len(held)
        parts = self.of(held)
        apart = self.beyond_chance([(float(part.mean()), len(part)) for part in parts])
        chance = before * (1 - before) / n + now * (1 - now) / max(rows, 1)
        return now - before, sqrt(chance + apart * (1 + 1 / len(parts)) + 1e-12)

    def clump(self, column: Floats, value: float, rows: int) -> Clump:
        """Return the share of a stretch with one value: this one, or one that an hour shares.

        A value that many rows have, such as 0, is common: its share does not show whether readings
        are shared.

        Args:
            column: numbers of the reference, NaN for null, (n,).
            value: today's value.
            rows: today's rows without nulls.
        """
        known = np.isfinite(column)
        values, counts = np.unique(column[known], return_counts=True)
        overall = counts / max(known.sum(), 1)
        parts = self.of(column, known, rows)
        own = [(float((part == value).mean()), len(part)) for part in parts if len(part)]
        shared = 0.0
        for part in parts if len(parts) > 1 else ():
            seen, of = np.unique(part, return_counts=True)
            usual = overall[np.searchsorted(values, seen)]
            by_chance = usual + CHANCE * np.sqrt(usual * (1 - usual) / len(part))
            heaps = np.where((usual <= COMMON) & (of > len(part) * by_chance), of, 0)
            shared = max(shared, float(heaps.max(initial=0)) / len(part))
        if not own:
            return Clump(0.0, 0.0, float(LEAST_ROWS))
        mean = float(np.mean([share for share, _ in own]))
        chance = mean * (1 - mean) * float(np.mean([1 / n for _, n in own]))
        alike = 1 + self.beyond_chance(own) / chance if chance else 1.0
        draws = min(rows / alike, 1 / shared if shared else LEAST_ROWS, LEAST_ROWS)
        return Clump(max(share for share, _ in own), shared, draws)

    def spreads(self, column: Floats) -> tuple[float, float]:
        """Return the least and the largest standard deviation of a stretch, without nulls."""
        found = [float(np.std(part)) for part in self.of(column, np.isfinite(column))]
        return min(found), max(found)

    def middles(self, column: Floats) -> tuple[float, float]:
        """Return the least and the largest distance between the quartiles of a stretch."""
        parts = self.of(column, np.isfinite(column))
        found = [float(np.subtract(*np.quantile(part, (0.75, 0.25)))) for part in parts]
        return min(found), max(found)


def stays_away(column: Floats, usual: float, times: Floats | None) -> float:
    """Return the share of rows that are not `usual`, from the first one that is not; 0 to 1.

    An event that comes and goes, such as rain, returns to the usual value in between.

    Args:
        column: today's numbers without nulls, (m,).
        usual: the value.
        times: of the rows, seconds, (m,); without them, of all rows.
    """
    away = column != usual
    if times is not None:
        away = away[np.argsort(times, kind="stable")]
        away = away[int(away.argmax()) :]
    return float(away.mean()) if len(away) else 0.0
