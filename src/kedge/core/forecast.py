"""How soon a worse candidate would be found, from an endpoint's own traffic.

The judge is asked about the counts that are to be expected: the same mixture of bets, the same
stake, on mean counts instead of drawn ones. The instant at which they suffice is close to the
median of the real delays (`bench/detection` measures both).
"""

from __future__ import annotations

from math import ceil, log

import numpy as np

from kedge.core import stats
from kedge.core.monitor import Rules
from kedge.core.values import BUCKETS, Value

LONGEST_S = 30 * 86_400
"""Beyond a month the answer is "not from this traffic"."""


class Step(Value, frozen=True):
    """One canary step: seconds until found (None: not within a month), callers who meet it."""

    weight: float
    """Per cent."""
    seconds: float | None
    harmed: int
    """Failures of the candidate before it is found."""
    excess: int
    """Of these, those that production would not have had."""


def detection(rules: Rules, *, rate: float, errors: float, times: float, weight: int) -> Step:
    """When errors `times` as frequent as production's would be found at a weight.

    Args:
        rules: what the judge is asked (alpha, the share of errors in the alarm, least failures).
        rate: requests a second, both arms together.
        errors: production's share of failures, 0 to 1.
        times: how many times that rate the candidate fails.
        weight: the candidate's share in buckets.
    """
    share = weight / BUCKETS
    worse = min(errors * times, 1.0)
    bad, good = rate * share * worse, rate * (1 - share) * errors
    if bad <= 0 or times <= 1:
        return Step(weight * 100 / BUCKETS, None, 0, 0)
    a, b = stats.label_increments(share, stats.ALARM_GRID)
    stake = rules.rails["errors"].weight * (1 - rules.segment_stake) * stats.stake(0)
    target = log(1 / (rules.alpha * stake))
    low, high = 0.0, float(LONGEST_S)
    drift = np.asarray(bad * a + good * b)

    def found(seconds: float) -> bool:
        return bool(stats.log_mixture(drift * seconds) >= target)

    if not found(high):
        return Step(weight * 100 / BUCKETS, None, 0, 0)
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    seconds = max(high, rules.min_bad / bad)
    harmed = bad * seconds
    return Step(weight * 100 / BUCKETS, ceil(seconds), ceil(harmed), ceil(harmed * (1 - 1 / times)))
