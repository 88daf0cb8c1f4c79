"""The advice: a rollback only where it helps, and the cheapest step first."""

from __future__ import annotations

import pytest

from kedge.core.diagnosis.advice import action, headline, would_change
from kedge.core.diagnosis.findings import Act, Cause, Estimate, Finding, Kind, Missing

HELPS, HURTS = Estimate(-0.02, -0.03, -0.01, 900), Estimate(0.02, 0.01, 0.03, 900)
OUTCOMES = (Missing("outcomes", "outcomes"),)


def of(*causes: Cause) -> tuple[Finding, ...]:
    return tuple(Finding(cause=cause, statement=cause.value, columns=("age",)) for cause in causes)


def test_the_headline_says_when_rolling_back_would_not_help() -> None:
    said = headline("r3", "r2", "log_loss", HURTS, of(Cause.WORLD, Cause.DATA), ())
    assert said == (
        "rolling r3 back to r2 would change log loss by +0.02 [+0.01, +0.03]: it would make it worse, "
        "since the world changed and the data is broken"
    )
    open_ = Estimate(0.0, -0.01, 0.01, 900)
    for effect, words in ((open_, "it would not help"), (HELPS, "it would not undo it")):
        assert words in headline("r3", "r2", "brier", effect, of(Cause.LABEL_MIX), ())
    assert headline("r3", "r2", "brier", HELPS, of(Cause.MODEL), ()).endswith("[-0.03, -0.01]")
    assert "; needed: outcomes" in headline("r3", "r2", "brier", None, (), OUTCOMES)
    assert (
        headline("r1", None, "brier", None, (), ())
        == "no earlier release is good: r1 cannot be rolled back"
    )


def test_both_parts_to_blame_are_the_whole_release() -> None:
    said = [
        action("r3", "r2", HELPS, of(*causes), ()).code
        for causes in (
            (Cause.MODEL,),
            (Cause.FEATURES,),
            (Cause.RELEASE,),
            (Cause.FEATURES, Cause.MODEL),
        )
    ]
    assert said == [Act.ROLL_BACK_MODEL, Act.ROLL_BACK_FEATURES, Act.ROLL_BACK, Act.ROLL_BACK]


def test_a_rollback_comes_first_then_the_data_then_the_world() -> None:
    told = action("r3", "r2", HELPS, of(Cause.WORLD, Cause.DATA, Cause.MODEL), ())
    assert told.code is Act.ROLL_BACK_MODEL
    assert told.sentence.index("roll the model back") < told.sentence.index("age")
    assert told.sentence.index("age") < told.sentence.index("go forward")


def test_no_rollback_is_advised_that_is_not_shown_to_help() -> None:
    for effect in (HURTS, None):
        told = action("r3", "r2", effect, of(Cause.MODEL), ())
        assert told.code is Act.GO_FORWARD
    assert action("r1", None, None, of(Cause.MODEL), ()).code is Act.GO_FORWARD


def test_a_diagnosis_without_a_cause_holds() -> None:
    told = action("r3", "r2", None, of(Cause.CANNOT_TELL), OUTCOMES)
    assert (told.code, told.sentence) == (Act.HOLD, "wait; needed: outcomes")
    broken = Finding(cause=Cause.CANNOT_TELL, kind=Kind.INSTRUMENTATION, statement="split")
    assert action("r3", "r2", None, (broken,), ()).code is Act.HOLD_FIX_LOGGING
    assert action("r3", "r2", HELPS, of(Cause.NOISE), ()).code is Act.NOTHING


def test_conditions_that_would_change_the_finding_are_stated_for_every_cause() -> None:
    for cause in Cause:
        assert would_change(of(cause))


@pytest.mark.parametrize(
    "statement", ["the model was not trained for it: x", "it is so: the same holds for r2"]
)
@pytest.mark.parametrize("is_shared", [True, False])
def test_a_fault_that_the_way_back_shares_is_no_reason_to_go_back(
    statement: str, is_shared: bool
) -> None:
    """By the field: the statement may be in any words."""
    found = Finding(
        cause=Cause.MODEL, kind=Kind.TRAIN_SERVE, statement=statement, is_shared=is_shared
    )
    told = action("r3", "r2", None, (found,), ())
    assert told.code is (Act.GO_FORWARD if is_shared else Act.ROLL_BACK_MODEL)
