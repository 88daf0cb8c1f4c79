"""Forecast of the time until a worse candidate is found, from an endpoint's own traffic.

The judge's formulas are applied to the expected counts: the same mixture of bets and the same
stake, on mean counts instead of real ones. The time at which they suffice is close to the median of
the real delays (`bench/detection` measures both). Callers count once, so few callers give limited
evidence, however often they ask.
"""

from __future__ import annotations

from math import ceil, exp, log

import numpy as np

from kedge.core.evidence import bets, stats
from kedge.core.evidence.judge import DECLARED, LABELS_PART
from kedge.core.evidence.rows import SEGMENT_STAKE
from kedge.core.evidence.rules import JudgeRules
from kedge.core.evidence.step import Span, span
from kedge.core.values import BUCKETS, Value

LONGEST_S = 30 * 86_400
"""Longest forecast: beyond a month the answer is "not from this traffic"."""


TRIED = 300
"""Times that are tried, 5 % apart."""


class ForecastStep(Value, frozen=True):
    """One canary step: seconds until detection (None: not within a month), and harm."""

    weight: float
    """Per cent."""
    seconds: float | None
    harmed: int
    """Failures of the candidate before it is found."""
    excess: int
    """Failures of them that production would not have had."""
    callers: int | None = None
    """The candidate's callers whose arm this step decides; None: requests have no entity."""


class ExpectedTraffic(Value, frozen=True, kw_only=True):
    """Expected traffic of an endpoint."""

    rate: float
    """Requests a second, both arms together."""
    errors: float
    """Production's share of failures, 0 to 1."""
    callers: int | None = None
    """Callers, assumed to ask equally often; None: requests without an entity."""


def detection(
    rules: JudgeRules, traffic: ExpectedTraffic, *, times: float, weight: int
) -> ForecastStep:
    """Return when errors `times` as frequent as production's would be detected at a weight.

    Args:
        rules: rules of the judge (alpha, the share of errors in the alarm, least failures).
        traffic: traffic of the endpoint.
        times: the candidate's rate of failures over production's.
        weight: the candidate's share in buckets.
    """
    of = span(weight, [step for step in rules.steps if step < weight], paired=False)
    shown = weight * 100 / BUCKETS
    callers = (
        None if traffic.callers is None else round(traffic.callers * (weight - of.low) / BUCKETS)
    )
    worse = min(traffic.errors * times, 1.0)
    share = weight / BUCKETS
    if worse <= traffic.errors:  # nothing is worse than failing always
        return ForecastStep(shown, None, 0, 0, callers)
    part = rules.rails["errors"].weight * (1 - SEGMENT_STAKE) * LABELS_PART
    target = log(1 / (rules.alpha * part * DECLARED / len(rules.steps) * stats.stake(0)))

    def found(seconds: float) -> bool:
        counts = _expected(traffic, of, worse, seconds)
        return counts[bets.CANDIDATE] >= rules.min_bad and bool(
            bets.label_wealth(counts, of.callers, of.keyless)[0] >= target
        )

    # Not the longest time: when all callers are counted the arms look alike again.
    times_tried = np.geomspace(1.0, LONGEST_S, TRIED)
    high = next((float(t) for t in times_tried if found(float(t))), 0.0)
    if not high:
        return ForecastStep(shown, None, 0, 0, callers)
    low = max(0.0, high / float(times_tried[1]))
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    harmed = traffic.rate * share * worse * high
    return ForecastStep(
        shown, ceil(high), ceil(harmed), ceil(harmed * (1 - traffic.errors / worse)), callers
    )


def _expected(traffic: ExpectedTraffic, of: Span, worse: float, seconds: float) -> stats.Floats:
    """Return the mean counts of a label process after so many seconds, (LABELS,)."""
    found = np.zeros(bets.LABELS)
    if traffic.callers is None:
        bad = traffic.rate * of.keyless * worse * seconds
        found[bets.CANDIDATE] = bad
        found[bets.KEYLESS] = bad + traffic.rate * (1 - of.keyless) * traffic.errors * seconds
        return found
    decided = traffic.callers * (of.high - of.low) / BUCKETS
    each = traffic.rate / max(traffic.callers, 1) * seconds
    bad = decided * of.callers * -np.expm1(-each * worse)
    found[bets.CANDIDATE] = bad
    found[bets.CALLERS] = bad + decided * (1 - of.callers) * (1 - exp(-each * traffic.errors))
    return found
