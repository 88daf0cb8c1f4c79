"""Statistics of evidence as e-values, which are large for a healthy candidate only rarely.

Theory of operation
-------------------
* An *e-process* is the wealth of a gambler who starts with 1 and bets against a hypothesis at
  fair odds. When the hypothesis is true the wealth ever reaches 1/alpha with probability at most
  alpha (Ville 1939). So it is valid however often it is looked at.
* Every e-process is a mixture over a fixed grid of bets. So evidence is stored as sums of
  logarithms, and no bet depends on other observations. The bets are in `core.evidence.bets`.
* Intervals are for display only.

Logarithms are natural. Arrays are float64 unless stated otherwise.
"""

from __future__ import annotations

from functools import cache
from math import inf, lgamma, log, log1p, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

BETS = 20
"""Bets in one mixture: neighbours 15 % apart cost under 0.1 nats between two of them, and each
further bet reduces the stake of the others."""
ALARM_GRID: Floats = np.geomspace(1.2, 16.0, BETS)
"""Rate ratios that the alarm bets on, as multiples of the tolerated one. Below 1.2 a day of
ordinary traffic decides nothing; above 16 the bet on 16 wins as fast as the counts come."""

LOW = 4
"""Places in `ratio_grid` below a fifth."""
RATIOS = LOW + BETS + 12
"""Places in `ratio_grid`."""

RESTART_S = 600.0
"""Seconds between restarts: bets that are ten minutes old find a late regression."""
DAY_RESTARTS = 144
FIRST_STAKE = 0.5
"""Part of the stake that is bet at the start: it costs 0.7 nats against betting all of it."""
DAY_STAKE = 0.25
"""Part of the stake that the restarts of the first 24 hours share."""

LAMBDAS: Floats = np.geomspace(0.01, 0.9, BETS)
"""Bets on a mean difference in [-1, 1], as shares of the wealth. The best bet is about mean over
variance: 0.01 waits for tiny differences, 0.9 stays solvent at the worst one."""


# ---------------------------------------------------------------- bad units


def log_mixture(log_m: Floats) -> Any:
    """Return the logarithm of the uniform mixture over the last axis."""
    most = log_m.max(axis=-1, keepdims=True)
    most = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        return most[..., 0] + np.log(np.exp(log_m - most).mean(axis=-1))


@cache
def ratio_grid(delta: float) -> Floats:
    """Return rate ratios at which an interval's likelihood is stored, (RATIOS,), ascending.

    They run from a fiftieth to 30 times the margin, finest around 1 and the margin.
    """
    small = np.geomspace(0.02, 0.2, LOW)
    middle = np.geomspace(0.3, 1 + 0.9 * delta, BETS)
    large = np.geomspace(1.0, 30.0, RATIOS - LOW - BETS) * (1 + delta)
    grid = np.concatenate([small, middle, large])
    grid.flags.writeable = False
    return grid


def below_log_e(bad: ArrayLike, units: ArrayLike, floor: float) -> Any:
    """Return evidence that a rate of bad units is below `floor`, of the shape of `bad`.

    It is a grid of binomial bets on smaller rates, and one on a rate of 0: without a bad unit it
    takes about ln(1/alpha) / floor units.
    """
    s = np.asarray(bad, dtype=np.float64)[..., None]
    n = np.asarray(units, dtype=np.float64)[..., None]
    p = floor * np.geomspace(0.05, 0.8, 7)
    mixed = s * np.log(p / floor) + (n - s) * (np.log1p(-p) - log1p(-floor))
    none = np.where(s > 0, -inf, -n * log1p(-floor))
    return log_mixture(np.concatenate([none, mixed], axis=-1))


# ---------------------------------------------------------------- restarts


def restarts(elapsed: float) -> int:
    """Return the number of restarts in so many seconds; 0 before the start."""
    return max(int(elapsed // RESTART_S), 0)


def stake(k: int) -> float:
    """Return the part of the wealth of 1 that is bet at restart `k`; 0 is the start.

    Half is bet at once, and a quarter in equal parts over the other 143 starts of the first 24
    hours. Of the last quarter, 1/(d (d+1)) is bet in equal parts over day d. The sum never exceeds
    1, so what holds for one bet holds for all of them together, for ever: a mixture of e-processes
    is one.
    """
    if k == 0:
        return FIRST_STAKE
    day = k // DAY_RESTARTS
    if day == 0:
        return DAY_STAKE / (DAY_RESTARTS - 1)
    return (1 - FIRST_STAKE - DAY_STAKE) / (day * (day + 1) * DAY_RESTARTS)


# ---------------------------------------------------------------- means


def asymptotic_half_width(n: float, sigma: float, rho: float, alpha: float) -> float:
    """Return half the width of a two-sided asymptotic confidence sequence for a mean.

    Waudby-Smith et al., Annals of Statistics 52(6), 2024, theorem 2.2. It is valid at any time
    after enough units for a central limit; `rho_for` sets where it is tightest.
    """
    if n < 1:
        return inf
    spread = n * rho * rho
    return sigma * sqrt(2 * (spread + 1) / (n * n * rho * rho) * log(sqrt(spread + 1) / alpha))


def rho_for(n: float, alpha: float) -> float:
    """Return the mixture's scale for the tightest interval at `n` units (same, appendix)."""
    return sqrt((-2 * log(alpha) + log(-2 * log(alpha) + 1)) / n)


def mean_interval(n: float, total: float, squares: float, alpha: float) -> tuple[float, float]:
    """Return an anytime interval of a mean of values in [-1, 1] by their sums; else (-1, 1).

    It is for display only: the verdict comes from the bets, which hold for any number of units. The
    variance is kept at 1/n and above, so that equal values do not reduce it to a point.
    """
    if n < 2:
        return -1.0, 1.0
    mean = total / n
    sigma = sqrt(max(squares / n - mean * mean, 1 / n))
    half = asymptotic_half_width(n, sigma, rho_for(1000, alpha), alpha)
    return max(mean - half, -1.0), min(mean + half, 1.0)


# ---------------------------------------------------------------- ratios


def rate_ratio_interval(
    likelihood: Floats, grid: Floats, alpha: float
) -> tuple[float | None, float, float]:
    """Return estimate and anytime interval of a rate ratio, from log-likelihoods on a grid.

    Args:
        likelihood: sums of `bets.label_likelihood` over all intervals, (R,). So every interval
            keeps its own share, and a ramp cannot bias it as it biases pooled counts.
        grid: ascending, (R,).
        alpha: greatest probability that the interval ever misses the truth.

    Returns:
        (estimate or None without evidence, low, high). The interval holds every ratio that the
        mixture over the whole grid does not refute. The likelihood is concave in log r, so between
        two grid points it is below its neighbours' chords, which give the ends.
    """
    if not np.any(likelihood):
        return None, 0.0, inf
    x = np.log(grid)
    cut = float(log_mixture(likelihood)) - log(1 / alpha)
    kept = np.flatnonzero(likelihood >= cut)
    best = int(likelihood.argmax())
    if not len(kept):
        kept = np.array([best])
    high = _end(x, likelihood, int(kept[-1]), cut)
    low = -_end(-x[::-1], likelihood[::-1], len(x) - 1 - int(kept[0]), cut)
    return _peak(x, likelihood, best), float(np.exp(low)), float(np.exp(high))


def _end(x: Floats, y: Floats, last: int, cut: float) -> float:
    """Return where a concave function falls to `cut` between grid point `last` and the next."""
    if last + 1 >= len(x):
        return inf
    end = float(x[last + 1])
    for one, two in ((last - 1, last), (last + 1, last + 2)):
        if one < 0 or two >= len(x):
            continue
        slope = (y[two] - y[one]) / (x[two] - x[one])
        if slope < 0:
            end = min(end, max(float(x[two] + (cut - y[two]) / slope), float(x[last])))
    return end


def _peak(x: Floats, y: Floats, at: int) -> float:
    """Return the ratio at the top of a parabola through the best point and its neighbours."""
    if at in (0, len(x) - 1):
        return 0.0 if at == 0 else inf
    a, b, _ = np.polyfit(x[at - 1 : at + 2] - x[at], y[at - 1 : at + 2], 2)
    return float(np.exp(x[at] - b / (2 * a))) if a < 0 else float(np.exp(x[at]))


# ---------------------------------------------------------------- many at once


def e_bh(log_e: Floats, alpha: float) -> Mask:
    """Return which of K hypotheses stand out now, (K,): e-BH (Wang and Ramdas, JRSSB 2022).

    These are the largest k whose smallest is at least K / (alpha k). It holds for present e-values
    under any dependence, but not for running maxima, so no result of it is permanent.
    """
    count = len(log_e)
    if not count:
        return np.zeros(0, dtype=np.bool_)
    ordered = np.sort(log_e)[::-1]
    enough = ordered >= np.log(count / (alpha * np.arange(1, count + 1)))
    if not enough.any():
        return np.zeros(count, dtype=np.bool_)
    return np.asarray(log_e >= ordered[int(np.flatnonzero(enough)[-1])])


def srm_log_e(production: int, candidate: int, share: float) -> float:
    """Return the evidence that units were not assigned with the configured `share`.

    Such a comparison is broken. The evidence is a mixture of beta priors around the share, as
    concentrated as by 10 to 100,000 units. So it finds gross and slight mismatches (sample-ratio
    mismatch: Fabijan et al., KDD 2019; as an e-process: Lindon and Malek, NeurIPS 2022).
    """
    if not 0 < share < 1:
        return inf if (candidate if share <= 0 else production) else 0.0
    fixed = candidate * log(share) + production * log1p(-share)
    found = []
    for size in (10.0, 1e2, 1e3, 1e4, 1e5):
        a, b = size * share, size * (1 - share)
        found.append(_log_beta(a + candidate, b + production) - _log_beta(a, b) - fixed)
    return float(log_mixture(np.array(found)))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
