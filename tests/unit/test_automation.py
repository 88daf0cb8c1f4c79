"""Actions that follow from evidence: hard kills, gates, and no action."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kedge.core.automation import (
    DEFAULTS,
    KILL_BROKEN,
    KILL_CRASHES,
    KILL_STREAK,
    MIN_REQUESTS,
    Decision,
    PatrolFacts,
    binding,
    decide,
    guardrails,
    rules,
    tolerated_latency,
)
from kedge.core.diagnosis.findings import Cause
from kedge.core.evidence.faults import FaultSpread
from kedge.core.evidence.rules import Overall, Verdict, Word
from kedge.core.release.commands import Certify, Fail, Pause, Promote, Rollback
from kedge.core.values import (
    AfterPolicy,
    Automation,
    CanaryPolicy,
    Failure,
    Guardrail,
    Policy,
    ShadowPolicy,
    Stage,
    State,
)
from kedge.testing.samples import release
from unit.test_summary import NOW, finding

CANARY = State(
    endpoint="flights",
    epoch=7,
    stage=Stage.CANARY,
    production=1,
    candidate=2,
    weight=500,
    policy=Policy(canary=CanaryPolicy(steps=(5, 25), dwell="10m", on_pass="promote")),
    automation=Automation(auto=True),
)
SHADOW = State(
    endpoint="flights",
    epoch=5,
    stage=Stage.SHADOW,
    production=1,
    candidate=2,
    sample=10_000,
    policy=Policy(shadow=ShadowPolicy(window="1h", min_pairs=1000, min_pairs_per_segment=100)),
)


def change(state: State, **fields: Any) -> State:
    return msgspec.structs.replace(state, **fields)


def overall(verdict: Word = "inconclusive") -> Overall:
    return Overall(verdict, f"it is {verdict}")


def proven(*metrics: str, verdict: Word = "pass") -> tuple[Verdict, ...]:
    return tuple(
        Verdict(
            metric=metric,
            segment="",
            verdict=verdict,
            reason=f"it is {verdict}",
            units=(5_000, 400),
            bad=(50, 4),
        )
        for metric in metrics
    )


def facts(**known: Any) -> PatrolFacts:
    usual: dict[str, Any] = {
        "overall": overall(),
        "units": (5_000, 400),
        "requests": (5_000, 400),
        "step_s": 700.0,
        "verdicts": proven("errors", "errors.doubled", "latency.p99"),
    }
    return PatrolFacts(**{**usual, **known})


def shadowed(**known: Any) -> PatrolFacts:
    usual: dict[str, Any] = {
        "pairs": 2_000,
        "mirrored": 2_000,
        "copied": 1_990,
        "healthy_s": 3_700.0,
        "segments": {"origin=JFK": 900, "origin=LGA": 1_100},
    }
    return facts(**{**usual, **known})


def test_a_failing_guardrail_takes_the_candidate_back() -> None:
    said = decide(CANARY, facts(overall=overall("fail")))
    assert (said.verdict, said.command) == ("fail", Rollback())


@pytest.mark.parametrize("known", [{"overall": overall("fail")}, {"streak": KILL_STREAK}])
def test_a_breach_acts_while_paused_at_a_gate_too(known: dict[str, Any]) -> None:
    assert decide(change(CANARY, paused=True), facts(**known)).command == Rollback()


def test_on_fail_pause_holds_and_holds_only_once() -> None:
    policy = msgspec.structs.replace(CANARY.policy, canary=CanaryPolicy(on_fail="pause"))
    state = change(CANARY, policy=policy)
    failing = facts(overall=overall("fail"))
    assert decide(state, failing).command == Pause()
    assert decide(change(state, paused=True), failing).command is None


@pytest.mark.parametrize(
    "known",
    [
        {"streak": KILL_STREAK},
        {"broken": KILL_BROKEN},
        {"crashes": KILL_CRASHES},
        {"silent_s": 3.2},
    ],
)
def test_hard_kills_need_no_statistics(known: dict[str, Any]) -> None:
    said = decide(CANARY, facts(overall=overall(), units=(3, 3), **known))
    assert (said.code, said.command) == ("hard_kill", Rollback())


@pytest.mark.parametrize("number", [0, 1])
def test_a_split_that_cannot_be_chance_stops_a_pass_and_never_a_proven_failure(number: int) -> None:
    """Callers choose their entity, and could switch the guardrails off by it."""
    state = (CANARY, AFTER)[number]
    good = facts(mismatch="6 % instead of 5 %")
    said = decide(state, good)
    assert (said.verdict, said.code, said.command) == ("broken input", "sample_ratio", None)
    said = decide(state, msgspec.structs.replace(good, overall=overall("fail")))
    assert (said.verdict, said.command) == ("fail", Rollback())
    assert "6 % instead of 5 %" in said.reason


@pytest.mark.parametrize("state", [CANARY, SHADOW])
def test_an_alarm_of_one_caller_or_one_instant_is_not_acted_on_and_says_so(state: State) -> None:
    failing = Overall("fail", "errors: 9 bad", metric="errors")
    for spread in (
        FaultSpread(callers=1),
        FaultSpread(seconds=2),
        FaultSpread(callers=1, needed=2),
    ):
        said = decide(state, shadowed(overall=failing, spread={"errors": spread}))
        assert (said.verdict, said.code, said.command) == ("inconclusive", "few_callers", None)
        assert f"bad units of {spread.text}" in said.reason
    for spread in (
        FaultSpread(callers=3),
        FaultSpread(seconds=3),
        FaultSpread(callers=1, needed=1),
    ):
        said = decide(state, shadowed(overall=failing, spread={"errors": spread}))
        assert said.verdict == "fail"
        assert f"bad units of {spread.text}" in said.reason


def test_a_step_is_not_left_when_more_than_a_twentieth_of_the_share_was_never_asked() -> None:
    """What the breaker spared proves nothing; it has its own reason."""
    said = decide(CANARY, facts(routed=400, unasked={"breaker_open": 15, "model_down": 6}))
    assert (said.verdict, said.code, said.command) == ("inconclusive", "unasked", None)
    assert "breaker_open 15" in said.reason
    assert decide(CANARY, facts(routed=400, unasked={"breaker_open": 20})).command is not None


@pytest.mark.parametrize("known", [{"broken": KILL_BROKEN}, {"silent_s": 4.0}])
def test_a_shadows_own_failures_fail_it_too(known: dict[str, Any]) -> None:
    said = decide(SHADOW, shadowed(**known))
    assert (said.verdict, said.code, said.command) == ("fail", "hard_kill", None)


def test_but_a_candidate_that_fails_every_request_is_still_left() -> None:
    assert decide(CANARY, facts(mismatch="6 %", streak=KILL_STREAK)).command == Rollback()


def test_a_proven_step_advances_when_the_patrol_walks() -> None:
    assert decide(CANARY, facts()).command == Promote(release=2)


def by_callers(word: Word = "inconclusive") -> tuple[Verdict, ...]:
    return tuple(
        msgspec.structs.replace(verdict, callers=True, verdict=word)
        for verdict in proven("errors", "errors.doubled")
    )


def test_a_small_step_whose_callers_prove_nothing_is_left_after_a_silent_hour() -> None:
    few = facts(verdicts=by_callers(), callers=(990, 10), step_s=3_700.0)
    said = decide(CANARY, few)
    assert (said.verdict, said.command) == ("pass", Promote(release=2))
    assert "left unproven at 5 %: 10 callers" in said.reason


@pytest.mark.parametrize(
    "known",
    [
        {"step_s": 3_500.0},
        {"callers": (10_000, 800)},
        {"callers": (990, 0)},
        {"verdicts": proven("errors.doubled", verdict="inconclusive")},
        {"overall": overall("fail")},
    ],
)
def test_but_not_sooner_nor_with_callers_enough_nor_without_any(known: dict[str, Any]) -> None:
    usual = {"verdicts": by_callers(), "callers": (990, 10), "step_s": 3_700.0, **known}
    assert not isinstance(decide(CANARY, facts(**usual)).command, Promote)


def test_a_large_step_is_never_left_unproven() -> None:
    state = change(CANARY, weight=2_500)
    few = facts(verdicts=by_callers(), callers=(990, 10), step_s=3_700.0)
    assert decide(state, few).command is None


def test_labels_that_come_unevenly_prove_no_quality() -> None:
    policy = msgspec.structs.replace(
        CANARY.policy, guardrails={"quality": Guardrail(worse_by=0.05)}
    )
    known = facts(
        verdicts=proven("errors", "errors.doubled", "quality"), uneven="labels come unevenly"
    )
    assert decide(change(CANARY, policy=policy), known).reason == "quality: labels come unevenly"


def test_without_auto_it_asks() -> None:
    said = decide(change(CANARY, automation=Automation()), facts())
    assert (said.verdict, said.code, said.command) == ("pass", "ask", None)


def test_the_last_step_asks_unless_it_is_set_to_promote() -> None:
    last = change(CANARY, weight=2_500)
    assert decide(last, facts()).command == Promote(release=2)
    policy = msgspec.structs.replace(CANARY.policy, canary=CanaryPolicy(steps=(5, 25)))
    assert decide(change(last, policy=policy), facts()).code == "ask"


@pytest.mark.parametrize(
    "known",
    [
        {"step_s": 10.0},
        {"requests": (5_000, MIN_REQUESTS - 1)},
        {"verdicts": ()},
        {"verdicts": proven("errors.doubled", verdict="inconclusive")},
    ],
)
def test_no_step_is_left_without_proof(known: dict[str, Any]) -> None:
    said = decide(CANARY, facts(**known))
    assert (said.verdict, said.command) == ("inconclusive", None)


def test_a_larger_step_needs_the_guardrails_own_margin() -> None:
    wide = change(CANARY, weight=2_500)
    assert decide(wide, facts(verdicts=proven("errors.doubled"))).command is None
    assert decide(wide, facts(verdicts=proven("errors"))).command is not None


def test_a_declared_guardrail_without_data_holds() -> None:
    policy = msgspec.structs.replace(
        CANARY.policy, guardrails={"quality": Guardrail(worse_by=0.05)}
    )
    said = decide(change(CANARY, policy=policy), facts())
    assert (said.verdict, said.reason) == ("inconclusive", "quality: no data")


def test_a_paused_rollout_goes_nowhere() -> None:
    assert decide(change(CANARY, paused=True), facts()).command is None


@pytest.mark.parametrize("state", [CANARY, change(CANARY, weight=100)])
def test_frozen_does_nothing_and_says_what_it_would_have_done(state: State) -> None:
    frozen = change(state, automation=Automation(auto=True, frozen=True))
    said = decide(frozen, facts(overall=overall("fail")))
    assert (said.verdict, said.code, said.command) == ("fail", "frozen", None)
    assert "rollback" in said.reason


def test_a_healthy_shadow_is_certified_then_asks() -> None:
    assert decide(SHADOW, shadowed()).command == Certify(release=2)
    said = decide(change(SHADOW, automation=Automation(proven=(2, 1))), shadowed())
    assert (said.verdict, said.code) == ("pass", "ask")


def test_a_certified_shadow_is_promoted_where_the_policy_says_so() -> None:
    policy = Policy(shadow=msgspec.structs.replace(SHADOW.policy.shadow, on_pass="promote"))
    state = change(SHADOW, policy=policy, automation=Automation(proven=(2, 1)))
    assert decide(state, shadowed()).command == Promote(release=2)


@pytest.mark.parametrize(
    ("known", "word"),
    [
        ({"pairs": 999}, "pairs"),
        ({"copied": 1_800}, "coverage"),
        ({"healthy_s": 3_599.0}, "healthy"),
        ({"segments": {"origin=JFK": 99}}, "origin=JFK"),
        ({"verdicts": ()}, "no data"),
    ],
)
def test_a_shadow_reports_its_open_conditions(known: dict[str, Any], word: str) -> None:
    said = decide(SHADOW, shadowed(**known))
    assert said.command is None
    assert word in said.reason


def test_a_rare_segment_is_named_and_does_not_hold_up() -> None:
    said = decide(SHADOW, shadowed(segments={"origin=JFK": 1_990, "origin=XNA": 10}))
    assert said.command == Certify(release=2)
    assert "origin=XNA" in said.reason


def test_a_failing_shadow_moves_nothing() -> None:
    said = decide(SHADOW, shadowed(overall=overall("fail")))
    assert (said.verdict, said.command) == ("fail", None)


def test_nothing_known_is_never_a_pass() -> None:
    for state in (CANARY, SHADOW):
        said = decide(state, PatrolFacts(overall=overall()))
        assert said == Decision("inconclusive", "waiting", said.reason)


@pytest.mark.parametrize("state", [CANARY, SHADOW])
def test_evidence_that_cannot_be_read_is_broken_input_and_moves_nothing(state: State) -> None:
    said = decide(state, shadowed(unread="the disk is gone", overall=overall("fail")))
    assert (said.verdict, said.command) == ("broken input", None)


def test_evidence_that_some_replica_cannot_write_passes_no_candidate_and_still_fails_one() -> None:
    """What the others saw is real; what is missing might have spoken against the candidate."""
    good = shadowed(unwritten="w0: the disk is full", verdicts=proven("errors"))
    assert decide(SHADOW, good).code == "unwritten"
    assert decide(SHADOW, good).verdict == "broken input"
    bad = shadowed(unwritten="w0: the disk is full", overall=overall("fail"))
    assert decide(SHADOW, bad).verdict == "fail"


def test_declared_guardrails_stand_beside_the_defaults() -> None:
    policy = Policy(guardrails={"latency": Guardrail(worse_by=2.0)})
    assert guardrails(policy) == {**DEFAULTS, "latency": Guardrail(worse_by=2.0)}
    assert tolerated_latency(policy) == 3.0


def test_violations_are_judged_where_they_are_declared_and_spend_of_the_same_budget() -> None:
    declared = rules(Policy(guardrails={"violations": Guardrail(worse_by=1.0)}), paired=False).rails
    assert declared["violations"].worse_by == 1.0
    assert sum(rail.weight for rail in declared.values()) == pytest.approx(1)
    assert "violations" not in rules(Policy(), paired=False).rails


def test_the_alarms_budget_is_spent_once() -> None:
    assert sum(r.weight for r in rules(Policy(), paired=False).rails.values()) == pytest.approx(1)


AFTER = change(
    CANARY,
    stage=Stage.SETTLED,
    production=2,
    candidate=None,
    back=1,
    weight=0,
    policy=Policy(after=AfterPolicy(on_fail="rollback")),
)


@pytest.mark.parametrize("state", [CANARY, AFTER])
def test_a_soft_failure_that_a_fresh_diagnosis_blames_on_the_world_is_reported_and_not_rolled_back(
    state: State,
) -> None:
    soft = facts(
        overall=Overall("fail", "quality", metric="quality"),
        now=NOW,
        verdicts=proven("quality", verdict="fail"),
        finding=finding(Cause.WORLD, new=2, old=1),
    )
    said = decide(state, soft)
    assert (said.verdict, said.code, said.command) == ("fail", "not_the_release", None)
    assert "train again" in said.reason
    for change_ in (
        {"finding": None},
        {"finding": finding(Cause.WORLD, Cause.MODEL, new=2, old=1)},
        {"verdicts": proven("quality", "errors", verdict="fail")},
        {"overall": Overall("fail", "errors", metric="errors")},
        {"now": NOW + 7_201},
    ):
        other = msgspec.structs.replace(soft, **change_)
        assert isinstance(decide(state, other).command, Rollback), change_


def test_a_hard_kill_is_never_held() -> None:
    known = facts(streak=KILL_STREAK, finding=finding(Cause.WORLD, new=2, old=1), now=NOW)
    assert isinstance(decide(CANARY, known).command, Rollback)


def test_labels_that_equal_no_answer_stop_a_pass_and_never_a_failure() -> None:
    declared = msgspec.structs.replace(CANARY.policy, guardrails={"quality": Guardrail(0.05)})
    state = change(CANARY, policy=declared)
    known = {
        "verdicts": proven("errors", "errors.doubled", "quality"),
        "unfit_labels": "none equals",
    }
    early = decide(state, facts(**known))
    assert (early.verdict, early.reason) == ("inconclusive", "quality: none equals")
    for each in (state, CANARY, change(CANARY, paused=True)):
        broken = decide(each, facts(**known, labels_broken=True))
        assert (broken.verdict, broken.code, broken.command) == (
            "broken input",
            "labels_unfit",
            None,
        )
    left = decide(state, facts(**known, labels_broken=True, overall=overall("fail")))
    assert (left.verdict, left.command) == ("fail", Rollback())
    assert decide(state, facts(streak=KILL_STREAK, labels_broken=True)).command == Rollback()


# ---------------------------------------------------------------- a failure that binds

FAILED = Failure(
    candidate=2, production=1, reason="quality", salt="", stage=Stage.SHADOW, policy=""
)
FAILED_SHADOW = change(SHADOW, automation=Automation(failures=(FAILED,)))


def test_a_failed_shadow_is_written_into_the_row_once_and_also_while_frozen() -> None:
    failing = facts(overall=overall("fail"))
    wanted = Fail(release=2, reason="it is fail")
    assert binding(SHADOW, decide(SHADOW, failing)) == wanted
    frozen = change(SHADOW, automation=Automation(frozen=True))
    assert binding(frozen, decide(frozen, failing)) == wanted
    assert binding(FAILED_SHADOW, decide(FAILED_SHADOW, failing)) is None
    assert binding(SHADOW, decide(SHADOW, facts())) is None


def test_a_failure_that_is_rolled_back_or_has_no_candidate_is_not_recorded() -> None:
    failing = facts(overall=overall("fail"))
    assert binding(CANARY, decide(CANARY, failing)) is None
    settled = change(CANARY, stage=Stage.SETTLED, candidate=None, back=1, production=2)
    assert binding(settled, decide(settled, failing)) is None


@pytest.mark.parametrize("known", [{}, {"mismatch": "6 %"}, {"pairs": 3}])
def test_a_failure_stands_while_its_comparison_does(known: dict[str, Any]) -> None:
    said = decide(FAILED_SHADOW, shadowed(**known))
    assert (said.verdict, said.code, said.command) == ("fail", "latched", None)
    assert said.reason.startswith("quality; since then: ")


@pytest.mark.parametrize("change_", [{"salt": "flights/9"}, {"policy_digest": "sha256:other"}])
def test_another_comparison_is_judged_for_itself(change_: dict[str, Any]) -> None:
    assert decide(change(FAILED_SHADOW, **change_), shadowed()).command == Certify(release=2)


def test_on_fail_pause_spares_a_rollout_that_was_continued_against_the_verdict() -> None:
    policy = msgspec.structs.replace(CANARY.policy, canary=CanaryPolicy(on_fail="pause"))
    known = msgspec.structs.replace(FAILED, stage=Stage.CANARY)
    state = change(CANARY, policy=policy, automation=Automation(failures=(known,)))
    said = decide(state, facts(overall=overall("fail")))
    assert (said.verdict, said.command) == ("fail", None)


@pytest.mark.parametrize("stage", [Stage.SHADOW, Stage.CANARY])
def test_the_patrol_leaves_to_a_person_what_takes_an_override(stage: Stage) -> None:
    """It would be refused at every look, twice a second."""
    releases = {1: release(1), 2: release(2, gives="other:float32")}
    if stage is Stage.CANARY:
        state, known = CANARY, facts()
    else:
        policy = msgspec.structs.replace(
            SHADOW.policy, shadow=msgspec.structs.replace(SHADOW.policy.shadow, on_pass="promote")
        )
        state = change(SHADOW, policy=policy, automation=Automation(proven=(2, 1)))
        known = shadowed()
    assert decide(state, known).command == Promote(release=2)
    said = decide(change(state, releases=releases), known)
    assert (said.verdict, said.code, said.command) == ("pass", "ask", None)
    assert "p_late (not given)" in said.reason
    assert "--override" in said.reason
