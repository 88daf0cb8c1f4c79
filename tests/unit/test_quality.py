"""Wrong answers and their losses, in the order of the predictions, and never across versions."""

from __future__ import annotations

from functools import partial
from math import log, log2
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from kedge.core.errors import BadRequest, Refused
from kedge.core.evidence.answers import target
from kedge.core.evidence.labels import Matching, matched
from kedge.core.evidence.quality import LOSSES, QualityJudgement, bad, figure, judged, loss_of
from kedge.core.evidence.records import JoinRow, Labelled, Outcome
from kedge.core.routing import key_of, unit_of
from kedge.core.values import Field, Output
from kedge.engine.recording.agreement import agreeing_rows, said

BINARY = Output(kind="binary", score="p", threshold=0.5)
SCORE = Output(kind="score", score="y", tolerance=2.0)
EXACT = Output()


@pytest.mark.parametrize(
    ("output", "score", "decision", "value", "wrong"),
    [
        (BINARY, 0.9, "1", 1, False),
        (BINARY, 0.9, "1", "no", True),
        (BINARY, 0.2, None, 0, False),
        (BINARY, None, None, 1, True),
        (BINARY, float("nan"), None, 0, True),
        (BINARY, 0.9, "1", True, False),
        (SCORE, 10.0, None, 11.9, False),
        (SCORE, 10.0, None, 12.1, True),
        (SCORE, None, None, 1.0, True),
        (SCORE, float("nan"), None, 1.0, True),
        (SCORE, 10.0, None, "11", False),
        (EXACT, None, "cat", "cat", False),
        (EXACT, None, "cat", "dog", True),
        (EXACT, 3.0, "3", 3.0, False),
        (EXACT, None, None, "cat", True),
    ],
)
def test_right_or_wrong(
    output: Output, score: float | None, decision: str | None, value: Any, *, wrong: bool
) -> None:
    assert bad(output, score, decision, value) is wrong


@pytest.mark.parametrize(
    ("output", "value"),
    [(BINARY, 2), (BINARY, "maybe"), (SCORE, "late"), (SCORE, float("inf")), (EXACT, None)],
)
def test_an_outcome_that_cannot_be_compared_is_refused(output: Output, value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        bad(output, 0.5, "1", value)
    assert caught.value.code == "unfit_outcome"


def test_losses_are_what_they_are_called() -> None:
    log_loss, brier = loss_of("log_loss", BINARY), loss_of("brier", BINARY)
    assert log_loss(BINARY, 0.8, None, 1) == pytest.approx(-log(0.8) / log(1000))
    assert log_loss(BINARY, 0.0, None, 1) == pytest.approx(1.0)
    assert brier(BINARY, 0.8, None, 0) == pytest.approx(0.64)
    absolute = loss_of("absolute_error", SCORE)
    assert absolute(SCORE, 10.0, None, 13.0) == pytest.approx(3 / 20)
    assert absolute(SCORE, 10.0, None, 999.0) == 1.0


@pytest.mark.parametrize("metric", sorted(LOSSES))
@pytest.mark.parametrize("score", [None, float("nan"), float("inf"), -5.0, 0.0, 0.5, 1.0, 7.0])
def test_every_loss_lies_between_nothing_and_one(metric: str, score: float | None) -> None:
    for output in (BINARY, SCORE, EXACT):
        if output.kind in LOSSES[metric][1]:
            assert 0.0 <= loss_of(metric, output)(output, score, None, 1.0) <= 1.0


def test_a_metric_that_does_not_fit_says_which_do() -> None:
    with pytest.raises(Refused) as caught:
        loss_of("log_loss", SCORE)
    assert caught.value.code == "metric_unfit"
    assert "absolute_error" in caught.value.hint


# ---------------------------------------------------------------- many


def one(
    number: int,
    *,
    value: Any = 1,
    unit: str = "",
    arm: str = "production",
    at: float = 0.0,
    version: str = "",
    score: float | None = 0.9,
    shadow: float | None = None,
    **more: Any,
) -> Labelled:
    row = JoinRow(
        id=f"{number}/0",
        at=at,
        unit=unit,
        endpoint="flights",
        production=1,
        candidate=2,
        salt="s",
        weight=more.pop("weight", 500),
        arm=arm,
        failed=more.pop("failed", False),
        segments=more.pop("segments", ()),
        score=score,
        decision=None,
        shadow_score=shadow,
        paired=shadow is not None,
    )
    return Labelled(row, Outcome(row.id, value, None, version), at + 10.0)


def judged_of(
    rows: list[Labelled],
    *,
    paired: bool = False,
    reverse: bool = False,
    output: Output = BINARY,
    metric: str = "error_rate",
) -> QualityJudgement:
    hashed = partial(unit_of, key_of("s"))
    return judged(rows, output, metric, hashed, paired=paired, reverse=reverse)


def test_a_label_carries_the_loss_of_the_arm_that_answered() -> None:
    rows = [one(1, segments=("a=x",)), one(2, value=0), one(3, arm="candidate", value=0, at=7.0)]
    found = [label for _, _, label in judged_of(rows).labels]
    assert [(x.arm, x.ours, x.theirs) for x in found] == [
        (0, 0.0, 0.0),
        (0, 1.0, 0.0),
        (1, 0.0, 1.0),
    ]
    assert found[0].segments == ("a=x",)
    assert found[2].second == 7.0


def test_labels_come_in_the_order_of_the_predictions() -> None:
    rows = [one(n, at=float(10 - n)) for n in range(5)]
    seconds = [label.second for _, _, label in judged_of(rows).labels]
    assert seconds == sorted(seconds)


def test_a_caller_is_the_same_unit_as_in_the_windows() -> None:
    (_, _, label), (_, _, keyless) = judged_of([one(1, unit="N1"), one(2)]).labels
    assert (label.unit, label.bucket) == unit_of(key_of("s"), "N1")
    assert keyless.unit is None


def test_pairs_carry_both_losses() -> None:
    rows = [one(1, shadow=0.1), one(2, shadow=0.9), one(3, shadow=0.2, value=0), one(4)]
    found = [label for _, _, label in judged_of(rows, paired=True).labels]
    assert [(x.ours, x.theirs) for x in found] == [(0.0, 1.0), (0.0, 0.0), (1.0, 0.0)]


def test_after_a_promotion_the_arms_change_sides() -> None:
    ((weight, _, label),) = judged_of([one(1, value=0, weight=1_000)], reverse=True).labels
    assert (weight, label.arm, label.ours, label.theirs) == (9_000, 1, 0.0, 1.0)


def test_weights_and_versions_are_distinguished() -> None:
    rows = [one(1), one(2, weight=2_500), one(3, version="v2"), one(3)]
    found = judged_of(rows)
    assert [(weight, version) for weight, version, _ in found.labels] == [
        (500, ""),
        (2_500, ""),
        (500, ""),
        (500, "v2"),
    ]
    assert found.versions == {"": 3, "v2": 1}


def test_what_says_nothing_is_counted_apart() -> None:
    found = judged_of([one(1, value=None), one(2, value="maybe"), one(3, failed=True)])
    assert (found.declined, found.unfit, found.failed, found.labels) == (1, 1, 1, ())


# ---------------------------------------------------------------- labels that cannot be judged


def test_a_custom_output_is_judged_by_labels_too() -> None:
    """The function compares two answers; a label meets the class or the number."""
    custom = Output(kind="custom", function="m:f", label="label")
    assert bad(custom, None, "cat", "dog") is True
    found = judged_of([one(1, score=1.0), one(2, score=0.0)], output=custom)
    assert [label.ours for _, _, label in found.labels] == [0.0, 1.0]


@pytest.mark.parametrize("output", [Output(kind="class"), Output(label="label")])
@pytest.mark.parametrize("metric", ["absolute_error", "log_loss", "brier"])
def test_a_class_has_no_distance_and_no_probability(output: Output, metric: str) -> None:
    with pytest.raises(Refused) as caught:
        loss_of(metric, output)
    assert (caught.value.code, caught.value.hint) == (
        "metric_unfit",
        "one of: error_rate; kedge help metrics has the table",
    )


def test_a_label_that_fits_nothing_is_unfit_and_not_wrong() -> None:
    whole = target(Output(), [Field("label", "int64"), Field("p", "float64", (3,))])
    rows = [one(n, value=value, score=1.0) for n, value in enumerate(["yes", 1.5, 1, "1", 2])]
    found = judged_of(rows, output=whole)
    assert (found.unfit, [label.ours for _, _, label in found.labels]) == (2, [0.0, 0.0, 1.0])
    assert judged_of(rows, output=Output(), metric="absolute_error").unfit == 1


def test_probabilities_of_named_classes_are_losses() -> None:
    named = Output(kind="binary", score="p", classes=("stay", "churn"))
    assert loss_of("brier", named)(named, 0.9, "1", "stay") == pytest.approx(0.81)
    assert loss_of("log_loss", named)(named, 0.9, "1", "churn") < 0.02


# ---------------------------------------------------------------- rankings

RANKING = Output(kind="ranking", label="items")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("places", [1, 5, 10, 20])
def test_ndcg_is_scikit_learns(seed: int, places: int) -> None:
    random = np.random.default_rng(seed)
    items = random.permutation(20)
    wanted = set(random.choice(20, int(random.integers(1, 6)), replace=False).tolist())
    truth = np.array([[float(item in wanted) for item in range(20)]])
    scores = np.zeros((1, 20))
    scores[0, items] = np.arange(20, 0, -1)
    loss = loss_of(f"ndcg@{places}", RANKING)
    lost = loss(RANKING, None, "|".join(map(str, items)), "|".join(map(str, wanted)))
    assert 1 - lost == pytest.approx(ndcg_score(truth, scores, k=places))
    assert figure(f"ndcg@{places}", RANKING, lost) == pytest.approx(1 - lost)


@pytest.mark.parametrize(
    ("said", "value", "lost"),
    [
        ("7|3|9", 7.0, 0.0),
        ("7|3|9", "7", 0.0),
        ("3|7|9", 7, 1 - 1 / log2(3)),
        ("3|9", "7", 1.0),
        (None, "7", 1.0),
        ("7|7|7", "7|3", 1 - 1 / (1 + 1 / log2(3))),
        ("3|7", " 7 | 3 ", 0.0),
        ("a b|c", "a b", 0.0),
    ],
)
def test_an_item_counts_once_where_it_stands_first(
    said: str | None, value: Any, lost: float
) -> None:
    assert loss_of("ndcg@10", RANKING)(RANKING, None, said, value) == pytest.approx(lost)


def test_a_ranking_is_wrong_when_nothing_relevant_is_in_it() -> None:
    assert not bad(RANKING, None, "7|3|9", "3|100")
    assert bad(RANKING, None, "7|3|9", "30")
    with pytest.raises(BadRequest):
        bad(RANKING, None, "7|3|9", " | ")


@pytest.mark.parametrize("metric", ["ndcg@0", "ndcg@21", "ndcg", "ndcg@x", "brier", "rmse"])
def test_a_metric_that_judges_no_ranking_is_refused_with_the_table(metric: str) -> None:
    with pytest.raises(Refused) as caught:
        loss_of(metric, RANKING)
    assert "ndcg@10" in caught.value.hint
    assert "kedge help metrics" in caught.value.hint
    with pytest.raises(Refused):
        loss_of("ndcg@10", BINARY)


def test_a_ranking_is_read_from_a_vector_and_agrees_in_its_order() -> None:
    of = target(RANKING, [Field("items", "int64", (-1,)), Field("scores", "float32", (-1,))])
    assert (of.name, of.reads, of.unread) == ("items", "ranking", "")
    ours = {"items": np.array([[7, 3, 9]])}
    assert said(of, ours, 0).decision == "7|3|9"
    assert agreeing_rows(of, ours, {"items": np.array([[7, 3, 9]])}, 1) == 1
    assert agreeing_rows(of, ours, {"items": np.array([[3, 7, 9]])}, 1) == 0
    long = {"items": np.arange(100).reshape(1, -1)}
    assert said(of, long, 0).decision == "|".join(map(str, range(20)))
    assert target(RANKING, [Field("items", "int64")]).unread == "unreadable"
    rows = [one(1, value="9|4", score=None)]
    met = matched(
        Matching(),
        [Labelled(msgspec.structs.replace(rows[0].row, decision="7|3|9"), rows[0].outcome, 1.0)],
        of,
        "ndcg@10",
    )
    assert (met.met, met.matched) == (True, (1, 0))
