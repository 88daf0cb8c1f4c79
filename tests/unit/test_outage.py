"""An outage that both releases share is no evidence against the candidate."""

from __future__ import annotations

import numpy as np
import pytest

from kedge.core.evidence.events import Caller, First, Second
from kedge.core.evidence.judge import Judge
from kedge.core.evidence.rules import JudgeRules, Rail
from kedge.core.evidence.verdicts import overall

WEIGHT = 500
CALLERS = 4_000
RULES = JudgeRules(
    rails={"errors": Rail(worse_by=0.5, weight=0.8)},
    min_units=100,
    min_units_per_segment=100,
    steps=(500, 5_000),
)


@pytest.mark.parametrize("seed", range(3))
def test_a_second_in_which_half_of_both_arms_fail_condemns_no_release(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buckets = rng.integers(0, 10_000, CALLERS)
    arms = (buckets < WEIGHT).astype(int)
    made = Judge(RULES, paired=False)
    for second in range(1_400):
        risk = 0.5 if second == 300 else 2e-4
        bad = np.flatnonzero(rng.random(CALLERS) < risk)
        first = range(CALLERS) if second == 0 else ()
        made.fold(
            WEIGHT,
            Second(
                at=float(second),
                callers=[
                    Caller(int(n), int(buckets[n]), "errors", int(arms[n]), 1, ()) for n in bad
                ],
                first=[First(n, int(buckets[n]), int(arms[n]), frozenset(), ()) for n in first],
            ),
        )
    assert overall(made).verdict != "fail"
    assert made.step is not None
    assert made.step.looks > 0, "the counts were looked at"


def test_the_present_step_and_that_of_a_failure_are_never_forgotten() -> None:
    made = Judge(RULES, paired=False)
    for weight in (100, 200, 300, 400, 500, 600, 700, 800):
        made.begin(weight, 0.0)
    made.begin(100, 1.0)  # back at the oldest
    made.begin(900, 2.0)
    made.weight = 100
    made.begin(1_000, 3.0)
    assert 100 in made.steps
    assert len(made.steps) == 8
