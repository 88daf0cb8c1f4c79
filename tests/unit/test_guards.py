"""The guards' helpers, one promise a test."""

import msgspec
import pytest

from kedge.core.codec import fingerprint
from kedge.core.release.commands import (
    AnyCommand,
    Canary,
    Certify,
    Configure,
    Fail,
    Pause,
    Promote,
    Resume,
    Rollback,
    SetWeight,
    Shadow,
)
from kedge.core.release.guards import failed_here, latched, overpromised, promised, ungiven
from kedge.core.release.machine import FAILURES, REASON, apply, decide
from kedge.core.values import Automation, Failure, Policy, Refusal, Stage, State
from kedge.testing.samples import AT, endpoint, fields, release, run

WHY = "an incident"
BOTH = "p_late:float32,label:int64"
RELEASES = (
    release(1, gives=BOTH),
    release(2, gives=BOTH),
    release(3, gives="p_late:float32"),
    release(4, gives=f"{BOTH},reason:string"),
)
ONE = run(endpoint(*RELEASES), Promote(1))
OLD = msgspec.structs.replace(ONE, answers=None)
"""As the row of an endpoint that was promoted before there was a contract of answers."""
BAD_CANARY = run(ONE, Canary(3, 100, override=WHY))
FAILED = run(ONE, Shadow(2), Fail(2, reason="quality"))


def configured(**changes: object) -> Configure:
    policy = msgspec.structs.replace(Policy(audience="internal"), **changes)
    return Configure(policy=policy, digest=fingerprint(policy))


def code(state: State, command: AnyCommand) -> str:
    said = decide(state, command, AT)
    return said.code if isinstance(said, Refusal) else "done"


@pytest.mark.parametrize(
    ("state", "command"),
    [
        (ONE, Shadow(3)),
        (ONE, Canary(3, 100)),
        (ONE, Promote(3)),
        (ONE, Promote(3, equivalence="bit-equal")),
        (run(ONE, Shadow(3, override=WHY)), Canary(3, 100)),
        (run(ONE, Shadow(3, override=WHY)), Promote(3)),
        (BAD_CANARY, Canary(3, 200)),
        (BAD_CANARY, Canary(3, 100, auto=True)),
        (BAD_CANARY, SetWeight(200)),
        (BAD_CANARY, Promote()),
        (BAD_CANARY, Promote(full=True)),
    ],
)
def test_a_candidate_without_a_promised_answer_does_not_advance(
    state: State, command: AnyCommand
) -> None:
    for row in (state, msgspec.structs.replace(state, answers=None)):
        said = decide(row, command, AT)
        assert isinstance(said, Refusal)
        assert (said.code, "label (not given)" in said.message) == ("answers_missing", True)


@pytest.mark.parametrize("command", [SetWeight(50), Canary(3, 50), Pause(), Rollback()])
def test_backwards_is_never_refused_for_an_answer(command: AnyCommand) -> None:
    assert code(BAD_CANARY, command) == "done"


def test_more_outputs_are_no_breach_and_no_promise() -> None:
    wider = run(ONE, Shadow(4), Canary(4, 100), SetWeight(5_000), Promote(full=True))
    assert wider.answers == fields(BOTH)
    assert ungiven(wider, Shadow(2)) == ()


def test_an_older_row_promises_what_production_gives_and_its_next_promotion_takes_that() -> None:
    assert promised(OLD) == fields(BOTH)
    assert promised(endpoint(*RELEASES)) == ()
    canary = run(OLD, Canary(4, 100))
    assert (canary.answers, promised(canary)) == (None, fields(BOTH))
    assert run(canary, Promote(full=True)).answers == fields(BOTH)
    assert run(OLD, configured(answers=())).answers == ()


def test_an_older_row_is_rolled_back_as_ever() -> None:
    two = run(ONE, Promote(2, override=WHY))
    assert run(msgspec.structs.replace(two, answers=None), Rollback()).production == 1


def test_a_new_contract_promises_nothing_that_a_live_release_does_not_give() -> None:
    more = configured(answers=fields(f"{BOTH},reason:string"))
    assert overpromised(ONE, more) == (1, ("reason (not given)",))
    assert code(ONE, more) == "answers_break_live"
    back = run(ONE, Promote(4, override=WHY))
    assert overpromised(back, more) == (1, ("reason (not given)",))


def test_an_output_that_an_override_let_in_prevents_no_other_policy() -> None:
    left = run(ONE, Promote(3, override=WHY))
    assert code(left, configured(back_window="1d")) == "done"
    assert code(left, configured(answers=fields(BOTH))) == "done"


def test_a_smaller_contract_is_always_taken_and_none_declared_changes_nothing() -> None:
    less = run(ONE, configured(answers=fields("p_late:float32")))
    assert ungiven(less, Shadow(3)) == ()
    assert run(less, configured(back_window="1d")).answers == fields("p_late:float32")
    assert run(less, configured(answers=())).answers == ()


# ---------------------------------------------------------------- failed verdicts


@pytest.mark.parametrize("audience", ["internal", "customer"])
@pytest.mark.parametrize(
    "command", [Canary(2, 100), Promote(2), Promote(full=True), Promote(2, equivalence="bit-equal")]
)
def test_forward_against_a_failed_verdict_takes_an_override(
    audience: str, command: AnyCommand
) -> None:
    policy = Policy(audience=audience)  # type: ignore[arg-type]
    state = msgspec.structs.replace(FAILED, policy=policy)
    assert code(state, command) == "verdict_fail"
    assert code(state, msgspec.structs.replace(command, override=WHY)) == "done"


def test_a_failure_is_of_its_comparison_and_binds_beyond_it() -> None:
    assert latched(FAILED) == failed_here(FAILED) != None  # noqa: E711
    other = run(FAILED, configured(back_window="1d"))
    assert (latched(other), failed_here(other)) == (None, failed_here(FAILED))
    assert code(other, Canary(2, 100)) == "verdict_fail"
    anew = run(other, Fail(2, reason="again"))
    assert [f.reason for f in anew.automation.failures] == ["again"]
    canary = run(FAILED, Canary(2, 100, override=WHY))
    assert failed_here(canary) is None
    assert code(canary, SetWeight(200)) == "done"


def test_a_failure_revokes_a_pass_and_a_pass_revokes_the_failure() -> None:
    passed = run(ONE, Shadow(2), Certify(2))
    failed = run(passed, Fail(2, reason="late"))
    assert failed.automation.proven is None
    again = run(failed, Certify(2))
    assert (again.automation.proven, again.automation.failures) == ((2, 1), ())


def test_resume_asks_only_for_a_failure_of_the_rollout_under_way() -> None:
    assert code(run(FAILED, Pause()), Resume()) == "verdict_fail"
    afresh = run(FAILED, Canary(2, 100, override=WHY), Pause())
    assert code(afresh, Resume()) == "done"


def test_failures_are_bounded_and_so_are_their_reasons() -> None:
    many = tuple(
        Failure(candidate=n, production=9, reason="", salt="", stage=Stage.SHADOW, policy="")
        for n in range(FAILURES)
    )
    state = msgspec.structs.replace(run(ONE, Shadow(2)), automation=Automation(failures=many))
    (event,) = decide(state, Fail(2, reason="x" * 2 * REASON), AT)  # type: ignore[misc]
    after = apply(state, event).automation.failures
    assert len(after) == FAILURES
    assert (after[-1].candidate, len(after[-1].reason)) == (2, REASON)
    assert after[0].candidate == 1
