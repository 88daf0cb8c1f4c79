"""Judges of other products, on the same simulated canaries minute by minute.

The rules are what their makers document: a fixed threshold that may fail three times (Argo Rollouts), the
Mann-Whitney judge of Kayenta on errors per minute, hourly, and a z-test looked at every minute.
"""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ARGO_THRESHOLD, ARGO_LIMIT = 0.05, 3
KAYENTA_TOLERANCE, KAYENTA_Z, KAYENTA_EVERY = 0.25, 2.3263478740408408, 60
PEEK_Z = 1.6448536269514722

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
