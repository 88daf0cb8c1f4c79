"""A seeded subset of the detection bench: few runs, wide tolerances, the same every time.

The full table (1,000 runs a scenario) is `bench/detection.py`. A share of n runs has a standard error of at most
0.5 / sqrt(n); what is promised to be rare must not happen in more runs than three standard errors above its
promise allow.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf, log, sqrt

import numpy as np
import pytest
import simulated
import spending
import uneven
import units
from rollouts import Policy, needed
from simulated import (
    C200,
    C1000,
    C1000_CHATTY,
    C1000_LIGHT,
    FORTNIGHT,
    HEAVY,
    KEYLESS,
    LABELS_02,
    PAUSES,
    RETRIES_CALLERS,
    SLOW,
    ZIPF1000,
    Scenario,
    late,
)
from units import Design, Seen
from worlds import World

ALPHA = Design().alpha
HOUR_S = 3_600.0


def lines(scenario: Scenario, runs: int, seed: int = 9) -> dict[str, float]:
    return simulated.line(scenario, simulated.run_all(None, scenario, seed, runs))


def most(promise: float, runs: int) -> float:
    """The largest share of runs that three standard errors above a promise allow."""
    return promise + 3 * sqrt(promise * (1 - promise) / runs)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(KEYLESS, held=0.05),
        Scenario(C200, held=0.25),
        Scenario(C1000, held=0.25),
        Scenario(ZIPF1000, held=0.25),
        Scenario(HEAVY, held=0.05),
        Scenario(PAUSES, held=0.25),
        Scenario(RETRIES_CALLERS, held=0.25),
        Scenario(FORTNIGHT, held=0.25),
        Scenario(LABELS_02, held=0.25),
    ],
    ids=lambda scenario: scenario.title,
)
def test_an_identical_candidate_is_hardly_ever_rolled_back(scenario: Scenario) -> None:
    """At ten times alpha as well, where thirty runs can refute it."""
    runs = 30
    found = lines(scenario, runs)
    assert found["rolled_back"] <= most(1.5 * ALPHA, runs)
    assert found["at_ten_alpha"] <= most(10 * ALPHA, runs)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(late(SLOW, 6), "worse", 2.0, 6 * HOUR_S, 0.25),
        Scenario(C1000_LIGHT, "worse", 2.0, held=0.25),
        Scenario(late(C1000_CHATTY, 6), "worse", 10.0, 6 * HOUR_S, 0.25),
        Scenario(C200, "worse", 10.0, held=0.25),
        Scenario(late(C200, 6), "worse", 10.0, 6 * HOUR_S, 0.25),
        Scenario(LABELS_02, "worse", 4.0, held=0.05),
    ],
    ids=lambda scenario: scenario.title,
)
def test_promised_detections_happen_within_a_day(scenario: Scenario) -> None:
    assert lines(scenario, 20)["found_24h"] >= 0.9


@pytest.mark.parametrize("world", [SLOW, C1000], ids=lambda world: world.name)
def test_a_ramp_promotes_an_identical_candidate_and_none_at_the_margin(
    world: World,
) -> None:
    runs = 20
    assert lines(Scenario(world), runs)["promoted"] >= 0.9
    for ratio in (1.5, 2.0):
        assert lines(Scenario(world, "worse", ratio), runs)["promoted"] <= most(0.01, runs)


def test_few_callers_cannot_be_proven_and_are_not_promoted() -> None:
    """What 200 callers cannot show at 25 % is not taken as shown: most rollouts wait there."""
    found = lines(Scenario(C200), 10)
    assert found["promoted"] <= 0.5
    assert found["rolled_back"] == 0
    assert lines(Scenario(C200, "worse", 1.5), 10)["promoted"] == 0


def test_failures_beside_an_oracle_are_at_most_twice_as_many() -> None:
    scenario = Scenario(KEYLESS, "worse", 5.0, held=0.05, oracle=True)
    found = lines(scenario, 200)
    ratio = found["errors"] / found["oracle_errors"]
    assert ratio <= 2.0 * (1 + 3 * found["errors_se"] / found["errors"])
    assert ratio >= 1.0


def test_uneven_labels_blame_no_release_and_even_ones_do() -> None:
    """Without the credit for missing labels an identical candidate fails in nearly all runs."""
    for case in uneven.CASES:
        times = np.array(
            [
                uneven.sounds(np.random.Generator(np.random.SFC64((4, run))), case, Design())
                for run in range(10)
            ]
        )
        found = np.isfinite(times).mean(axis=0)
        if case.ratio > 1:
            assert found[1] >= 0.9, case
        else:
            assert found[1] <= most(1.5 * ALPHA, 10), case
    plain = uneven.sounds(np.random.Generator(np.random.SFC64((4, 0))), uneven.CASES[3], Design())
    assert plain[0] < inf


def test_cost_by_caller_is_not_certified_at_the_margin() -> None:
    """Where a test by the normal approximation certifies a candidate that is 20 % dearer."""
    skewed = [case for case in spending.CASES if case.spread >= 2 or not case.spread]
    loose = 0.0
    for number, case in enumerate(skewed):
        for run in range(20):
            rng = np.random.Generator(np.random.SFC64((5, number, run)))
            base, cand = (
                spending.drawn(rng, case, case.callers),
                rng.random(case.callers) < case.share,
            )
            prior = spending.drawn(rng, case, 200 if case.spread else case.callers)
            passed, _, asymptotic = spending.judged(case, base, cand, prior, 1 + spending.MARGIN)
            assert not passed, case
            loose += asymptotic
    assert loose > 0


def test_the_stakes_of_restarts_sum_to_at_most_one() -> None:
    assert sum(units.stake(k) for k in range(100_000)) <= 1


def test_a_caller_counts_once_in_each_restart_and_again_in_the_next() -> None:
    """Eight callers of the candidate that fail again and again are no more than eight."""
    once = np.arange(8.0) * 10
    again = np.sort(np.concatenate([once + 80 * k for k in range(5)]))
    unit = np.tile(np.arange(8), 5)
    arm = np.ones(40, dtype=np.int8)
    side = np.ones(8, dtype=np.int8)

    def sounds(t: np.ndarray, callers: np.ndarray, needed: float) -> float:
        seen = Seen(
            t, callers, arm[: len(t)], 0.25, side=side[: callers.max() + 1], first=np.zeros(8)
        )
        return units.firsts(Design(), seen, needed)

    most_of_eight = 8 * log(1 / 0.25) + log(units.stake(0))
    assert sounds(again, unit, most_of_eight) == inf
    assert sounds(again, np.arange(40), 5.0) < inf  # forty callers instead


def test_a_pause_of_the_process_is_one_event() -> None:
    """A hundred requests of one instant are one; a hundred over a hundred seconds are a hundred."""
    arm = np.ones(100, dtype=np.int8)
    instant = Seen(np.full(100, 5.0), np.arange(100), arm, 0.05)
    apart = replace(instant, t=np.arange(100.0))
    assert len(units.settled(Design(), instant).t) == 1
    assert len(units.settled(Design(), apart).t) == 100


def test_production_at_the_same_rate_proves_and_spent_callers_do_not() -> None:
    """Callers whose counts are all at the cap look alike in both arms: no certificate."""
    side = (np.arange(1_000) % 4 == 0).astype(np.int8)
    first = np.zeros(1_000)
    callers = np.repeat(np.arange(1_000), 200)
    t = np.sort(np.random.Generator(np.random.SFC64(1)).random(len(callers)) * 600)
    spent = Seen(t, callers, side[callers], 0.25, side=side, first=first)
    assert units.certificate(Design(), spent, 0.5, 600.0) == inf
    few = np.random.Generator(np.random.SFC64(2)).integers(0, 1_000, 3_000)
    fresh = Seen(np.linspace(0, 599, 3_000), few, side[few], 0.25, side=side, first=first)
    assert units.certificate(Design(), fresh, 0.5, 600.0) < inf


def test_the_policy_parts_its_promise_among_declared_steps() -> None:
    """Four steps have a quarter of nine tenths each."""
    alone = needed(Design(), 0.7, Policy(steps=(0.25,)))
    four = needed(Design(), 0.7, Policy())
    assert four - alone == pytest.approx(log(4))
