"""Answers and labels in one vocabulary, whatever way either of them is written."""

from __future__ import annotations

from typing import Any

import pytest

from kedge.config.load import read
from kedge.core.evidence.answers import (
    Target,
    equal,
    get_target,
    line,
    normal,
    number,
    proposed,
    spelled,
    target,
    truth,
    undeclared_name,
    unfit,
)
from kedge.core.values import CostPolicy, Dtype, Field, Output, Policy, State

LABEL = Field("label", "string")
CHANCES = Field("probabilities", "float64", (3,))
SCORE = Field("score", "float64")


def of(dtype: Dtype, output: Output = Output(), shape: tuple[int, ...] = ()) -> Target:  # noqa: B008
    return target(output, [Field("label", dtype, shape)])


# ---------------------------------------------------------------- which output


@pytest.mark.parametrize(
    ("gives", "name"),
    [
        ([CHANCES, LABEL], "label"),
        ([SCORE, Field("label", "int64")], "label"),
        ([Field("p_churn", "float64"), Field("churn", "bool")], "churn"),
        ([SCORE], "score"),
        ([Field("y", "float32"), Field("interval", "float32", (2,))], "y"),
        (
            [Field("prediction", "float64"), Field("low", "float64"), Field("high", "float64")],
            "prediction",
        ),
        ([Field("label", "int64"), Field("model_age", "int64"), SCORE], "label"),
        # several could be meant, or none
        ([CHANCES], None),
        ([Field("low", "float64"), Field("high", "float64")], None),
        ([Field("a", "string"), Field("b", "int64"), SCORE], None),
        ([Field("embedding", "float32", (768,)), Field("words", "string", (-1,))], None),
        ([], None),
    ],
)
def test_the_signature_decides_where_it_leaves_one_choice(
    gives: list[Field], name: str | None
) -> None:
    assert undeclared_name(gives) == name
    found = target(Output(), gives)
    assert (found.name, found.unread) == (name, "" if name else "ambiguous")


def test_an_output_of_cost_is_no_class() -> None:
    gives = (SCORE, Field("tokens", "int64"))
    assert target(Output(), gives, ["tokens"]).name == "score"
    state = State(endpoint="e", policy=Policy(cost=CostPolicy(tokens="tokens")))
    assert get_target(state).unread == "unknown"


@pytest.mark.parametrize(
    ("output", "gives", "reads", "unread"),
    [
        (Output(kind="class", label="label"), LABEL, "class", ""),
        (Output(kind="class", label="label"), Field("label", "float32", (10,)), "place", ""),
        (Output(kind="class", label="label"), Field("label", "string", (2,)), "row", "unreadable"),
        (Output(kind="class", label="label"), SCORE, "class", "missing"),
        (Output(kind="class"), LABEL, "class", ""),
        (Output(kind="binary", score="label"), Field("label", "float64", (2,)), "yes", ""),
        (
            Output(kind="binary", score="label"),
            Field("label", "float64", (3,)),
            "yes",
            "unreadable",
        ),
        (Output(kind="score", value="label"), Field("label", "float64"), "number", ""),
        (Output(kind="exact", score="label"), LABEL, "class", ""),
        (Output(kind="exact", value="label"), Field("label", "int64"), "number", ""),
        (Output(kind="custom", function="m:f", label="label"), LABEL, "class", ""),
    ],
)
def test_how_an_output_is_read(output: Output, gives: Field, reads: str, unread: str) -> None:
    found = target(output, [gives])
    assert (found.reads, found.unread) == (reads, unread)


# ---------------------------------------------------------------- what equals what


@pytest.mark.parametrize("value", [42, 42.0, "42", "42.0", " 42 ", "+42"])
def test_a_whole_number_is_one_label_however_it_is_written(value: Any) -> None:
    for dtype in ("int64", "uint8", "float64"):
        known = of(dtype)
        assert normal(known, value) == 42.0
        assert unfit(known, value) is None
        assert equal(known, 42.0, "42", value)
        assert not equal(known, 43.0, "43", value)


def test_to_an_output_of_words_digits_are_a_word() -> None:
    words = of("string")
    assert normal(words, "007") == "007"
    assert normal(words, 42.0) == "42"
    assert equal(words, None, "007", "007")
    assert not equal(words, None, "007", "7")
    assert not equal(words, None, "42", "42.0")
    assert equal(words, None, "42", 42.0)
    assert equal(words, None, "1234567", 1234567.0)


def test_whole_numbers_that_a_float_cannot_hold_are_compared_digit_by_digit() -> None:
    ids = of("int64", Output(kind="class", label="label"))
    one, other = str(2**53 + 1), str(2**53 + 2)
    assert normal(ids, one) == one
    assert equal(ids, float(one), one, one)
    assert not equal(ids, float(other), other, one)


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", "true", "Yes"])
def test_a_truth_value_is_one_label_however_it_is_written(value: Any) -> None:
    flag = of("bool")
    assert unfit(flag, value) is None
    assert equal(flag, 1.0, "1", normal(flag, value))
    assert not equal(flag, 0.0, "0", normal(flag, value))


@pytest.mark.parametrize(
    ("known", "value", "why"),
    [
        (of("int64"), "yes", "text"),
        (of("int64"), 1.5, "fraction"),
        (of("uint8"), 300, "range"),
        (of("uint8"), -1, "range"),
        (of("bool"), 3, "range"),
        (of("bool"), "maybe", "text"),
        (of("float64"), "late", "text"),
        (of("float64"), float("inf"), "not_finite"),
        (of("string", Output(kind="class", label="label", classes=("a", "b"))), "c", "not_a_class"),
        (of("int64", Output(kind="class", label="label", classes=(1, 2))), 3, "not_a_class"),
        (of("float64", Output(kind="class", label="label"), (3,)), "setosa", "text"),
        (of("float64", Output(kind="binary", score="label")), "churn", "not_yes_or_no"),
        (of("string", Output(kind="score", value="label")), 3.0, "no_number"),
        (target(Output(kind="score", score="p"), [SCORE]), 1.0, "missing"),
        (target(Output(), [CHANCES]), 1.0, "ambiguous"),
        (Output(kind="score"), "late", "text"),
        (Output(kind="binary"), 2, "not_yes_or_no"),
    ],
)
def test_a_label_that_can_equal_no_answer_says_why(known: Output, value: Any, why: str) -> None:
    assert unfit(known, value) == why


@pytest.mark.parametrize(
    ("known", "value"),
    [
        (of("int64"), 7),
        (of("int64"), True),
        (of("string"), "yes"),
        (of("string"), 3),
        (of("float64"), "2.5"),
        (of("int64", Output(kind="class", label="label", classes=(1, 2))), "2.0"),
        (of("float64", Output(kind="class", label="label"), (3,)), 2),
        (target(Output(), None), "anything"),
        (Output(), "anything"),
    ],
)
def test_a_label_that_can_equal_an_answer_fits(known: Output, value: Any) -> None:
    assert unfit(known, value) is None


def test_a_distance_needs_numbers() -> None:
    """Or every answer would be as far as can be, on both sides."""
    assert unfit(of("string"), 3.0, measured=True) == "no_number"
    assert unfit(Output(), "late", measured=True) == "text"
    assert unfit(of("float64"), 3.0, measured=True) is None


def test_the_classes_of_a_yes_or_no_are_declared() -> None:
    churn = of("float64", Output(kind="binary", score="label", classes=("stay", "churn")))
    assert equal(churn, 0.9, "1", "churn")
    assert equal(churn, 0.1, "0", "stay")
    assert not equal(churn, 0.9, "1", "stay")
    assert unfit(churn, "left") == "not_yes_or_no"
    assert normal(churn, "churn") == "churn"
    numbered: tuple[str | int, ...] = (1, 2)
    assert [truth(value, numbered) for value in (1, "2", 2.0, 0, "yes")] == [
        False,
        True,
        True,
        None,
        None,
    ]
    assert truth("007", ("042", "007")) is True


def test_numbers_are_what_people_write_and_nothing_else() -> None:
    assert [number(v) for v in ("1_000", "nan", "", None, "1e3", True)] == [
        None,
        None,
        None,
        None,
        1000.0,
        1.0,
    ]
    assert [spelled(v) for v in (1.0, 1.5, True, b"cat", "07", -0.0)] == [
        "1",
        "1.5",
        "1",
        "cat",
        "07",
        "0",
    ]


# ---------------------------------------------------------------- what to declare


@pytest.mark.parametrize(
    ("gives", "lines"),
    [
        ([CHANCES, LABEL], ['output = {kind = "class", label = "label"}']),
        ([SCORE, Field("label", "int64")], ['output = {kind = "class", label = "label"}']),
        (
            [SCORE],
            [
                'output = {kind = "score", value = "score", tolerance = 0.5}',
                'output = {kind = "binary", score = "score", threshold = 0.5}',
            ],
        ),
        ([Field('a "b"', "float32", (10,))], ['output = {kind = "class", label = "a \\"b\\""}']),
        ([Field("embedding", "float32", (4, 4))], []),
    ],
)
def test_a_proposal_can_be_pasted_and_reads_what_it_says(
    gives: list[Field], lines: list[str]
) -> None:
    found = [line(each) for each in proposed(gives)]
    assert found == lines
    for each in found:
        policy = read(f"[endpoints.e]\n{each}\n").endpoints["e"]
        assert target(policy.output, gives).unread == ""
