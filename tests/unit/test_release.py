"""The release machine, one promise a test."""

from typing import get_args

import msgspec
import pytest

from kedge.core.codec import fingerprint
from kedge.core.errors import Refused
from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    AnyEvent,
    Canary,
    CandidateRolledBack,
    Certify,
    Configure,
    Drill,
    Fail,
    Follow,
    Freeze,
    Hold,
    Pause,
    Promote,
    Promoted,
    Restored,
    Resume,
    Return,
    Rollback,
    RolledBack,
    SetWeight,
    Shadow,
    Thaw,
)
from kedge.core.release.guards import GUARDS, buckets, next_step, per_cent
from kedge.core.release.machine import EVENTS, TABLE, apply, decide
from kedge.core.release.refusals import REFUSALS
from kedge.core.values import (
    BUCKETS,
    CanaryPolicy,
    Drilling,
    Placement,
    Policy,
    Refusal,
    ShadowPolicy,
    Stage,
    State,
)
from kedge.testing.samples import AT, endpoint, fields, release, run

WIDE = "dep_delay:float32,origin:string"
"""What r5 needs; callers promise only dep_delay."""
WHY = "an incident"

RELEASES = (
    release(1),
    release(2),
    release(3),
    release(4),
    release(5, needs=WIDE),
    release(6, version=4, placement=Placement.PROCESS),
    release(7, version=3, transformation=2),
    release(8, gives="label:int64"),
)
EMPTY = endpoint(*RELEASES)
FIRST = run(EMPTY, Promote(1))
SETTLED = run(FIRST, Promote(2, override=WHY), Promote(3, override=WHY))
SHADOW = run(SETTLED, Shadow(4))
CANARY = run(SETTLED, Canary(4, 100))
DRILL = run(SETTLED, Drill(until=60.0))
BY_STAGE = {
    Stage.EMPTY: EMPTY,
    Stage.SETTLED: SETTLED,
    Stage.SHADOW: SHADOW,
    Stage.CANARY: CANARY,
    Stage.DRILL: DRILL,
}


def configure(**changes: object) -> Configure:
    policy = msgspec.structs.replace(Policy(audience="internal"), **changes)
    return Configure(policy=policy, digest=fingerprint(policy))


EVERY_COMMAND: tuple[AnyCommand, ...] = (
    configure(audience="customer"),
    Promote(),
    Promote(4),
    Promote(override=WHY),
    Promote(4, full=True),
    Promote(4, override=WHY),
    Promote(5, override=WHY),
    Promote(99, override=WHY),
    Shadow(4),
    Shadow(4, sample=10),
    Shadow(99),
    Canary(4, 100),
    Canary(4, 0),
    Canary(99, 1),
    SetWeight(500),
    Pause(),
    Resume(),
    Abort(),
    Rollback(),
    Rollback(production=True),
    Rollback(to=1),
    Rollback(to=99),
    Rollback(axis="model"),
    Rollback(axis="features"),
    Canary(4, 100, auto=True),
    Certify(4),
    Certify(99),
    Freeze(),
    Fail(4, reason="quality"),
    Fail(99, reason="quality"),
    Pause(failure="errors"),
    Resume(override=WHY),
    SetWeight(500, override=WHY),
    Promote(4, equivalence="bit-equal"),
    Follow(),
    Hold(),
    Thaw(),
    Drill(until=60.0),
    Return(),
    Return(until=60.0),
    Return(until=61.0),
)


def refusal(state: State, command: AnyCommand) -> Refusal:
    outcome = decide(state, command, AT)
    assert isinstance(outcome, Refusal), outcome
    return outcome


def code(state: State, command: AnyCommand) -> str:
    return refusal(state, command).code


def kinds(state: State, command: AnyCommand) -> list[str]:
    outcome = decide(state, command, AT)
    assert not isinstance(outcome, Refusal), outcome
    return [str(event.__struct_config__.tag) for event in outcome]


# ---------------------------------------------------------------- rollback


def test_rollback_of_an_empty_endpoint_is_refused() -> None:
    assert code(EMPTY, Rollback()) == "nothing_to_go_back_to"


def test_rollback_of_the_first_release_is_refused() -> None:
    assert code(FIRST, Rollback()) == "nothing_to_go_back_to"


def test_rollback_of_a_settled_endpoint_goes_to_what_served_before() -> None:
    after = run(SETTLED, Rollback())
    assert (after.stage, after.production, after.previous) == (Stage.SETTLED, 2, 3)


def test_the_release_that_a_rollback_leaves_is_condemned() -> None:
    assert run(SETTLED, Rollback()).condemned == (3,)


def test_a_second_rollback_never_bounces_back() -> None:
    assert run(SETTLED, Rollback(), Rollback()).production == 1


def test_a_third_rollback_says_that_nothing_is_left() -> None:
    assert code(run(SETTLED, Rollback(), Rollback()), Rollback()) == "nothing_to_go_back_to"


def test_a_release_promoted_after_a_rollback_goes_back_to_the_good_one() -> None:
    after = run(SETTLED, Rollback(), Promote(4, override=WHY))
    assert after.back == 2
    assert run(after, Rollback()).production == 2


def test_rollback_in_a_shadow_ends_it_and_takes_production_back() -> None:
    after = run(SHADOW, Rollback())
    assert kinds(SHADOW, Rollback()) == ["aborted", "rolled_back"]
    assert (after.stage, after.production, after.candidate) == (Stage.SETTLED, 2, None)


def test_a_shadow_that_a_rollback_ended_is_not_condemned() -> None:
    assert run(SHADOW, Rollback()).condemned == (3,)


def test_rollback_in_a_canary_takes_the_candidate_away_and_leaves_production() -> None:
    after = run(CANARY, Rollback())
    assert (after.stage, after.production, after.candidate) == (Stage.SETTLED, 3, None)
    assert (after.weight, after.condemned) == (0, (4,))


def test_rollback_in_a_canary_reports_the_share_that_it_removed() -> None:
    assert decide(CANARY, Rollback(), AT) == (CandidateRolledBack(release=4, weight=100),)


def test_rollback_in_a_canary_of_the_first_release_still_works() -> None:
    assert run(FIRST, Canary(2, 100), Rollback()).production == 1


def test_two_rollbacks_in_a_canary_undo_the_canary_and_then_the_promotion() -> None:
    after = run(CANARY, Rollback(), Rollback())
    assert (after.production, after.condemned) == (2, (4, 3))


def test_production_option_in_a_canary_takes_production_back_and_ends_the_canary() -> None:
    after = run(CANARY, Rollback(production=True))
    assert (after.production, after.candidate, after.stage) == (2, None, Stage.SETTLED)
    assert after.condemned == (3,)


def test_production_option_in_a_canary_with_no_way_back_is_refused() -> None:
    assert code(run(FIRST, Canary(2, 1)), Rollback(production=True)) == "nothing_to_go_back_to"


def test_to_skips_the_candidate_and_lands_where_it_says() -> None:
    after = run(CANARY, Rollback(to=1))
    assert (after.production, after.candidate, after.condemned) == (1, None, (3,))


def test_to_a_condemned_release_pardons_it() -> None:
    back = run(SETTLED, Rollback())
    again = run(back, Rollback(to=3))
    assert (again.production, again.condemned) == (3, (2,))


def test_to_a_release_that_never_served_is_refused() -> None:
    assert code(SETTLED, Rollback(to=4)) == "never_in_production"


def test_to_what_is_production_is_refused() -> None:
    assert code(SETTLED, Rollback(to=3)) == "already_production"


@pytest.mark.parametrize("state", [SETTLED, SHADOW, CANARY], ids=lambda s: s.stage)
def test_a_rollout_opens_no_side_door_for_to(state: State) -> None:
    starved = msgspec.structs.replace(state, fields=fields("origin:string"))
    assert code(state, Rollback(to=4)) == "never_in_production"
    assert code(state, Rollback(to=3)) == "already_production"
    assert code(starved, Rollback(to=1)) == "undeclared_field"


def test_to_an_unknown_release_names_it() -> None:
    assert refusal(SETTLED, Rollback(to=99)).message == "flights has no release r99"


def test_to_the_shadowed_candidate_lands_on_it_when_it_served_before() -> None:
    state = run(SETTLED, Rollback(), Shadow(3, override=WHY))
    after = run(state, Rollback(to=3))
    assert (after.production, after.candidate, after.stage) == (3, None, Stage.SETTLED)


def test_a_condemned_release_is_skipped_on_the_way_back() -> None:
    state = run(SETTLED, Rollback(), Promote(4, override=WHY))
    assert state.served == (1, 3, 2, 4)
    assert run(state, Rollback(), Rollback()).production == 1


def test_a_rollback_reports_the_release_that_it_left() -> None:
    assert decide(SETTLED, Rollback(), AT) == (RolledBack(release=2, left=3, at=AT),)


def test_an_axis_rollback_lands_on_the_other_half_unchanged() -> None:
    state = run(SETTLED, Promote(7, override=WHY))
    assert run(state, Rollback(axis="features")).production == 3


def test_an_axis_without_a_way_back_is_refused() -> None:
    assert code(SETTLED, Rollback(axis="features")) == "nothing_to_go_back_to"


def test_an_axis_rollback_in_a_canary_is_about_production() -> None:
    assert run(CANARY, Rollback(axis="model")).production == 2


@pytest.mark.parametrize("state", [SETTLED, SHADOW, CANARY], ids=lambda s: s.stage)
def test_a_paused_or_running_rollout_never_stops_a_rollback(state: State) -> None:
    paused = msgspec.structs.replace(state, paused=True)
    assert kinds(state, Rollback()) == kinds(paused, Rollback())


def test_a_rollback_needs_no_override_for_customers() -> None:
    assert run(SETTLED, configure(audience="customer"), Rollback()).production == 2


# ---------------------------------------------------------------- ways back


def test_every_flip_names_its_ways_back() -> None:
    assert [s.back for s in (EMPTY, FIRST, SETTLED)] == [None, None, 2]


def test_the_way_back_follows_a_rollback_at_once() -> None:
    assert run(SETTLED, Rollback()).back == 1
    assert run(SETTLED, Rollback(), Rollback()).back is None


def test_a_rollout_does_not_move_the_way_back() -> None:
    assert SHADOW.back == CANARY.back == SETTLED.back == 2


def test_the_axes_name_the_newest_release_that_differs_in_that_half_only() -> None:
    state = run(SETTLED, Promote(7, override=WHY))
    assert (state.back, state.back_model, state.back_features) == (3, None, 3)


def test_a_promotion_of_what_served_before_moves_it_to_the_end_of_served() -> None:
    state = run(SETTLED, Promote(1, override=WHY))
    assert (state.served, state.back) == ((2, 3, 1), 3)


HOLDING = Policy(audience="internal", canary=CanaryPolicy(holdback=10.0))
HELD = (Promote(1), Canary(2, 5_000), Promote(2, full=True))


@pytest.mark.parametrize(
    "command", [Shadow(3), Canary(3, 100), Rollback(), Promote(3, override="a test")]
)
def test_a_holdback_ends_with_the_next_move(command: AnyCommand) -> None:
    """A rollout, a rollback; and a promotion begins another one, of what it replaces."""
    held = run(endpoint(release(1), release(2), release(3), policy=HOLDING), *HELD)
    assert (held.holdback, held.held, held.compared, held.mirrored) == (1_000, 1, 1, None)
    after = run(held, command)
    assert (after.held, after.holdback) == (
        (2, 1_000) if isinstance(command, Promote) else (None, 0)
    )


@pytest.mark.parametrize("share, kept", [(20.0, 1_000), (5.0, 500), (0.0, 0)])
def test_a_policy_makes_a_holdback_smaller_but_never_larger(share: float, kept: int) -> None:
    """More callers on the old release is a step back, which a person asks for by a rollback."""
    held = run(endpoint(release(1), release(2), policy=HOLDING), *HELD)
    policy = msgspec.structs.replace(HOLDING, canary=CanaryPolicy(holdback=share))
    assert run(held, Configure(policy=policy, digest="other", diff=())).holdback == kept


def test_the_first_promotion_holds_no_caller_back() -> None:
    assert run(endpoint(release(1), policy=HOLDING), Promote(1)).holdback == 0


def test_a_promotion_pardons() -> None:
    state = run(SETTLED, Rollback(), Promote(3, override=WHY))
    assert (state.production, state.condemned, state.back) == (3, (), 2)


# ---------------------------------------------------------------- forward


def test_the_first_promotion_adopts_its_inputs_as_the_contract() -> None:
    assert kinds(EMPTY, Promote(1)) == ["contract_adopted", "promoted"]
    assert fields("dep_delay:float32") == FIRST.fields
    assert fields("p_late:float32") == FIRST.answers


def test_a_declared_contract_is_not_overwritten_by_the_first_promotion() -> None:
    declared = run(EMPTY, configure(fields=fields(WIDE)))
    first = run(declared, Promote(1))
    assert (first.fields, first.answers) == (fields(WIDE), fields("p_late:float32"))
    both = run(declared, configure(fields=fields(WIDE), answers=()))
    assert run(both, Promote(1)).answers == ()


def test_the_first_promotion_needs_no_override() -> None:
    customer = endpoint(*RELEASES, policy=Policy(audience="customer"))
    assert run(customer, Promote(1)).production == 1


@pytest.mark.parametrize("state", [EMPTY, SETTLED], ids=["empty", "settled"])
@pytest.mark.parametrize("command", [Promote(), Promote(full=True), Promote(override=WHY)])
def test_promote_without_a_name_and_without_a_candidate_is_refused(
    state: State, command: Promote
) -> None:
    assert code(state, command) == "no_rollout"


def test_a_settled_endpoint_is_not_promoted_past_the_rollout_without_a_reason() -> None:
    assert code(SETTLED, Promote(4)) == "rollout_first"


def test_a_reason_travels_in_the_event() -> None:
    told = Promoted(release=4, replaced=3, at=AT, override=WHY)
    assert decide(SETTLED, Promote(4, override=WHY), AT) == (told,)


def test_promote_climbs_every_step_and_then_makes_it_production() -> None:
    state, weights = CANARY, []
    while state.stage is Stage.CANARY:
        weights.append(state.weight)
        state = run(state, Promote())
    assert weights == [100, 500, 2500, 5000]
    assert (state.production, state.previous) == (4, 3)


def test_full_skips_the_steps_that_are_left() -> None:
    assert run(CANARY, Promote(full=True)).production == 4


def test_a_promotion_in_a_paused_canary_says_that_it_resumed() -> None:
    paused = run(CANARY, Pause())
    assert kinds(paused, Promote()) == ["resumed", "weight_set"]
    assert run(paused, Promote()).paused is False


def test_the_steps_may_be_declared_in_any_order() -> None:
    policy = Policy(canary=CanaryPolicy(steps=(50.0, 1.0, 10.0)))
    assert next_step(State(endpoint="flights", policy=policy, weight=100)) == 1000


def test_a_weight_beyond_the_last_step_is_promoted_to_production() -> None:
    assert run(CANARY, SetWeight(9000), Promote()).production == 4


def test_a_shadow_is_not_promoted_without_a_reason() -> None:
    assert code(SHADOW, Promote()) == "canary_first"
    assert run(SHADOW, Promote(override=WHY)).production == 4


def test_a_canary_for_customers_needs_a_shadow_or_a_reason() -> None:
    customer = run(SETTLED, configure(audience="customer"))
    assert code(customer, Canary(4, 100)) == "shadow_first"
    assert run(customer, Canary(4, 100, override=WHY)).stage is Stage.CANARY


def test_a_shadow_for_customers_needs_no_reason() -> None:
    assert run(SETTLED, configure(audience="customer"), Shadow(4)).candidate == 4


def test_the_first_canary_of_internal_callers_needs_no_reason() -> None:
    assert CANARY.weight == 100


def test_a_canary_after_its_shadow_keeps_its_callers() -> None:
    assert run(SHADOW, Canary(4, 100)).salt == SHADOW.salt


def test_two_rollouts_never_draw_the_same_callers() -> None:
    assert run(SHADOW, Abort(), Shadow(4)).salt != SHADOW.salt


def test_a_second_candidate_is_refused() -> None:
    assert [code(s, Shadow(2)) for s in (SHADOW, CANARY)] == ["rollout_running"] * 2
    assert [code(s, Canary(2, 1)) for s in (SHADOW, CANARY)] == ["rollout_running"] * 2
    assert [code(s, Promote(2, override=WHY)) for s in (SHADOW, CANARY)] == ["rollout_running"] * 2


def test_production_is_no_candidate_for_itself() -> None:
    commands = (Shadow(3), Canary(3, 1), Promote(3, override=WHY))
    assert {code(SETTLED, c) for c in commands} == {"already_production"}


def test_a_candidate_needs_something_to_be_compared_with() -> None:
    assert {code(EMPTY, c) for c in (Shadow(1), Canary(1, 1))} == {"nothing_in_production"}


def test_abort_ends_a_candidate_without_condemning_it() -> None:
    for state in (SHADOW, CANARY):
        after = run(state, Abort())
        assert (after.stage, after.candidate, after.condemned) == (Stage.SETTLED, None, ())
        assert run(after, Canary(4, 100)).candidate == 4


def test_pause_holds_and_resume_continues() -> None:
    for state in (SHADOW, CANARY):
        held = run(state, Pause())
        assert (held.paused, held.weight, held.sample) == (True, state.weight, state.sample)
        assert run(held, Resume()).paused is False


def test_a_command_without_an_effect_is_refused_as_unchanged() -> None:
    assert code(CANARY, SetWeight(100)) == "unchanged"
    assert code(CANARY, Canary(4, 100)) == "unchanged"
    assert code(SHADOW, Shadow(4)) == "unchanged"
    assert code(CANARY, Resume()) == code(SHADOW, Resume()) == "unchanged"
    assert code(run(CANARY, Pause()), Pause()) == "unchanged"
    command = configure(audience="customer")
    assert code(run(SETTLED, command), command) == "unchanged"


@pytest.mark.parametrize("state", [SETTLED, SHADOW, CANARY], ids=lambda s: s.stage)
def test_an_unknown_release_is_called_unknown_before_anything_else(state: State) -> None:
    commands: list[AnyCommand] = [Canary(99, 1), Promote(99), Rollback(to=99)]
    commands += [Shadow(99)] if state is not CANARY else []
    assert {code(state, command) for command in commands} == {"unknown_release"}


@pytest.mark.parametrize("state", BY_STAGE.values(), ids=lambda s: s.stage)
def test_a_policy_is_judged_alike_in_every_stage(state: State) -> None:
    good, bad = configure(audience="customer"), configure(canary=CanaryPolicy(steps=(200.0,)))
    assert kinds(state, good) == ["configured"]
    assert run(state, good).stage is state.stage
    assert code(run(state, good), good) == "unchanged"
    assert code(state, bad) == "bad_weight"


def test_a_shadow_has_no_weight_to_set() -> None:
    assert code(SHADOW, SetWeight(100)) == "canary_first"


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize("share", [-1, BUCKETS + 1])
def test_a_share_outside_0_to_100_per_cent_is_refused_everywhere(share: int) -> None:
    assert code(SETTLED, Shadow(4, sample=share)) == "bad_weight"
    assert code(SETTLED, Canary(4, share)) == "bad_weight"
    assert code(SHADOW, Shadow(4, sample=share)) == "bad_weight"
    assert code(SHADOW, Canary(4, share)) == "bad_weight"
    assert code(CANARY, Canary(4, share)) == "bad_weight"
    assert code(CANARY, SetWeight(share)) == "bad_weight"


@pytest.mark.parametrize("step", [-1.0, 100.1, float("nan"), float("inf")])
def test_a_policy_with_a_share_outside_0_to_100_per_cent_is_refused(step: float) -> None:
    assert code(EMPTY, configure(canary=CanaryPolicy(steps=(1.0, step)))) == "bad_weight"
    assert code(EMPTY, configure(shadow=ShadowPolicy(sample=step))) == "bad_weight"


def test_a_bad_share_is_reported_in_per_cent() -> None:
    assert "got 120 %" in refusal(CANARY, SetWeight(12_000)).message


@pytest.mark.parametrize("weight", [0, BUCKETS])
def test_no_caller_and_all_callers_are_shares(weight: int) -> None:
    assert run(CANARY, SetWeight(weight)).weight == weight


def test_buckets_and_per_cent_are_each_others_inverse() -> None:
    assert [buckets(p) for p in (0, 0.01, 1, 12.5, 100)] == [0, 1, 100, 1250, BUCKETS]
    assert all(buckets(per_cent(weight)) == weight for weight in range(BUCKETS + 1))


# ---------------------------------------------------------------- a drill


def test_a_drill_goes_to_the_way_back_and_changes_nothing_else() -> None:
    assert kinds(SETTLED, Drill(until=60.0)) == ["drill_started"]
    assert (DRILL.production, DRILL.stage, DRILL.drill) == (2, Stage.DRILL, Drilling(3, 60.0))
    kept = ("served", "condemned", "previous", "flipped_at", "back", "back_model", "back_features")
    assert [getattr(DRILL, name) for name in kept] == [getattr(SETTLED, name) for name in kept]


def test_after_the_return_the_row_is_as_it_was() -> None:
    assert run(DRILL, Return(until=60.0)) == msgspec.structs.replace(
        SETTLED, epoch=SETTLED.epoch + 2
    )


def test_a_return_ends_its_own_drill_only() -> None:
    """One that comes late must not end the next drill."""
    assert code(DRILL, Return(until=61.0)) == "no_drill"
    assert run(DRILL, Return()).production == 3


def test_nothing_is_compared_in_a_drill() -> None:
    held = run(
        EMPTY, configure(canary=CanaryPolicy(holdback=10.0)), Promote(1), Promote(2, override=WHY)
    )
    for before in (SETTLED, held):
        state = run(before, Drill(until=60.0))
        assert before.compared is not None
        assert (state.mirrored, state.held, state.compared, state.divided) == (
            None,
            None,
            None,
            False,
        )
        assert run(state, Return()).compared == before.compared
    assert run(held, Drill(until=60.0), Return()).salt == held.salt


def test_a_rollback_within_a_drill_stays_there_and_condemns_what_it_had_left() -> None:
    state = run(DRILL, Rollback())
    assert (state.production, state.previous, state.condemned) == (2, 3, (3,))
    assert (state.stage, state.drill, state.back) == (Stage.SETTLED, None, 1)
    assert run(state, Rollback()).production == 1


@pytest.mark.parametrize(
    "command", [Rollback(), Rollback(production=True), Rollback(to=1), Rollback(axis="model")]
)
def test_a_rollback_within_a_drill_lands_where_one_before_it_would_have(command: Rollback) -> None:
    within, before = run(DRILL, command), run(SETTLED, command)
    assert within == msgspec.structs.replace(before, epoch=before.epoch + 1)


def test_a_rollback_to_what_the_drill_left_is_refused_for_it_comes_by_itself() -> None:
    assert code(DRILL, Rollback(to=3)) == "drill_running"


def test_a_follower_that_goes_back_within_a_drill_holds() -> None:
    state = run(FIRST, Promote(7, override=WHY), Follow(), Drill(until=60.0))
    assert kinds(state, Rollback()) == ["rolled_back", "held"]


def test_a_drill_needs_a_way_back_and_no_rollout() -> None:
    assert code(EMPTY, Drill(until=60.0)) == "nothing_to_go_back_to"
    assert code(FIRST, Drill(until=60.0)) == "nothing_to_go_back_to"
    assert {code(state, Drill(until=60.0)) for state in (SHADOW, CANARY)} == {"rollout_running"}
    assert code(DRILL, Drill(until=90.0)) == "drill_running"


def test_a_frozen_endpoint_may_be_drilled_by_hand() -> None:
    """Freezing stops automation, and no human."""
    assert run(SETTLED, Freeze(), Drill(until=60.0)).stage is Stage.DRILL


def test_a_contract_may_not_starve_what_a_drill_left() -> None:
    wide = run(FIRST, configure(fields=fields(WIDE)), Promote(5, override=WHY), Drill(until=60.0))
    assert code(wide, configure(fields=fields("dep_delay:float32"))) == "contract_breaks_live"


# ---------------------------------------------------------------- condemned


def test_a_condemned_release_is_not_canaried_without_a_reason() -> None:
    state = run(CANARY, Rollback())
    assert code(state, Canary(4, 100)) == "condemned"
    assert run(state, Canary(4, 100, override=WHY)).candidate == 4


def test_a_condemned_release_is_not_promoted_without_a_reason() -> None:
    assert code(run(CANARY, Rollback()), Promote(4)) == "condemned"


def test_a_condemned_release_is_shadowed_for_a_reason_and_that_is_no_pardon() -> None:
    left = run(CANARY, Rollback())
    assert code(left, Shadow(4)) == "condemned"
    state = run(left, Shadow(4, override=WHY))
    assert state.condemned == (4,)
    assert code(state, Canary(4, 100)) == "condemned"


def test_the_same_bundle_in_another_runtime_is_as_condemned() -> None:
    state = run(CANARY, Rollback())
    assert state.releases[6].version == state.releases[4].version
    told = refusal(state, Canary(6, 100))
    assert told.code == "condemned"
    assert "r6 is condemned: a rollback left r4 behind" in told.message


def test_the_same_model_with_other_features_is_not_condemned() -> None:
    state = run(SETTLED, Rollback())
    assert state.condemned == (3,)
    assert run(state, Canary(7, 100)).candidate == 7


# ---------------------------------------------------------------- contract


@pytest.mark.parametrize("command", [Shadow(5), Canary(5, 1, WHY), Promote(5, override=WHY)])
def test_a_candidate_that_needs_an_undeclared_field_is_refused(command: AnyCommand) -> None:
    told = refusal(SETTLED, command)
    assert told.code == "undeclared_field"
    assert "r5" in told.message
    assert "origin (not declared)" in told.message


def test_a_first_release_that_breaks_a_declared_contract_is_refused() -> None:
    state = run(EMPTY, configure(fields=fields("dep_delay:float32")))
    assert code(state, Promote(5)) == "undeclared_field"


@pytest.mark.parametrize("stage", [Stage.SHADOW, Stage.CANARY])
def test_no_override_puts_a_starved_candidate_before_callers(stage: Stage) -> None:
    """Not even from a row that broke behind our back."""
    wide = run(SETTLED, configure(fields=fields(WIDE)), Shadow(5))
    row = msgspec.structs.replace(wide, stage=stage, fields=SETTLED.fields)
    commands = (Promote(override=WHY), Promote(5, full=True, override=WHY), Canary(5, 7, WHY))
    assert {code(row, command) for command in commands} == {"undeclared_field"}


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (run(EMPTY, Promote(5)), "r5"),
        (run(FIRST, configure(fields=fields(WIDE)), Shadow(5)), "r5"),
        (run(EMPTY, Promote(5), Promote(1, override=WHY)), "r5"),
    ],
    ids=["production", "candidate", "back"],
)
def test_a_contract_that_starves_a_live_release_is_refused(state: State, named: str) -> None:
    told = refusal(state, configure(fields=fields("dep_delay:float32")))
    assert told.code == "contract_breaks_live"
    assert f"{named} is live" in told.message
    assert "origin (not declared)" in told.message


def test_a_contract_that_starves_a_canary_is_refused() -> None:
    assert code(CANARY, configure(fields=fields("origin:string"))) == "contract_breaks_live"


def test_a_contract_may_drop_a_field_that_no_release_needs() -> None:
    state = run(EMPTY, Promote(5), Promote(1, override=WHY), Promote(2, override=WHY))
    assert run(state, configure(fields=fields("dep_delay:float32"))).fields == FIRST.fields


def test_no_rollback_lands_on_a_release_that_the_contract_starves() -> None:
    state = run(
        EMPTY,
        Promote(5),
        Promote(1, override=WHY),
        Promote(2, override=WHY),
        configure(fields=fields("dep_delay:float32")),
        Rollback(),
    )
    assert (state.production, state.back) == (1, None)
    assert code(state, Rollback()) == "nothing_to_go_back_to"
    assert code(state, Rollback(to=5)) == "undeclared_field"


def test_a_policy_without_fields_keeps_the_contract() -> None:
    assert run(SETTLED, configure(audience="customer")).fields == SETTLED.fields


# ---------------------------------------------------------------- the table is whole


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("command", EVERY_COMMAND, ids=repr)
def test_every_command_gets_a_decision_in_every_stage(stage: Stage, command: AnyCommand) -> None:
    before = BY_STAGE[stage]
    outcome = decide(before, command, AT)
    if isinstance(outcome, Refusal):
        assert outcome.code in REFUSALS
        assert outcome.message
        assert outcome.hint
        assert "None" not in outcome.message + outcome.hint
    else:
        assert outcome
        after = run(before, command)
        assert after.epoch == before.epoch + len(outcome)


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("command", EVERY_COMMAND, ids=repr)
def test_a_pair_that_is_not_in_the_table_is_refused_as_no_rollout(
    stage: Stage, command: AnyCommand
) -> None:
    if (stage, type(command)) not in TABLE:
        told = refusal(BY_STAGE[stage], command)
        assert told.code == "no_rollout"
        assert told.message == f"no rollout is under way on flights (stage: {stage})"


def test_only_stages_without_a_rollout_are_left_to_that_default() -> None:
    absent = {(s, c) for s in Stage for c in get_args(AnyCommand) if (s, c) not in TABLE}
    assert {stage for stage, _ in absent} == {Stage.EMPTY, Stage.SETTLED}


def test_every_row_of_the_table_has_a_last_word() -> None:
    assert {rules[-1].when for rules in TABLE.values()} == {"always"}


def test_no_rule_stands_behind_an_always() -> None:
    assert not [pair for pair, rules in TABLE.items() if "always" in [r.when for r in rules[:-1]]]


def test_every_rule_either_refuses_or_does_something() -> None:
    rules = [rule for rules in TABLE.values() for rule in rules]
    assert all((rule.refuse is None) == bool(rule.then) for rule in rules)


def test_every_guard_is_used_and_exists() -> None:
    used = {rule.when for rules in TABLE.values() for rule in rules}
    assert used == set(GUARDS)


def test_every_event_kind_is_used_and_exists() -> None:
    used = {kind for rules in TABLE.values() for rule in rules for kind in rule.then}
    tags = {event.__struct_config__.tag for event in get_args(AnyEvent)}
    # No command restores a ledger: it is written by what restores it.
    assert used == set(EVENTS) == tags - {"restored"}


def test_every_refusal_of_the_table_has_words_and_every_word_a_use() -> None:
    used = {rule.refuse for rules in TABLE.values() for rule in rules if rule.refuse}
    assert used | {"no_rollout"} == set(REFUSALS)


REFUSED: dict[str, tuple[State, AnyCommand]] = {
    "no_rollout": (SETTLED, Abort()),
    "unknown_release": (SETTLED, Shadow(99)),
    "nothing_in_production": (EMPTY, Shadow(1)),
    "already_production": (SETTLED, Shadow(3)),
    "undeclared_field": (SETTLED, Shadow(5)),
    "rollout_running": (CANARY, Shadow(2)),
    "condemned": (run(CANARY, Rollback()), Canary(4, 1)),
    "verdict_fail": (run(SHADOW, Fail(4, reason="quality")), Canary(4, 100)),
    "answers_missing": (SETTLED, Shadow(8)),
    "answers_break_live": (SETTLED, configure(answers=fields("label:int64"))),
    "shadow_first": (run(SETTLED, configure(audience="customer")), Canary(4, 1)),
    "rollout_first": (SETTLED, Promote(4)),
    "canary_first": (SHADOW, Promote()),
    "not_shadowed": (CANARY, Certify(4)),
    "nothing_to_go_back_to": (FIRST, Rollback()),
    "never_in_production": (SETTLED, Rollback(to=4)),
    "bad_weight": (CANARY, SetWeight(-1)),
    "contract_breaks_live": (SETTLED, configure(fields=fields("origin:string"))),
    "unchanged": (CANARY, SetWeight(100)),
    "drill_running": (DRILL, Promote(4, override=WHY)),
    "no_drill": (SETTLED, Return()),
}


@pytest.mark.parametrize("expected", REFUSALS)
def test_every_refusal_can_be_reached_and_says_what_to_do(expected: str) -> None:
    told = refusal(*REFUSED[expected])
    assert told.code == expected
    assert "flights" in told.message + told.hint or expected == "bad_weight"
    assert told.hint
    assert not {"{", "}"} & set(told.message + told.hint)


@pytest.mark.parametrize("kind", EVENTS)
def test_every_event_can_happen_be_stored_and_be_applied(kind: str) -> None:
    states = [
        *BY_STAGE.values(),
        run(CANARY, Pause()),
        run(SETTLED, Freeze()),
        run(SETTLED, Follow()),
    ]
    found = [
        (state, event)
        for state in states
        for command in EVERY_COMMAND
        if not isinstance(events := decide(state, command, AT), Refusal)
        for event in events
        if event.__struct_config__.tag == kind
    ]
    assert found
    for state, event in found:
        stored = msgspec.json.decode(msgspec.json.encode(event), type=AnyEvent)
        assert stored == event
        assert apply(state, stored).epoch == state.epoch + 1


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=repr)
def test_every_command_can_be_stored(command: AnyCommand) -> None:
    assert msgspec.json.decode(msgspec.json.encode(command), type=AnyCommand) == command


def test_a_refused_command_raises_from_the_sample_runner() -> None:
    with pytest.raises(Refused, match="no earlier good release"):
        run(FIRST, Rollback())


def test_deciding_changes_nothing() -> None:
    before = msgspec.json.encode(CANARY)
    for command in EVERY_COMMAND:
        decide(CANARY, command, AT)
    assert msgspec.json.encode(CANARY) == before


# ---------------------------------------------------------------- a restore


def test_a_restored_row_jumps_ahead_ends_a_drill_and_waits_for_a_person() -> None:
    """All that served goes on; thaw confirms it, and no other command does."""
    event = Restored(seq=17, hash="a" * 64, epoch=1_000, backup=AT, at=AT)
    for state in (EMPTY, SETTLED, SHADOW, CANARY, DRILL):
        after = apply(state, event)
        assert (after.epoch, after.unconfirmed, after.drill) == (1_000, True, None)
        assert after.candidate == state.candidate
        assert (after.weight, after.salt, after.condemned) == (
            state.weight,
            state.salt,
            state.condemned,
        )
        assert run(after, Freeze()).unconfirmed
        assert not run(after, Thaw()).unconfirmed
        assert not run(after, Freeze(), Thaw()).automation.frozen
    assert apply(DRILL, event).production == SETTLED.production
    assert run(apply(SETTLED, event), Rollback()).production == run(SETTLED, Rollback()).production
    assert code(SETTLED, Thaw()) == "unchanged"
