"""Routing, one promise a test."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kedge.core.release.commands import Canary, Drill, Promote, Shadow
from kedge.core.routing import Choice, Plan, Reason, bucket, compile_plan, key_of
from kedge.core.values import BUCKETS, AfterPolicy, Arm, CanaryPolicy, Policy, State
from kedge.testing.samples import endpoint, release, run

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "routing.json").read_text("utf-8"))
SETTLED = run(
    endpoint(release(1), release(2), release(3)), Promote(1), Promote(2, override="a test")
)
SHADOW = run(SETTLED, Shadow(3))
CANARY = run(SETTLED, Canary(3, 2500))
ENTITIES = [f"N{number}" for number in range(1000)]


def plan(state: State, **changes: object) -> Plan:
    return compile_plan(msgspec.structs.replace(state, **changes))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: ascii(v["entity"][:24]))
def test_every_golden_vector_has_its_bucket(vector: dict[str, Any]) -> None:
    assert bucket(key_of(vector["salt"]), vector["entity"]) == vector["bucket"]


def test_there_are_vectors_for_the_edges() -> None:
    salts = {v["salt"] for v in VECTORS["vectors"]}
    entities = {v["entity"] for v in VECTORS["vectors"]}
    assert "" in salts
    assert max(map(len, entities)) > 128
    assert any(not entity.isascii() for entity in entities)
    assert len(VECTORS["vectors"]) >= 24


def test_nothing_in_production_is_nothing_to_route() -> None:
    with pytest.raises(ValueError, match="nothing in production"):
        compile_plan(endpoint(release(1)))


def test_without_a_rollout_production_answers_everybody() -> None:
    settled = Choice(arm=Arm.PRODUCTION, release=2, reason=Reason.PRODUCTION)
    copied = msgspec.structs.replace(settled, shadow=1)
    found = [plan(SETTLED).choose(entity, 5_000) for entity in [*ENTITIES, None]]
    assert set(found) == {settled, copied}


def test_after_a_promotion_a_tenth_is_copied_to_the_release_that_was_left() -> None:
    """Always the same entities; none without the lease, and none when the policy says so."""
    plans = [plan(SETTLED), plan(SETTLED)]
    copied = [[p.choose(str(n), 0).shadow == 1 for n in range(5_000)] for p in plans]
    assert copied[0] == copied[1]
    assert 0.08 < sum(copied[0]) / 5_000 < 0.12
    policy = msgspec.structs.replace(SETTLED.policy, after=AfterPolicy(sample=0))
    off = msgspec.structs.replace(SETTLED, policy=policy)
    assert plan(off).choose(None, 0).shadow is None
    assert compile_plan(SETTLED, lease=False).choose(None, 0).shadow is None


def test_a_bucket_below_the_weight_is_the_candidates() -> None:
    compiled, key = compile_plan(CANARY), key_of(CANARY.salt)
    for entity in ENTITIES:
        choice = compiled.choose(entity, 0)
        inside = bucket(key, entity) < CANARY.weight
        assert choice.arm is (Arm.CANDIDATE if inside else Arm.PRODUCTION)
        assert choice.reason is (Reason.WEIGHT if inside else Reason.OUTSIDE_WEIGHT)
        assert choice.release == (3 if inside else 2)


def test_an_entitys_arm_does_not_depend_on_the_draw() -> None:
    compiled = compile_plan(CANARY)
    for entity in ENTITIES[:50]:
        assert len({compiled.choose(entity, draw) for draw in range(0, BUCKETS, 500)}) == 1


@pytest.mark.parametrize("nobody", [None, ""])
def test_a_request_without_an_entity_is_split_by_its_draw(nobody: str | None) -> None:
    compiled = compile_plan(CANARY)
    assert compiled.choose(nobody, 2499).reason is Reason.KEYLESS
    assert compiled.choose(nobody, 2500).reason is Reason.KEYLESS_OUTSIDE
    assert compiled.choose(nobody, 2499).arm is Arm.CANDIDATE
    assert compiled.choose(nobody, 2500).arm is Arm.PRODUCTION


@pytest.mark.parametrize(("weight", "arm"), [(0, Arm.PRODUCTION), (BUCKETS, Arm.CANDIDATE)])
def test_a_share_of_zero_and_of_all_hold_exactly(weight: int, arm: Arm) -> None:
    compiled = plan(CANARY, weight=weight)
    assert {compiled.choose(entity, BUCKETS - 1).arm for entity in [*ENTITIES, None]} == {arm}


def test_a_canary_copies_nothing() -> None:
    compiled = compile_plan(CANARY)
    assert {compiled.choose(entity, 0).shadow for entity in [*ENTITIES, None]} == {None}


def test_a_full_shadow_copies_every_request_and_production_answers() -> None:
    copied = Choice(arm=Arm.PRODUCTION, release=2, reason=Reason.PRODUCTION, shadow=3)
    compiled = compile_plan(SHADOW)
    assert {compiled.choose(entity, BUCKETS - 1) for entity in [*ENTITIES, None]} == {copied}


def test_a_sampled_shadow_copies_the_entities_below_the_sample() -> None:
    compiled, key = plan(SHADOW, sample=3000), key_of(SHADOW.salt)
    for entity in ENTITIES:
        copied = compiled.choose(entity, BUCKETS - 1).shadow == 3
        assert copied is (bucket(key, entity) < 3000)


def test_a_sampled_shadow_draws_for_requests_without_an_entity() -> None:
    compiled = plan(SHADOW, sample=3000)
    assert compiled.choose(None, 2999).shadow == 3
    assert compiled.choose(None, 3000).shadow is None


def test_an_empty_sample_copies_nothing() -> None:
    assert {plan(SHADOW, sample=0).choose(entity, 0).shadow for entity in [*ENTITIES, None]} == {
        None
    }


@pytest.mark.parametrize(
    ("state", "asked", "arm"),
    [
        (SETTLED, 2, Arm.PRODUCTION),
        (SETTLED, 1, Arm.PREVIOUS),
        (CANARY, 3, Arm.CANDIDATE),
        (SHADOW, 3, Arm.CANDIDATE),
        (run(SETTLED, Canary(1, 1)), 1, Arm.CANDIDATE),
        (run(SETTLED, Drill(until=9.0)), 1, Arm.PRODUCTION),
        (run(SETTLED, Drill(until=9.0)), 2, Arm.PREVIOUS),
    ],
)
def test_a_tester_gets_the_release_that_was_asked_for(state: State, asked: int, arm: Arm) -> None:
    choice = compile_plan(state).choose("N1", 0, asked)
    assert choice == Choice(arm=arm, release=asked, reason=Reason.ASKED)


def test_a_release_that_is_not_live_cannot_be_asked_for() -> None:
    with pytest.raises(KeyError):
        compile_plan(SETTLED).choose("N1", 0, 3)


def test_in_a_drill_the_way_back_answers_everybody_and_nothing_is_copied() -> None:
    drilled = compile_plan(run(SETTLED, Drill(until=9.0)))
    found = {drilled.choose(entity, 0) for entity in [*ENTITIES, None]}
    assert found == {Choice(arm=Arm.PRODUCTION, release=1, reason=Reason.PRODUCTION)}


def test_without_a_lease_production_answers_everything_and_says_why() -> None:
    compiled = compile_plan(CANARY, lease=False)
    lost = Choice(arm=Arm.PRODUCTION, release=2, reason=Reason.LEASE)
    assert {compiled.choose(entity, 0) for entity in [*ENTITIES, None]} == {lost}


def test_without_a_lease_nothing_is_copied() -> None:
    compiled = compile_plan(SHADOW, lease=False)
    assert {compiled.choose(entity, 0).shadow for entity in [*ENTITIES, None]} == {None}


def test_without_a_lease_not_even_a_tester_gets_the_candidate() -> None:
    compiled = compile_plan(CANARY, lease=False)
    assert compiled.choose("N1", 0, 1).arm is Arm.PREVIOUS
    with pytest.raises(KeyError):
        compiled.choose("N1", 0, 3)


def test_an_entity_that_is_no_valid_text_is_routed_like_any_other() -> None:
    assert compile_plan(CANARY).choose("N1\ud800", 0).reason in {
        Reason.WEIGHT,
        Reason.OUTSIDE_WEIGHT,
    }


def test_a_plan_carries_the_epoch_it_was_compiled_from() -> None:
    assert compile_plan(CANARY).epoch == CANARY.epoch


# ---------------------------------------------------------------- holdback

HOLDING = Policy(audience="internal", canary=CanaryPolicy(holdback=10.0))
HELD = run(
    endpoint(release(1), release(2), policy=HOLDING),
    Promote(1),
    Canary(2, 5_000),
    Promote(2, full=True),
)


def test_after_a_promotion_a_share_stays_on_the_previous_release() -> None:
    """Those with the highest buckets of the rollout's salt: no caller who saw the candidate."""
    compiled, key = compile_plan(HELD), key_of(HELD.salt)
    assert HELD.salt
    for entity in ENTITIES:
        held = bucket(key, entity) >= 9_000
        choice = compiled.choose(entity, 0)
        assert (choice.release, choice.reason is Reason.HELD_BACK) == (
            (1, True) if held else (2, False)
        )
    assert compiled.choose(None, 9_000).arm is Arm.PREVIOUS
    assert compiled.choose(None, 8_999).arm is Arm.PRODUCTION
    assert {compile_plan(HELD, lease=False).choose(e, 9_999).release for e in ENTITIES} == {2}


def test_a_held_back_caller_gets_no_copy() -> None:
    """The arms differ: a copy beside would be asked twice and prove nothing more."""
    assert {compile_plan(HELD).choose(e, 0).shadow for e in [*ENTITIES, None]} == {None}
