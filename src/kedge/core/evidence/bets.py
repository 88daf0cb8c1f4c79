"""Bets on bad units: alarms, certificates and floors as e-values.

Theory of operation
-------------------
* The hash that assigns callers is the experiment. A caller that was not counted yet is the
  candidate's with the *designed* share w, for every caller and every request rate. An alarm needs
  no exposure, so it divides by no number of another horizon.
* Given a bad unit and the rate ratio r, it is the candidate's with probability
  w r / (1 + w (r - 1)) (Lindon and Malek, NeurIPS 2022). The base rate cancels. A grid of ratios is
  mixed, so that no bet depends on observations.
* A certificate refutes "at least (1 + d) times as bad, caller by caller". A caller's badness is
  capped at c for the candidate and at c / (1 + d) for production. By Jensen's inequality each
  factor has a mean of at most 1 for any mix of callers. With one cap for both arms, callers at the
  cap would look alike in both arms, and certify anything.
* A caller's count grows, so the factors are no process in time. Callers are looked at LOOKS times,
  and each look costs log(LOOKS). Each request without an entity is a unit. The product of their
  factors is an e-process, and valid at any time.

Logarithms are natural. Arrays are float64 unless stated otherwise.
"""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray

from kedge.core.evidence.stats import ALARM_GRID, LAMBDAS, Floats, log_mixture

Counts = NDArray[np.int64]

LABELS = 4
"""Number of counts of a label process: bad units of the candidate; bad callers of both arms; bad
requests without an entity of both arms; bursts."""
CANDIDATE, CALLERS, KEYLESS, BURSTS = range(LABELS)

LOOKS = 23
LOOK_S = tuple(600.0 * 2 ** (k / 2) for k in range(LOOKS))
"""Looks at callers' counts, in seconds since the step began: the first after the shortest dwell,
the last after 14 days, the longest healthy window."""
LOG_LOOKS = log(LOOKS)

COUNT_CAPS = (1, 4, 16, 64, 256, 1024)
"""Bad requests at which a caller's count is capped for the alarm: from callers that fail rarely to
callers that fail always."""
COUNT_BETS: Floats = np.array([0.02, 0.1, 0.3, 0.8])
WIDE_BETS: Floats = np.array([0.05, 0.2, 0.8])
"""Bets with the realised share, as parts of the largest ones that stay above zero."""
CAPS = (1, 5, 25)
"""Caps of a certificate, in multiples of (1 + d) / d, which is best for equal arms."""
CERTIFICATE_BETS: Floats = np.array([0.15, 0.4, 0.9])
MEANS = 2 * len(CERTIFICATE_BETS)
"""Places of a certificate on losses: in pairs, bets at two caps."""
CENTRE = 0.3
"""Constant that the realised-share bets subtract: they then lose little where most callers have
some failures. It does not depend on observations."""
KNOWN = 100_000
"""Callers up to which the realised share is used; beyond, the designed one is as good."""


def label_wealth(
    counts: Counts | Floats, callers: float, keyless: float, r0: float = 1.0
) -> tuple[Floats, NDArray[np.intp]]:
    """Return the log-wealth of label processes and the place of the richest ratio.

    Args:
        counts: (..., LABELS).
        callers: the designed share of callers that were not assigned before, 0 to 1.
        keyless: the designed share of requests without an entity.
        r0: the rate ratio of the hypothesis; ratios are bet on as multiples of it.
    """
    ratios = ALARM_GRID * r0
    half = max(callers, keyless, 0.5)

    def base(share: float) -> Floats:
        return np.asarray(np.log1p(share * (ratios - 1)) - np.log1p(share * (r0 - 1)))

    found: Floats = np.asarray(counts[..., CANDIDATE, None] * np.log(ALARM_GRID))
    for kind, share in ((CALLERS, callers), (KEYLESS, keyless), (BURSTS, half)):
        found = found - counts[..., kind, None] * base(share)
    return log_mixture(found), found.argmax(axis=-1)


def counts_log_e(
    theirs: Floats, ours: Floats, share: float, asked: tuple[int, int] | None
) -> float:
    """Return the log e-value of "the candidate's callers go bad more often", from their counts.

    Args:
        theirs: bad requests of each caller of the candidate that had any, (n1,).
        ours: the same of production's, (n0,).
        share: the designed share of the candidate.
        asked: callers that asked at all, production's and the candidate's; None: not known.
    """
    rows = []
    for cap in COUNT_CAPS:
        y1, y0 = np.minimum(theirs, cap) / cap, np.minimum(ours, cap) / cap
        up, down = COUNT_BETS * (1 - share) / share, COUNT_BETS
        rows.append(_logs(y1, up) + _logs(y0, -down))
        if asked is not None and min(asked) >= 2 and sum(asked) <= KNOWN:
            v = asked[1] / sum(asked)
            bet = WIDE_BETS * min(v, 1 - v) / max(CENTRE, 1 - CENTRE)
            rows.append(
                _logs(_all(y1, asked[1]) - CENTRE, bet / v)
                + _logs(_all(y0, asked[0]) - CENTRE, -bet / (1 - v))
            )
    return float(log_mixture(np.concatenate(rows)))


def callers_certificate(
    theirs: Floats, ours: Floats, share: float, worse_by: float, asked: tuple[int, int] | None
) -> float:
    """Return the log e-value of "not `worse_by` worse" from callers' counts; one bet a caller.

    Args:
        theirs: badness of each caller of the candidate that had any, (n1,).
        ours: the same of production's, (n0,).
        share: the designed share of the candidate.
        worse_by: the margin, above 0.
        asked: callers that asked at all, production's and the candidate's; None: not known.
    """
    rows = []
    for cap in CAPS:
        y1, y0 = capped(theirs, ours, worse_by, cap)
        rows.append(
            _logs(y0, CERTIFICATE_BETS * share / (1 - share)) + _logs(y1, -CERTIFICATE_BETS)
        )
        if asked is None or min(asked) < 2 or sum(asked) > KNOWN:
            continue
        v = asked[1] / sum(asked)
        bet = CERTIFICATE_BETS * min(v, 1 - v) / max(CENTRE, 1 - CENTRE)
        rows.append(
            _logs(_all(y0, asked[0]) - CENTRE, bet / (1 - v))
            + _logs(_all(y1, asked[1]) - CENTRE, -bet / v)
        )
    return float(log_mixture(np.concatenate(rows)))


def keyless_certificate(theirs: float, ours: float, share: float, worse_by: float) -> float:
    """Return the log e-value of "not `worse_by` worse" from bad requests without an entity.

    Args:
        theirs: bad requests of the candidate.
        ours: bad requests of production; seconds of a burst are left out.
        share: the designed share of the candidate.
        worse_by: the margin, above 0.
    """
    y1, y0 = capped(np.ones(1), np.ones(1), worse_by, 1)
    up = np.log1p(CERTIFICATE_BETS * y0 * share / (1 - share))
    down = np.log1p(-CERTIFICATE_BETS * y1)
    return float(log_mixture(ours * up + theirs * down))


def pairs_certificate(
    theirs: Floats, ours: Floats, worse_by: float, times: Floats | None = None
) -> float:
    """Return the log e-value of "not `worse_by` worse" from units that both releases answered.

    Both answers are of one unit, so their common part cancels, and a cap of 1 + d is a better bet
    where they hardly differ. The caps of arms are used beside it, for units that differ much.

    Args:
        theirs: the candidate's badness of each unit, (n,).
        ours: production's of the same units, (n,).
        worse_by: the margin, above 0.
        times: number of equal units, (n,); None: each is one.
    """
    rows = []
    for cap in (worse_by, *CAPS):
        y1, y0 = capped(theirs, ours, worse_by, cap)
        more = np.log1p(np.outer(y0 - y1, CERTIFICATE_BETS))
        rows.append(more.sum(axis=0) if times is None else times @ more)
    return float(log_mixture(np.concatenate(rows)))


def capped(theirs: Floats, ours: Floats, worse_by: float, cap: float) -> tuple[Floats, Floats]:
    """Return both arms' badness in [0, 1]: capped at c, production's at c / (1 + `worse_by`)."""
    c = cap * (1 + worse_by) / worse_by
    return np.minimum(theirs, c) / c, np.minimum((1 + worse_by) * ours, c) / c


def label_likelihood(counts: Counts, callers: float, keyless: float, grid: Floats) -> Floats:
    """Return the log-likelihood of rate ratios, (..., R), from counts (..., LABELS)."""
    half = max(callers, keyless, 0.5)
    found = counts[..., CANDIDATE, None] * np.log(grid)
    for kind, share in ((CALLERS, callers), (KEYLESS, keyless), (BURSTS, half)):
        found = found - counts[..., kind, None] * np.log1p(share * (grid - 1))
    return np.asarray(found)


def mean_steps(loss: float, arm: int, share: float) -> Floats:
    """Return the addition of one unit's loss in [0, 1] to every bet's log-wealth, (BETS,).

    The candidate's unit counts lambda loss (1 - w) / w, production's -lambda loss: the mean is 1
    where the loss does not depend on the arm.
    """
    if arm:
        return np.asarray(np.log1p(LAMBDAS * loss * (1 - share) / share))
    return np.asarray(np.log1p(-LAMBDAS * loss))


def mean_certificate(
    ours: float, theirs: float, share: float, worse_by: float, *, paired: bool
) -> Floats:
    """Return the addition of one request's losses to the certificate's log-wealth, (MEANS,)."""
    if paired:
        found = [_capped_one(theirs, ours, worse_by, cap) for cap in (worse_by, 1)]
        return np.concatenate([np.log1p(CERTIFICATE_BETS * (y0 - y1)) for y1, y0 in found])
    y1, y0 = _capped_one(theirs, ours, worse_by, 1)
    more = np.log1p(CERTIFICATE_BETS * y0 * share / (1 - share))
    more += np.log1p(-CERTIFICATE_BETS * y1)
    return np.concatenate([more, more])


def _capped_one(theirs: float, ours: float, worse_by: float, cap: float) -> tuple[float, float]:
    """Return `capped` of one unit: an array of one takes ten times as long."""
    c = cap * (1 + worse_by) / worse_by
    return min(theirs, c) / c, min((1 + worse_by) * ours, c) / c


def pair_steps(difference: float) -> Floats:
    """Return the addition of a pair's difference of losses in [-1, 1] to every bet, (BETS,)."""
    return np.asarray(np.log1p(LAMBDAS * difference))


def _logs(values: Floats, bets: Floats) -> Floats:
    """Return the sum over the values of log(1 + bet x value), for each bet."""
    if not values.size:
        return np.zeros(len(bets))
    found, times = np.unique(values, return_counts=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(times @ np.log1p(np.outer(found, bets)))


def _all(values: Floats, asked: int) -> Floats:
    """Return the values of every caller: callers without badness have 0."""
    return np.concatenate([values, np.zeros(max(asked - len(values), 0))])
