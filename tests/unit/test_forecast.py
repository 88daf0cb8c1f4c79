"""`kedge plan`: what is expected is what the judge would say of expected counts."""

from __future__ import annotations

import numpy as np
import pytest

from kedge.core import monitor
from kedge.core.forecast import detection
from kedge.core.monitor import Interval
from kedge.core.policy import rules
from kedge.core.values import Policy

RULES = rules(Policy(), paired=False)


def found_by_the_judge(rate: float, errors: float, times: float, weight: int) -> int:
    """Seconds until the real judge fails on the expected counts, a minute at a time."""
    judge = monitor.begin(0.0, RULES.rails)
    share = weight / 10_000
    before = np.zeros(4, dtype=np.int64)
    for second in range(60, 200_000, 60):
        units = np.array([rate * (1 - share), rate * share]) * second
        bad = units * [errors, errors * times]
        now = np.rint(np.concatenate([units, bad])).astype(np.int64)
        counts = (now - before)[None, :]
        judge = monitor.fold(judge, Interval(float(second), (("errors", ""),), counts))
        before = now
        if monitor.overall(judge, RULES).verdict == "fail":
            return second
    raise AssertionError("never found")


@pytest.mark.parametrize("weight", [100, 500, 2_500, 5_000])
def test_the_forecast_is_what_the_judge_then_does(weight: int) -> None:
    said = detection(RULES, rate=100.0, errors=0.01, times=3.0, weight=weight)
    assert said.seconds is not None
    real = found_by_the_judge(100.0, 0.01, 3.0, weight)
    assert said.seconds == pytest.approx(real, rel=0.2, abs=90)


def test_more_traffic_and_more_harm_are_found_sooner() -> None:
    slow = detection(RULES, rate=10.0, errors=0.01, times=2.0, weight=500).seconds
    fast = detection(RULES, rate=100.0, errors=0.01, times=2.0, weight=500).seconds
    worse = detection(RULES, rate=100.0, errors=0.01, times=5.0, weight=500).seconds
    assert slow is not None
    assert fast is not None
    assert worse is not None
    assert worse < fast < slow


def test_nothing_is_promised_where_nothing_differs_or_nobody_calls() -> None:
    assert detection(RULES, rate=100.0, errors=0.01, times=1.0, weight=500).seconds is None
    assert detection(RULES, rate=0.0001, errors=0.0001, times=2.0, weight=100).seconds is None


def test_the_harm_is_what_callers_meet_until_then() -> None:
    said = detection(RULES, rate=100.0, errors=0.01, times=2.0, weight=5_000)
    assert said.seconds is not None
    assert said.harmed == pytest.approx(said.seconds * 100 * 0.5 * 0.02, rel=0.02)
    assert said.excess == pytest.approx(said.harmed / 2, abs=1)
