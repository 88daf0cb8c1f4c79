"""Bets on the cost of units, production against candidate: formulas over arrays.

The theory of operation is `kedge.core.evidence.cost_judge`'s; this module computes each unit's
addition to each bet, selects the stored units, and bins costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, inf, log, sqrt
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kedge.core.evidence.stats import Floats, log_mixture
from kedge.core.evidence.units import picks
from kedge.core.evidence.windows import CANDIDATE, PRODUCTION, CallerCost, CostCell

BETS: Floats = np.geomspace(0.02, 0.9, 7)
"""Bets, as shares of the largest one that stays solvent. The best bet is about the gap over the
variance; neighbours a factor 1.9 apart lose less than a tenth of the growth between them."""
TRACKED = 100_000
"""Most callers that are distinguished: 3 MB of arrays. Beyond it a hash leaves out half of them."""
PENDING = 16_384
"""Reports of callers that are collected before they are sorted into the arrays."""
WHOLE = (1 << 64) - 1
"""The whole range of `picks`."""
LEARNERS = 26
"""Parts of 256 of the callers from which the cap and the centre are learned. A tenth costs a tenth
of the power."""
BIN_RATIO = 1.05
"""Width of a bin of costs. Bins carry sums as well, so a wider bin costs only the second order."""
SMALLEST = 1e-12
"""Cost below which all are in the lowest bin; a learned cap is at least this."""
LARGEST_BIN = 1_133
"""The bin of 1e12 and all larger costs."""
EDGES: Floats = np.array([0.0, *(SMALLEST * BIN_RATIO**k for k in range(LARGEST_BIN)), inf])
"""Lower edge of each bin; the next one is its upper edge."""

Ints = NDArray[np.int64]


# ---------------------------------------------------------------- units


def bin_of(cost: float) -> int:
    """Return the bin of a cost: 0 below `SMALLEST`, then `BIN_RATIO` wide each."""
    if cost < SMALLEST:
        return 0
    return min(1 + floor((log(cost) - log(SMALLEST)) / log(BIN_RATIO)), LARGEST_BIN)


def fewest(callers: Sequence[CallerCost], most: int) -> tuple[CallerCost, ...]:
    """Return at most `most` callers: those with the smallest `picks`."""
    if len(callers) <= most:
        return tuple(callers)
    kept = np.argsort(picks(one.unit for one in callers), kind="stable")[:most]
    return tuple(callers[int(at)] for at in kept)


def learns(units: Ints) -> NDArray[np.bool_]:
    """Return which callers serve to learn the cap and the centre; no bets are placed on them."""
    return np.asarray((picks(units) & np.uint64(255)) < np.uint64(LEARNERS))


class Table:
    """Callers of one step: arrays, sorted by unit."""

    def __init__(self, limit: int = TRACKED) -> None:
        self._limit = limit
        self.units: Ints = np.empty(0, np.int64)
        self.arms: NDArray[np.int8] = np.empty(0, np.int8)
        self.times: Ints = np.empty(0, np.int64)
        self.sums: Floats = np.empty((0, 2))
        self.below = WHOLE
        """Limit of `picks` from which callers are left out."""
        self.pending: list[tuple[int, int, int, float, float]] = []
        self.waiting: set[int] = set()
        """Callers in `pending`."""

    def add(self, unit: int, arm: int, times: int, sums: tuple[float, float]) -> None:
        """Add requests of one caller: how many, and the sums of their costs by arm."""
        self.pending.append((unit, arm, times, *sums))
        self.waiting.add(unit)
        if len(self.pending) >= PENDING:
            self.settle()

    def new(self, units: Ints) -> NDArray[np.bool_]:
        """Return which callers are new in this step; those that are left out count as known."""
        at = np.searchsorted(self.units, units).clip(0, max(len(self.units) - 1, 0))
        met = self.units[at] == units if len(self.units) else np.zeros(len(units), bool)
        late = np.array([unit in self.waiting for unit in units.tolist()], dtype=bool)
        return np.asarray(~met & ~late & (picks(units) < np.uint64(self.below)))

    def settle(self) -> None:
        """Sort pending callers into the arrays, and leave out those beyond the bound."""
        if not self.pending:
            return
        units, arms, times, zero, one = (np.array(part) for part in zip(*self.pending, strict=True))
        self.pending, self.waiting = [], set()
        every = np.concatenate([self.units, units])
        self.units, first, place = np.unique(every, return_index=True, return_inverse=True)
        self.arms = np.concatenate([self.arms, arms.astype(np.int8)])[first]
        self.times = _totals(place, np.concatenate([self.times, times])).astype(np.int64)
        sums = np.concatenate([self.sums, np.column_stack([zero, one])])
        self.sums = np.column_stack([_totals(place, sums[:, 0]), _totals(place, sums[:, 1])])
        places = picks(self.units)
        kept = places < np.uint64(self.below)
        while kept.sum() > self._limit:
            self.below //= 2
            kept = places < np.uint64(self.below)
        if not kept.all():
            self.units, self.arms = self.units[kept], self.arms[kept]
            self.times, self.sums = self.times[kept], self.sums[kept]


def _totals(place: Ints, values: NDArray[Any]) -> Floats:
    return np.bincount(place, weights=values).astype(np.float64)


# ---------------------------------------------------------------- bets


class Scale(msgspec.Struct, frozen=True):
    """Constants of one set of bets, known before them."""

    worse_by: float
    cap: float
    centre: float = 0.0
    """Mean of y0, within 0.01 to 0.99; 0 in pairs, which need none."""

    def ours(self, cost: Floats) -> Floats:
        """Return y0: production's costs, dearer by the margin, in units of the cap."""
        return np.asarray(np.minimum((1 + self.worse_by) * cost, self.cap) / self.cap)

    def theirs(self, cost: Floats) -> Floats:
        """Return y1: the candidate's costs in units of the cap."""
        return np.asarray(np.minimum(cost, self.cap) / self.cap)


def learned(costs: Floats, times: Floats, worse_by: float, cap: float) -> Scale:
    """Return the constants, from costs of production's units without bets.

    Args:
        costs: of units, or means of bins.
        times: number of units of each cost.
        worse_by: the margin.
        cap: a cap that is fixed already. 0: the 95th percentile, dearer by the margin, or twice the
            median where that is more, so that a fixed price has room above it. A lower cap shows
            less of the mean; a higher one lets single units decide and takes longer.
    """
    if not cap:
        order = np.argsort(costs)
        part = np.cumsum(times[order]) / times.sum()
        at = np.searchsorted(part, (0.5, 0.95)).clip(0, len(costs) - 1)
        median, high = costs[order][at]
        cap = max((1 + worse_by) * float(max(2 * median, high)), SMALLEST)
    scale = Scale(worse_by, cap)
    mean = float(np.average(scale.ours(costs), weights=times))
    return Scale(worse_by, cap, min(max(mean, 0.01), 0.99))


def callers_log_e(ours: Floats, theirs: Floats, scale: Scale) -> tuple[float, float]:
    """Return the log-evidence for `pass` and for `fail`, from one mean cost of each caller.

    Args:
        ours: of production's callers.
        theirs: of the candidate's.
        scale: constants from other callers.
    """
    if min(len(ours), len(theirs)) < 2:
        return 0.0, 0.0
    v = len(theirs) / (len(ours) + len(theirs))
    more, less = scale.theirs(theirs) - scale.centre, scale.ours(ours) - scale.centre
    found = []
    for sign, room in ((1, scale.centre), (-1, 1 - scale.centre)):
        bets = BETS * min(v / (1 - room), (1 - v) / room)
        logs = np.log1p(np.outer(-sign * more, bets / v)).sum(axis=0)
        logs += np.log1p(np.outer(sign * less, bets / (1 - v))).sum(axis=0)
        found.append(float(log_mixture(logs)))
    return found[0], found[1]


def pairs_log_e(ours: Floats, theirs: Floats, scale: Scale) -> tuple[float, float]:
    """Return both from callers that both releases answered: two means of each caller."""
    if len(ours) < 2:
        return 0.0, 0.0
    apart = scale.theirs(theirs) - scale.ours(ours)
    found = [float(log_mixture(np.log1p(np.outer(s * apart, BETS)).sum(axis=0))) for s in (-1, 1)]
    return found[0], found[1]


class CostCells:
    """Requests without a caller of one window, as arrays: counts, edges and mean costs by arm."""

    def __init__(self, cells: Sequence[CostCell]) -> None:
        bins = np.array([one.bins for one in cells], dtype=np.int64).clip(0, LARGEST_BIN)
        self.times = np.array([one.requests for one in cells], dtype=np.float64)
        sums = np.array([one.cost for one in cells], dtype=np.float64)
        self.low, self.high = EDGES[bins], EDGES[bins + 1]
        mean = sums / np.maximum(self.times, 1)
        self.mean = np.clip(mean, self.low, np.where(np.isfinite(self.high), self.high, mean))

    def bounds(self, arm: int, scale: Scale) -> tuple[Floats, Floats, Floats, Floats]:
        """Return y of an arm: at the lower and the upper edge, and the bounds of its mean.

        y is concave in the cost, so its mean lies between the chord and the value at the mean.
        """
        y = scale.theirs if arm == CANDIDATE else scale.ours
        low, high, mean = self.low[:, arm], self.high[:, arm], self.mean[:, arm]
        ends = y(low), y(high)
        width = np.where(np.isfinite(high), high - low, inf)
        return *ends, ends[0] + (mean - low) / width * (ends[1] - ends[0]), y(mean)


def _growth(bets: Floats, low: Floats, high: Floats, mean: Floats, times: Floats) -> Floats:
    """Return the units' addition to each bet of factor 1 - bet x, given x's range and mean.

    The logarithm is concave, so its mean is at least the chord's.
    """
    ends = np.log1p(-np.outer(low, bets)), np.log1p(-np.outer(high, bets))
    width = high - low
    part = np.divide(mean - low, width, out=np.zeros_like(mean), where=width > 0).clip(0, 1)
    return np.asarray(times @ (ends[0] + part[:, None] * (ends[1] - ends[0])))


def _bounded(times: Floats, gains: NDArray[np.bool_], expected: float) -> Floats:
    """Limit gains at the cap in one window: those beyond chance come from one instant."""
    most = 1 + floor(expected + 3.5 * sqrt(expected))
    there = float(times[gains].sum())
    return np.where(gains, times * most / there, times) if there > most else times


def requests_growth(
    cells: CostCells, scale: Scale, share: float, often: float, *, paired: bool
) -> tuple[Floats, Floats]:
    """Return the addition of one window's requests to each bet of `pass` and of `fail`.

    Args:
        cells: the requests.
        scale: constants known before this window.
        share: of the candidate, by design.
        often: share of production's requests at the cap, before this window.
        paired: both arms' costs are of the same requests.
    """
    l0, h0, low0, most0 = cells.bounds(PRODUCTION, scale)
    l1, h1, low1, most1 = cells.bounds(CANDIDATE, scale)
    n0, n1 = cells.times[:, 0], cells.times[:, 1]
    # Production's gains are bounded where `pass` profits, the candidate's where `fail` does. The
    # candidate has three times the bound, so that a dearer one is still found.
    top0, top1 = (n0 > 0) & (low0 >= 1), (n1 > 0) & (low1 >= 1)
    if paired:
        top0, top1 = top0 & (low1 < 1), top1 & (low0 < 1)
    kept0 = _bounded(n0, top0, float(n0.sum()) * often)
    kept1 = _bounded(n1, top1, 3 * float(n1.sum()) * often)
    if paired:
        return (
            _growth(BETS, l1 - h0, h1 - l0, most1 - low0, kept0),
            _growth(BETS, l0 - h1, h0 - l1, most0 - low1, kept1),
        )
    z, odds = scale.centre, share / (1 - share)
    down = BETS * min(1 / (1 - z), 1 / (odds * z))
    up = BETS * min(1 / z, 1 / (odds * (1 - z)))
    return (
        _growth(down, l1 - z, h1 - z, most1 - z, n1)
        + _growth(down * odds, z - h0, z - l0, z - low0, kept0),
        _growth(up, z - h1, z - l1, z - low1, kept1)
        + _growth(up * odds, l0 - z, h0 - z, most0 - z, n0),
    )
