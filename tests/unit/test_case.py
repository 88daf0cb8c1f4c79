"""Answers of a diagnosis add up: none is lost, and findings of earlier questions stay."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from kedge.core.diagnosis.case import (
    Case,
    DiagnosisAnswer,
    ask_for,
    ask_for_outcomes,
    ask_for_units,
    tell,
)
from kedge.core.diagnosis.contrast import LEAST, WORLD_MARGIN, mean_of
from kedge.core.diagnosis.defects import Code, Defect
from kedge.core.diagnosis.facts import Facts, Sample
from kedge.core.diagnosis.findings import Cause, Finding, Missing
from kedge.core.diagnosis.suspects import NOTHING
from kedge.core.values import Output

N = 400


def finding(cause: Cause, said: str) -> DiagnosisAnswer:
    return DiagnosisAnswer(findings=(Finding(cause=cause, statement=said),))


def said(answer: DiagnosisAnswer) -> list[str]:
    return [one.statement for one in answer.findings]


LOST = Defect("fare", Code.NULL, 0.0, 0.3, "fare is null")
MEAN = mean_of(np.arange(100.0))
PARTS = {
    "row": tell("split", "as configured", "no"),
    "hole": ask_for("reference", "the first"),
    "same hole": ask_for("reference", "the second"),
    "model": finding(Cause.MODEL, "a worse model"),
    "other model": DiagnosisAnswer(
        findings=(Finding(cause=Cause.MODEL, statement="untrained"),),
        replaces=frozenset({Cause.MODEL}),
    ),
    "untrusted": DiagnosisAnswer(is_untrusted=True, is_uneven=True, is_label_mix=True),
    "broken": DiagnosisAnswer(broken=(LOST,), suspects=NOTHING._replace(asked=True)),
    "known": DiagnosisAnswer(contrast=MEAN, rise=MEAN, spell="3 of 20"),
}


@pytest.mark.parametrize("one", PARTS)
def test_an_answer_of_nothing_changes_nothing(one: str) -> None:
    assert PARTS[one] + DiagnosisAnswer() == PARTS[one]
    given = PARTS[one]
    assert DiagnosisAnswer() + given == given


def test_answers_add_up_in_whichever_groups() -> None:
    for a, b, c in product(PARTS.values(), repeat=3):
        assert (a + b) + c == a + (b + c)


def test_later_answers_stand_behind_earlier_ones() -> None:
    both = tell("split", "a", "no") + tell("log", "b", "no")
    assert [one.question for one in both.evidence] == ["split", "log"]
    assert said(finding(Cause.DATA, "1") + finding(Cause.WORLD, "2")) == ["1", "2"]


def test_the_first_that_misses_something_says_what_to_log() -> None:
    assert (PARTS["hole"] + PARTS["same hole"]).missing == (Missing("reference", "the first"),)


def test_a_finding_gives_way_to_a_later_one_of_its_cause_and_no_other_does() -> None:
    both = finding(Cause.DATA, "nulls") + PARTS["model"] + PARTS["other model"]
    assert said(both) == ["nulls", "untrained"]


# ---------------------------------------------------------------- parts of an answer


def test_a_figure_without_a_spread_is_shown_without_one() -> None:
    (row,) = tell("release", "two requests", "unclear", mean_of(np.array([1.0]))).evidence
    assert (row.figure, row.low, row.high) == (None, None, None)
    (row,) = tell("release", "many", "unclear", MEAN).evidence
    assert row.low is not None
    assert row.high is not None
    assert row.figure is not None
    assert row.low < row.figure < row.high


def test_units_are_asked_for_where_even_all_labels_would_not_do() -> None:
    truth = np.full(N, np.nan)
    few = Sample(columns={}, truth=truth, units=np.arange(N) % (LEAST - 1))
    many = Sample(columns={}, truth=truth, units=np.arange(N))
    assert ask_for_units("3 have one", many).missing[0].code == "outcomes"
    assert ask_for_units("3 have one", many, few).missing[0].code == "more_units"


def case(answers: float, before: float | None) -> Case:
    """A case whose older release loses `answers` today, and the reference `before`."""
    loss, truth = np.ones(N), np.zeros(N)
    scores = None if before is None else before * loss
    return Case.of(
        Facts(
            output=Output(kind="score", tolerance=1.0),
            metric="absolute_error",
            new="r2",
            old="r1",
            current=Sample(columns={}, truth=truth),
            reference=Sample(columns={}, truth=truth, scores=scores),
            answers={("old", "old"): answers * loss},
        )
    )


def test_the_floor_is_a_part_of_what_was_usual() -> None:
    assert case(0.2, 0.4).floor == pytest.approx(0.02)
    assert case(0.2, None).floor == pytest.approx(0.01)


def test_an_effect_that_is_neither_a_rise_nor_excluded_is_unclear() -> None:
    losses = np.where(np.arange(N) % 2 == 0, 0.1, -0.1)
    usual = case(0.4, 0.4)
    verdicts = [usual.verdict(mean_of(losses + by), WORLD_MARGIN) for by in (0.0, 0.1, 0.2)]
    assert verdicts == ["no", "yes", "yes"]
    assert usual.verdict(mean_of(10 * losses + 0.1), WORLD_MARGIN) == "unclear"


def test_outcomes_are_asked_for_only_where_they_would_decide() -> None:
    wide = mean_of(np.where(np.arange(N) % 2 == 0, 1.0, -1.0))
    (asked,) = ask_for_outcomes(case(0.4, 0.4), wide, WORLD_MARGIN).missing
    assert asked.code == "more_outcomes"
    assert not ask_for_outcomes(case(0.0, 0.0), wide, WORLD_MARGIN).missing
    assert not ask_for_outcomes(case(0.4, 0.4), mean_of(np.ones(1)), WORLD_MARGIN).missing
