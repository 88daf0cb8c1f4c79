"""Staleness: values that repeat earlier ones more often than they used to.

A value that is no longer refreshed is plausible, but it is an earlier value. It comes from the
unit's earlier request, the request before, or a request of the reference. The reference shows how
often a sound column repeats itself. A birthday always does, a price of the hour does within the
hour, a measured amount never does. A column that always did shows nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.defects import PROOF, nulls
from kedge.core.diagnosis.stretches import Column, Floats

RISE = 0.3
"""Least rise of the share of repeating rows: a smaller one is a busier day, or a slower caller."""
OFTEN = 0.6
"""Share of repeating rows from which a column is skipped: it cannot rise far enough."""
LEAST_PAIRS = 200
"""Rows that could repeat a value, from which their share differs from chance."""
MANY = 0.5
"""Share of distinct values from which a column is a measurement, and two equal values are a
copy."""


GAPS = 5
"""Parts of the distances in time between a unit's requests: a value that changes daily repeats itself
within the hour, so today's distances are weighed."""

Of = Literal["unit", "last", "row", "reference"]
Pairs = NDArray[np.intp]
"""Pairs of compared rows, (k, 2)."""
Units = NDArray[Any] | None


class Repeats(NamedTuple):
    """Shares of rows in which a column repeats an earlier value."""

    of: Of
    before: float
    now: float
    rows: tuple[int, int]
    """Rows of the reference and of today that could."""

    @property
    def risen(self) -> bool:
        """Return whether the share rose surely, and far."""
        (n, m), was, is_ = self.rows, self.before, self.now
        error = sqrt(was * (1 - was) / n + is_ * (1 - is_) / m + 1e-12)
        return is_ - was > RISE and (is_ - was) / error > PROOF

    @property
    def text(self) -> str:
        """Return the repeats in words."""
        what = {
            "unit": "the value of the same unit's request before",
            "last": "the last value that the unit had in the reference",
            "row": "the value of the request before",
            "reference": "a value that a request of the reference had",
        }[self.of]
        return f"{self.now:.0%} of its values are {what}, {self.before:.0%} in the reference"


class Windows:
    """Units and times of the rows of two windows, and the order that follows from them."""

    def __init__(self, units: tuple[Units, Units], times: tuple[Floats, Floats] | None) -> None:
        """Sort the rows once: by time, and each unit's by time.

        Args:
            units: the unit of each row, (n,) and (m,); None where it is not known.
            times: the time of each row, Unix seconds; None: the order is not known.
        """
        self._times = times
        self._order = None if times is None else [np.argsort(at, kind="stable") for at in times]
        self._pairs: list[Pairs] = []
        self._met = np.empty((0, 2), dtype=np.intp)
        if self._order is None or units[0] is None or units[1] is None:
            return
        last: dict[Any, int] = {}
        self._pairs.append(_successive(units[0], self._order[0], last)[0])
        pairs, self._met = _successive(units[1], self._order[1], {}, last)
        self._pairs.append(pairs)

    def repeats(
        self, before: Mapping[str, Column], now: Mapping[str, Column]
    ) -> dict[str, Repeats]:
        """Return the columns that repeat earlier values more often than they did.

        Requests that are sent twice repeat every column. So a rise in most of the columns that
        could repeat is a change of the traffic, not a fault of a column.

        Args:
            before: of the reference, (n,) each, as `defects.plain` has them.
            now: today's, (m,) each.
        """
        found: dict[str, Repeats] = {}
        for ask in (self._by_unit, self._last, self._standing, self._copied):
            shares = {
                name: pair
                for name, one in before.items()
                if name in now and (pair := ask(one, now[name])) is not None
            }
            able = {
                name: pair
                for name, pair in shares.items()
                if min(pair.rows) >= LEAST_PAIRS and pair.before <= OFTEN
            }
            risen = {name: pair for name, pair in able.items() if pair.risen}
            if len(risen) * 2 <= len(able):
                found = {**risen, **found}
        return found

    def _by_unit(self, before: Column, now: Column) -> Repeats | None:
        """Return the repeats in a unit's successive requests, at today's distances in time."""
        if not self._pairs or self._times is None:
            return None
        same = [
            _equal(column, pairs, column)
            for column, pairs in zip((before, now), self._pairs, strict=True)
        ]
        gaps = [
            at[pairs[:, 1]] - at[pairs[:, 0]]
            for at, pairs in zip(self._times, self._pairs, strict=True)
        ]
        known = [~np.isnan(each) for each in same]
        if not known[0].any() or not known[1].any():
            return None
        cuts = np.quantile(gaps[0][known[0]], np.linspace(0, 1, GAPS + 1)[1:-1])
        of = [np.searchsorted(cuts, gap) for gap in gaps]
        was = 0.0
        for part in range(GAPS):
            here = same[0][known[0] & (of[0] == part)]
            weight = float((of[1][known[1]] == part).mean())
            was += weight * float(here.mean() if len(here) else same[0][known[0]].mean())
        return Repeats(
            "unit", was, float(same[1][known[1]].mean()), (int(known[0].sum()), int(known[1].sum()))
        )

    def _last(self, before: Column, now: Column) -> Repeats | None:
        """Return a unit's first value of today against its last of the reference."""
        if not self._pairs:
            return None
        return _repeats(
            "last", _equal(before, self._pairs[0], before), _equal(before, self._met, now)
        )

    def _standing(self, before: Column, now: Column) -> Repeats | None:
        if self._order is None or not _measured(before):
            return None
        pairs = [np.stack([order[:-1], order[1:]], axis=1) for order in self._order]
        return _repeats("row", _equal(before, pairs[0], before), _equal(now, pairs[1], now))

    def _copied(self, before: Column, now: Column) -> Repeats | None:
        """Return the repeats of half of the reference in the other, and in as much of today."""
        if not _measured(before):
            return None
        one, two = before[0::2], before[1::2]
        was, is_ = (
            np.where(np.isfinite(asked), np.isin(asked, two), np.nan) for asked in (one, now)
        )
        return _repeats("reference", was, is_)


def _successive(
    units: NDArray[Any],
    order: NDArray[np.intp],
    last: dict[Any, int],
    earlier: Mapping[Any, int] | None = None,
) -> tuple[Pairs, Pairs]:
    """Return pairs of a unit's successive rows; and of `earlier` rows and its first."""
    pairs, met = [], []
    whose = units.tolist()
    for at in order.tolist():
        unit = whose[at]
        if unit is None or unit == "":
            continue
        if unit in last:
            pairs.append((last[unit], at))
        elif earlier is not None and unit in earlier:
            met.append((earlier[unit], at))
        last[unit] = at
    found = [np.array(each, dtype=np.intp).reshape(-1, 2) for each in (pairs, met)]
    return found[0], found[1]


def _equal(one: Column, pairs: Pairs, two: Column) -> Floats:
    """Return 1 where the two rows of a pair have the same value, else 0; NaN where one has none."""
    a, b = one[pairs[:, 0]], two[pairs[:, 1]]
    return np.where(nulls(a) | nulls(b), np.nan, a == b)


def _measured(column: Column) -> bool:
    """Return whether a column has so many values that two equal ones are not chance."""
    if column.dtype.kind == "O":
        return False
    seen = column[np.isfinite(column)]
    return len(seen) >= LEAST_PAIRS and len(np.unique(seen)) > MANY * len(seen)


def _repeats(of: Of, before: Floats, now: Floats) -> Repeats | None:
    sides = [each[~np.isnan(each)] for each in (before, now)]
    if not len(sides[0]) or not len(sides[1]):
        return None
    return Repeats(
        of, float(sides[0].mean()), float(sides[1].mean()), (len(sides[0]), len(sides[1]))
    )
