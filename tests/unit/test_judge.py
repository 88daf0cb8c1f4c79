"""The judge: its proofs, its limits, and its memory."""

from __future__ import annotations

from collections.abc import Iterable
from math import log
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.automation import rules
from kedge.core.evidence import bets
from kedge.core.evidence.events import Caller, First, Label, Second
from kedge.core.evidence.judge import Judge, load_judge
from kedge.core.evidence.rules import JudgeRules, Rail, Verdict
from kedge.core.evidence.step import live, span
from kedge.core.evidence.units import Units, pick
from kedge.core.evidence.verdicts import overall, verdicts
from kedge.core.values import Policy

RAILS = {
    "errors": Rail(worse_by=0.5, weight=0.8),
    "latency": Rail(worse_by=1.0, r0=2.0, weight=0.1),
    "quality": Rail(worse_by=0.05, weight=0.1),
}
RULES = JudgeRules(rails=RAILS, min_units=100, min_units_per_segment=100, steps=(500, 5_000))
LOSSES = msgspec.structs.replace(
    RULES, rails={**RAILS, "quality": Rail(worse_by=0.05, weight=0.1, mean=True)}
)

Bad = dict[str, tuple[int, int]]


def judge(asked: JudgeRules = RULES, *, paired: bool = False) -> Judge:
    return Judge(asked, paired=paired)


def fold(
    into: Judge,
    seconds: Iterable[float],
    *,
    bad: Bad | None = None,
    met: tuple[int, int] = (50, 50),
    metric: str = "errors",
    weight: int = 5_000,
    **more: Any,
) -> Judge:
    """So many seconds alike, of requests without an entity."""
    cells = {"": met, **{name: met for name in bad or {} if name}}
    for at in seconds:
        into.fold(
            weight,
            Second(
                at=float(at),
                keyless={metric: bad} if bad else {},
                met=cells,
                timed=cells,
                **more,
            ),
        )
    return into


def verdict(of: Judge, metric: str = "errors", segment: str = "", asked: int = 10**6) -> Verdict:
    (found,) = verdicts(of, {segment: (asked, asked)}, only={(metric, segment)})
    return found


def caller(
    unit: int, *, arm: int, bucket: int = 0, times: int = 1, segments: tuple[str, ...] = ()
) -> Caller:
    bucket = bucket or (100 if arm else 9_000)
    return Caller(unit, bucket, "errors", arm, times, segments)


# ---------------------------------------------------------------- verdicts


def test_no_data_is_no_pass() -> None:
    made = judge()
    assert verdicts(made, {}) == ()
    assert overall(made).verdict == "inconclusive"
    made.fold(5_000, Second(at=0.0, met={"": (1_000, 0)}, keyless={"errors": {"": (5, 0)}}))
    found = verdict(made, asked=0)
    assert (found.verdict, found.reason) == ("inconclusive", "no data")


def test_a_worse_candidate_fails_and_the_reason_has_the_figures() -> None:
    made = fold(judge(), range(60), bad={"": (1, 1)}, met=(95, 5), weight=500)
    said = overall(made)
    assert (said.verdict, said.metric) == ("fail", "errors")
    assert "bad units of the candidate in at least 3 separate seconds" in said.reason
    assert "at 5 %" in said.reason
    assert verdict(made).verdict == "fail"


def test_an_equal_candidate_passes_by_proof_not_for_want_of_an_alarm() -> None:
    few = fold(judge(), range(20), bad={"": (1, 1)}, met=(100, 100))
    assert verdict(few).verdict == "inconclusive"
    many = fold(judge(), range(400), bad={"": (1, 1)}, met=(100, 100))
    assert verdict(many).verdict == "pass"
    assert overall(many).verdict == "inconclusive"


def test_without_failures_a_floor_is_proven() -> None:
    few = fold(judge(), range(40), met=(100, 100))
    assert verdict(few).verdict == "inconclusive"
    many = fold(judge(), range(90), met=(100, 100))
    assert verdict(many).verdict == "pass"


def test_a_tolerated_ratio_is_not_an_alarm() -> None:
    """Latency may double: at 1.9 times nothing sounds, at four times it does."""
    fine = fold(judge(), range(200), bad={"": (5, 9)}, met=(500, 500), metric="latency")
    assert overall(fine).verdict != "fail"
    slow = fold(judge(), range(200), bad={"": (5, 20)}, met=(500, 500), metric="latency")
    assert overall(slow).metric == "latency"


def test_a_handful_of_bad_units_is_not_enough() -> None:
    made = fold(judge(), range(7), bad={"": (0, 1)}, met=(9_900, 100), weight=100)
    assert overall(made).verdict == "inconclusive"
    assert "7 bad units of the candidate, and an alarm needs 8" in overall(made).reason


def test_bad_units_of_two_seconds_are_not_enough() -> None:
    """Whatever their number: two instants may be one cause."""
    made = fold(judge(), range(600), bad={"": (5, 5)}, met=(500, 500))
    fold(made, [600, 601], bad={"": (5, 40)}, met=(500, 500))
    assert overall(made).verdict != "fail"


def test_a_failure_stays() -> None:
    made = fold(judge(), range(20), bad={"": (0, 1)}, met=(50, 50))
    assert verdict(made).verdict == "fail"
    fold(made, range(100, 400), bad={"": (5, 0)}, met=(50, 50))
    assert overall(made).verdict == "fail"


def test_a_failing_segment_is_found_though_the_whole_looks_well() -> None:
    cells = {"": (10, 11)} | {f"origin={n}": (1, 4 if n == 3 else 0) for n in range(10)}
    made = fold(judge(), range(40), bad=cells, met=(1_000, 1_000))
    said = overall(made)
    assert (said.verdict, said.segment) == ("fail", "origin=3")


def test_a_shared_incident_moves_nothing() -> None:
    made = fold(judge(), range(20), met=(95, 5), weight=500)
    fold(made, range(30, 130), bad={"": (38, 2)}, met=(95, 5), weight=500)
    assert overall(made).verdict != "fail"


def test_a_share_that_is_not_the_one_set_blames_no_candidate() -> None:
    """Seven per cent are given where five were set, and both releases fail alike."""
    rng, made = np.random.default_rng(53), judge()
    for at in range(3_600):
        theirs = int(rng.binomial(200, 0.07))
        bad = int(rng.binomial(200 - theirs, 0.05)), int(rng.binomial(theirs, 0.05))
        cells = {"": (200 - theirs, theirs)}
        made.fold(500, Second(at=float(at), keyless={"errors": {"": bad}}, met=cells, timed=cells))
    assert overall(made).verdict != "fail"


def test_a_ramp_into_a_bad_night_does_not_fool_it() -> None:
    """Simpson: pooled, the candidate has twice production's rate; at each step the same."""
    made = fold(judge(), range(50), bad={"": (19, 1)}, met=(950, 50), weight=500)
    fold(made, range(50, 100), bad={"": (50, 50)}, met=(500, 500))
    assert overall(made).verdict != "fail"


def test_metrics_without_a_guardrail_are_passed_over() -> None:
    made = fold(judge(), range(3), bad={"": (5, 5)}, metric="beauty")
    assert {metric for metric, _ in made.rows.keys} == {"errors", "latency"}


# ---------------------------------------------------------------- callers


def test_a_caller_counts_once_in_each_restart_however_often_it_fails() -> None:
    made = judge()
    for at in range(590):
        made.fold(5_000, Second(at=float(at), callers=[caller(7, arm=1)]))
    step, row = made.step, made.rows.find("errors", "")
    assert step is not None
    assert step.counts[row, 0, bets.CANDIDATE] == 1
    made.fold(5_000, Second(at=700.0, callers=[caller(7, arm=1)]))
    assert step.counts[row, :, bets.CANDIDATE].tolist() == [1, 1]


def test_two_workers_that_report_one_caller_report_one() -> None:
    made = judge()
    made.fold(5_000, Second(at=1.0, callers=[caller(7, arm=1), caller(7, arm=1)]))
    assert made.step is not None
    assert made.step.counts[made.rows.find("errors", ""), 0, bets.CANDIDATE] == 1


def test_a_regression_is_found_that_begins_after_every_caller_went_bad() -> None:
    """200 callers at a request a second: all are counted within hours, and then ten times fail."""
    rng = np.random.default_rng(3)
    made, arms = judge(), rng.random(200) < 0.25
    bad = rng.random((8 * 3600, 200)) < 0.002
    late = rng.random((8 * 3600, 200)) < 0.018
    for at in range(6 * 3600):
        told = bad[at]
        _second(made, at, arms, told, weight=2_500)
    assert overall(made).verdict != "fail"
    for at in range(6 * 3600, 8 * 3600):
        _second(made, at, arms, bad[at] | (late[at] & arms), weight=2_500)
        if made.failures:
            break
    assert overall(made).verdict == "fail"
    assert at < 6 * 3600 + 600


def _second(made: Judge, at: int, arms: Any, bad: Any, *, weight: int) -> None:
    made.fold(
        weight,
        Second(
            at=float(at),
            callers=[
                caller(int(n), arm=int(arms[n]), bucket=1 if arms[n] else 9_999)
                for n in np.flatnonzero(bad)
            ],
            first=[
                First(n, 1 if arms[n] else 9_999, int(arms[n]), frozenset(), ())
                for n in range(len(arms))
            ]
            if not at
            else (),
        ),
    )


def test_heavy_callers_beside_light_ones_are_no_evidence() -> None:
    """The share is the designed one: it does not follow who asks most."""
    made, rng = judge(), np.random.default_rng(4)
    heavy = rng.random(50) < 0.05
    light = rng.random(20_000) < 0.05
    for at in range(7_200):
        who = rng.integers(0, 20_000, rng.poisson(0.012))
        told = [
            caller(int(n) + 1_000, arm=int(light[n]), bucket=1 if light[n] else 9_999) for n in who
        ]
        told += [
            caller(int(n), arm=int(heavy[n]), bucket=1 if heavy[n] else 9_999)
            for n in np.flatnonzero(rng.random(50) < 0.0001)
        ]
        made.fold(500, Second(at=float(at), callers=told))
    assert overall(made).verdict != "fail"


def test_callers_that_an_earlier_step_assigned_do_not_count_again() -> None:
    made = judge()
    made.fold(500, Second(at=0.0, callers=[caller(1, arm=1, bucket=100)]))
    made.fold(
        5_000, Second(at=1.0, callers=[caller(1, arm=1, bucket=100), caller(2, arm=1, bucket=600)])
    )
    step = made.steps[5_000]
    assert step.counts[made.rows.find("errors", ""), 0, bets.CANDIDATE] == 1
    assert (step.span.low, step.span.high) == (500, 10_000)
    assert step.span.callers == pytest.approx(4_500 / 9_500)


def test_a_weight_that_is_set_again_continues_its_step() -> None:
    made = judge()
    first = made.begin(500, 0.0)
    made.begin(5_000, 1.0)
    assert made.begin(500, 2.0) is first


@pytest.mark.parametrize(
    ("weight", "known", "low", "high"),
    [
        (500, [], 0, 10_000),
        (2_500, [100, 500], 500, 10_000),
        (300, [100, 500], 100, 500),
        (500, [500], 0, 10_000),
    ],
)
def test_a_step_decides_on_the_callers_between_its_neighbours(
    weight: int, known: list[int], low: int, high: int
) -> None:
    of = span(weight, known, paired=False)
    assert (of.low, of.high) == (low, high)
    assert of.callers == pytest.approx((weight - low) / (high - low))


def test_a_caller_whose_arm_is_not_the_one_of_its_bucket_is_left_out() -> None:
    made = judge()
    made.fold(500, Second(at=0.0, callers=[caller(1, arm=0, bucket=100)]))
    assert made.misrouted == 1
    assert made.rows.find("errors", "") < 0 or not made.steps[500].counts.any()


def test_equal_callers_are_proven_at_a_look() -> None:
    rng = np.random.default_rng(5)
    made, arms = judge(), rng.random(1_000) < 0.5
    for at in range(3_700):
        bad = rng.random(1_000) < 0.003
        _second(made, at, arms, bad, weight=5_000)
    assert verdict(made).verdict == "pass"
    assert overall(made).verdict != "fail"


def test_callers_that_are_all_spent_prove_nothing() -> None:
    """1.5 times as bad, and after an hour everyone went bad: by first events the arms look alike."""
    rng = np.random.default_rng(6)
    made, arms = judge(), rng.random(400) < 0.5
    for at in range(3_700):
        bad = rng.random(400) < np.where(arms, 0.015, 0.01)
        _second(made, at, arms, bad, weight=5_000)
    assert verdict(made).verdict != "pass"


def test_few_callers_are_named_as_the_reason() -> None:
    made = judge()
    first = [First(n, 1, 1, frozenset(), ()) for n in range(50)]
    first += [First(n, 9_999, 0, frozenset(), ()) for n in range(50, 100)]
    made.fold(5_000, Second(at=0.0, first=first))
    found = verdict(made)
    assert (found.verdict, found.provable, found.callers) == ("inconclusive", False, True)
    assert "50 callers of the candidate" in found.reason


def test_first_requests_that_do_not_fail_prove_a_floor() -> None:
    made = judge()
    made.fold(
        5_000,
        Second(
            at=0.0,
            first=[First(n, 1 if n % 2 else 9_999, n % 2, frozenset(), ()) for n in range(1_700)],
        ),
    )
    assert verdict(made).verdict == "pass"
    made.fold(
        5_000,
        Second(
            at=1.0, first=[First(10_000 + n, 1, 1, frozenset({"errors"}), ()) for n in range(40)]
        ),
    )
    assert verdict(made).verdict != "pass"


# ---------------------------------------------------------------- bursts


def test_a_pause_is_one_event_however_many_it_hits() -> None:
    made = fold(judge(), range(7_200), met=(75, 25), weight=2_500)
    for n in range(7):
        fold(made, [7_200 + 300 * n], bad={"": (0, 40)}, met=(75, 25), weight=2_500)
    assert overall(made).verdict != "fail"


def test_a_candidate_that_fails_many_requests_a_second_is_still_found() -> None:
    made = fold(judge(), range(600), met=(75, 25), weight=2_500)
    for at in range(600, 660):
        fold(made, [at], bad={"": (0, 8)}, met=(75, 25), weight=2_500)
        if made.failures:
            break
    assert overall(made).verdict == "fail"
    assert at < 630


def test_a_burst_still_counts_against_the_certificate() -> None:
    made = judge()
    fold(made, range(1_000), bad={"": (1, 0)}, met=(75, 25), weight=2_500)
    before = made.proof(made.steps[2_500], "errors", made.rows.find("errors", ""))
    fold(made, [1_001], bad={"": (0, 60)}, met=(75, 25), weight=2_500)
    assert made.proof(made.steps[2_500], "errors", made.rows.find("errors", "")) < before - 10


def test_a_burst_of_productions_proves_nothing_for_the_candidate() -> None:
    made = fold(judge(), range(600), met=(75, 25), weight=2_500)
    fold(made, [600, 900, 1_200], bad={"": (60, 0)}, met=(75, 25), weight=2_500)
    row = made.rows.find("errors", "")
    assert made.steps[2_500].arrays["steady"][row].tolist() == [0, 0]


# ---------------------------------------------------------------- pairs and labels


def test_only_discordant_pairs_count() -> None:
    worse = fold(judge(paired=True), range(25), bad={"": (0, 1)}, weight=0)
    assert verdict(worse).verdict == "fail"
    even = fold(judge(paired=True), range(25), bad={"": (1, 1)}, weight=0)
    assert overall(even).verdict == "inconclusive"


def label(
    *,
    arm: int = 0,
    ours: float = 0.0,
    theirs: float = 0.0,
    at: float = 0.0,
    unit: int | None = None,
) -> Label:
    return Label(unit, 100 if arm else 9_000, arm, ours, theirs, at, ())


def test_losses_of_pairs_judge_quality_by_their_mean() -> None:
    rng = np.random.default_rng(3)
    worse, equal = judge(LOSSES, paired=True), judge(LOSSES, paired=True)
    for n in range(100):
        losses = rng.uniform(0.2, 0.6, 50)
        for made, more in ((worse, 0.1), (equal, 0.0)):
            made.fold_labels(0, [label(ours=p, theirs=p + more, at=n) for p in losses], float(n))
    assert (verdict(worse, "quality").verdict, verdict(equal, "quality").verdict) == (
        "fail",
        "pass",
    )
    found = verdict(worse, "quality")
    assert found.difference == pytest.approx(0.1)
    assert found.interval is not None
    assert found.interval[0] <= 0.1 <= (found.interval[1] or 0)
    assert found.losses is not None
    assert found.losses[1] - found.losses[0] == pytest.approx(0.1)
    assert found.loss_ratio is not None
    assert found.loss_ratio == pytest.approx(found.losses[1] / found.losses[0])
    assert found.reason == (
        f"worse, proven: the loss of the candidate is {found.loss_ratio - 1:.1%} larger than that of"
        " production, 5000 labels"
    )
    assert "the loss of the candidate is that of production" in verdict(equal, "quality").reason


def test_the_root_of_squared_losses_is_compared() -> None:
    """As rmse: squares that are 1.44 times as large are a root that is 1.2 times as large."""
    made = judge(
        msgspec.structs.replace(
            RULES,
            rails={**RAILS, "quality": Rail(worse_by=0.5, weight=0.1, mean=True, squared=True)},
        )
    )
    for arm, loss in ((0, 0.1), (1, 0.144)):
        made.fold_labels(500, [label(arm=arm, ours=loss, theirs=loss, at=1.0)] * 200, 1.0)
    assert verdict(made, "quality").loss_ratio == pytest.approx(1.2)
    assert "20.0% larger" in verdict(made, "quality").reason


@pytest.mark.parametrize(
    ("paired", "reason"),
    [
        (True, "only the candidate is wrong on 40 of 300 labels, and only production on 30"),
        (
            False,
            "the candidate is wrong on 40 of 150 labels (26.67%), production on 30 of 150 (20.00%)",
        ),
    ],
)
def test_labels_that_are_right_or_wrong_are_counted_as_such(*, paired: bool, reason: str) -> None:
    made = judge(RULES, paired=paired)
    for arm, wrong in ((0, 30), (1, 40)):
        told = [
            label(
                arm=arm, ours=float(not arm and n < wrong), theirs=float(arm and n < wrong), at=1.0
            )
            for n in range(150)
        ]
        made.fold_labels(0 if paired else 500, told, 1.0)
    assert verdict(made, "quality").reason.endswith(reason)


def test_without_a_loss_of_production_nothing_is_compared() -> None:
    made = judge(LOSSES)
    for arm in (0, 1):
        made.fold_labels(500, [label(arm=arm, ours=0.0, theirs=0.3, at=1.0)] * 50, 1.0)
    found = verdict(made, "quality")
    assert found.losses == pytest.approx((0.0, 0.3))
    assert (found.loss_ratio, found.loss_interval) == (None, None)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("ratio", [1.0, 1.3])
def test_the_interval_of_the_ratio_of_losses_has_the_ratio(ratio: float, *, paired: bool) -> None:
    """At any time: 95 of 100 intervals must, within three standard errors of 200 runs."""
    rng, missed = np.random.default_rng(17), 0
    for _ in range(200):
        made = judge(LOSSES, paired=paired)
        ours = rng.exponential(0.1, 400).clip(max=1)
        theirs = (
            rng.permutation(ours) if paired else rng.exponential(0.1, 400).clip(max=1)
        ) * ratio
        arms = (None,) if paired else (0, 1)
        for arm in arms:
            told = [
                label(arm=arm or 0, ours=one, theirs=other, at=1.0)
                for one, other in zip(ours, theirs, strict=True)
            ]
            made.fold_labels(0 if paired else 500, told, 1.0)
        shown = verdict(made, "quality").loss_interval
        assert shown is not None
        missed += not shown[0] <= ratio <= shown[1]
    assert missed <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5


def trickle(
    made: Judge,
    rate: float,
    *,
    share: float,
    wrong: tuple[float, float],
    seed: int,
    most: int = 5_000,
) -> int:
    """Labels one by one; how many until it fails."""
    rng = np.random.default_rng(seed)
    weight = round(share * 10_000)
    step = made.begin(weight, 0.0)
    for n in range(most):
        arm = int(rng.random() < share)
        lost = float(rng.random() < wrong[arm])
        at = n / rate
        step.given[arm] += 1
        made.fold_labels(
            weight,
            [label(arm=arm, ours=0.0 if arm else lost, theirs=lost if arm else 0.0, at=at)],
            at,
        )
        if made.failures:
            return n
    return most


@pytest.mark.parametrize("rate", [0.02, 0.2])
@pytest.mark.parametrize("share", [0.05, 0.25])
def test_labels_that_trickle_in_one_by_one_are_judged(rate: float, share: float) -> None:
    delays = [trickle(judge(), rate, share=share, wrong=(0.2, 0.8), seed=s) for s in range(5)]
    assert max(delays) < 1_800


def test_labels_of_equal_arms_that_trickle_in_do_not_fail() -> None:
    delays = [
        trickle(judge(), 0.2, share=0.25, wrong=(0.3, 0.3), seed=s, most=3_000) for s in range(10)
    ]
    assert min(delays) == 3_000


@pytest.mark.parametrize("losses", [False, True])
@pytest.mark.parametrize(
    "lacking", ["production's wrong", "a third of production's wrong", "all of production's"]
)
def test_labels_that_come_by_arm_and_outcome_do_not_condemn(lacking: str, *, losses: bool) -> None:
    """The answers are alike; what differs is which outcomes are known."""
    made, rng = judge(LOSSES if losses else RULES), np.random.default_rng(9)
    step = made.begin(2_500, 0.0)
    for n in range(6_000):
        arm, lost = int(rng.random() < 0.25), float(rng.random() < 0.2)
        step.given[arm] += 1
        gone = not arm and (
            lacking == "all of production's"
            or (lost and (lacking == "production's wrong" or rng.random() < 1 / 3))
        )
        if not gone:
            more = label(arm=arm, ours=0.0 if arm else lost, theirs=lost if arm else 0.0, at=n)
            made.fold_labels(2_500, [more], float(n))
    assert overall(made).verdict != "fail"


def test_labels_are_judged_at_the_weight_of_their_predictions() -> None:
    made = judge()
    made.fold(500, Second(at=0.0))
    made.fold(5_000, Second(at=1.0))
    made.fold_labels(500, [label(arm=1, theirs=1.0)], 2.0)
    assert made.weight == 5_000
    assert made.steps[500].counts[made.rows.find("quality", ""), 0, bets.CANDIDATE] == 1


def test_outcomes_that_stick_together_are_worth_less() -> None:
    """Both releases err in spells of their own. As if each label were news, 21 % of such pairs alarm."""
    failed = 0
    for seed in range(40):
        rng, made = np.random.default_rng(seed), judge(paired=True)
        x = [_sticky(rng, 6_000, 0.2, 0.7) for _ in range(2)]
        for begin in range(0, 6_000, 200):
            made.fold_labels(
                0,
                [
                    label(ours=float(x[0][n]), theirs=float(x[1][n]), at=n)
                    for n in range(begin, begin + 200)
                ],
                float(begin),
            )
        failed += bool(made.failures)
    assert failed <= 1


def _sticky(rng: np.random.Generator, n: int, p: float, stay: float) -> Any:
    fresh = rng.random(n) < p
    index = np.where(rng.random(n) < stay, -1, np.arange(n))
    index[0] = 0
    return fresh[np.maximum.accumulate(index)]


# ---------------------------------------------------------------- time


def test_a_late_onset_is_found_by_restarts() -> None:
    made = fold(judge(), range(6 * 3600), bad={"": (1, 1)}, met=(500, 500))
    for minute in range(1, 40):
        begin = 6 * 3600 + minute * 60
        for at in range(begin, begin + 60):
            fold(made, [at], bad={"": (1, 2 + at % 2)}, met=(500, 500))
        if made.failures:
            break
    assert minute < 10


def test_a_clock_that_goes_back_restarts_nothing_twice() -> None:
    made = fold(judge(), [0.0, 6_000.0])
    before = list(made.steps[5_000].restarts)
    fold(made, [10.0, 6_000.0])
    assert made.steps[5_000].restarts == before
    assert made.now == 6_000.0


def test_restarts_live_an_hour_a_day_or_for_ever() -> None:
    assert live(0.0) == [0]
    assert live(3_600.0) == [0, 1, 2, 3, 4, 5, 6]
    day = live(86_400.0 + 3_600.0)
    assert set(day) >= {0, 144, 145, 150}
    assert 1 not in day
    assert len(live(14 * 86_400.0)) <= 44


def test_midnight_is_an_hour_like_any_other() -> None:
    made = judge()
    for at in (86_399, 86_400, 86_401):
        made.fold(5_000, Second(at=float(at), callers=[caller(7, arm=1)]))
    assert made.steps[5_000].counts[made.rows.find("errors", ""), 0, bets.CANDIDATE] == 1


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 2), min_size=1, max_size=12), st.integers(0, 11))
def test_saved_and_loaded_it_continues_unchanged(bad: list[tuple[int, int]], cut: int) -> None:
    whole = split = judge()
    split = judge()
    for n, (p, c) in enumerate(bad):
        one = Second(
            at=n * 400.0,
            keyless={"errors": {"": (p, c)}, "latency": {"": (c, p), "a=b": (c, 0)}},
            met={"": (50, 10)},
            timed={"": (9, 9), "a=b": (9, 9)},
            callers=[caller(5 * n + k, arm=k % 2, segments=("a=b",)) for k in range(p)],
            first=[First(n, 1, 1, frozenset({"errors"}), ("a=b",))],
        )
        whole.fold(5_000, one)
        if n == cut:
            split = load_judge(split.save(), RULES)
        split.fold(5_000, one)
        for made in (whole, split):
            made.fold_labels(5_000, [label(arm=1, theirs=1.0, at=n, unit=n % 3)], n * 400.0)
    assert split.save() == whole.save()
    assert verdicts(split, {}) == verdicts(whole, {})


def test_the_state_of_another_method_is_not_continued() -> None:
    kept = msgspec.msgpack.decode(judge().save())
    kept["method"] = 1
    with pytest.raises(ValueError, match="method 1"):
        load_judge(msgspec.msgpack.encode(kept), RULES)


# ---------------------------------------------------------------- bounds


def test_too_many_callers_are_thinned_by_a_hash_that_is_blind_to_the_arm() -> None:
    table = Units(limit=1_000)
    for unit in range(5_000):
        if not table.ignored(unit):
            table.count(0, unit, unit % 2, 1.0, 1.0, 0.0)
    arms = table.column("arm")
    assert len(table) <= 1_000
    assert table.dropped > 0
    assert abs(float(arms.mean()) - 0.5) < 0.1
    assert all(pick(int(unit)) < table.sigma for unit in table.column("unit"))


def test_segments_beyond_the_bound_are_counted_in_the_whole_only() -> None:
    made = judge()
    made.fold(
        5_000,
        Second(
            at=0.0, keyless={"errors": {"": (1, 1), **{f"s={n}": (1, 0) for n in range(2_600)}}}
        ),
    )
    assert made.rows.left_out == 100
    assert len(made.rows.keys) == 2_501


def test_the_parts_of_alpha_never_sum_to_more_than_one() -> None:
    made = fold(judge(), [0.0], bad={f"s={n}": (1, 1) for n in range(500)})
    fold(made, [1.0], bad={f"s={n}": (1, 1) for n in range(500)}, metric="latency")
    rows = sum(np.exp(made.rows.columns().log_part))
    for weight in (100, 500, 5_000, 7_500, 300, 200):
        made.begin(weight, 2.0)
    steps = sum(step.share for step in made.steps.values())
    assert rows <= 0.9 + 1e-9
    assert steps <= 1.0 + 1e-9


# ---------------------------------------------------------------- calibration


def test_a_healthy_candidate_in_twenty_segments_is_rarely_rolled_back() -> None:
    """The whole alarm, all rows: at most alpha plus two standard errors of 400 runs (1 %)."""
    rng = np.random.default_rng(29)
    failed = 0
    for _ in range(400):
        made = judge()
        for n in range(30):
            units = np.tile([380, 20], (20, 1))
            bad = rng.binomial(units, 0.02)
            cells = {f"s={k}": (int(a), int(b)) for k, (a, b) in enumerate(bad)}
            whole = bad.sum(axis=0)
            made.fold(
                500,
                Second(
                    at=n * 60.0,
                    keyless={"errors": {"": (int(whole[0]), int(whole[1])), **cells}},
                ),
            )
        failed += bool(made.failures)
    assert failed / 400 <= 0.01 + 2 * 0.005


def test_the_default_rules_ask_of_every_part_of_the_policy() -> None:
    asked = rules(Policy(), paired=False)
    assert asked.steps == (100, 500, 2_500, 5_000)
    assert asked.rails["errors.doubled"].of == "errors"


def test_callers_prove_by_their_first_request_before_the_first_look() -> None:
    rng = np.random.default_rng(41)
    made = judge()
    for at in range(300):
        first = []
        for n in range(40):
            unit, arm = at * 40 + n, int(rng.random() < 0.5)
            bad = frozenset({"errors"}) if rng.random() < 0.1 else frozenset()
            first.append(First(unit, 100 if arm else 9_000, arm, bad, ()))
        made.fold(5_000, Second(at=float(at), first=first))
    assert made.steps[5_000].looks == 0
    assert verdict(made).verdict == "pass"


@pytest.mark.parametrize("losses", [False, True])
def test_callers_of_a_shadow_prove_by_their_first_label(*, losses: bool) -> None:
    """Identical releases, wrong in a third: labels of 3,000 callers within a minute."""
    made, rng = judge(LOSSES if losses else RULES, paired=True), np.random.default_rng(43)
    for begin in range(0, 6_000, 200):
        labels = []
        for n in range(begin, begin + 200):
            lost = float(rng.random() < 1 / 3)
            labels.append(label(ours=lost, theirs=lost, at=n / 100, unit=n % 3_000))
        made.fold_labels(0, labels, begin / 100)
    assert made.steps[0].looks == 0
    assert verdict(made, "quality").verdict == "pass"


def test_callers_at_the_margin_are_rarely_certified_by_their_first_request() -> None:
    """Looked at every second; at most alpha plus two standard errors of 200 runs (1.4 %)."""
    rng, certified = np.random.default_rng(47), 0
    for _ in range(200):
        made = judge()
        for at in range(40):
            arms = rng.random(100) < 0.5
            bad = rng.random(100) < np.where(arms, 0.15, 0.1)
            first = [
                First(
                    at * 100 + n,
                    100 if arms[n] else 9_000,
                    int(arms[n]),
                    frozenset({"errors"}) if bad[n] else frozenset(),
                    (),
                )
                for n in range(100)
            ]
            made.fold(5_000, Second(at=float(at), first=first))
            row = made.rows.find("errors", "")
            if made.proof(made.steps[5_000], "errors", row) >= -log(RULES.alpha):
                certified += 1
                break
    assert certified / 200 <= 0.01 + 2 * 0.007
