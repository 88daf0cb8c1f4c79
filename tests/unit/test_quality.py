"""Who was wrong, by how much, counted once a unit and day, and never across versions."""

from __future__ import annotations

from math import log
from typing import Any

import pytest

from kedge.core.errors import BadRequest, Refused
from kedge.core.evidence.answers import target
from kedge.core.quality import LOSSES, Seen, bad, loss_of, tally
from kedge.core.records import JoinRow, Labelled, Outcome
from kedge.core.values import Field, Output

BINARY = Output(kind="binary", score="p", threshold=0.5)
SCORE = Output(kind="score", score="y", tolerance=2.0)
EXACT = Output()


@pytest.mark.parametrize(
    ("output", "score", "decision", "value", "wrong"),
    [
        (BINARY, 0.9, "1", 1, False), (BINARY, 0.9, "1", "no", True), (BINARY, 0.2, None, 0, False),
        (BINARY, None, None, 1, True), (BINARY, float("nan"), None, 0, True), (BINARY, 0.9, "1", True, False),
        (SCORE, 10.0, None, 11.9, False), (SCORE, 10.0, None, 12.1, True), (SCORE, None, None, 1.0, True),
        (SCORE, float("nan"), None, 1.0, True), (SCORE, 10.0, None, "11", False),
        (EXACT, None, "cat", "cat", False), (EXACT, None, "cat", "dog", True), (EXACT, 3.0, "3", 3.0, False),
        (EXACT, None, None, "cat", True),
    ],
)  # fmt: skip
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
    number: int, *, value: Any = 1, unit: str = "", arm: str = "production", at: float = 0.0,
    version: str = "", score: float = 0.9, shadow: float | None = None, **more: Any,
) -> Labelled:  # fmt: skip
    row = JoinRow(
        id=f"{number}/0", at=at, unit=unit, endpoint="flights", production=1, candidate=2, salt="s",
        weight=more.pop("weight", 500), arm=arm, failed=more.pop("failed", False),
        segments=more.pop("segments", ()), score=score, decision=None, shadow_score=shadow,
        paired=shadow is not None,
    )  # fmt: skip
    return Labelled(row, Outcome(row.id, value, None, version), at + 10.0)


def test_cells_are_by_arm_and_segment() -> None:
    rows = [
        one(1, segments=("a=x",)), one(2, value=0, segments=("a=y",)),
        one(3, arm="candidate", value=0, segments=("a=x",)),
    ]  # fmt: skip
    (stratum,) = tally(rows, BINARY, "error_rate").strata
    assert stratum.cells == {"": (2, 1, 1, 1), "a=x": (1, 1, 0, 1), "a=y": (1, 0, 1, 0)}
    assert stratum.losses[""] == ((0.0, 1.0), (1.0,))


def test_a_unit_counts_once_a_day_across_batches() -> None:
    """Twenty late flights of one aircraft are one aircraft; tomorrow is another day."""
    seen = Seen()
    batches = [[one(n, unit="N1", value=0, at=60.0 * n)] for n in range(5)]
    batches.append([one(9, unit="N1", value=0, at=90_000.0)])
    cells = [
        stratum.cells[""]
        for batch in batches
        for stratum in tally(batch, BINARY, "error_rate", seen).strata
        if stratum.cells
    ]
    assert cells == [(1, 0, 1, 0), (1, 0, 1, 0)]


def test_without_an_entity_each_prediction_is_its_own_unit() -> None:
    (stratum,) = tally([one(n) for n in range(4)], BINARY, "error_rate").strata
    assert stratum.cells[""] == (4, 0, 0, 0)


def test_pairs_carry_both_losses() -> None:
    rows = [one(1, shadow=0.1), one(2, shadow=0.9), one(3, shadow=0.2, value=0)]
    (stratum,) = tally(rows, BINARY, "error_rate").strata
    assert stratum.paired[""] == ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0))


def test_weights_and_versions_are_strata_of_their_own() -> None:
    rows = [one(1), one(2, weight=2_500), one(3, version="v2"), one(3)]
    found = tally(rows, BINARY, "error_rate")
    assert [(s.weight, s.label_version) for s in found.strata] == [
        (500, ""),
        (2_500, ""),
        (500, "v2"),
    ]
    assert found.live == ""


def test_what_says_nothing_is_counted_apart() -> None:
    rows: list[Labelled | JoinRow] = [
        one(1, value=None),
        one(2, value="maybe"),
        one(3, failed=True),
        one(4).row,
    ]
    found = tally(rows, BINARY, "error_rate")
    assert (found.declined, found.unfit, found.failed) == (1, 1, 1)
    assert found.coverage["production"] == (1, 4)


def test_a_full_memory_passes_units_over_rather_than_counting_them_twice() -> None:
    seen = Seen(limit=2)
    rows = [one(n, unit=f"N{n}") for n in range(5)]
    (stratum,) = tally(rows, BINARY, "error_rate", seen).strata
    assert stratum.cells[""][0] == 2
    assert seen.passed == 3


def test_what_was_seen_can_be_kept_and_gone_on_with() -> None:
    seen = Seen()
    assert seen.first("a", 1)
    again = Seen(seen.keys())
    assert not again.first("a", 1)
    assert again.first("a", 2)


# ---------------------------------------------------------------- labels that cannot be judged


def test_a_custom_output_is_judged_by_labels_too() -> None:
    """The function compares two answers; a label meets the class or the number."""
    custom = Output(kind="custom", function="m:f", label="label")
    assert bad(custom, None, "cat", "dog") is True
    found = tally([one(1, score=1.0), one(2, score=0.0)], custom, "error_rate")
    assert found.strata[0].cells[""] == (2, 0, 1, 0)


@pytest.mark.parametrize("output", [Output(kind="class"), Output(label="label")])
@pytest.mark.parametrize("metric", ["absolute_error", "log_loss", "brier"])
def test_a_class_has_no_distance_and_no_probability(output: Output, metric: str) -> None:
    with pytest.raises(Refused) as caught:
        loss_of(metric, output)
    assert (caught.value.code, caught.value.hint) == ("metric_unfit", "one of: error_rate")


def test_a_label_that_fits_nothing_is_unfit_and_not_wrong() -> None:
    whole = target(Output(), [Field("label", "int64"), Field("p", "float64", (3,))])
    rows = [one(n, value=value, score=1.0) for n, value in enumerate(["yes", 1.5, 1, "1", 2])]
    found = tally(rows, whole, "error_rate")
    assert (found.unfit, found.strata[0].cells[""]) == (2, (3, 0, 1, 0))
    assert tally(rows, Output(), "absolute_error").unfit == 1


def test_probabilities_of_named_classes_are_losses() -> None:
    named = Output(kind="binary", score="p", classes=("stay", "churn"))
    assert loss_of("brier", named)(named, 0.9, "1", "stay") == pytest.approx(0.81)
    assert loss_of("log_loss", named)(named, 0.9, "1", "churn") < 0.02
