"""A watch is a fold: late, double and foreign windows, clocks that jump, and taking over."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from kedge.core.automation import PatrolFacts, decide
from kedge.core.evidence.cost_bets import bin_of
from kedge.core.evidence.records import JoinRow, Labelled, Outcome
from kedge.core.evidence.rules import METHOD, Overall, Verdict
from kedge.core.evidence.windows import (
    CANDIDATE,
    Agreement,
    BadUnit,
    CallerCost,
    CostCell,
    DisagreeingPair,
    Spent,
    Window,
    turned,
)
from kedge.core.release.commands import Rollback
from kedge.core.values import (
    AfterPolicy,
    CostPolicy,
    Field,
    Guardrail,
    Output,
    Policy,
    ShadowPolicy,
    Signature,
    Stage,
    State,
)
from kedge.engine.snapshot import UNREADABLE
from kedge.engine.watch import MOST_EXAMPLES, SEGMENTS, Watch
from kedge.testing.samples import release

change = msgspec.structs.replace
POLICY = Policy(output=Output(kind="binary", score="p", threshold=0.5))
CANARY = State(
    endpoint="flights",
    stage=Stage.CANARY,
    production=1,
    candidate=2,
    salt="s",
    weight=5_000,
    policy=POLICY,
)
SHADOW = State(
    endpoint="flights",
    stage=Stage.SHADOW,
    production=1,
    candidate=2,
    salt="s",
    sample=10_000,
    policy=POLICY,
)


def window(at: int, **more: Any) -> Window:
    known: dict[str, Any] = {
        "replica": "w0",
        "number": at,
        "endpoint": "flights",
        "production": 1,
        "candidate": 2,
        "salt": "s",
        "at": at,
        "weight": 5_000,
        "paired": False,
        "exposed": {"": (10, 10)},
        "method": METHOD,
    }
    return Window(**{**known, **more})


def paired(at: int, **more: Any) -> Window:
    return window(at, weight=0, paired=True, mirrored=10, copied=10, **more)


def failing(at: int, count: int = 1) -> Window:
    return window(at, bad={"errors": {"": (0, count)}})


def errors(of: Watch) -> tuple[int, int]:
    (found,) = [v for v in of.verdicts() if (v.metric, v.segment) == ("errors", "")]
    return found.bad


def test_windows_become_evidence_and_a_failing_candidate_fails() -> None:
    watch = Watch(CANARY)
    for at in range(100, 130):
        watch.fold(failing(at))
    assert watch.facts(132.0).overall.verdict == "fail"
    assert errors(watch) == (0, 30)


def test_a_segment_keeps_an_example_after_many_of_others() -> None:
    watch = Watch(SHADOW)

    def disagreeing(at: int, segment: str) -> Window:
        return paired(at, examples=(DisagreeingPair(f"{at}/0", (segment,), "1", "0"),))

    for at, segment in enumerate(["rare", "rare", "rare", *["often"] * 200], 100):
        watch.fold(disagreeing(at, segment))
    assert [one.id for one in watch.examples if "rare" in one.segments] == ["102/0", "101/0"]
    assert [one.id for one in watch.examples][:2] == ["302/0", "301/0"]
    assert len(watch.examples) <= MOST_EXAMPLES


def test_a_candidate_whose_features_break_their_schema_fails_where_a_guardrail_says_so() -> None:
    declared = change(CANARY, policy=change(POLICY, guardrails={"violations": Guardrail(1.0)}))
    left, kept = decide(declared, failed_by(declared)), decide(CANARY, failed_by(CANARY))
    assert (left.verdict, kept.verdict) == ("fail", "inconclusive")
    assert isinstance(left.command, Rollback)
    assert left.reason.startswith("violations")


def failed_by(state: State) -> PatrolFacts:
    watch = Watch(state)
    for at in range(100, 140):
        watch.fold(window(at, answered={"": (10, 10)}, bad={"violations": {"": (0, 1)}}))
    return watch.facts(142.0)


@pytest.mark.parametrize("foreign", [{"candidate": 3}, {"salt": "t"}, {"paired": True}])
def test_windows_of_another_comparison_are_passed_over(foreign: dict[str, Any]) -> None:
    watch = Watch(CANARY)
    watch.fold(window(100, **foreign))
    assert watch.facts(101.0).units == (0, 0)


def test_a_late_window_counts_as_much_as_a_punctual_one() -> None:
    ordered, late = Watch(CANARY), Watch(CANARY)
    windows = [failing(at) for at in range(100, 120)]
    for one in windows:
        ordered.fold(one)
    for one in [*windows[:5], *windows[6:], windows[5]]:
        late.fold(one)
    assert ordered.facts(122.0).units == late.facts(122.0).units
    assert errors(ordered) == errors(late) == (0, 20)


def test_a_second_waits_for_the_windows_of_all_workers() -> None:
    """Forty failures of one instant on two workers are one event, and not two."""
    watch = Watch(CANARY)
    for number in range(2):
        watch.fold(window(100, replica=f"w{number}", bad={"errors": {"": (0, 20)}}))
    assert watch.facts(101.0).overall.reason == "no data"
    watch.settle(102.5)
    step = watch._judge.step
    assert step is not None
    assert step.counts[watch._judge.rows.find("errors", ""), 0].tolist() == [1, 0, 0, 1]


def test_a_caller_that_went_bad_on_eight_workers_is_one() -> None:
    watch = Watch(CANARY)
    for number in range(8):
        unit = BadUnit(42, 0, CANDIDATE, ("origin=JFK",), 100)
        watch.fold(window(100 + number, replica=f"w{number}", units=(unit,)))
    watch.end()
    assert errors(watch) == (0, 1)


def test_windows_of_an_older_version_are_counted_and_not_judged() -> None:
    watch = Watch(CANARY)
    for at in range(100, 130):
        watch.fold(change(failing(at), method=1))
    assert watch.counted["older_windows"] == 30
    assert watch.facts(140.0).units == (0, 0)


def test_an_upgrade_starts_the_evidence_again_and_reports_it() -> None:
    kept = {
        "cursor": 9,
        "judge": b"what another version kept",
        "policy": "",
        "labels": {"cursor": 4},
    }
    watch = Watch(CANARY, msgspec.msgpack.encode(kept))
    assert watch.cursor == 9
    assert "upgraded" in watch.facts(100.0).restarted
    assert "upgraded" in Watch(CANARY, watch.snapshot()).facts(100.0).restarted


@pytest.mark.parametrize("harm", ["cut", "swapped", "other"])
def test_unreadable_state_is_created_again_and_reported(harm: str) -> None:
    watch = Watch(CANARY)
    for at in range(100, 110):
        watch.fold(failing(at))
    kept = msgspec.msgpack.decode(watch.snapshot())
    raw = {
        "cut": watch.snapshot()[:-40],
        "swapped": msgspec.msgpack.encode({**kept, "judge": b"\x00" + kept["judge"]}),
        "other": msgspec.msgpack.encode({**kept, "totals": "none"}),
    }[harm]
    again = Watch(CANARY, raw)
    assert again.restarted == UNREADABLE
    assert again.facts(200.0).units == (0, 0)


def test_another_policy_gets_no_new_error_budget() -> None:
    watch = Watch(CANARY)
    watch.fold(failing(100))
    changed = change(CANARY, policy_digest="sha256:other")
    again = Watch(changed, watch.snapshot())
    again.fold(failing(101))
    assert again.restarted == "the policy changed"
    steps = (watch._judge.step, again._judge.step)
    assert steps[0] is not None
    assert steps[1] is not None
    assert steps[1].share < steps[0].share


def test_another_weight_begins_another_interval_and_another_step() -> None:
    """Arms of two steps are never pooled in one share."""
    watch = Watch(CANARY)
    for at in range(100, 110):
        watch.fold(window(at))
    watch.fold(window(110, weight=100, exposed={"": (20, 1)}))
    watch.fold(window(113, weight=100, exposed={"": (20, 1)}))
    assert watch.facts(114.0).step_s == 3.0


@pytest.mark.parametrize("jump", [-3_000, 3_000, 10**6])
def test_a_clock_that_jumps_adds_no_healthy_time(jump: int) -> None:
    watch = Watch(SHADOW)
    for at in range(1_000_000, 1_000_010):
        watch.fold(paired(at))
    watch.fold(paired(1_000_010 + jump))
    assert watch.facts(0.0).healthy_s == pytest.approx(9, abs=1)
    watch.fold(paired(1_000_011 + jump))
    assert watch.facts(0.0).healthy_s == pytest.approx(10, abs=1)


def test_a_pause_in_traffic_pauses_the_healthy_window() -> None:
    watch = Watch(SHADOW)
    for at in (100, 101, 102, 500, 501):
        watch.fold(paired(at))
    assert watch.facts(502.0).healthy_s == 3.0


def test_a_failure_begins_the_healthy_window_again() -> None:
    watch = Watch(SHADOW)
    for at in range(100, 160):
        watch.fold(paired(at, bad={"errors": {"": (0, 1)}}))
    failed = watch._judge.failures["errors", ""].at
    assert watch.facts(160.0).healthy_s == pytest.approx(159 - failed, abs=2)


def test_segments_beyond_the_bound_are_counted_not_kept() -> None:
    watch = Watch(CANARY)
    for at in range(40):
        names = {f"word=w{at}-{n}": (1, 1) for n in range(100)}
        watch.fold(window(at, exposed={"": (100, 100), **names}))
    assert len(watch.totals) <= SEGMENTS + 100
    assert watch.counted["segments_left_out"] >= 1_500
    assert watch.totals[""][1] == 4_000


SETTLED = msgspec.structs.replace(CANARY, stage=Stage.SETTLED, production=2, candidate=None, back=1)


def after(at: int, **more: Any) -> Window:
    """As a replica writes it: production is r2 now, and the copy goes to r1."""
    return paired(at, **{"production": 2, "candidate": 1, **more})


def test_after_a_promotion_the_release_that_was_left_is_the_measure() -> None:
    """r2 fails where r1 answers: that is r2's failure, though it is production now."""
    watch = Watch(SETTLED)
    for at in range(100, 130):
        watch.fold(after(at, bad={"errors": {"": (1, 0)}}))
    watch.end()
    assert errors(watch) == (0, 30)
    said = decide(SETTLED, watch.facts(130.0))
    assert (said.verdict, said.code, said.command) == ("fail", "late_regression", None)
    policy = msgspec.structs.replace(POLICY, after=AfterPolicy(on_fail="rollback"))
    asked = msgspec.structs.replace(SETTLED, policy=policy)
    assert decide(asked, watch.facts(130.0)).command == Rollback()


def test_after_a_promotion_a_worse_old_release_proves_nothing_against_the_new() -> None:
    watch = Watch(SETTLED)
    for at in range(100, 160):
        watch.fold(after(at, bad={"errors": {"": (0, 1)}}))
    assert decide(SETTLED, watch.facts(160.0)).code == "watched"


def test_labels_judge_the_promoted_release_by_the_old_one() -> None:
    watch = Watch(SETTLED)
    rows = [label(n, score=0.1, shadow=0.9) for n in range(200)]
    rows = [
        msgspec.structs.replace(
            one, row=msgspec.structs.replace(one.row, production=2, candidate=1)
        )
        for one in rows
    ]
    watch.fold_labels(rows, 200, 1_000.0)
    found = quality(watch)
    assert (found.verdict, found.difference) == ("fail", 1.0)


def test_a_split_that_differs_from_the_configured_one_blames_no_release() -> None:
    watch = Watch(CANARY)
    for at in range(100, 160):
        watch.fold(window(at, fresh=(10, 40)))
    assert "80" in watch.facts(160.0).mismatch


def test_a_split_by_chance_is_none() -> None:
    watch, rng = Watch(CANARY), np.random.default_rng(5)
    for at in range(100, 400):
        candidate = int(rng.binomial(40, 0.5))
        watch.fold(window(at, fresh=(40 - candidate, candidate)))
    assert watch.facts(400.0).mismatch == ""


def test_a_process_that_takes_over_has_the_same_state() -> None:
    """Kept in the middle of anything, and gone on with elsewhere."""
    windows = [
        window(
            100 + n,
            weight=5_000 if n < 30 else 100,
            fresh=(3, 4),
            mirrored=1,
            bad={"errors": {"": (int(n % 3 == 0), n % 2)}},
            units=(BadUnit(n % 7, 1, CANDIDATE, ("a=b",), 50),),
            agreement={"": Agreement(3, 2)},
            scores={7: (1, 1, 0.5, 0.5)},
        )
        for n in range(60)
    ]
    for cut in range(0, 60, 7):
        whole, first = Watch(CANARY), Watch(CANARY)
        for one in windows:
            whole.fold(one)
        for one in windows[:cut]:
            first.fold(one)
        second = Watch(CANARY, first.snapshot())
        for one in windows[cut:]:
            second.fold(one)
        assert second.facts(200.0) == whole.facts(200.0)
        assert second.verdicts() == whole.verdicts()
        assert second.snapshot() == whole.snapshot()


def test_another_policy_asks_from_the_beginning() -> None:
    watch = Watch(CANARY)
    watch.fold(failing(100))
    changed = msgspec.structs.replace(CANARY, policy_digest="sha256:other")
    assert not watch.fits(changed)
    assert Watch(changed, watch.snapshot()).facts(101.0).units == (0, 0)


# ---------------------------------------------------------------- labels


def label(
    number: int,
    *,
    score: float,
    shadow: float | None = None,
    value: float | None = 1.0,
    arm: str = "production",
    version: str = "",
    at: float | None = None,
    segments: tuple[str, ...] = (),
) -> Labelled:
    at = 100.0 + number if at is None else at
    row = JoinRow(
        id=f"{number}/0",
        at=at,
        unit="",
        endpoint="flights",
        production=1,
        candidate=2,
        salt="s",
        weight=0 if shadow is not None else 5_000,
        arm=arm,
        failed=False,
        segments=segments,
        score=score,
        decision=str(int(score >= 0.5)),
        shadow_score=shadow,
        shadow_decision=None if shadow is None else str(int(shadow >= 0.5)),
        paired=shadow is not None,
    )
    return Labelled(row, Outcome(f"{number}/0", value, None, version), at + 60.0)


def quality(of: Watch) -> Any:
    return next(v for v in of.verdicts() if (v.metric, v.segment) == ("quality", ""))


def test_a_worse_shadow_is_found_by_its_labels() -> None:
    watch = Watch(SHADOW)
    rows = [label(n, score=0.9, shadow=0.1 if n % 3 == 0 else 0.9) for n in range(300)]
    watch.fold_labels(rows, 300, 1_000.0)
    found = quality(watch)
    assert (found.verdict, found.bad) == ("fail", (0, 100))
    assert found.difference == pytest.approx(1 / 3)
    assert watch.facts(1_000.0).overall.metric == "quality"


def test_an_equal_shadow_is_proven_by_its_labels() -> None:
    state = msgspec.structs.replace(
        SHADOW,
        policy=msgspec.structs.replace(
            POLICY, shadow=msgspec.structs.replace(POLICY.shadow, min_pairs=500)
        ),
    )
    watch = Watch(state)
    rows = [
        label(n, score=0.1 if n % 4 == 0 else 0.9, shadow=0.1 if n % 4 == 0 else 0.9)
        for n in range(5_000)
    ]
    watch.fold_labels(rows, 5_000, 1_000.0)
    assert quality(watch).verdict == "pass"


def test_a_canary_is_judged_by_the_labels_of_both_arms() -> None:
    watch = Watch(CANARY)
    rows = [
        label(
            n,
            score=0.1 if n % (4 if n % 2 else 20) == 1 else 0.9,
            arm="candidate" if n % 2 else "production",
        )
        for n in range(2_000)
    ]
    for start in range(0, 2_000, 100):
        watch.fold_labels(rows[start : start + 100], start, 1_000.0 + start)
    assert quality(watch).verdict == "fail"


def test_two_label_versions_never_mix() -> None:
    """Old labels say all is well, new ones do not: only the first version is judged."""
    watch = Watch(SHADOW)
    watch.fold_labels([label(n, score=0.9, shadow=0.9, version="v1") for n in range(50)], 50, 1.0)
    watch.fold_labels([label(n, score=0.9, shadow=0.1, version="v2") for n in range(50)], 100, 2.0)
    assert quality(watch).bad == (0, 0)
    assert watch.label_summary().versions == {"v1": 50, "v2": 50}


def test_labels_that_never_come_and_labels_that_do_not_fit_are_counted() -> None:
    watch = Watch(SHADOW)
    rows = [label(1, score=0.9, shadow=0.9, value=None), label(2, score=0.9, shadow=0.9, value=7.0)]
    watch.fold_labels(rows, 2, 1.0)
    found = watch.label_summary()
    assert (found.declined, found.unfit, found.units) == (1, 1, (0, 0))


def test_the_delay_of_labels_is_reported() -> None:
    watch = Watch(SHADOW)
    watch.fold_labels([label(n, score=0.9, shadow=0.9) for n in range(10)], 10, 1.0)
    median = watch.label_summary().delay_s.p50
    assert median is not None
    assert 60 <= median <= 91


def test_labels_survive_taking_over() -> None:
    rows = [label(n, score=0.9, shadow=0.1) for n in range(40)]
    whole, first = Watch(SHADOW), Watch(SHADOW)
    whole.fold_labels(rows[:20], 20, 1.0)
    whole.fold_labels(rows[20:], 40, 2.0)
    first.fold_labels(rows[:20], 20, 1.0)
    second = Watch(SHADOW, first.snapshot())
    second.fold_labels(rows[20:], 40, 2.0)
    assert second.snapshot() == whole.snapshot()


# ---------------------------------------------------------------- holdback

HOLDING = State(
    endpoint="flights",
    stage=Stage.SETTLED,
    production=2,
    previous=1,
    back=1,
    salt="s",
    holdback=1_000,
    policy=POLICY,
)


def held(at: int, **more: Any) -> Window:
    """Production (2) in the first column, the release that was left (1) in the second."""
    return window(
        at,
        production=2,
        candidate=1,
        weight=1_000,
        **{"exposed": {"": (90, 10)}, "fresh": (90, 10), **more},
    )


def test_a_late_regression_is_found_against_the_callers_that_were_held_back() -> None:
    """The release that was left is the measure, and production is what is judged."""
    watch = Watch(HOLDING)
    for at in range(100, 300):
        watch.fold(held(at, bad={"errors": {"": (6 if at >= 130 else 0, 0)}}))
    facts = watch.facts(302.0)
    assert facts.units == (2_000, 18_000)
    assert (facts.overall.verdict, facts.mismatch) == ("fail", "")
    told = decide(HOLDING, facts)
    assert (told.verdict, told.code, told.command) == ("fail", "late_regression", None)
    strict = msgspec.structs.replace(POLICY, after=AfterPolicy(on_fail="rollback"))
    acts = decide(msgspec.structs.replace(HOLDING, policy=strict), facts)
    assert isinstance(acts.command, Rollback)


def test_a_fault_that_both_arms_share_is_not_a_late_regression() -> None:
    watch = Watch(HOLDING)
    for at in range(100, 300):
        watch.fold(held(at, bad={"errors": {"": (9, 1)}}))
    assert watch.facts(300.0).overall.verdict != "fail"


def test_a_holdback_whose_share_is_not_the_one_that_was_set_is_broken_input() -> None:
    watch = Watch(HOLDING)
    for at in range(100, 200):
        watch.fold(held(at, fresh=(50, 50)))
    assert decide(HOLDING, watch.facts(200.0)).code == "sample_ratio"


# ---------------------------------------------------------------- cost and noise

GUARDED = msgspec.structs.replace(
    POLICY, cost=CostPolicy(per_second=1.0), guardrails={"cost": Guardrail(worse_by=0.2)}
)


def spent(at: int, theirs: float) -> Window:
    """A second in which 100 requests without a caller cost 1 on each arm."""
    cells = tuple(
        CostCell(
            (bin_of(cost), bin_of(cost)),
            (100 - 100 * arm, 100 * arm),
            (100.0 * (1 - arm), 100 * arm * cost),
        )
        for arm, cost in enumerate((1.0, theirs))
    )
    return window(
        at,
        cells=cells,
        costs={"": Spent((100, 100.0, 101.0), (100, 100 * theirs, 101 * theirs**2))},
    )


def test_a_dearer_candidate_is_rolled_back_where_cost_is_guarded_and_only_there() -> None:
    for policy, verdict, code in (
        (GUARDED, "fail", "guardrail"),
        (POLICY, "inconclusive", "waiting"),
    ):
        state = msgspec.structs.replace(CANARY, policy=policy)
        watch = Watch(state)
        for at in range(100, 130):
            watch.fold(spent(at, 1.5))
        told = decide(state, watch.facts(130.0))
        assert (told.verdict, told.code) == (verdict, code)
        reason = next(v.reason for v in watch.verdicts() if v.metric == "cost")
        assert ("dearer" in reason) == (policy is GUARDED), reason


def test_a_guarded_cost_must_be_proven_before_anything_goes_forward() -> None:
    state = msgspec.structs.replace(SHADOW, policy=GUARDED)
    assert "cost" in msgspec.structs.replace(GUARDED).guardrails
    facts = PatrolFacts(
        overall=Overall("inconclusive", ""),
        pairs=10**6,
        mirrored=10,
        copied=10,
        healthy_s=1e9,
        verdicts=tuple(
            Verdict(
                metric=metric,
                segment="",
                verdict="pass",
                reason="",
                units=(1, 1),
                bad=(0, 0),
                log_e=0.0,
                log_e_pass=9.0,
                suspect=False,
            )
            for metric in ("errors",)
        ),
    )
    told = decide(state, facts)
    assert (told.verdict, told.reason) == ("inconclusive", "cost: no data")


def test_costs_and_noise_survive_the_patrol() -> None:
    watch = Watch(SHADOW)
    watch.fold(paired(100, costs={"": Spent((1, 2.0, 4.0))}, noise=(9, 8)))
    again = Watch(SHADOW, watch.snapshot())
    assert (again.costs, again.noise) == (watch.costs, (9, 8))


def test_after_a_promotion_costs_change_sides_too() -> None:
    watch = Watch(HOLDING)
    caller = CallerCost(5, 9_900, (0, 1), (0.0, 3.0))
    window_ = held(
        100,
        costs={"": Spent((1, 2.0, 4.0), (1, 3.0, 9.0))},
        callers=(caller,),
        clips=(1, 2),
        cells=(CostCell((7, 7), (1, 0), (2.0, 0.0)),),
    )
    watch.fold(window_)
    assert watch.costs[""] == Spent((1, 3.0, 9.0), (1, 2.0, 4.0))
    other = turned(window_)
    assert other.callers == (CallerCost(5, 9_900, (1, 0), (3.0, 0.0)),)
    assert other.cells == (CostCell((7, 7), (0, 1), (0.0, 2.0)),)
    assert other.clips == (2, 1)


def test_the_judge_of_cost_survives_the_patrol_and_a_segment_has_figures_only() -> None:
    state = msgspec.structs.replace(CANARY, policy=GUARDED)
    watch = Watch(state)
    for at in range(100, 130):
        watch.fold(spent(at, 1.5))
    watch.fold(window(130, costs={"country=CH": Spent((1, 1.0, 1.0), (1, 9.0, 81.0))}))
    again = Watch(state, watch.snapshot())
    assert again.verdicts() == watch.verdicts()
    assert again.cost_figures() == watch.cost_figures()
    costs = {v.segment: v for v in watch.facts(131.0).verdicts if v.metric == "cost"}
    assert costs[""].verdict == "fail"
    sliced = next(v for v in watch.verdicts() if v.segment == "country=CH")
    assert (sliced.verdict, sliced.reason.split(":")[0]) == (
        "inconclusive",
        "cost is judged as a whole",
    )


def test_cost_evidence_of_an_older_patrol_is_not_continued() -> None:
    """Its snapshot has sums of requests and no units: they stay figures."""
    state = msgspec.structs.replace(CANARY, policy=GUARDED)
    watch = Watch(state)
    for at in range(100, 130):
        watch.fold(spent(at, 1.5))
    kept = msgspec.msgpack.decode(watch.snapshot())
    del kept["cost_judge"], kept["check"]
    again = Watch(state, msgspec.msgpack.encode(kept))
    assert again.costs == watch.costs
    found = next(v for v in again.facts(131.0).verdicts if v.metric == "cost")
    assert (found.verdict, found.reason) == ("inconclusive", "no cost of a unit was reported")


# ---------------------------------------------------------------- labels that equal no answer

IRIS = ["setosa", "versicolor", "virginica"]
NAMED = change(
    SHADOW,
    policy=Policy(
        guardrails={"quality": Guardrail(worse_by=0.05)},
        shadow=ShadowPolicy(window="1s", min_pairs=10, min_pairs_per_segment=1),
    ),
    releases={
        number: change(
            release(number),
            signature=Signature(
                inputs=(), outputs=(Field("p", "float64", (3,)), Field("label", "string"))
            ),
        )
        for number in (1, 2)
    },
)


def named(number: int, ours: str, theirs: str, value: str) -> Labelled:
    one = label(number, score=0.0, shadow=0.0)
    row = change(one.row, score=None, decision=ours, shadow_score=None, shadow_decision=theirs)
    return Labelled(row, Outcome(row.id, value), 1_000.0)


def seen(watch: Watch) -> Watch:
    for at in range(100, 400):
        watch.fold(paired(at, exposed={"": (100, 100)}, answered={"": (100, 100)}))
    return watch


def test_labels_that_equal_no_answer_are_no_proof_and_said_to_be_broken() -> None:
    """Wrong in every row on both sides: no difference, and once a proof of it."""
    watch = seen(Watch(NAMED))
    rows = [named(n, f"0; {n % 3}", f"1; {n % 3}", IRIS[n % 3]) for n in range(2_000)]
    watch.fold_labels(rows[:60], 60, 1_000.0)
    early = watch.facts(1_000.0)
    assert early.unfit_labels
    assert not early.labels_broken
    watch.fold_labels(rows[60:], 2_000, 1_100.0)
    found = Watch(NAMED, watch.snapshot())
    assert quality(found).verdict == "broken input"
    said = decide(NAMED, found.facts(1_100.0))
    assert (said.verdict, said.code, said.command) == ("broken input", "labels_unfit", None)
    assert said.reason.startswith("2,000 labels, none equals any answer of either release")
    assert found.label_summary().fault == said.reason
    killed = msgspec.structs.replace(found.facts(1_100.0), overall=Overall("fail", "errors: worse"))
    assert decide(NAMED, killed).verdict == "fail"


def test_labels_of_named_classes_are_judged() -> None:
    watch = seen(Watch(NAMED))
    rows = [named(n, IRIS[n % 3], IRIS[(n + (n % 5 > 1)) % 3], IRIS[n % 3]) for n in range(2_000)]
    watch.fold_labels(rows, 2_000, 1_000.0)
    found = watch.label_summary()
    assert found.loss == (0.0, 0.6)
    assert (found.output, found.matched, found.fault) == ("label", (2_000, 800), "")
    assert quality(watch).verdict == "fail"


def test_a_snapshot_of_before_has_no_matching() -> None:
    kept = msgspec.msgpack.decode(Watch(NAMED).snapshot())
    del kept["labels"]["matching"]
    assert Watch(NAMED, msgspec.msgpack.encode(kept)).facts(1.0).unfit_labels == ""
