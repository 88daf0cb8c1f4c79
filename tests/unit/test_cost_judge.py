"""The judge of cost: one bet a unit, steps of its own, bounded, kept, and exact where it is binned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from kedge.core.evidence import cost_bets, cost_judge
from kedge.core.evidence.cost_bets import CostCells, Scale, Table, bin_of, fewest, requests_growth
from kedge.core.evidence.cost_judge import LEAST, CostJudge
from kedge.core.evidence.units import picks
from kedge.core.evidence.windows import CallerCost, CostCell, Spent, Window
from kedge.core.values import BUCKETS

SPENT = Spent((10, 10.0, 10.0), (10, 20.0, 40.0))
WEIGHT = 2_500


def judge(kept: bytes = b"", **changed: Any) -> CostJudge:
    asked: dict[str, Any] = {
        "worse_by": 0.2,
        "largest": None,
        "paired": False,
        "declared": (500, WEIGHT),
        "keyed": False,
    }
    return CostJudge(**(asked | changed), kept=kept)


def window(at: int, weight: int = WEIGHT, *, paired: bool = False, **found: Any) -> Window:
    return Window(
        replica="w0",
        number=at,
        endpoint="e",
        production=1,
        candidate=2,
        salt="s",
        at=at,
        weight=weight,
        paired=paired,
        **found,
    )


def arms(ours: Sequence[float], theirs: Sequence[float]) -> tuple[CostCell, ...]:
    """Requests without a caller, as a worker reports them."""
    found: dict[int, list[float]] = {}
    for arm, costs in enumerate((ours, theirs)):
        for cost in costs:
            cell = found.setdefault(bin_of(cost), [0, 0, 0.0, 0.0])
            cell[arm] += 1
            cell[2 + arm] += cost
    return tuple(
        CostCell((place, place), (int(n0), int(n1)), (s0, s1))
        for place, (n0, n1, s0, s1) in found.items()
    )


def couples(ours: Sequence[float], theirs: Sequence[float]) -> tuple[CostCell, ...]:
    return tuple(
        CostCell((bin_of(a), bin_of(b)), (1, 1), (a, b)) for a, b in zip(ours, theirs, strict=True)
    )


def callers(costs: Sequence[float], buckets: Sequence[int], ratio: float) -> tuple[CallerCost, ...]:
    """Callers that asked once each; those below `WEIGHT` cost `ratio` times as much."""
    found = []
    for at, (cost, bucket) in enumerate(zip(costs, buckets, strict=True)):
        theirs = bucket < WEIGHT
        paid = (0.0, ratio * cost) if theirs else (cost, 0.0)
        unit = at * 0x9E3779B97F4A7C15 % (1 << 63)
        found.append(CallerCost(unit, bucket, (int(not theirs), int(theirs)), paid))
    return tuple(found)


def played(ratio: float, seconds: int = 200, seed: int = 1, **asked: Any) -> CostJudge:
    """Requests without a caller: 100 a second, gamma(2)."""
    dice = np.random.default_rng(seed)
    one = judge(**asked)
    for at in range(seconds):
        ours, theirs = dice.gamma(2.0, 1.0, 75), ratio * dice.gamma(2.0, 1.0, 25)
        one.fold(window(1_000 + at, cells=arms(ours.tolist(), theirs.tolist())))
    return one


# ---------------------------------------------------------------- verdicts


def test_a_dearer_candidate_fails_a_cheaper_one_passes_and_the_reason_names_the_cap() -> None:
    assert played(1.6).verdict(SPENT).verdict == "fail"
    found = played(0.9).verdict(SPENT)
    assert found.verdict == "pass"
    assert "clipped at" in found.reason
    assert found.ratio == pytest.approx(2.0)
    assert found.difference == pytest.approx(1.0)


def test_at_exactly_the_margin_neither_is_proven() -> None:
    assert {played(1.2, seed=seed).verdict(SPENT).verdict for seed in range(5)} == {"inconclusive"}


def test_a_fixed_price_is_proven_either_way() -> None:
    for ratio, verdict in ((1.0, "pass"), (2.0, "fail")):
        one = judge()
        for at in range(120):
            one.fold(window(1_000 + at, cells=arms([0.01] * 8, [0.01 * ratio] * 2)))
        assert one.verdict(SPENT).verdict == verdict


def test_a_free_production_and_a_candidate_that_costs_something() -> None:
    one = judge()
    for at in range(120):
        one.fold(window(1_000 + at, cells=arms([0.0] * 8, [0.01] * 2)))
    assert one.verdict(SPENT).verdict == "fail"


def test_without_units_nothing_is_concluded_and_the_missing_data_are_named() -> None:
    one = judge()
    assert one.verdict(SPENT).reason == "no cost of a unit was reported"
    one.fold(window(1_000, cells=arms([1.0] * 50, [])))
    assert "50 of 100 requests" in one.verdict(SPENT).reason
    one.fold(window(1_001, cells=arms([1.0] * 150, [])))
    one.fold(window(1_002, cells=arms([1.0] * 150, [9.0] * (LEAST - 1))))
    assert f"{LEAST - 1} of {LEAST} units" in one.verdict(SPENT).reason


def test_pairs_are_judged_by_their_differences() -> None:
    dice = np.random.default_rng(3)
    for ratio, verdict in ((1.0, "pass"), (1.6, "fail"), (1.2, "inconclusive")):
        one = judge(paired=True, declared=())
        for at in range(60):
            ours = dice.gamma(2.0, 1.0, 50)
            theirs = ratio * ours * np.exp(dice.normal(0, 0.1, 50) - 0.005)
            cells = couples(ours.tolist(), theirs.tolist())
            one.fold(window(1_000 + at, 0, paired=True, cells=cells))
        assert one.verdict(SPENT).verdict == verdict, ratio


# ---------------------------------------------------------------- callers


def crowd(ratio: float, at: int, *, n: int = 4_000, times: int = 1, **asked: Any) -> CostJudge:
    """Callers with levels of their own, reported again and again, until second `at` of the step."""
    dice = np.random.default_rng(5)
    costs, buckets = dice.lognormal(0, 0.5, n), dice.integers(0, BUCKETS, n)
    one = judge(keyed=True, **asked)
    every = callers(costs.tolist(), buckets.tolist(), ratio)
    for turn in range(times):
        one.fold(window(1_000 + turn, callers=every))
    one.fold(window(1_000 + at, callers=()))
    return one


def test_callers_are_looked_at_when_it_is_time_and_bet_once() -> None:
    assert crowd(2.0, 599).units == (0, 0)
    assert "10 min" in crowd(2.0, 599, n=100).verdict(SPENT).reason
    once, often = crowd(2.0, 600), crowd(2.0, 600, times=50)
    assert once.verdict(SPENT).verdict == "fail"
    assert often.verdict(SPENT).log_e == pytest.approx(once.verdict(SPENT).log_e)
    assert often.units == once.units
    assert crowd(1.0, 600).verdict(SPENT).verdict == "pass"
    assert crowd(1.2, 600).verdict(SPENT).verdict == "inconclusive"


def test_the_judge_agrees_with_the_formulas_on_all_that_was_folded() -> None:
    """The arrays, the hash of the learners and the windows change nothing."""
    dice = np.random.default_rng(5)
    costs, buckets = dice.lognormal(0, 0.5, 4_000), dice.integers(0, BUCKETS, 4_000)
    every = callers(costs.tolist(), buckets.tolist(), 1.3)
    teach = cost_bets.learns(np.array([one.unit for one in every]))
    theirs = buckets < WEIGHT
    first = costs[teach & ~theirs]
    scale = cost_bets.learned(first, np.ones(len(first)), 0.2, 3.0)
    expected = cost_bets.callers_log_e(costs[~teach & ~theirs], 1.3 * costs[~teach & theirs], scale)
    assert crowd(1.3, 600, largest=3.0)._at_look() == pytest.approx(expected)
    assert 0.08 < teach.mean() < 0.12


def test_a_caller_whose_arm_was_known_in_a_smaller_step_does_not_count_in_a_larger_one() -> None:
    one = judge(keyed=True)
    few = callers([1.0] * 500, [100] * 500, 1.0)
    one.fold(window(1_000, 500, callers=few))
    many = callers([1.0] * 3_000, [100] * 1_000 + [600] * 1_000 + [9_000] * 1_000, 1.0)
    one.fold(window(2_000, callers=many))
    one.fold(window(2_600))
    assert one.units[1] == pytest.approx(900, abs=50)
    assert one.units[0] == pytest.approx(900, abs=50)


def test_a_request_of_the_other_arm_than_its_bucket_s_is_no_unit() -> None:
    """A failover, or a release that a tester asked for."""
    one = judge(keyed=True)
    wrong = [CallerCost(k, 100, (1, 0), (1.0, 0.0)) for k in range(1_000)]
    one.fold(window(1_000, callers=tuple(wrong)))
    one.fold(window(1_700))
    assert one.units == (0, 0)


def test_a_much_higher_cost_is_found_by_the_first_windows_of_callers() -> None:
    """Each second 200 callers who ask for the first time; no look is due."""
    for paired, ratio, verdict in (
        (False, 1.0, "pass"),
        (False, 3.0, "fail"),
        (True, 1.0, "pass"),
        (True, 3.0, "fail"),
    ):
        one, dice = judge(keyed=True, paired=paired, declared=()), np.random.default_rng(9)
        for at in range(60):
            every = callers([0.5] * 200, dice.integers(0, BUCKETS, 200).tolist(), ratio)
            fresh = tuple(
                CallerCost(
                    int(dice.integers(0, 1 << 62)),
                    of.bucket,
                    (1, 1) if paired else of.requests,
                    (0.5, 0.5 * ratio) if paired else of.cost,
                )
                for of in every
            )
            one.fold(window(1_000 + at, 0 if paired else WEIGHT, paired=paired, callers=fresh))
            if at == 30:
                units = one.units
                one.fold(window(1_000 + at, 0 if paired else WEIGHT, paired=paired, callers=fresh))
                assert one.units == units, "they are known by now"
        assert one.verdict(SPENT).verdict == verdict


def test_fewer_than_two_callers_on_an_arm_say_nothing() -> None:
    ours, scale = np.ones(1_000), Scale(0.2, 2.0, 0.5)
    assert cost_bets.callers_log_e(ours, np.array([9.0]), scale) == (0.0, 0.0)
    assert cost_bets.pairs_log_e(np.ones(1), np.ones(1), scale) == (0.0, 0.0)


def test_where_callers_appear_the_bets_start_again_and_count_by_caller() -> None:
    one = played(0.9)
    assert one.verdict(SPENT).verdict == "pass"
    one.fold(window(1_300, callers=callers([1.0], [5_000], 1.0)))
    assert one.verdict(SPENT).verdict == "inconclusive"


# ---------------------------------------------------------------- steps


def test_a_certificate_belongs_to_its_step_and_a_failure_to_the_comparison() -> None:
    for ratio, words in ((0.9, ["pass", "inconclusive"]), (1.6, ["fail", "fail"])):
        one = played(ratio)
        told = [one.verdict(SPENT).verdict]
        one.fold(window(2_000, 500, cells=arms([1.0], [1.0])))
        assert [*told, one.verdict(SPENT).verdict] == words


def test_a_late_window_of_the_previous_step_begins_none() -> None:
    one = judge()
    one.fold(window(1_000, 500, cells=arms([1.0], [])))
    one.fold(window(2_000, cells=arms([1.0] * 300, [])))
    one.fold(window(2_002, cells=arms([1.0] * 9, [1.0] * 7)))
    one.fold(window(2_001, 500, cells=arms([1.0] * 50, [1.0] * 5)))
    assert one.units == (9, 7)
    one.fold(window(2_100, 500, cells=arms([1.0] * 50, [1.0] * 5)))
    assert one.units == (50, 5), "a step back: the scale is known from the step before"


def test_the_promise_of_a_failure_is_shared_by_the_steps_however_often_they_change() -> None:
    one = judge()
    shares = []
    for turn in range(2_000):
        one.fold(window(1_000 * turn, 500 + turn % 3 * 1_000, cells=arms([1.0], [1.0])))
        shares.append(one._is.share)
    assert sum(shares) <= 1.0
    assert shares[0] == pytest.approx(cost_judge.FIRST_SHARE / 2)


# ---------------------------------------------------------------- bounds and keeping


def test_the_largest_cost_is_the_cap_and_clips_are_counted() -> None:
    one = played(1.0, largest=20.0)
    one.fold(window(1_300, clips=(3, 2), uncosted=4, cells=arms([20.0], [20.0] * 2)))
    found = one.figures()
    assert (found.cap, found.clipped, found.at_cap, found.left_out) == (
        20.0,
        (3, 2),
        (1, 2),
        4,
    )


def test_one_pause_of_a_process_decides_nothing() -> None:
    """In one second 300 of the candidate's requests take very long; nothing else is dearer."""
    one = played(1.0, seconds=60)
    before = one.verdict(SPENT).log_e
    one.fold(window(1_100, cells=arms([1.0] * 75, [1e3] * 300)))
    assert one.verdict(SPENT).verdict != "fail"
    assert one.verdict(SPENT).log_e < before + 10
    other = played(1.5, seconds=20)
    before = other.verdict(SPENT).log_e_pass
    other.fold(window(1_100, cells=arms([1e3] * 900, [1.0] * 25)))
    assert other.verdict(SPENT).log_e_pass < before + 6


def test_callers_beyond_the_bound_are_left_out_by_their_hash() -> None:
    table, dice = Table(limit=1_000), np.random.default_rng(1)
    for unit in dice.integers(0, 1 << 62, 5_000).tolist():
        table.add(unit, unit % 2, 1, (1.0, 1.0))
    table.settle()
    assert 400 < len(table.units) <= 1_000
    assert abs(table.arms.mean() - 0.5) < 0.1
    assert (picks(table.units) < np.uint64(table.below)).all()
    kept = [CallerCost(unit, 0, (1, 0), (1.0, 0.0)) for unit in range(100)]
    assert len(fewest(kept, 10)) == 10
    assert fewest(kept, 100) == tuple(kept)


def test_a_judge_is_kept_and_one_of_another_method_starts_again() -> None:
    kept = b""
    for one, keyed in ((played(1.1), False), (crowd(1.1, 600), True)):
        kept = one.save()
        again = judge(kept, keyed=keyed)
        assert again.verdict(SPENT) == one.verdict(SPENT)
        more = window(3_000, cells=arms([1.0] * 9, [2.0] * 9))
        one.fold(more)
        again.fold(more)
        assert again.verdict(SPENT) == one.verdict(SPENT)
        assert again.figures() == one.figures()
    other = msgspec.msgpack.decode(kept) | {"method": cost_judge.METHOD - 1}
    assert judge(kept, keyed=True).units != (0, 0)
    assert judge(msgspec.msgpack.encode(other), keyed=True).units == (0, 0)


# ---------------------------------------------------------------- bins


@pytest.mark.parametrize("paired", [False, True])
def test_bins_lose_little_and_never_gain(paired: bool) -> None:
    """Against the products over single costs; 40 windows with costs on both sides of the cap."""
    dice, scale, share = np.random.default_rng(11), Scale(0.2, 4.0, 0.0 if paired else 0.4), 0.25
    for _ in range(40):
        ours = dice.lognormal(0, 1, 60)
        theirs = dice.lognormal(0.1, 1, 60 if paired else 20)
        made = (couples if paired else arms)(ours.tolist(), theirs.tolist())
        found = requests_growth(CostCells(made), scale, share, 1.0, paired=paired)
        y0, y1 = scale.ours(ours), scale.theirs(theirs)
        for at, sign in enumerate((1, -1)):
            if paired:
                exact = np.log1p(-np.outer(sign * (y1 - y0), cost_bets.BETS)).sum(axis=0)
            else:
                z, odds = scale.centre, share / (1 - share)
                room = z if at == 0 else 1 - z
                bets = cost_bets.BETS * min(1 / (1 - room), 1 / (odds * room))
                exact = np.log1p(-np.outer(sign * (y1 - z), bets)).sum(axis=0)
                exact += np.log1p(np.outer(sign * (y0 - z), bets * odds)).sum(axis=0)
            assert (found[at] <= exact + 1e-9).all()
            assert (found[at] >= exact - 0.6).all()


@pytest.mark.parametrize("cost", [0.0, 1e-30, 1e-12, 1.0, 1e11, 1e300])
def test_every_cost_has_a_bin(cost: float) -> None:
    place = bin_of(cost)
    assert cost_bets.EDGES[place] <= cost * (1 + 1e-9)
    assert cost <= cost_bets.EDGES[place + 1] * (1 + 1e-9)
