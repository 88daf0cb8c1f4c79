"""`kedge plan`: the estimate equals the judge's verdict on expected counts."""

from __future__ import annotations

import numpy as np
import pytest

from kedge.core.automation import rules
from kedge.core.evidence.events import Second
from kedge.core.evidence.forecast import ExpectedTraffic, detection
from kedge.core.evidence.judge import Judge
from kedge.core.values import Policy

RULES = rules(Policy(), paired=False)


def traffic(rate: float, errors: float, callers: int | None = None) -> ExpectedTraffic:
    return ExpectedTraffic(rate=rate, errors=errors, callers=callers)


def found_by_the_judge(rate: float, errors: float, times: float, weight: int) -> int:
    """Seconds until the judge fails on the expected counts, a second at a time."""
    judge = Judge(RULES, paired=False)
    share = weight / 10_000
    before = np.zeros(2, dtype=np.int64)
    for second in range(1, 20_000):
        bad = np.array([rate * (1 - share), rate * share * times]) * errors * second
        now = np.rint(bad).astype(np.int64)
        more = now - before
        cells = {"errors": {"": (int(more[0]), int(more[1]))}} if more.any() else {}
        judge.fold(weight, Second(at=float(second), keyless=cells))
        before = now
        if judge.failures:
            return second
    raise AssertionError("never found")


@pytest.mark.parametrize("weight", [100, 500, 2_500, 5_000])
def test_the_forecast_is_what_the_judge_then_does(weight: int) -> None:
    said = detection(RULES, traffic(100.0, 0.01), times=3.0, weight=weight)
    assert said.seconds is not None
    real = found_by_the_judge(100.0, 0.01, 3.0, weight)
    assert said.seconds == pytest.approx(real, rel=0.2, abs=10)


def test_few_callers_show_only_so_much_however_often_they_ask() -> None:
    few = detection(RULES, traffic(1_000.0, 0.01, callers=50), times=10.0, weight=100)
    assert (few.seconds, few.callers) == (None, 0)
    many = detection(RULES, traffic(1_000.0, 0.01, callers=20_000), times=10.0, weight=2_500)
    assert many.seconds is not None
    assert many.callers == 20_000 * 2_000 // 10_000


def test_more_callers_are_found_sooner() -> None:
    known = [
        detection(RULES, traffic(100.0, 0.01, callers=n), times=2.0, weight=2_500).seconds
        for n in (500, 5_000)
    ]
    assert known[1] is not None
    assert known[0] is None or known[0] > known[1]


def test_more_traffic_and_more_harm_are_found_sooner() -> None:
    slow = detection(RULES, traffic(10.0, 0.01), times=2.0, weight=500).seconds
    fast = detection(RULES, traffic(100.0, 0.01), times=2.0, weight=500).seconds
    worse = detection(RULES, traffic(100.0, 0.01), times=5.0, weight=500).seconds
    assert slow is not None
    assert fast is not None
    assert worse is not None
    assert worse < fast < slow


def test_nothing_is_promised_without_a_difference_or_without_callers() -> None:
    assert detection(RULES, traffic(100.0, 0.01), times=1.0, weight=500).seconds is None
    assert detection(RULES, traffic(0.0001, 0.0001), times=2.0, weight=100).seconds is None


def test_the_harm_is_what_callers_meet_until_then() -> None:
    said = detection(RULES, traffic(100.0, 0.01), times=2.0, weight=5_000)
    assert said.seconds is not None
    assert said.harmed == pytest.approx(said.seconds * 100 * 0.5 * 0.02, rel=0.02)
    assert said.excess == pytest.approx(said.harmed / 2, abs=1)


def test_no_more_than_every_request_can_fail() -> None:
    most = detection(RULES, traffic(100.0, 0.8), times=2.0, weight=2_500)
    assert most.excess == pytest.approx(most.harmed / 5, abs=1)
    none = detection(RULES, traffic(100.0, 1.0), times=2.0, weight=2_500)
    assert (none.seconds, none.harmed) == (None, 0)
