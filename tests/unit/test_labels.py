"""Labels that share no value with the answers are no proof, and a model that is always wrong is."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from kedge.core.evidence.answers import Target, target
from kedge.core.evidence.labels import ENOUGH, KEPT, Matching, advice, matched, reason, told
from kedge.core.evidence.records import JoinRow, Labelled, Outcome
from kedge.core.values import Dtype, Field, Output

CLASS = Output(kind="class", label="label")


def of(dtype: Dtype, output: Output = CLASS) -> Target:
    return target(output, [Field("label", dtype)])


def one(n: int, value: Any, said: Any, copy: Any = None) -> Labelled:
    """An answer, that of the copy, and what was true."""
    scores = [float(each) if isinstance(each, int | float) else None for each in (said, copy)]
    words = [None if each is None else str(each) for each in (said, copy)]
    row = JoinRow(
        id=f"{n}/0",
        at=0.0,
        unit="",
        endpoint="e",
        production=1,
        candidate=2,
        salt="s",
        weight=0,
        arm="production",
        failed=False,
        segments=(),
        score=scores[0],
        decision=words[0],
        shadow_score=scores[1],
        shadow_decision=words[1],
        paired=copy is not None,
    )
    return Labelled(row, Outcome(row.id, value), 1.0)


def after(
    rows: list[tuple[Any, ...]], output: Output, metric: str = "error_rate", batch: int = 30
) -> Matching:
    found = Matching()
    labelled = [one(n, *row) for n, row in enumerate(rows)]
    for start in range(0, len(labelled), batch):
        found = matched(found, labelled[start : start + batch], output, metric)
        found = msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Matching)
    return found


IRIS = ["setosa", "versicolor", "virginica"]


def test_words_that_no_release_ever_says_are_broken_input_from_enough_on() -> None:
    """Named classes against the whole row as text, as it once was: 1.0000 wrong on both sides."""
    rows = [(IRIS[n % 3], f"[0.9, 0.1]; {n % 3}", f"[0.8, 0.2]; {n % 3}") for n in range(ENOUGH)]
    assert after(rows[:-1], of("string")).state == "early"
    found = after(rows, of("string"))
    assert (found.state, found.joined, found.matched) == ("broken", ENOUGH, (0, 0))
    assert "100 labels, none equals any answer of either release" in told(found, of("string"))
    assert "output.label is label" in told(found, of("string"))


def test_one_label_that_either_release_ever_gave_is_enough() -> None:
    rows: list[tuple[Any, ...]] = [(IRIS[1 + n % 2], "setosa", "setosa") for n in range(150)]
    assert after(rows, of("string")).state == "broken"
    found = after([*rows, ("setosa", "virginica", "versicolor")], of("string"))
    assert (found.state, found.matched, found.labels, found.answers) == ("sound", (0, 0), (), ())
    assert told(found, of("string")) == ""


@pytest.mark.parametrize(
    "dtype, values",
    [
        ("int64", (0, 1)),
        ("bool", (0, 1)),
        ("int64", (-1, 1)),
        ("string", ("stay", "churn")),
    ],
)
def test_a_model_that_is_always_wrong_in_a_binary_task_is_not_broken_input(
    dtype: Dtype, values: tuple[Any, Any]
) -> None:
    no, yes = values
    never = [(no, yes, yes) for _ in range(300)]
    opposite = [(values[n % 2], values[1 - n % 2], values[1 - n % 2]) for n in range(300)]
    for rows in (never, opposite):
        found = after(rows, of(dtype))
        assert (found.state, found.matched) == ("sound", (0, 0))
    binary = target(Output(kind="binary", score="label"), [Field("label", "float64")])
    if dtype != "string" and no == 0:
        assert after([(1, 0.1, 0.2)] * 300, binary).state == "sound"


def test_a_candidate_that_matches_counts_for_itself() -> None:
    found = after([("a", "b", "a"), ("b", "b", "c"), ("c", "b", "c")], of("string"))
    assert found.matched == (1, 2)


def test_unfit_labels_are_counted_by_reason_and_named() -> None:
    known = of("int64")
    rows: list[tuple[Any, ...]] = [("yes", 1), ("no", 0), (1.5, 1), (None, 1), (1, 1)]
    found = after(rows, known)
    assert (found.joined, found.unfit, found.unfits) == (4, {"text": 2, "fraction": 1}, 3)
    assert reason("text", found.examples["text"], known) == (
        "label 'yes' is text, output label gives int64"
    )
    assert found.state == "sound"
    alone = after([("yes", 1)] * ENOUGH, known)
    assert alone.state == "broken"
    assert "'yes' is text, output label gives int64" in told(alone, known)


@pytest.mark.parametrize(
    "output, gives",
    [
        (
            Output(kind="score", score="p", tolerance=0.1),
            [Field("score", "float64"), Field("label", "int64")],
        ),
        (Output(), [Field("probabilities", "float64", (3,))]),
        (Output(kind="binary", score="p"), [Field("score", "float64"), Field("label", "string")]),
    ],
)
def test_an_output_that_is_not_there_or_not_known_judges_nothing(
    output: Output, gives: list[Field]
) -> None:
    known = target(output, gives)
    found = after([(1.0, "0.3; 1", "0.2; 1")] * 120, known)
    assert found.state == "broken"
    assert told(found, known)


def test_numbers_meet_within_the_tolerance_and_a_distance_needs_no_match() -> None:
    dice = random.Random(1)
    rows = [
        (float(round(dice.random() * 1e9)) + 0.5, float(round(dice.random() * 1e9)))
        for _ in range(400)
    ]
    gives = [Field("y", "float64")]
    exact = target(Output(tolerance=1e-6), gives)
    assert after(rows, exact).state == "broken"
    assert "within 1e-06" in told(after(rows, exact), exact)
    wide = target(Output(kind="score", value="y", tolerance=5e8), gives)
    assert after(rows, wide).state == "sound"
    assert after(rows, exact, "absolute_error").state == "sound"


def test_many_values_stay_bounded_and_a_value_of_both_sides_is_still_found() -> None:
    rows: list[tuple[Any, ...]] = [(f"A{n}", f"a{n}") for n in range(3 * KEPT)]
    found = after(rows, of("string"), batch=500)
    assert (found.state, found.bounded) == ("broken", True)
    assert len(found.labels) == len(found.answers) == KEPT
    shifted = [(f"a{n}", f"a{(n + 1) % (3 * KEPT)}") for n in range(3 * KEPT)]
    assert after(shifted, of("string"), batch=500).state == "sound"
    long = after([("x" * 1000 + str(n), "y" * 1000) for n in range(9)], of("string"))
    assert max(len(str(each)) for each in (*long.labels, *long.answers)) <= 64


def test_classes_that_are_declared_are_the_domain() -> None:
    declared = target(
        Output(kind="class", label="label", classes=("a", "b", "c")), [Field("label", "string")]
    )
    assert after([("c", "a", "b")] * 120, declared).state == "sound"
    assert after([("c", "A", "B")] * 120, declared).state == "broken"


def test_what_to_declare_is_said() -> None:
    assert "set output.label" in advice(target(Output(), [Field("label", "string")]))
    assert "output.value is y" in advice(target(Output(kind="exact", value="y"), []))
    assert advice(target(Output(), [])).startswith("no output is declared")
