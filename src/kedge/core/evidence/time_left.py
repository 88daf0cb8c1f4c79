"""Time left until the evidence suffices for the certificate of a candidate that is no worse.

Theory of operation
-------------------
* The judge's own certificates are applied to the expected counts: the present ones plus the mean of
  the future ones. Both releases are assumed to fail as often as both did so far. The time at which
  the certificate suffices is close to the median of the real ones (`tests/unit/test_time_left.py`).
* Callers are assumed to ask equally often: with n requests of k callers there are N callers in all
  where k = N (1 - exp(-n / N)). Callers that ask very unequally take longer.
* Callers' counts are certified at fixed looks (`bets.LOOK_S`), so their evidence comes at a look.
* Losses add evidence by their mean and mean square, to the second order of the logarithm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import ceil, exp, expm1, floor, inf, log
from typing import NamedTuple

import numpy as np

from kedge.core.evidence import bets, stats
from kedge.core.evidence.certificates import known_units
from kedge.core.evidence.judge import Judge
from kedge.core.evidence.rules import QUALITY, Rail
from kedge.core.evidence.stats import Floats
from kedge.core.evidence.step import TAIL, Span, Step
from kedge.core.evidence.units import UNITS
from kedge.core.values import BUCKETS

LONGEST_S = 30 * 86_400
"""Longest estimate: beyond a month the answer is "not from this traffic"."""
TRIED = 300
"""Times that are tried, 5 % apart."""
LEAST_S = 2.0
"""Seconds of a step before its rate is used."""


class Callers(NamedTuple):
    """Callers of one row, assumed to ask equally often."""

    number: float
    """Callers of the whole endpoint, including those that have not asked yet."""
    each: float
    """Requests a second of each caller."""
    asked: tuple[float, float] = (0.0, 0.0)
    """Callers that the step decides on and that asked, by arm."""
    first: tuple[float, float] = (0.0, 0.0)
    """All the candidate's callers that asked, and those whose first request went bad."""
    lead: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """First requests that went bad: of production, of the candidate, in pairs of both."""
    looked: float = -inf
    """The certificate of their counts at the newest look."""


class Row(NamedTuple):
    """One row of a step as it is now, and its rates."""

    span: Span
    rate: float
    """Requests without an entity a second, of both arms; in pairs, pairs."""
    bad: float
    """Share that goes bad on either release; in pairs, on one of them only."""
    both: float = 0.0
    """In pairs, the share that goes bad on both."""
    elapsed: float = 0.0
    """Seconds since the step began."""
    steady: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Bad requests so far: of production, of the candidate, in pairs of both."""
    theirs: tuple[float, float] = (0.0, 0.0)
    """The candidate's requests so far: bad ones, and all."""
    callers: Callers | None = None
    losses: Losses | None = None
    """Losses, where the row is judged by them."""
    quality: bool = False
    """Whether labels judge the row: then there is no floor."""
    penalty: float = 0.0
    """What the candidate's missing labels subtract from the certificate."""
    times: float = 1.0
    """Divisor of the certificate for labels that are dependent in time."""


class Losses(NamedTuple):
    """Log-wealth of losses so far, and what each further unit adds, (MEANS,)."""

    alone: Floats
    lead: Floats
    growth: Floats


# ---------------------------------------------------------------- asking the certificate


def log_e(row: Row, rail: Rail, callers_floor: float, after: float) -> float:
    """Return the expected certificate, scaled as `certificates.proof`; `after` in seconds."""
    return _log_e(row, rail, callers_floor, after, _looks(row, rail))


def needed_s(row: Row, rail: Rail, alpha: float, callers_floor: float) -> float | None:
    """Return the seconds until the certificate is expected; None: not within a month.

    Args:
        row: the present row.
        rail: the guardrail to prove.
        alpha: alpha of the certificate.
        callers_floor: the least floor where units are callers.
    """
    looks, target = _looks(row, rail), -log(alpha)

    def proven(after: float) -> bool:
        return _log_e(row, rail, callers_floor, after, looks) >= target

    if proven(0.0):
        return 0.0
    later = [at - row.elapsed for at in bets.LOOK_S if at > row.elapsed]
    tried = sorted({*np.geomspace(1.0, LONGEST_S, TRIED).tolist(), *later})
    low = 0.0
    for high in tried:
        if proven(high):
            break
        low = high
    else:
        return None
    while high - low > max(0.5, high * 0.002):
        middle = (low + high) / 2
        low, high = (low, middle) if proven(middle) else (middle, high)
    return float(ceil(high))


def _looks(row: Row, rail: Rail) -> Callable[[int], float]:
    """Return the expected certificate of callers' counts at each look, by its number."""

    @cache
    def at(look: int) -> float:
        return _look(row, rail, bets.LOOK_S[look])

    return at


def _log_e(
    row: Row, rail: Rail, callers_floor: float, after: float, looks: Callable[[int], float]
) -> float:
    of, n = row.span, row.rate * after
    ours, theirs, both = row.steady
    share = 1.0 if of.paired else of.keyless
    alone = _proof(
        row,
        rail,
        of.keyless,
        n,
        "alone",
        (
            ours + n * (1.0 if of.paired else 1 - share) * row.bad,
            theirs + n * share * row.bad,
            both + n * row.both,
        ),
    )
    found, known = alone, row.callers
    if known is not None:
        more = _new_callers(row, known, after)
        led = (
            known.lead[0] + more[0] * row.bad,
            known.lead[1] + more[1] * row.bad,
            known.lead[2] + more[1] * row.both,
        )
        units = more[0] if of.paired else more[0] + more[1]
        first = _proof(row, rail, of.callers, units, "lead", led)
        look = int(np.searchsorted(bets.LOOK_S, row.elapsed + after, side="right")) - 1
        new = look >= 0 and bets.LOOK_S[look] > row.elapsed and rail.mean is False
        looked = looks(look) if new else known.looked
        found = alone + max(first, looked - bets.LOG_LOOKS) - log(2)
    if row.quality:
        return (found + row.penalty) / row.times
    bad, units = row.theirs[0] + _median(n * share * row.bad), row.theirs[1] + n * share
    limit = rail.floor
    if known is not None:
        asked = known.first[0] + _new_callers(row, known, after)[2]
        bad += known.first[1] + _median((asked - known.first[0]) * row.bad)
        units += asked
        limit = max(rail.floor, callers_floor) if asked else rail.floor
    below = float(stats.below_log_e(bad, units, limit))
    return max(found, below) - log(2)


def _median(mean: float) -> float:
    """Return the median of a Poisson count."""
    return float(floor(mean + 1 / 3))


def _proof(
    row: Row, rail: Rail, share: float, units: float, part: str, bad: tuple[float, float, float]
) -> float:
    """Return the certificate of units that are final when they come, as the judge does."""
    losses = None
    if row.losses is not None:
        begun = row.losses.alone if part == "alone" else row.losses.lead
        losses = begun + units * row.losses.growth
    return known_units(row.span, rail, share, bad, losses)


def _new_callers(row: Row, known: Callers, after: float) -> tuple[float, float, float]:
    """Return callers that will ask for the first time: by arm, and all of the candidate's."""
    of = row.span
    begun, then = (-expm1(-known.each * t) for t in (row.elapsed, row.elapsed + after))
    more = max(then - begun, 0.0) * known.number
    if of.paired:
        return more, more, more
    decided = more * (of.high - of.low) / BUCKETS
    return decided * (1 - of.callers), decided * of.callers, more * of.keyless


def _look(row: Row, rail: Rail, at: float) -> float:
    """Return the expected certificate of callers' counts at a look, in seconds since the start."""
    known, of = row.callers, row.span
    if known is None or not 0 < of.callers < 1:
        return -inf
    decided = known.number if of.paired else known.number * (of.high - of.low) / BUCKETS
    if decided > UNITS:
        return -inf  # so many callers prove it by their first requests
    mean = known.each * at
    if of.paired:
        each = round(decided * -expm1(-mean))
        theirs, ours = _counts(each, mean * row.bad), _counts(each, mean * row.bad)
        one, other = np.zeros(len(theirs)), np.zeros(len(ours))
        return bets.pairs_certificate(
            np.concatenate([theirs, other]), np.concatenate([one, ours]), rail.worse_by
        )
    n1 = round(decided * of.callers * -expm1(-mean))
    n0 = round(decided * (1 - of.callers) * -expm1(-mean))
    return bets.callers_certificate(
        _counts(n1, mean * row.bad),
        _counts(n0, mean * row.bad),
        of.callers,
        rail.worse_by,
        (n0, n1),
    )


def _counts(callers: int, mean: float) -> Floats:
    """Return how often callers went bad: a Poisson number each, without zeros."""
    if callers <= 0 or mean <= 0:
        return np.zeros(0)
    most = int(mean + 8 * mean**0.5 + 8)
    k = np.arange(most + 1)
    log_p = k * log(mean) - mean - np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])
    upto = np.rint(callers * np.minimum(np.cumsum(np.exp(log_p)), 1.0)).astype(np.int64)
    upto[-1] = callers
    return np.repeat(k, np.diff(upto, prepend=0)).astype(np.float64)[int(upto[0]) :]


# ---------------------------------------------------------------- reading the judge


def get_row(
    judge: Judge, name: str, requests: tuple[int, int], past: tuple[int, int] = (0, 0)
) -> Row | None:
    """Return the row of a guardrail in the present step; None where it has no counts yet.

    Args:
        judge: the judge.
        name: name of the guardrail.
        requests: requests of this step, by arm; pairs count for both arms.
        past: earlier failures and requests of production, which say more than a new step.
    """
    step, rail = judge.step, judge.rules.rails[name]
    metric = rail.of or name
    place = judge.rows.find(metric, "")
    if step is None or place < 0:
        return None
    if metric == QUALITY:
        return _labelled_row(judge, step, place, rail)
    met: tuple[int, int] = tuple(step.arrays["met"][place].tolist())
    keyless = met[1] if judge.paired else sum(met)
    asked = requests[1] if judge.paired else sum(requests)
    found = step.units.of_row(place)
    bad = int(step.arrays["bad"][place].sum()) + float(found["ours"].sum() + found["theirs"].sum())
    chances = 2 * asked if judge.paired else asked
    if not asked:
        return None
    failed, before = (0, 0) if judge.paired or metric != "errors" else past
    elapsed = max(judge.now - step.began + 1, LEAST_S)
    return Row(
        span=step.span,
        rate=keyless / elapsed,
        bad=min((bad + failed) / (chances + before), 1.0),
        elapsed=elapsed,
        steady=_three(step, "steady", place),
        theirs=(float(step.arrays["bad"][place, 1]), float(met[1])),
        callers=_callers(step, name, place, asked - keyless, step.tracked, elapsed),
    )


def _three(step: Step, name: str, place: int) -> tuple[float, float, float]:
    ours, theirs = step.arrays[name][place].tolist()
    return float(ours), float(theirs), float(step.arrays["both"][place])


def _callers(
    step: Step, name: str, place: int, requests: int, seen: int, elapsed: float
) -> Callers | None:
    """Return the callers of a row; None where none has asked."""
    if not seen or requests <= 0:
        return None
    number = number_of_callers(requests, seen)
    ours, theirs = step.arrays["asked"][place].tolist()
    asked, bad = step.arrays["first"][place].tolist()
    lead = step.arrays["lead"][place].tolist()
    return Callers(
        number=number,
        each=requests / elapsed / number,
        asked=(float(ours), float(theirs)),
        first=(float(asked), float(bad)),
        lead=(float(lead[0]), float(lead[1]), float(lead[2])),
        looked=step.proof.get((name, place), -inf),
    )


def number_of_callers(requests: float, seen: float) -> float:
    """Return the number of all callers, if `seen` of them made `requests` at equal rates."""
    if requests <= seen * 1.000001:
        return max(requests, 1.0) * 1e6  # each asked once so far
    low, high = log(seen), log(seen) + 30
    for _ in range(60):
        middle = (low + high) / 2
        number = exp(middle)
        if number * -expm1(-requests / number) < seen:
            low = middle
        else:
            high = middle
    return exp(high)


def _labelled_row(judge: Judge, step: Step, place: int, rail: Rail) -> Row | None:
    """Return the row of quality: its units are labels, which come as fast as so far."""
    ours, theirs = step.arrays["met"][place].tolist()
    labels = theirs if judge.paired else ours + theirs
    if not labels:
        return None
    elapsed = max(judge.now - step.began + 1, LEAST_S)
    wrong = step.arrays["bad"][place].tolist()
    chances = 2 * labels if judge.paired else labels
    lacking = step.missing(1) * float(step.part_of_labels(np.array([place]), 1)[0])
    y1, _ = bets.capped(np.ones(1), np.ones(1), rail.worse_by, 1)
    return Row(
        span=step.span,
        rate=0.0 if step.heard_of else labels / elapsed,
        bad=min(sum(wrong) / chances, 1.0),
        both=float(step.arrays["both"][place] + step.arrays["lead"][place, 2]) / labels,
        elapsed=elapsed,
        steady=_three(step, "steady", place),
        callers=_callers(step, QUALITY, place, labels, step.heard_of, elapsed),
        losses=_losses(step, place, rail) if rail.mean else None,
        quality=True,
        penalty=float(lacking * np.log1p(-bets.CERTIFICATE_BETS.max() * y1[0])),
        times=float(step.dependence.times(careful=True)),
    )


def _losses(step: Step, place: int, rail: Rail) -> Losses:
    """Return the log-wealth of losses so far and what each further unit adds, with equal means."""
    sums = step.sums_of(place)
    n0, s0, q0, n1, s1, q1, pairs, _, apart2 = sums[-TAIL:].tolist()
    mean, square = (s0 + s1) / max(n0 + n1, 1), (q0 + q1) / max(n0 + n1, 1)
    margin, b = rail.worse_by, bets.CERTIFICATE_BETS
    if step.span.paired:
        grown = []
        for cap in (margin, 1.0):
            c = cap * (1 + margin) / margin
            first = margin * mean / c
            second = (margin**2 * square + apart2 / max(pairs, 1)) / c**2
            grown.append(b * first - b**2 / 2 * second)
        growth = np.concatenate(grown)
    else:
        share = step.span.callers if step.heard_of else step.span.keyless
        c, odds = (1 + margin) / margin, share / (1 - share) if 0 < share < 1 else 0.0
        first = mean / c * share * margin
        second = square / c**2 * (share + (1 - share) * ((1 + margin) * odds) ** 2)
        growth = np.tile(b * first - b**2 / 2 * second, 2)
    begun = step.leads.get(place)
    return Losses(
        alone=sums[:-TAIL].copy(),
        lead=np.zeros(bets.MEANS) if begun is None else begun.copy(),
        growth=growth,
    )
