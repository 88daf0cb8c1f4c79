"""The remaining time of a rollout: a part for each condition of the policy that does not hold yet."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kedge.core.automation import SILENT_S, decide, proofs
from kedge.core.estimate import STALE_S, RolloutEstimate, estimate
from kedge.core.evidence.rules import Verdict
from kedge.core.values import CanaryPolicy, Guardrail, Policy, ShadowPolicy, Stage, State
from kedge.engine.watch import Watch
from unit.test_watch import CANARY, POLICY, SETTLED, SHADOW, change, paired, window

NOW = 100.0
VERDICT = Verdict(
    metric="errors.doubled",
    segment="",
    verdict="inconclusive",
    reason="",
    units=(900, 9),
    bad=(0, 0),
)


def reckoned(state: State, watch: Watch, now: float = NOW, **facts: Any) -> RolloutEstimate | None:
    """The estimate of what was folded, with some facts changed."""
    known = msgspec.structs.replace(watch.facts(now), **facts)
    return estimate(state, decide(state, known), known, watch.judge)


def canary(state: State, seconds: int, **more: Any) -> Watch:
    watch = Watch(state)
    for at in range(seconds):
        watch.fold(window(at, weight=state.weight, **more))
    watch.settle(seconds + 5.0)
    return watch


def with_policy(state: State, **more: Any) -> State:
    return change(state, policy=change(POLICY, **more))


def test_a_canary_waits_for_its_dwell_requests_and_proof() -> None:
    state = with_policy(change(CANARY, weight=500), canary=CanaryPolicy(dwell="10m"))
    watch = canary(state, 40, exposed={"": (19, 1)})
    found = reckoned(state, watch, 40.0)
    assert found is not None
    assert {part.waits_for for part in found.parts} == {"dwell", "requests", "errors.doubled"}
    of = {part.waits_for: part.seconds for part in found.parts}
    assert of["dwell"] == pytest.approx(561, abs=1)
    assert of["requests"] == pytest.approx(60, rel=0.05)
    assert found.rate == pytest.approx(20, rel=0.1)
    assert found.part.seconds == found.seconds == max(of.values(), key=lambda s: s or 0.0)


def test_a_condition_that_holds_is_no_part() -> None:
    state = with_policy(CANARY, canary=CanaryPolicy(dwell="1s"))
    found = reckoned(state, canary(state, 60, exposed={"": (30, 30)}), 60.0)
    assert found is not None
    assert [part.waits_for for part in found.parts] == ["errors"]


def test_without_requests_there_is_no_rate_and_it_says_so() -> None:
    state = with_policy(CANARY, canary=CanaryPolicy(dwell="1s"))
    watch = canary(state, 60, exposed={"": (1, 1)})
    found = reckoned(state, watch, 60.0, stale_s=STALE_S + 1)
    assert found is not None
    assert (found.seconds, found.cause) == (None, "no_traffic")
    fresh = reckoned(state, Watch(state), 0.0)
    assert fresh is not None
    assert (fresh.seconds, fresh.cause) == (None, "no_traffic")


def test_a_step_that_just_began_does_not_say_that_no_requests_come() -> None:
    """Workers count once a second, and the patrol reads their counts after that."""
    state = with_policy(CANARY, canary=CanaryPolicy(dwell="1s"))
    for since_s, cause in ((0.0, "starting"), (STALE_S, "starting"), (STALE_S + 1, "no_traffic")):
        found = reckoned(state, Watch(state), 0.0, since_s=since_s)
        assert found is not None
        assert (found.seconds, found.cause) == (None, cause)
    counted = canary(state, 60, exposed={"": (1, 1)})
    stopped = reckoned(state, counted, 60.0, stale_s=STALE_S + 1, since_s=1.0)
    assert stopped is not None
    assert stopped.cause == "no_traffic"


def test_a_declared_quality_without_labels_has_no_time() -> None:
    state = with_policy(
        CANARY, canary=CanaryPolicy(dwell="1s"), guardrails={"quality": Guardrail(0.05, "brier")}
    )
    assert proofs(state) == ("errors", "quality")
    found = reckoned(state, canary(state, 60, exposed={"": (30, 30)}), 60.0)
    assert found is not None
    assert (found.seconds, found.cause, found.waits_for) == (None, "no_labels", "quality")
    assert found.part.metric == "brier"
    assert found.part.margin == 0.05
    silent = reckoned(state, canary(state, 60, exposed={"": (30, 30)}), 60.0, stale_s=STALE_S + 1)
    assert silent is not None
    quality = next(part for part in silent.parts if part.waits_for == "quality")
    assert (quality.cause, quality.metric) == ("no_traffic", "brier")


def test_cost_has_no_estimate_and_makes_the_rest_a_least_time() -> None:
    state = with_policy(
        CANARY, canary=CanaryPolicy(dwell="1h"), guardrails={"cost": Guardrail(0.2)}
    )
    found = reckoned(state, canary(state, 60, exposed={"": (30, 30)}), 60.0)
    assert found is not None
    assert found.at_least
    assert found.seconds is not None
    assert {part.cause for part in found.parts if part.seconds is None} == {"unknown"}


def test_a_small_step_of_few_callers_is_left_after_an_hour() -> None:
    state = with_policy(change(CANARY, weight=100), canary=CanaryPolicy(dwell="10m"))
    watch = canary(state, 700, exposed={"": (99, 1)}, named={"": (99, 1)})
    verdict = msgspec.structs.replace(VERDICT, callers=True)
    found = reckoned(
        state, watch, 700.0, callers=(900, 9), verdicts=(verdict,), requests=(60_000, 600)
    )
    assert found is not None
    assert found.waits_for == "silence"
    assert found.seconds == pytest.approx(SILENT_S - 699, abs=2)


def test_a_shadow_waits_for_its_pairs_window_segments_and_coverage() -> None:
    state = with_policy(
        SHADOW, shadow=ShadowPolicy(window="1h", min_pairs=2_000, min_pairs_per_segment=900)
    )
    watch = Watch(state)
    for at in range(100):
        watch.fold(paired(at, exposed={"": (10, 10), "a=x": (5, 5)}, agreement={}))
    found = reckoned(state, watch, 100.0)
    assert found is not None
    of = {part.waits_for: part.seconds for part in found.parts}
    assert of["pairs"] == pytest.approx(100, rel=0.05)
    assert of["window"] == pytest.approx(3_501, abs=2)
    assert of["segments"] == pytest.approx(80, rel=0.1)
    lost = reckoned(state, watch, 100.0, mirrored=1_000, copied=10)
    assert lost is not None
    assert (lost.seconds, lost.cause, lost.waits_for) == (None, "coverage", "coverage")


def test_nothing_is_estimated_of_what_waits_for_no_evidence() -> None:
    state = with_policy(CANARY, canary=CanaryPolicy(dwell="1s"))
    watch = canary(state, 60, exposed={"": (30, 30)})
    assert reckoned(state, watch, 60.0, mismatch="the split is off") is None
    assert reckoned(state, watch, 60.0, streak=99) is None
    assert SETTLED.stage is Stage.SETTLED
    assert reckoned(SETTLED, Watch(SETTLED)) is None
    assert Policy().canary.steps == (1.0, 5.0, 25.0, 50.0)
