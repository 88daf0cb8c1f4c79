"""The estimate of the remaining time against simulated traffic: the judge then needs that much."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from statistics import median

import numpy as np
import pytest

from kedge.core.automation import EARLY, rules
from kedge.core.estimate import proven_after
from kedge.core.evidence.events import Caller, First, Label, Second
from kedge.core.evidence.forecast import ExpectedTraffic
from kedge.core.evidence.judge import Judge
from kedge.core.evidence.step import span
from kedge.core.evidence.time_left import (
    Callers,
    Row,
    get_row,
    log_e,
    needed_s,
    number_of_callers,
)
from kedge.core.evidence.verdicts import verdicts
from kedge.core.values import Guardrail, Policy

TOLERANCE = 0.35
"""Of the median of the real times: how far the median estimate may lie beside it."""
RULES = rules(Policy(), paired=False)
LABELLED = rules(
    Policy(guardrails={"quality": Guardrail(worse_by=0.2, metric="brier")}), paired=False
)
LONGEST_S = 40_000

Draw = Callable[[np.random.Generator, Judge, int], tuple[int, int]]
"""Folds one second into a judge; returns the requests of it, by arm."""


def keyless(rate: float, errors: float, weight: int) -> Draw:
    """Requests without an entity; both releases fail alike."""

    def second(random: np.random.Generator, judge: Judge, at: int) -> tuple[int, int]:
        share = weight / 10_000
        n = random.poisson([rate * (1 - share), rate * share])
        bad = random.binomial(n, errors)
        cells = {"errors": {"": (int(bad[0]), int(bad[1]))}} if bad.any() else {}
        met = {"": (int(n[0]), int(n[1]))}
        judge.fold(weight, Second(at=float(at), keyless=cells, met=met, timed=met))
        return int(n[0]), int(n[1])

    return second


def callers(rate: float, errors: float, weight: int, number: int) -> Draw:
    """Callers that ask alike, by chance; both releases fail alike."""
    buckets = np.random.default_rng(17).integers(0, 10_000, number)
    seen: set[int] = set()

    def second(random: np.random.Generator, judge: Judge, at: int) -> tuple[int, int]:
        who = random.integers(0, number, random.poisson(rate))
        failed = random.random(len(who)) < errors
        arms = (buckets[who] < weight).astype(int)
        bad: dict[int, int] = {}
        first = []
        for unit, fails, arm in zip(who.tolist(), failed.tolist(), arms.tolist(), strict=True):
            bad[unit] = bad.get(unit, 0) + fails
            if unit not in seen:
                seen.add(unit)
                metrics = frozenset({"errors"}) if fails else frozenset()
                first.append(First(unit + 1, int(buckets[unit]), arm, metrics, ()))
        met = [
            Caller(unit + 1, int(buckets[unit]), "errors", int(buckets[unit] < weight), times, ())
            for unit, times in bad.items()
            if times
        ]
        judge.fold(weight, Second(at=float(at), callers=met, first=first))
        return len(who) - int(arms.sum()), int(arms.sum())

    return second


def labels(rate: float, loss: float, weight: int) -> Draw:
    """Labels of requests without an entity, with losses around a mean; both releases alike."""

    def second(random: np.random.Generator, judge: Judge, at: int) -> tuple[int, int]:
        share = weight / 10_000
        found = []
        for _ in range(random.poisson(rate)):
            arm, lost = int(random.random() < share), float(min(random.exponential(loss), 1.0))
            found.append(
                Label(None, -1, arm, 0.0 if arm else lost, lost if arm else 0.0, float(at), ())
            )
        judge.fold(weight, Second(at=float(at)))
        judge.fold_labels(weight, found, float(at))
        return len(found), len(found)

    return second


def passes(judge: Judge, name: str, requests: list[int]) -> bool:
    found = verdicts(judge, {"": (requests[0], requests[1])}, only={(name, "")})
    return bool(found) and found[0].verdict == "pass"


def run(
    draw: Draw,
    name: str,
    seed: int,
    asked_at: int,
    *,
    labelled: bool = False,
    past: tuple[int, int] = (0, 0),
) -> tuple[float, float]:
    """Return when the judge passed, and when it was expected to at a second before that."""
    random, asked = np.random.default_rng(seed), LABELLED if labelled else RULES
    judge, requests, said = Judge(asked, paired=False), [0, 0], inf
    for at in range(LONGEST_S):
        for arm, n in enumerate(draw(random, judge, at)):
            requests[arm] += n
        if at == asked_at:
            row = get_row(judge, name, (requests[0], requests[1]), past)
            assert row is not None
            took = needed_s(row, asked.rails[name], asked.alpha, asked.callers_floor)
            said = inf if took is None else at + took
        if at % 5 == 0 and at > asked_at and passes(judge, name, requests):
            return at, said
    raise AssertionError("never proven")


WORLDS: dict[str, tuple[Callable[[], Draw], str, int, int, tuple[int, int]]] = {
    "one in a hundred fails, half": (lambda: keyless(60.0, 0.01, 5_000), "errors", 30, 9, (0, 0)),
    "one in a thousand, a quarter": (lambda: keyless(300.0, 0.001, 2_500), "errors", 60, 5, (0, 0)),
    "few, known from before": (
        lambda: keyless(200.0, 0.0005, 5_000),
        "errors",
        20,
        9,
        (50, 100_000),
    ),
    "none fails, half": (lambda: keyless(60.0, 0.0, 5_000), "errors", 10, 3, (0, 0)),
    "none fails, five per cent": (lambda: keyless(60.0, 0.0, 500), EARLY, 10, 3, (0, 0)),
    "callers that rarely fail": (
        lambda: callers(60.0, 0.001, 5_000, 4_000),
        "errors",
        10,
        5,
        (0, 0),
    ),
    "callers that ask often": (lambda: callers(60.0, 0.02, 5_000, 2_500), "errors", 60, 3, (0, 0)),
}
"""What is drawn, what is proven, when it is estimated, how often, and what was counted before."""


@pytest.mark.parametrize("world", WORLDS)
def test_the_median_estimate_is_near_the_median_time(world: str) -> None:
    make, name, at, seeds, past = WORLDS[world]
    found = [run(make(), name, seed, at, past=past) for seed in range(seeds)]
    real, said = (median(times) for times in zip(*found, strict=True))
    assert said == pytest.approx(real, rel=TOLERANCE)


def test_the_estimate_for_losses_is_near_the_median_time() -> None:
    found = [run(labels(20.0, 0.2, 5_000), "quality", seed, 10, labelled=True) for seed in range(5)]
    real, said = (median(times) for times in zip(*found, strict=True))
    assert said == pytest.approx(real, rel=TOLERANCE)


def test_the_plan_agrees_with_the_later_estimate() -> None:
    """Before there is any request, from the same rate and the same share of failures."""
    planned = proven_after(Policy(), ExpectedTraffic(rate=60.0, errors=0.01), 5_000)
    assert planned is not None
    real = median(run(keyless(60.0, 0.01, 5_000), "errors", seed, 30)[0] for seed in range(9))
    assert max(real, 600.0) == pytest.approx(planned, rel=TOLERANCE)


@pytest.mark.parametrize("draw", [keyless(80.0, 0.02, 2_500), labels(20.0, 0.2, 5_000)])
def test_the_estimate_of_now_is_the_judges_own_certificate(draw: Draw) -> None:
    random, judge, requests = np.random.default_rng(3), Judge(LABELLED, paired=False), [0, 0]
    for at in range(50):
        for arm, n in enumerate(draw(random, judge, at)):
            requests[arm] += n
    step = judge.step
    assert step is not None
    for name in ("errors", "quality"):
        row = get_row(judge, name, (requests[0], requests[1]))
        place = judge.rows.find(name, "")
        if row is None or not step.arrays["met"][place].any():
            continue
        now = log_e(row, LABELLED.rails[name], LABELLED.callers_floor, 0.0)
        assert now == pytest.approx(judge.proof(step, name, place))


def test_more_traffic_is_proven_sooner_and_none_never() -> None:
    rail, of = RULES.rails["errors"], span(5_000, [], paired=False)

    def after(rate: float) -> float | None:
        return needed_s(Row(of, rate, 0.01), rail, RULES.alpha, RULES.callers_floor)

    slow, fast = after(20.0), after(200.0)
    assert slow is not None
    assert fast is not None
    assert slow == pytest.approx(10 * fast, rel=0.05)
    assert after(0.0) is None


def test_so_few_callers_prove_nothing_however_often_they_ask() -> None:
    rail, of = RULES.rails["errors"], span(5_000, [], paired=False)
    few = Row(of, 0.0, 0.001, callers=Callers(number=50.0, each=2.0))
    assert needed_s(few, rail, RULES.alpha, RULES.callers_floor) is None
    small = proven_after(Policy(), ExpectedTraffic(rate=100.0, errors=0.001, callers=400), 100)
    assert small == 3_600.0


@pytest.mark.parametrize("number", [30, 2_000, 500_000])
def test_the_number_of_callers_follows_from_how_often_they_came_again(number: int) -> None:
    requests = number * 0.7
    seen = number * (1 - np.exp(-0.7))
    assert number_of_callers(requests, seen) == pytest.approx(number, rel=1e-6)
    assert number_of_callers(40, 40) > 1_000_000
