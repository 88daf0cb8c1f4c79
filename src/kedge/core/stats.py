"""Evidence as e-values: numbers that a healthy candidate makes large only rarely.

Theory of operation
-------------------
* An *e-process* is the wealth of a gambler who starts with 1 and bets against a hypothesis at
  fair odds. When the hypothesis is true the wealth ever reaches 1/alpha with probability at most
  alpha (Ville 1939), so it may be looked at as often as anybody likes.
* Bad units are judged by their *label*. In an interval with share `w` of the units on the
  candidate and rate ratio `r`, a bad unit is the candidate's with probability
  `w r / (w r + 1 - w)`. The base rate cancels, so an incident that hits both arms moves nothing
  (the conditional test of Lindon and Malek, NeurIPS 2022, with a grid of bets for a prior).
* `w` is the share that was realised. Given both exposures and the number of bad units, the
  candidate's part is hypergeometric; each factor is convex in it, so its mean is at most the
  binomial one (Hoeffding 1963, theorem 4). That needs units that are exchangeable within an
  interval, and intervals that end by exposure or time, never by outcome.
* Everything is a mixture over a fixed grid of bets, so evidence is added, merged and kept as sums
  of logarithms, and no bet depends on what else was seen.

Logarithms are natural. Arrays are float64 unless it is said otherwise.
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
"""Bets in one mixture: neighbours 15 % apart cost under 0.1 nats between two of them, and one more
bet costs every other bet its stake."""
ALARM_GRID: Floats = np.geomspace(1.2, 16.0, BETS)
"""Rate ratios that the alarm bets on, as multiples of what is tolerated. Below 1.2 a day of
ordinary traffic decides nothing; above 16 the bet on 16 wins as fast as the counts come."""

LOW = 4
"""Places in `ratio_grid` before the certificate's bets."""
NULL = LOW + BETS
"""The place in `ratio_grid` of the margin itself, the hypothesis that a certificate refutes."""
RATIOS = NULL + 12
"""Places in `ratio_grid`."""

RESTART_S = 600.0
"""Seconds between restarts: a regression that comes late is found by bets ten minutes old."""
DAY_RESTARTS = 144
FIRST_STAKE = 0.5
"""Of the stake, what is bet at the start: it costs 0.7 nats against betting all of it."""
DAY_STAKE = 0.25
"""Of the stake, what the restarts of the first 24 hours share."""

LAMBDAS: Floats = np.geomspace(0.01, 0.9, BETS)
"""Bets on a mean difference in [-1, 1], as shares of the wealth. The best bet is about mean over
variance: 0.01 waits for tiny differences, 0.9 stays solvent at the worst one."""
SUMS = 2 * BETS + 4
"""Places in `paired_sums`."""
CAP = 600.0
"""Logarithms of wealth are read as at most this, so that e**x stays a number."""


# ---------------------------------------------------------------- bad units


def label_increments(share: ArrayLike, grid: ArrayLike, r0: float = 1.0) -> tuple[Floats, Floats]:
    """What one bad unit adds to the log-wealth of every bet.

    Args:
        share: realised share of the candidate, 0 to 1, of any shape (...).
        grid: rate ratios that are bet on, shape (R,).
        r0: the rate ratio of the hypothesis.

    Returns:
        For a bad unit of the candidate and for one of production, both of shape (..., R). A share
        of 0 or 1 compares nothing and adds nothing.
    """
    w = np.asarray(share, dtype=np.float64)[..., None]
    r = np.asarray(grid, dtype=np.float64)
    both = (w > 0) & (w < 1)
    base = np.where(both, np.log1p(w * (r - 1)) - np.log1p(w * (r0 - 1)), 0.0)
    return np.where(both, np.log(r / r0) - base, 0.0), -base


def label_sums(share: Floats, bad: Floats, grid: Floats, r0: float = 1.0) -> Floats:
    """Log-wealth gained in one interval, (K, R): `label_increments` times counts, with one log.

    Args:
        share: realised shares, (K,).
        bad: bad units of production and of the candidate, (K, 2).
        grid: (R,).
        r0: the rate ratio of the hypothesis.
    """
    compared = (share > 0) & (share < 1)
    w = np.where(compared, share, 0.5)[:, None]
    theirs = np.where(compared, bad[:, 1], 0.0)[:, None]
    every = np.where(compared, bad[:, 0] + bad[:, 1], 0.0)[:, None]
    sums = np.log1p(w * (grid - 1))
    sums -= np.log1p(w * (r0 - 1))
    sums *= -every
    sums += theirs * np.log(grid / r0)
    return np.asarray(sums)


def log_mixture(log_m: Floats) -> Any:
    """Logarithm of the uniform mixture over the last axis."""
    most = log_m.max(axis=-1, keepdims=True)
    most = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        return most[..., 0] + np.log(np.exp(log_m - most).mean(axis=-1))


def certificate_grid(delta: float) -> Floats:
    """Rate ratios that a proof of "not `delta` worse" bets on, (BETS,).

    From 0.3, since a candidate with fewer errors than that is certified anyway, to just under the
    margin.
    """
    return np.geomspace(0.3, 1 + 0.9 * delta, BETS)


@cache
def ratio_grid(delta: float) -> Floats:
    """Rate ratios at which a likelihood is kept, (RATIOS,), ascending.

    LOW small ones, the certificate's BETS, then from the margin (at NULL) up to 30 times it. One
    row of sums serves the certificate and the interval that is shown.
    """
    small = np.geomspace(0.02, 0.2, LOW)
    large = np.geomspace(1.0, 30.0, RATIOS - NULL) * (1 + delta)
    grid = np.concatenate([small, certificate_grid(delta), large])
    grid.flags.writeable = False
    return grid


def certificate_log_e(likelihood: Floats) -> Any:
    """Evidence against "at least the margin worse" from rows of `ratio_grid`, (..., RATIOS)."""
    return log_mixture(likelihood[..., LOW:NULL] - likelihood[..., NULL : NULL + 1])


def below_log_e(bad: ArrayLike, units: ArrayLike, floor: float) -> Any:
    """Evidence that a rate of bad units is below `floor`, of the shape of `bad`.

    A grid of binomial bets on smaller rates, and one on none at all: without a bad unit it takes
    about ln(1/alpha) / floor units.
    """
    s = np.asarray(bad, dtype=np.float64)[..., None]
    n = np.asarray(units, dtype=np.float64)[..., None]
    p = floor * np.geomspace(0.05, 0.8, 7)
    mixed = s * np.log(p / floor) + (n - s) * (np.log1p(-p) - log1p(-floor))
    none = np.where(s > 0, -inf, -n * log1p(-floor))
    return log_mixture(np.concatenate([none, mixed], axis=-1))


# ---------------------------------------------------------------- restarts


def restarts(elapsed: float) -> int:
    """How many restarts there were in so many seconds; none before the beginning."""
    return max(int(elapsed // RESTART_S), 0)


def stake(k: int) -> float:
    """The part of the wealth of 1 that is bet at restart `k`; 0 is the start.

    Half at once, a quarter in equal parts over the other 143 starts of the first 24 hours, and of
    the last quarter 1/(d (d+1)) in equal parts over day d. The sum never exceeds 1, so what holds
    for one bet holds for all of them together, for ever: a mixture of e-processes is one.
    """
    if k == 0:
        return FIRST_STAKE
    day = k // DAY_RESTARTS
    if day == 0:
        return DAY_STAKE / (DAY_RESTARTS - 1)
    return (1 - FIRST_STAKE - DAY_STAKE) / (day * (day + 1) * DAY_RESTARTS)


def placed(k: int) -> float:
    """The stakes of the start and of the first `k` restarts together."""
    day, left = divmod(k, DAY_RESTARTS)
    if day == 0:
        return FIRST_STAKE + DAY_STAKE * k / (DAY_RESTARTS - 1)
    rest = 1 - FIRST_STAKE - DAY_STAKE
    return FIRST_STAKE + DAY_STAKE + rest * (1 - 1 / day) + (left + 1) * stake(k)


def restarted(log_m: Floats, more: float) -> Floats:
    """Log-wealth after `more` of the stake was added to every bet."""
    return np.where(log_m < CAP, np.log(np.exp(np.minimum(log_m, CAP)) + more), log_m)


# ---------------------------------------------------------------- means


def bet_sums(d: ArrayLike, grid: ArrayLike, m0: float = 0.0) -> Floats:
    """Log-wealth of bets that the mean of `d` exceeds `m0`: sum of log(1 + lambda (d - m0)).

    Args:
        d: differences in [-1, 1], shape (n,); others are an error.
        grid: lambdas in [0, 1/(1 + m0)), shape (L,).
        m0: the mean under the hypothesis (at most this).

    Returns:
        (L,). Sums of several batches add up. After the capital process of Waudby-Smith and Ramdas
        (JRSSB 2024), with a mixture of fixed bets instead of predictable ones, so that order and
        batches do not matter.
    """
    x = np.asarray(d, dtype=np.float64).reshape(-1, 1)
    if x.size and not np.all(np.abs(x) <= 1):
        raise ValueError("differences lie in [-1, 1]")
    return np.asarray(np.log1p(np.asarray(grid, dtype=np.float64) * (x - m0)).sum(axis=0))


def paired_sums(ours: ArrayLike, theirs: ArrayLike, worse_by: float) -> Floats:
    """Losses of two models on the same units, for the judge: (SUMS,). Rows of batches add up.

    Args:
        ours: production's losses, each in [0, 1], shape (n,).
        theirs: the candidate's, of the same units.
        worse_by: the margin, as a share of production's loss.

    Returns:
        The bets that the candidate's mean is above production's; the bets that it is below
        (1 + worse_by) times production's, which needs no estimate of either; then n, the sum and
        the sum of squares of the differences, and the sum of production's losses. For losses of 0 and 1, a bet of lambda is a bet on a
        ratio of (1 + lambda) / (1 - lambda) of the discordant pairs: McNemar's test, sequential.
    """
    p, c = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if p.size and not (np.all((p >= 0) & (p <= 1)) and np.all((c >= 0) & (c <= 1))):
        raise ValueError("losses lie in [0, 1]")
    d = c - p
    beyond = c - (1 + worse_by) * p
    within = np.log1p(-np.outer(beyond, LAMBDAS)).sum(axis=0)
    tail = np.array([len(d), d.sum(), np.square(d).sum(), p.sum()])
    return np.concatenate([bet_sums(d, LAMBDAS), within, tail])


def arm_sums(ours: ArrayLike, theirs: ArrayLike, worse_by: float) -> Floats:
    """Losses of two arms on different units, for the judge: (SUMS,), as `paired_sums`.

    With w the candidate's realised share of the batch, a unit of its arm counts loss / w and one
    of production's -loss / (1 - w). For fixed numbers of units that are alike within an arm, a
    bet of lambda has the mean (1 + lambda m1 / w)^n1 (1 - lambda m0 / (1 - w))^n0, which is at most
    exp(lambda n (m1 - m0)): 1 for a candidate that is not worse. A batch with one arm only
    compares nothing.

    Args:
        ours: production's losses, each in [0, 1], shape (n0,).
        theirs: the candidate's, shape (n1,).
        worse_by: the margin, as a share of production's loss.
    """
    p, c = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if not (np.all((p >= 0) & (p <= 1)) and np.all((c >= 0) & (c <= 1))):
        raise ValueError("losses lie in [0, 1]")
    n = p.size + c.size
    if not p.size or not c.size:
        return np.zeros(SUMS)
    w = c.size / n
    worse = LAMBDAS * (1 - w)
    found = np.log1p(np.outer(c / w, worse)).sum(axis=0)
    found += np.log1p(-np.outer(p / (1 - w), worse)).sum(axis=0)
    within = LAMBDAS * w
    other = np.log1p(-np.outer(c / w, within)).sum(axis=0)
    other += np.log1p(np.outer((1 + worse_by) * p / (1 - w), within)).sum(axis=0)
    squares = np.square(c / w).sum() + np.square(p / (1 - w)).sum()
    tail = [n, c.sum() / w - p.sum() / (1 - w), squares, p.sum() / (1 - w)]
    return np.concatenate([found, other, tail])


def asymptotic_half_width(n: float, sigma: float, rho: float, alpha: float) -> float:
    """Half the width of a two-sided asymptotic confidence sequence for a mean.

    Waudby-Smith et al., Annals of Statistics 52(6), 2024, theorem 2.2. Valid at any time after
    enough units for a central limit; `rho_for` picks where it is tightest.
    """
    if n < 1:
        return inf
    spread = n * rho * rho
    return sigma * sqrt(2 * (spread + 1) / (n * n * rho * rho) * log(sqrt(spread + 1) / alpha))


def rho_for(n: float, alpha: float) -> float:
    """The mixture's scale for which the interval is tightest at `n` units (same, appendix)."""
    return sqrt((-2 * log(alpha) + log(-2 * log(alpha) + 1)) / n)


def mean_interval(n: float, total: float, squares: float, alpha: float) -> tuple[float, float]:
    """Anytime interval for the mean of values in [-1, 1], from their sums; (-1, 1) without any.

    For showing only: the verdict comes from the bets, which hold for any number of units. The
    variance is kept at 1/n and above, so that equal values do not make a point of it.
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
    """Estimate and anytime interval of a rate ratio, from log-likelihoods on a grid.

    Args:
        likelihood: sums of `label_sums` with r0 = 1 over all intervals, (R,); so every interval
            keeps its own share, and a ramp cannot mislead as pooled counts would.
        grid: ascending, (R,).
        alpha: the interval misses the truth, ever, with at most this probability.

    Returns:
        (estimate or None without evidence, low, high). The interval holds every ratio that the
        mixture over the whole grid does not refute. The likelihood is concave in log r, so between
        two grid points it lies under the chords of its neighbours; ends are taken there.
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
    """Where a concave function sinks to `cut` between the grid points `last` and the next."""
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
    """The ratio at the top of a parabola through the best point and its neighbours."""
    if at in (0, len(x) - 1):
        return 0.0 if at == 0 else inf
    a, b, _ = np.polyfit(x[at - 1 : at + 2] - x[at], y[at - 1 : at + 2], 2)
    return float(np.exp(x[at] - b / (2 * a))) if a < 0 else float(np.exp(x[at]))


# ---------------------------------------------------------------- many at once


def e_bh(log_e: Floats, alpha: float) -> Mask:
    """Which of K hypotheses are suspect now, (K,): e-BH (Wang and Ramdas, JRSSB 2022).

    The largest k whose smallest is at least K / (alpha k). Holds for present e-values under any
    dependence; not for values that are kept at their highest, so nothing is latched on it.
    """
    count = len(log_e)
    if not count:
        return np.zeros(0, dtype=np.bool_)
    ordered = np.sort(log_e)[::-1]
    enough = ordered >= np.log(count / (alpha * np.arange(1, count + 1)))
    if not enough.any():
        return np.zeros(count, dtype=np.bool_)
    return np.asarray(log_e >= ordered[int(np.flatnonzero(enough)[-1])])


def bonferroni(log_e: Floats, alpha: float, weights: Floats | None = None) -> Mask:
    """Which of K hypotheses fall with their weight of the error budget, (K,); equal by default.

    Holds for values kept at their highest too.
    """
    if not len(log_e):
        return np.zeros(0, dtype=np.bool_)
    w = np.full(len(log_e), 1 / len(log_e)) if weights is None else weights
    with np.errstate(divide="ignore"):
        return np.asarray(log_e + np.log(w) >= log(1 / alpha))


def srm_log_e(production: int, candidate: int, share: float) -> float:
    """Evidence that units were not assigned with the configured `share`: a broken comparison.

    A mixture of beta priors around the share, as concentrated as 10 to 100,000 units would make
    it, so that gross and slight mismatches are both found (sample-ratio mismatch: Fabijan et al.,
    KDD 2019; as an e-process: Lindon and Malek, NeurIPS 2022).
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
