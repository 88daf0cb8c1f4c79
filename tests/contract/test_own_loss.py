"""A policy's own loss, in its child: its result is judged, and a fault delays its labels."""

from __future__ import annotations

import os
import time
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from kedge.core.automation import rules
from kedge.core.evidence.labels import Matching, matched
from kedge.core.evidence.quality import judged
from kedge.core.evidence.records import JoinRow, Labelled, Outcome
from kedge.core.routing import key_of, unit_of
from kedge.core.values import Guardrail, Output, Policy, State
from kedge.engine.control.patrol import fold_labels
from kedge.engine.recording.own_loss import OwnLoss, own_loss
from kedge.engine.watch import Watch
from unit.test_watch import SHADOW, change

SOURCE = """
import os

def apart(answer, outcome):
    return min(abs(answer - outcome) / 100, 1.0)

def words(answer, outcome):
    return 0.0 if answer[:1] == outcome[:1] else 1.0

def odd(answer, outcome):
    if outcome == 7.0:
        os._exit(1)
    if outcome == 8.0:
        raise ValueError("no such outcome")
    return answer
"""
OUTPUT = Output(kind="score", value="y", tolerance=1.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_losses.py").write_text(SOURCE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


def one(number: int, score: float | None, value: Any, **more: Any) -> Labelled:
    row = JoinRow(
        id=f"{number}/0",
        at=float(number),
        unit="",
        endpoint="flights",
        production=1,
        candidate=2,
        salt="s",
        weight=0,
        arm="production",
        failed=False,
        segments=(),
        score=score,
        decision=more.pop("decision", None),
        **more,
    )
    return Labelled(row, Outcome(row.id, value), number + 1.0)


def test_the_result_of_the_function_is_judged() -> None:
    rows = [
        one(1, 40.0, 50.0, shadow_score=90.0, paired=True),
        one(2, 5.0, 5.0, shadow_score=5.0, paired=True),
        one(3, 1.0, None),
    ]
    loss, fault = OwnLoss("my_losses:apart").measure(rows, 30.0)
    assert (loss is None, fault) == (False, "")
    found = judged(
        rows,
        OUTPUT,
        "my_losses:apart",
        lambda unit: unit_of(key_of("s"), unit),
        paired=True,
        reverse=False,
        own=loss,
    )
    assert [(label.ours, label.theirs) for _, _, label in found.labels] == [(0.1, 0.4), (0.0, 0.0)]
    assert found.declined == 1
    assert loss is not None
    assert loss(OUTPUT, None, None, 50.0) == 1.0


def test_words_are_handed_over_as_words() -> None:
    rows = [one(1, None, "birch", decision="beech"), one(2, None, "oak", decision="beech")]
    loss, _ = OwnLoss("my_losses:words").measure(rows, 30.0)
    assert loss is not None
    assert [loss(OUTPUT, None, "beech", value) for value in ("birch", "oak")] == [0.0, 1.0]


def test_what_is_no_number_from_nothing_to_one_is_unfit() -> None:
    rows = [one(1, 0.5, 1.0), one(2, 2.0, 1.0), one(3, float("nan"), 1.0), one(4, 0.5, 8.0)]
    loss, _ = OwnLoss("my_losses:odd").measure(rows, 30.0)
    assert loss is not None
    assert loss(OUTPUT, 0.5, None, 1.0) == 0.5
    assert isnan(loss(OUTPUT, 2.0, None, 1.0))
    assert isnan(loss(OUTPUT, 0.5, None, 8.0))
    found = judged(
        rows,
        OUTPUT,
        "my_losses:odd",
        lambda unit: unit_of(key_of("s"), unit),
        paired=False,
        reverse=False,
        own=loss,
    )
    assert (len(found.labels), found.unfit) == (1, 3)


def test_a_function_that_ends_its_process_makes_labels_wait_and_is_started_again() -> None:
    mine = OwnLoss("my_losses:odd")
    loss, fault = mine.measure([one(1, 0.5, 7.0)], 30.0)
    assert loss is None
    assert "ended" in fault
    until = time.monotonic() + 30.0
    while loss is None and time.monotonic() < until:
        loss, fault = mine.measure([one(1, 0.25, 1.0)], 5.0)
    assert loss is not None
    assert loss(OUTPUT, 0.25, None, 1.0) == 0.25


def declared(metric: str) -> State:
    policy = Policy(output=OUTPUT, guardrails={"quality": Guardrail(0.5, metric)})
    return change(SHADOW, policy=policy)


class Kept:
    """Labels as the store gives them."""

    def __init__(self, rows: list[Labelled]) -> None:
        self.rows = rows

    def labels(self, _: str, after: int, most: int) -> tuple[int, list[Labelled]]:
        return len(self.rows), self.rows[after : after + most]

    def corrected(self, _: str, after: int) -> tuple[int, None]:
        return after, None


def test_labels_wait_for_the_child_and_are_judged_by_it_then() -> None:
    rows = [one(n, 40.0, 50.0, shadow_score=45.0, paired=True) for n in range(50)]
    state = declared("my_losses:apart")
    watch, kept = Watch(state), Kept(rows)
    assert rules(state.policy, paired=True).rails["quality"].mean
    assert fold_labels(kept, state, watch, 100.0) is False  # type: ignore[arg-type]
    assert watch.labels.cursor == 0
    assert "gives no losses yet" in watch.label_summary().fault
    assert fold_labels(kept, state, watch, 100.0, 30.0) is False  # type: ignore[arg-type]
    assert watch.labels.cursor == 50
    summary = watch.label_summary()
    assert (summary.metric, summary.fault) == ("my_losses:apart", "")
    assert summary.figures == pytest.approx([0.1, 0.05])
    assert own_loss("my_losses:apart") is own_loss("my_losses:apart")


def test_an_own_metric_needs_no_label_that_equals_an_answer() -> None:
    rows = [one(n, 1.0, "a word") for n in range(200)]
    assert matched(Matching(), rows, OUTPUT, "my_losses:apart").state == "sound"
    assert matched(Matching(), rows, OUTPUT, "error_rate").state == "broken"
