"""The questions of a diagnosis: their order, their conditions, and their use of earlier answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kedge.core.diagnosis.questions as package
from kedge.core.diagnosis.case import Case, DiagnosisAnswer
from kedge.core.diagnosis.contrast import Mean
from kedge.core.diagnosis.defects import WHOLE, Code, Defect
from kedge.core.diagnosis.diagnose import QUESTIONS, conclude
from kedge.core.diagnosis.facts import Facts, Instruments, Sample
from kedge.core.diagnosis.findings import Act, Cause, Finding, Kind, Suspect
from kedge.core.diagnosis.questions.chance import chance
from kedge.core.diagnosis.questions.columns import train_serve
from kedge.core.diagnosis.questions.instruments import instruments
from kedge.core.diagnosis.questions.release import parts, release
from kedge.core.diagnosis.questions.world import look_alikes, world
from kedge.core.diagnosis.suspects import NOTHING
from kedge.core.values import ColumnStatistics, Output

N = 2_000
DICE = np.random.default_rng(7)
TRUTH = DICE.normal(3.0, 0.2, N)
FARE = DICE.normal(size=N)


def case(*, new: float = 0.0, kind: str = "score", **more: object) -> Case:
    """A case in which the newer release loses `new` more than the older one, and the world is as it was."""
    given = {
        "output": Output(kind="score", tolerance=1.0) if kind == "score" else Output(kind="binary"),
        "metric": "absolute_error" if kind == "score" else "brier",
        "new": "r3",
        "old": "r2",
        "current": Sample(columns={"fare": FARE}, truth=TRUTH),
        "reference": Sample(columns={"fare": FARE}, truth=TRUTH, scores=np.zeros(N)),
        "answers": {("new", "new"): np.full(N, -new), ("old", "old"): np.zeros(N)},
    }
    return Case.of(Facts(**{**given, **more}))  # type: ignore[arg-type]


def asked(case_: Case, known: DiagnosisAnswer) -> set[str]:
    return {one.ask.__name__ for one in QUESTIONS if one.when(case_, known)}


def mean(value: float, se: float = 0.001) -> Mean:
    return Mean(value, se, 999.0, 1_000, 1_000)


ALWAYS = {"instruments", "defects", "freshness", "stale_or_recoded"}
IF_TRUSTED = {"release", "train_serve", "world"}


def test_every_question_stands_in_the_table_once() -> None:
    files = {path.stem for path in Path(str(package.__file__)).parent.glob("[a-z]*.py")}
    assert {one.ask.__module__.rpartition(".")[2] for one in QUESTIONS} == files
    assert len({one.ask for one in QUESTIONS}) == len(QUESTIONS)


def test_columns_are_asked_about_before_releases_and_the_world_last() -> None:
    order = [one.ask.__module__.rpartition(".")[2] for one in QUESTIONS]
    assert list(dict.fromkeys(order)) == ["instruments", "columns", "release", "world", "chance"]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (DiagnosisAnswer(), ALWAYS | IF_TRUSTED | {"chance"}),
        (DiagnosisAnswer(is_untrusted=True), ALWAYS | {"chance"}),
        (
            DiagnosisAnswer(broken=(Defect("fare", min(WHOLE), 0.0, 1.0, "gone"),)),
            ALWAYS - {"stale_or_recoded"} | IF_TRUSTED | {"chance"},
        ),
        (
            DiagnosisAnswer(broken=(Defect("fare", Code.NULL, 0.0, 0.1, "some are null"),)),
            ALWAYS | IF_TRUSTED | {"chance"},
        ),
        (DiagnosisAnswer(contrast=mean(1.0)), ALWAYS | IF_TRUSTED | {"parts", "chance"}),
        (DiagnosisAnswer(contrast=mean(0.0)), ALWAYS | IF_TRUSTED | {"chance"}),
        (
            DiagnosisAnswer(rise=mean(1.0)),
            ALWAYS | IF_TRUSTED | {"spells", "look_alikes", "reasons", "chance"},
        ),
        (
            DiagnosisAnswer(rise=mean(0.2, 2.0)),
            ALWAYS | IF_TRUSTED | {"outcomes_for_rise", "chance"},
        ),
        (DiagnosisAnswer(rise=mean(0.0)), ALWAYS | IF_TRUSTED | {"chance"}),
        (DiagnosisAnswer(rise=mean(1.0), spell="3 of 20"), ALWAYS | IF_TRUSTED | {"chance"}),
        (DiagnosisAnswer(rise=mean(1.0), is_label_mix=True), ALWAYS | IF_TRUSTED | {"chance"}),
        (
            DiagnosisAnswer(
                rise=mean(1.0), suspects=NOTHING._replace(alike=(Suspect("fare", "stale", "old"),))
            ),
            ALWAYS | IF_TRUSTED | {"spells", "look_alikes", "chance"},
        ),
        (
            DiagnosisAnswer(findings=(Finding(cause=Cause.DATA, statement="nulls"),)),
            ALWAYS | IF_TRUSTED,
        ),
    ],
)
def test_a_question_is_asked_where_the_answers_so_far_call_for_it(
    known: DiagnosisAnswer, expected: set[str]
) -> None:
    assert asked(case(), known) == expected


def test_only_outcomes_that_are_yes_or_no_have_a_mix() -> None:
    yes = Sample(columns={}, truth=np.ones(N))
    binary = case(kind="binary", current=yes, reference=None)
    assert "label_mix" in asked(binary, DiagnosisAnswer(rise=mean(1.0)))
    assert "label_mix" not in asked(case(), DiagnosisAnswer(rise=mean(1.0)))


# ---------------------------------------------------------------- one question alone


def test_a_question_changes_nothing_that_it_is_given() -> None:
    """The same question of the same case says the same, whatever was asked in between."""
    one, known = case(new=1.0), DiagnosisAnswer()
    first = [question.ask(one, known) for question in QUESTIONS[:5]]
    again = [question.ask(one, known) for question in QUESTIONS[:5]]
    assert first == again
    assert known == DiagnosisAnswer()


def test_every_fault_of_the_instruments_is_named() -> None:
    told = instruments(
        case(instruments=Instruments(split_fault="40 % of them", lost=0.2)), DiagnosisAnswer()
    )
    assert told.is_untrusted
    assert [one.code for one in told.missing] == ["split", "log"]
    (finding,) = told.findings
    assert finding.kind is Kind.INSTRUMENTATION
    assert [one.verdict for one in told.evidence] == ["yes", "yes"]
    fine = instruments(case(), DiagnosisAnswer())
    assert not fine.is_untrusted
    assert not fine.findings


def test_arms_are_compared_unpaired_unless_labels_come_for_one_more_than_for_the_other() -> None:
    n = np.arange(N)
    arms = {
        ("new", "new"): np.where(n % 2 == 0, -1.0, np.nan),
        ("old", "old"): np.where(n % 2 == 1, 0.0, np.nan),
    }
    apart = case(answers=arms)
    assert release(apart, DiagnosisAnswer()).contrast is not None
    assert release(apart, DiagnosisAnswer(is_uneven=True)).contrast is None


def test_a_worse_release_is_blamed_for_the_only_part_that_differs() -> None:
    one = case(new=1.0, changed=frozenset({"features"}))
    found = parts(one, release(one, DiagnosisAnswer()))
    assert [each.cause for each in found.findings] == [Cause.FEATURES]


TRAINED = {"fare": ColumnStatistics(count=N, nulls=0, minimum=-5, maximum=5, std=1, distinct=N)}


def test_a_null_that_a_broken_column_explains_is_no_fault_of_the_model() -> None:
    lost = np.where(np.arange(N) % 5 == 0, np.nan, FARE)
    one = case(current=Sample(columns={"fare": lost}, truth=TRUTH), training={"new": TRAINED})
    (finding,) = train_serve(one, DiagnosisAnswer()).findings
    assert finding.kind is Kind.TRAIN_SERVE
    broken = DiagnosisAnswer(broken=(Defect("fare", Code.NULL, 0.0, 0.2, "fare is null"),))
    assert not train_serve(one, broken).findings
    assert not train_serve(one, DiagnosisAnswer(contrast=mean(0.0))).findings


def test_the_world_is_not_judged_beside_a_column_that_is_stale() -> None:
    stale = NOTHING._replace(proven=(Suspect("fare", "stale", "fare repeats"),))
    assert world(case(), DiagnosisAnswer()).rise is not None
    assert world(case(), DiagnosisAnswer(suspects=stale)).rise is None


@pytest.mark.parametrize(
    ("suspects", "verdict", "findings"),
    [
        (NOTHING, "unclear", 0),
        (NOTHING._replace(asked=True), "no", 0),
        (NOTHING._replace(asked=True, left_out=3), "unclear", 0),
        (NOTHING._replace(asked=True, alike=(Suspect("fare", "stale", "x"),)), "unclear", 1),
    ],
)
def test_the_world_is_suspected_alone_only_where_all_columns_were_looked_at(
    suspects: object, verdict: str, findings: int
) -> None:
    known = DiagnosisAnswer(rise=mean(1.0), suspects=suspects)  # type: ignore[arg-type]
    told = look_alikes(case(), known)
    assert [one.verdict for one in told.evidence] == [verdict]
    assert len(told.findings) == findings


def test_a_spell_is_noise_where_the_release_is_cleared() -> None:
    cleared = DiagnosisAnswer(contrast=mean(0.0), rise=mean(1.0), spell="3 of 20")
    (finding,) = chance(case(), cleared).findings
    assert finding.cause is Cause.NOISE
    (finding,) = chance(case(), DiagnosisAnswer(rise=mean(1.0), spell="3 of 20")).findings
    assert finding.cause is Cause.CANNOT_TELL


def test_the_largest_effect_stands_first_and_has_its_share_of_the_rise() -> None:
    one = case(new=1.0)
    small = Finding(cause=Cause.DATA, statement="nulls", effect=mean(0.1).estimate())
    large = Finding(cause=Cause.MODEL, statement="worse", effect=mean(0.9).estimate())
    known = DiagnosisAnswer(findings=(small, large), contrast=mean(0.9), rise=mean(0.1))
    found = conclude(one, known)
    assert found.causes == ("model", "data")
    assert [each.share for each in found.findings] == [pytest.approx(0.9), pytest.approx(0.1)]
    assert found.action.code is Act.ROLL_BACK_MODEL
