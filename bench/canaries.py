"""Simulated canaries, many at once, and the rules that watch them.

Requests come at 100 a second; each fails by itself, production's with 1 %. `Product` is kedge's own
judge for many runs at once: the same increments, stakes and weights (`core.stats`, `core.policy`),
and `bench/detection.py` compares it, run by run, with `core.monitor`. The other rules are what
their makers document: a fixed threshold that may fail three times (Argo Rollouts), the Mann-Whitney
judge of Kayenta on errors per minute, hourly, and a z-test looked at every minute.
"""

from __future__ import annotations

from math import inf, log, sqrt
from typing import NamedTuple

import numpy as np
from kedge.core.monitor import Interval, Rules
from numpy.typing import NDArray

from kedge.core import monitor, stats
from kedge.core.stats import ALARM_GRID, Floats

RATE = 100
P0 = 0.01
MIN_BAD = 5
ARGO_THRESHOLD, ARGO_LIMIT = 0.05, 3
KAYENTA_TOLERANCE, KAYENTA_Z, KAYENTA_EVERY = 0.25, 2.3263478740408408, 60
PEEK_Z = 1.6448536269514722

Ints = NDArray[np.int64]


class Second(NamedTuple):
    """One second of many runs: units and failures of both arms, each of shape (runs,)."""

    units: Ints
    """(runs, 2)"""
    bad: Ints
    """(runs, 2)"""


def second(
    rng: np.random.Generator, runs: int, share: float, production: float, candidate: float
) -> Second:
    """Draw one second: each request goes to the candidate with the share's probability."""
    n = rng.poisson(RATE, runs)
    theirs = rng.binomial(n, share)
    units = np.stack([n - theirs, theirs], axis=1)
    bad = np.stack(
        [rng.binomial(units[:, 0], production), rng.binomial(units[:, 1], candidate)], axis=1
    )
    return Second(units, bad)


class Product:
    """The policy as shipped, for one row (errors, everything), many runs at once."""

    def __init__(self, runs: int, rules: Rules) -> None:
        weight = rules.rails["errors"].weight * (1 - rules.segment_stake)
        self._needed = log(1 / rules.alpha) - log(weight)
        self._min_bad = rules.min_bad
        self.alarm: Floats = np.full((runs, len(ALARM_GRID)), log(stats.placed(0)))
        self._open_units = np.zeros((runs, 2), dtype=np.int64)
        self._open_bad = np.zeros((runs, 2), dtype=np.int64)
        self._began = np.zeros(runs)
        self._first = np.full(runs, inf)
        self._restarts = np.zeros(runs, dtype=np.int64)
        self._bad = np.zeros(runs, dtype=np.int64)

    def take(self, at: float, now: Second) -> NDArray[np.bool_]:
        """Take one second in; which runs are rolled back now."""
        self._open_units += now.units
        self._open_bad += now.bad
        closing = (
            (self._open_units[:, 1] >= monitor.CLOSING_UNITS) & (self._open_units[:, 0] > 0)
        ) | (at - self._began >= monitor.CLOSING_S)
        rows = np.flatnonzero(closing)
        if not len(rows):
            return np.zeros(len(closing), dtype=np.bool_)
        self._first[rows] = np.minimum(self._first[rows], at)
        due = ((at - self._first[rows]) // stats.RESTART_S).astype(np.int64)
        late = rows[due > self._restarts[rows]]
        if len(late):
            for row in late:
                k = int((at - self._first[row]) // stats.RESTART_S)
                more = stats.placed(k) - stats.placed(int(self._restarts[row]))
                self.alarm[row] = stats.restarted(self.alarm[row], more)
                self._restarts[row] = k
        bad, units = self._open_bad[rows], self._open_units[rows]
        moved = bad.sum(axis=1) > 0
        self._bad[rows] += bad[:, 1]
        share = units[:, 1] / np.maximum(units.sum(axis=1), 1)
        at_rows = rows[moved]
        if len(at_rows):
            self.alarm[at_rows] += stats.label_sums(
                share[moved], bad[moved].astype(np.float64), ALARM_GRID
            )
        self._open_units[rows] = self._open_bad[rows] = 0
        self._began[rows] = at
        hit = np.zeros(len(closing), dtype=np.bool_)
        hit[rows] = (self._bad[rows] >= self._min_bad) & (
            stats.log_mixture(self.alarm[rows]) >= self._needed
        )
        return hit


def real_judge(seconds: list[Second], run: int, rules: Rules) -> float:
    """When `core.monitor` itself rolls a run back; for comparing `Product` with it."""
    judge = monitor.begin(0.0, rules.rails)
    units, bad = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
    began, first = 0.0, True
    for n, now in enumerate(seconds):
        at = float(n + 1)
        units, bad = units + now.units[run], bad + now.bad[run]
        if not monitor.closes(int(units[1]), int(units[0]), at - began):
            continue
        if first:
            judge, first = monitor.begin(at, rules.rails), False
        counts = np.concatenate([units, bad])[None, :]
        judge = monitor.fold(judge, Interval(at, (("errors", ""),), counts))
        if monitor.overall(judge, rules).verdict == "fail":
            return at
        units, bad, began = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64), at
    return inf


class Oracle:
    """A sequential test that knows both rates and the exposure: the least that is possible."""

    def __init__(self, runs: int, share: float, candidate: float, alpha: float) -> None:
        self._gain = log(candidate / P0)
        self._cost = RATE * share * (candidate - P0)
        self._needed = log(1 / alpha)
        self._sum = np.zeros(runs)

    def take(self, now: Second) -> NDArray[np.bool_]:
        """Take one second in; which runs it stops now."""
        self._sum += now.bad[:, 1] * self._gain - self._cost
        return self._sum >= self._needed


# ---------------------------------------------------------------- rules on minutes

Minutes = NDArray[np.int64]
"""(runs, minutes)"""


def first_true(hit: NDArray[np.bool_]) -> Floats:
    """The minute of the first True of each run, from 1; infinite without one."""
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, inf)


def argo_like(units: Minutes, bad: Minutes) -> Floats:
    """Fails for the fourth time: more than 5 % of the candidate's requests of a minute failed."""
    return first_true(np.cumsum(bad > ARGO_THRESHOLD * units, axis=1) > ARGO_LIMIT)


def peeking(units: Minutes, bad: Minutes, units0: Minutes, bad0: Minutes) -> Floats:
    """A z-test of two proportions on all data so far, every minute."""
    s, m, s0, m0 = (np.cumsum(x, axis=1) for x in (bad, units, bad0, units0))
    with np.errstate(all="ignore"):
        p = (s + s0) / (m + m0)
        z = (s / m - s0 / m0) / np.sqrt(p * (1 - p) * (1 / m + 1 / m0))
    return first_true(z > PEEK_Z)


def kayenta_like(bad: Minutes, compared: Minutes) -> Floats:
    """Mann-Whitney on errors a minute against a slice of production as large, every hour."""
    found = np.full(len(bad), inf)
    size = int(max(bad.max(initial=0), compared.max(initial=0))) + 2
    for run in range(len(bad)):
        one, other = np.zeros(size), np.zeros(size)
        for start in range(0, bad.shape[1], KAYENTA_EVERY):
            one += np.bincount(bad[run, start : start + KAYENTA_EVERY], minlength=size)
            other += np.bincount(compared[run, start : start + KAYENTA_EVERY], minlength=size)
            if _high(one, other):
                found[run] = start + KAYENTA_EVERY
                break
    return found


def _high(one: Floats, other: Floats) -> bool:
    n, m, k = int(one.sum()), int(other.sum()), np.arange(len(one))
    if (one @ k) / n < (other @ k) / m:
        return False
    pair = np.correlate(one, other, "full")
    apart = np.arange(len(pair)) - (len(other) - 1)
    shift = int(apart[np.searchsorted(np.cumsum(pair), n * m / 2.0)])
    if shift <= 0:
        return False
    edge = KAYENTA_TOLERANCE * shift
    u = pair[apart > edge].sum() + 0.5 * pair[apart == edge].sum()
    if edge == int(edge):
        tied = np.zeros(len(other) + int(edge))
        tied[int(edge) :] += other
        tied[: len(one)] += one
        ties = float((tied**3 - tied).sum())
    else:
        ties = float((one**3 - one).sum() + (other**3 - other).sum())
    every = n + m
    spread = n * m / 12.0 * ((every + 1) - ties / (every * (every - 1.0)))
    return bool(spread > 0 and (u - n * m / 2.0 - 0.5) / sqrt(spread) > KAYENTA_Z)
