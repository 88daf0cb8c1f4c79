"""The judge: what it proves, what it does not, and what it forgets never."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core import monitor, stats
from kedge.core.monitor import Interval, Judge, Key, Rail, Rules

RAILS = {
    "errors": Rail(worse_by=0.5, weight=0.8),
    "latency": Rail(worse_by=1.0, r0=2.0, weight=0.1),
    "quality": Rail(worse_by=0.05, weight=0.1, mean=True),
}
RULES = Rules(rails=RAILS, min_units=100, min_units_per_segment=100)


def interval(at: float, cells: dict[Key, tuple[int, int, int, int]], **more: Any) -> Interval:
    return Interval(at, tuple(cells), np.array(list(cells.values()), dtype=np.int64), **more)


def judged(cells: dict[Key, tuple[int, int, int, int]], times: int = 1, **more: Any) -> Judge:
    judge = monitor.begin(0.0, RAILS)
    for n in range(times):
        judge = monitor.fold(judge, interval(float(n), cells, **more))
    return judge


def verdict(judge: Judge, metric: str = "errors", segment: str = "") -> monitor.Verdict:
    (found,) = monitor.verdicts(judge, RULES, only={(metric, segment)})
    return found


def paired(at: float, ours: list[float], theirs: list[float]) -> Interval:
    p, c = np.array(ours), np.array(theirs)
    counts = np.array([[len(p), len(p), (p > c).sum(), (c > p).sum()]])
    sums = stats.paired_sums(p, c, 0.05)[None, :]
    return Interval(at, (("quality", ""),), counts, paired=True, sums=sums)


# ---------------------------------------------------------------- verdicts


def test_no_data_is_no_pass() -> None:
    judge = monitor.begin(0.0, RAILS)
    assert monitor.verdicts(judge, RULES) == ()
    assert monitor.overall(judge, RULES).verdict == "inconclusive"
    nobody = judged({("errors", ""): (1_000, 0, 5, 0)})
    assert (verdict(nobody).verdict, verdict(nobody).reason) == ("inconclusive", "no data")


def test_a_worse_candidate_fails_and_the_reason_has_the_figures() -> None:
    judge = judged({("errors", ""): (95, 5, 1, 1)}, times=60)
    said = monitor.overall(judge, RULES)
    assert (said.verdict, said.metric) == ("fail", "errors")
    assert said.reason == "errors: candidate 60 bad of 300 (20.00%), production 60 of 5700 (1.05%)"
    assert verdict(judge).verdict == "fail"


def test_an_equal_candidate_passes_by_proof_not_for_want_of_an_alarm() -> None:
    few = judged({("errors", ""): (100, 100, 1, 1)}, times=20)
    assert verdict(few).verdict == "inconclusive"
    many = judged({("errors", ""): (100, 100, 1, 1)}, times=400)
    assert verdict(many).verdict == "pass"
    assert monitor.overall(many, RULES).verdict == "inconclusive"


def test_where_nothing_fails_a_floor_is_proven() -> None:
    """No ratio can be: there is no bad unit to ask whose it was."""
    few = judged({("errors", ""): (100, 100, 0, 0)}, times=40)
    assert verdict(few).verdict == "inconclusive"
    many = judged({("errors", ""): (100, 100, 0, 0)}, times=90)
    assert verdict(many).verdict == "pass"


def test_worse_and_within_the_margin_is_a_pass_with_a_note() -> None:
    """A fifth worse, and a half is tolerated: with enough units both are proven."""
    judge = judged({("errors", ""): (1_000, 1_000, 50, 60)}, times=100)
    found = verdict(judge)
    assert (found.verdict, found.reason.partition(":")[0]) == ("pass", "worse, within margin")
    assert monitor.overall(judge, RULES).verdict == "pass"


def test_a_tolerated_ratio_is_not_an_alarm() -> None:
    """Latency may double: at 1.9 times nothing sounds, at four times it does."""
    fine = judged({("latency", ""): (500, 500, 5, 9)}, times=200)
    assert monitor.overall(fine, RULES).verdict != "fail"
    slow = judged({("latency", ""): (500, 500, 5, 20)}, times=200)
    assert monitor.overall(slow, RULES).metric == "latency"


def test_a_handful_of_bad_units_is_not_enough() -> None:
    judge = judged({("errors", ""): (9_900, 100, 0, 4)})
    assert monitor.overall(judge, RULES).verdict == "inconclusive"
    assert "4 of 5" in monitor.overall(judge, RULES).reason


def test_a_failure_stays() -> None:
    """Healthy hours after it do not wash it off."""
    judge = judged({("errors", ""): (50, 50, 0, 5)}, times=10)
    assert verdict(judge).verdict == "fail"
    for n in range(200):
        judge = monitor.fold(judge, interval(100.0 + n, {("errors", ""): (50, 50, 5, 0)}))
    assert judge.highest[0] > stats.log_mixture(judge.alarm)[0]
    assert monitor.overall(judge, RULES).verdict in ("fail", "pass")


def test_a_failing_segment_is_found_though_the_whole_looks_well() -> None:
    cells = {("errors", ""): (1_000, 1_000, 10, 12)} | {
        ("errors", f"origin={n}"): (100, 100, 1, 8 if n == 3 else 0) for n in range(10)
    }
    judge = judged(cells, times=10)
    said = monitor.overall(judge, RULES)
    assert (said.verdict, said.segment) == ("fail", "origin=3")


def test_a_shared_incident_moves_nothing() -> None:
    judge = judged({("errors", ""): (95, 5, 0, 0)}, times=20)
    for n in range(100):
        judge = monitor.fold(judge, interval(30.0 + n, {("errors", ""): (95, 5, 38, 2)}))
    assert monitor.overall(judge, RULES).verdict != "fail"


def test_a_ramp_into_a_bad_night_does_not_fool_it() -> None:
    """Simpson: pooled, the candidate has twice production's rate; at each step the same."""
    judge = monitor.begin(0.0, RAILS)
    for n in range(50):
        judge = monitor.fold(judge, interval(float(n), {("errors", ""): (950, 50, 19, 1)}))
    for n in range(50):
        judge = monitor.fold(judge, interval(50.0 + n, {("errors", ""): (500, 500, 50, 50)}))
    old, new, old_bad, new_bad = judge.totals[0]
    assert new_bad / new > 1.8 * old_bad / old - 0.02
    assert monitor.overall(judge, RULES).verdict != "fail"


def test_metrics_without_a_guardrail_are_passed_over() -> None:
    judge = judged({("errors", ""): (10, 10, 0, 0), ("beauty", ""): (10, 10, 5, 5)})
    assert judge.keys == (("errors", ""),)


# ---------------------------------------------------------------- pairs


def test_only_discordant_pairs_count() -> None:
    judge = judged({("errors", ""): (100, 100, 0, 2)}, times=15, paired=True)
    assert verdict(judge).verdict == "fail"
    even = judged({("errors", ""): (100, 100, 2, 2)}, times=15, paired=True)
    assert monitor.overall(even, RULES).verdict == "inconclusive"


def test_paired_losses_judge_quality_by_their_mean() -> None:
    rng = np.random.default_rng(3)
    worse, equal = monitor.begin(0.0, RAILS), monitor.begin(0.0, RAILS)
    for n in range(100):
        p = rng.uniform(0.2, 0.6, 50)
        worse = monitor.fold(worse, paired(float(n), list(p), list(p + 0.1)))
        equal = monitor.fold(equal, paired(float(n), list(p), list(p)))
    assert (verdict(worse, "quality").verdict, verdict(equal, "quality").verdict) == (
        "fail",
        "pass",
    )
    found = verdict(worse, "quality")
    assert found.difference == pytest.approx(0.1)
    assert found.interval is not None
    assert found.interval[0] <= 0.1 <= (found.interval[1] or 0)


# ---------------------------------------------------------------- intervals and time


@pytest.mark.parametrize(
    ("candidate", "production", "seconds", "ends"),
    [(4, 100, 1.0, False), (5, 100, 1.0, True), (50, 0, 1.0, False), (0, 0, 60.0, True)],
)
def test_an_interval_ends_by_exposure_or_time(
    candidate: int, production: int, seconds: float, *, ends: bool
) -> None:
    assert monitor.closes(candidate, production, seconds) is ends


def test_a_late_onset_is_found_by_bets_placed_late() -> None:
    """Hours of health make the first bets poor; those of the last ten minutes are not."""
    judge = monitor.begin(0.0, RAILS)
    for n in range(6 * 60):
        judge = monitor.fold(judge, interval(n * 60.0, {("errors", ""): (500, 500, 10, 10)}))
    at, minutes = 6 * 3600.0, 0
    while monitor.overall(judge, RULES).verdict != "fail":
        minutes += 1
        judge = monitor.fold(
            judge, interval(at + minutes * 60, {("errors", ""): (500, 500, 10, 25)})
        )
        assert minutes < 30


def test_a_clock_that_goes_back_places_no_stake_twice() -> None:
    judge = monitor.fold(monitor.begin(0.0, RAILS), interval(0.0, {("errors", ""): (1, 1, 0, 0)}))
    forward = monitor.fold(judge, interval(6_000.0, {("errors", ""): (1, 1, 0, 0)}))
    back = monitor.fold(forward, interval(10.0, {("errors", ""): (1, 1, 0, 0)}))
    again = monitor.fold(back, interval(6_000.0, {("errors", ""): (1, 1, 0, 0)}))
    assert np.array_equal(again.alarm, forward.alarm)
    assert again.restarts == forward.restarts == 10


def test_a_row_that_joins_late_has_what_was_placed_until_then() -> None:
    judge = judged({("errors", ""): (10, 10, 0, 0)})
    judge = monitor.fold(judge, interval(6_000.0, {("errors", ""): (10, 10, 0, 0)}))
    judge = monitor.fold(judge, interval(6_001.0, {("errors", "a=b"): (10, 10, 0, 0)}))
    assert np.allclose(judge.alarm[1], np.log(stats.placed(10)))


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 2), min_size=1, max_size=12), st.integers(0, 11))
def test_saved_and_loaded_it_goes_on_as_if_nothing_had_been(
    bad: list[tuple[int, int]], cut: int
) -> None:
    whole = split = monitor.begin(0.0, RAILS)
    for n, (p, c) in enumerate(bad):
        one = interval(
            n * 400.0, {("errors", ""): (50, 10, p, c), ("latency", "a=b"): (9, 9, c, p)}
        )
        whole = monitor.fold(whole, one)
        if n == cut:
            split = monitor.load(monitor.save(split))
        split = monitor.fold(split, one)
    assert monitor.save(split) == monitor.save(whole)
    assert monitor.verdicts(split, RULES) == monitor.verdicts(whole, RULES)


def test_what_was_saved_with_other_bets_is_not_gone_on_with() -> None:
    raw = monitor.save(judged({("errors", ""): (10, 10, 1, 1)}))
    kept = msgspec.msgpack.decode(raw)
    kept["bets"] = [1.5]
    with pytest.raises(ValueError, match="another grid"):
        monitor.load(msgspec.msgpack.encode(kept))


def test_nothing_is_changed_in_place() -> None:
    one = judged({("errors", ""): (10, 10, 1, 1)})
    copy = replace(one, alarm=one.alarm.copy(), proof=one.proof.copy(), totals=one.totals.copy())
    monitor.fold(one, interval(9_000.0, {("errors", ""): (10, 10, 5, 5)}))
    assert np.array_equal(one.alarm, copy.alarm)
    assert np.array_equal(one.totals, copy.totals)
    assert np.array_equal(one.proof, copy.proof)


# ---------------------------------------------------------------- calibration


def test_a_healthy_candidate_in_twenty_segments_is_rarely_rolled_back() -> None:
    """The whole alarm, all rows: at most alpha plus two standard errors of 400 runs (1 %)."""
    rng = np.random.default_rng(29)
    keys: tuple[Key, ...] = (("errors", ""), *(("errors", f"s={n}") for n in range(20)))
    failed = 0
    for _ in range(400):
        judge = monitor.begin(0.0, RAILS)
        for n in range(30):
            units = np.tile([380, 20], (20, 1))
            bad = rng.binomial(units, 0.02)
            cells = np.concatenate([units, bad], axis=1)
            counts = np.concatenate([cells.sum(axis=0, keepdims=True), cells])
            judge = monitor.fold(judge, Interval(n * 60.0, keys, counts))
            if monitor.overall(judge, RULES).verdict == "fail":
                failed += 1
                break
    assert failed / 400 <= 0.01 + 2 * 0.005
