"""Agreement of two answers, as the endpoint defines it, row by row."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.values import Output
from kedge.engine.recording.agreement import (
    SILENCE,
    agreeing_rows,
    differing,
    said,
    same_row,
    same_rows,
    sayings,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINARY = Output(kind="binary", score="p", threshold=0.5)
SCORE = Output(kind="score", score="p", tolerance=0.1)
EXACT = Output(kind="exact", tolerance=0.1)
NAN, INF = float("nan"), float("inf")


def words(*texts: str) -> NDArray[Any]:
    return np.array([*texts, None], dtype=object)[:-1]


def agree(output: Output, ours: Any, theirs: Any) -> int:
    """Rows of one output `p` that agree."""
    mine, other = np.asarray(ours), np.asarray(theirs)
    return agreeing_rows(output, {"p": mine}, {"p": other}, len(mine))


# ---------------------------------------------------------------- binary


@pytest.mark.parametrize(
    "ours, theirs, same",
    [(0.1, 0.4, 1), (0.6, 0.9, 1), (0.4, 0.6, 0), (0.5, 0.9, 1), (0.4999, 0.5, 0), (INF, 0.6, 1)],
)
def test_a_binary_answer_is_the_side_of_the_threshold(
    ours: float, theirs: float, same: int
) -> None:
    """However far apart the scores are; the threshold itself is above."""
    assert agree(BINARY, [ours], [theirs]) == same


def test_a_binary_answer_of_several_rows_is_counted_by_row() -> None:
    """Two of three."""
    assert agree(BINARY, [0.1, 0.9, 0.6], [0.2, 0.8, 0.4]) == 2


def test_of_two_probabilities_the_last_is_the_positive_class() -> None:
    """A release may give both, another only the one."""
    both = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert agreeing_rows(BINARY, {"p": both}, {"p": np.array([0.3, 0.7])}, 2) == 2
    assert agreeing_rows(BINARY, {"p": both}, {"p": np.array([0.7, 0.3])}, 2) == 0


# ---------------------------------------------------------------- score


@pytest.mark.parametrize(
    "ours, theirs, same",
    [
        (1.0, 1.05, 1),
        (1.0, 1.2, 0),
        (-1.0, 1.0, 0),
        (1e9, 1e9 + 1, 0),
        (INF, INF, 1),
        (INF, -INF, 0),
    ],
)
def test_a_score_agrees_within_the_absolute_tolerance(
    ours: float, theirs: float, same: int
) -> None:
    """Not relative: a large score has no more room."""
    assert agree(SCORE, [ours], [theirs]) == same


def test_without_a_tolerance_only_the_same_score_agrees() -> None:
    """To the last bit."""
    strict = Output(kind="score", score="p")
    assert agree(strict, [0.1, 0.1], [0.1, 0.1 + 2**-56]) == 1


# ---------------------------------------------------------------- NaN


@pytest.mark.parametrize("output", [BINARY, SCORE, EXACT])
def test_nan_says_the_same_as_nan_and_as_nothing_else(output: Output) -> None:
    """Not even as a score below the threshold, which compares alike."""
    assert agree(output, [NAN], [NAN]) == 1
    assert agree(output, [NAN], [0.2]) == 0
    assert agree(output, [0.2], [NAN]) == 0
    assert agree(output, [NAN, NAN, 0.2], [NAN, 0.2, NAN]) == 1


@given(
    st.sampled_from([BINARY, SCORE, EXACT]),
    st.lists(
        st.tuples(*[st.sampled_from([NAN, INF, -INF, 0.0, 0.45, 0.5, 0.55, 1.0])] * 2), min_size=2
    ),
)
def test_many_rows_at_once_agree_as_they_do_one_by_one(
    output: Output, pairs: list[tuple[float, float]]
) -> None:
    """One row takes a faster path, which may not judge otherwise; nor may the order of the arms."""
    ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    assert agree(output, ours, theirs) == sum(agree(output, [a], [b]) for a, b in pairs)
    assert agree(output, ours, theirs) == agree(output, theirs, ours)


# ---------------------------------------------------------------- exact


def test_an_exact_answer_agrees_in_every_output() -> None:
    """Floats within the tolerance, all else equal."""
    ours = {"p": np.array([0.1, 0.2, 0.3]), "label": words("a", "b", "c"), "n": np.array([1, 2, 3])}
    theirs = {
        "p": np.array([0.15, 0.2, 0.9]),
        "label": words("a", "x", "c"),
        "n": np.array([1, 2, 3]),
    }
    assert agreeing_rows(EXACT, ours, theirs, 3) == 1
    assert agreeing_rows(EXACT, ours, ours, 3) == 3


def test_an_output_that_is_missing_on_one_side_is_a_disagreement() -> None:
    """In every row, whichever lacks it."""
    more = {"p": np.zeros(2), "label": words("a", "b")}
    less = {"p": np.zeros(2)}
    assert agreeing_rows(EXACT, more, less, 2) == agreeing_rows(EXACT, less, more, 2) == 0


def test_shapes_that_differ_are_a_disagreement_in_every_row() -> None:
    """Never an error: it is a finding about the candidate."""
    assert agree(EXACT, np.zeros((2, 2)), np.zeros((2, 3))) == 0
    assert agree(EXACT, np.zeros(2), np.zeros((2, 1))) == 0


def test_a_row_of_several_values_agrees_when_all_of_them_do() -> None:
    """One of three rows has one value off."""
    ours = np.zeros((3, 2, 2))
    theirs = ours.copy()
    theirs[1, 0, 1] = 5.0
    assert agree(EXACT, ours, theirs) == 2


def test_a_row_of_no_values_agrees_with_another() -> None:
    """There is nothing in it to differ."""
    assert agree(EXACT, np.zeros((2, 0)), np.zeros((2, 0))) == 2


def test_two_dtypes_of_the_same_number_agree() -> None:
    """A candidate may answer in float32 or in integers."""
    assert agree(EXACT, np.array([1.0]), np.array([1.0], np.float32)) == 1
    assert agree(EXACT, np.array([1]), np.array([1.0])) == 1
    assert agree(EXACT, np.array([1.0]), np.array([2])) == 0


@pytest.mark.parametrize("output", [BINARY, SCORE, EXACT])
def test_a_word_and_a_number_disagree_and_are_no_error(output: Output) -> None:
    """v1 answers "late", v2 answers 1: that is the finding."""
    for text in (words("a"), np.array(["a"])):
        assert agree(output, text, np.array([1.0])) == 0
        assert agree(output, np.array([1.0]), text) == 0
        assert agree(output, np.array([1]), text) == 0


@pytest.mark.parametrize("output", [BINARY, SCORE])
def test_a_score_that_is_no_number_or_not_there_is_compared_exactly(output: Output) -> None:
    """A wrong name in the configuration must not make everything agree."""
    assert agree(output, words("a", "b"), words("a", "x")) == 1
    assert agreeing_rows(output, {"q": words("a")}, {"q": words("b")}, 1) == 0
    assert agreeing_rows(output, {"p": np.zeros(1)}, {"q": np.zeros(1)}, 1) == 0
    assert agree(output, np.zeros((2, 0)), np.zeros((2, 0))) == 2


# ---------------------------------------------------------------- many answers at once

CELLS = st.one_of(st.floats(width=32), st.booleans(), st.integers(-9, 9))
COLUMNS = st.one_of(
    st.lists(CELLS, min_size=1, max_size=3).map(np.array),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=3).map(np.array),
    st.lists(st.text("ab"), min_size=1, max_size=3).map(lambda texts: words(*texts)),
)
ANSWERS = st.lists(
    st.one_of(st.none(), st.tuples(st.sampled_from(["p", "q"]), COLUMNS)), min_size=1, max_size=5
)


@given(st.sampled_from([BINARY, SCORE, EXACT]), ANSWERS)
def test_many_answers_are_read_as_each_row_by_itself(output: Output, answers: Any) -> None:
    """A request without an answer has one row here, and says nothing."""
    columns = [None if one is None else {one[0]: one[1]} for one in answers]
    rows = [1 if one is None else len(one[1]) for one in answers]
    alone = [
        SILENCE if one is None else said(output, one, row)
        for one, count in zip(columns, rows, strict=True)
        for row in range(count)
    ]
    found = sayings(output, columns, rows)
    together = [tuple(found.row(row)) for row in range(len(alone))]
    assert repr([tuple(one) for one in alone]) == repr(together)  # NaN is not equal to itself
    assert same_rows(output, found, found) == [True] * len(alone)


# ---------------------------------------------------------------- what a label is about

CHANCES = np.array([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7]])
KINDS = [np.array(["cat", "dog"]), words("cat", "dog"), np.array([b"cat", b"dog"])]


@pytest.mark.parametrize("label", KINDS)
@pytest.mark.parametrize(
    "output",
    [
        Output(tolerance=1e-6),
        Output(kind="class", label="label"),
        Output(kind="exact", score="label"),
        Output(kind="exact", label="label"),
        Output(kind="custom", function="m:f", label="label"),
    ],
)
def test_the_class_is_read_beside_its_probabilities(output: Output, label: Any) -> None:
    """As NumPy's text, bytes or objects. The whole row as text equals no label."""
    answer = {"probabilities": CHANCES, "label": label}
    found = sayings(output, [answer], [2])
    assert (found.scores, found.decisions) == ([None, None], ["cat", "dog"])
    assert said(output, answer, 1) == found.row(1)


@pytest.mark.parametrize(
    "label, decisions",
    [
        (np.array([3, 1234567]), ["3", "1234567"]),
        (np.array([True, False]), ["1", "0"]),
        (np.array([2**53 + 1, -4]), [str(2**53 + 1), "-4"]),
        (np.array([1.0, 2.5]), ["1", "2.5"]),
    ],
)
def test_a_class_that_is_a_number_has_one_spelling(label: Any, decisions: list[str]) -> None:
    output = Output(kind="class", label="label")
    found = sayings(output, [{"p": CHANCES, "label": label}], [2])
    assert found.decisions == decisions
    assert found.scores == [float(each) for each in label.tolist()]


def test_the_largest_place_of_a_vector_is_a_class() -> None:
    named: tuple[str | int, ...] = ("cat", "dog", "owl")
    for classes, decisions in (((), ["0", "2"]), (named, ["cat", "owl"]), ((7, 8, 9), ["7", "9"])):
        output = Output(kind="class", label="p", classes=classes)
        assert sayings(output, [{"p": CHANCES}], [2]).decisions == decisions
    moved = CHANCES * 0.9 + 0.01
    assert agreeing_rows(Output(kind="class", label="p"), {"p": CHANCES}, {"p": moved}, 2) == 2


@pytest.mark.parametrize(
    "column, classes, decisions",
    [
        (words("stay", "churn"), ("stay", "churn"), ["0", "1"]),
        (words("no", "yes"), (), ["0", "1"]),
        (np.array([1, 2]), (1, 2), ["0", "1"]),
        (np.array([0.2, 0.9]), ("stay", "churn"), ["0", "1"]),
        (np.array([False, True]), (), ["0", "1"]),
        (words("a", "b"), (), ["a", "b"]),
    ],
)
def test_yes_and_no_may_be_named(column: Any, classes: Any, decisions: list[str]) -> None:
    output = Output(kind="binary", score="p", classes=classes)
    found = sayings(output, [{"p": column, "more": column}], [2])
    assert found.decisions == decisions
    assert found.yes == [one == "1" for one in decisions]


def test_classes_agree_by_class_and_a_missing_one_agrees_with_nothing() -> None:
    output = Output(kind="class", label="label")
    ours = {"p": CHANCES, "label": words("cat", "dog")}
    theirs = {"p": CHANCES / 2, "label": np.array(["cat", "owl"])}
    assert agreeing_rows(output, ours, theirs, 2) == 1
    assert agreeing_rows(output, ours, {"p": CHANCES}, 2) == 0
    assert agreeing_rows(output, {"label": np.array([1])}, {"label": np.array([True])}, 1) == 1


def test_an_example_names_the_outputs_that_differ_with_both_values() -> None:
    ours = {"p": np.array([[0.5, 0.25]]), "label": words("cat"), "same": np.array([1])}
    theirs = {"p": np.array([[0.5, 0.5]]), "label": words("dog"), "same": np.array([1])}
    found = differing(Output(kind="class", label="label"), ours, theirs, 0)
    assert [(one.output, one.production, one.candidate) for one in found] == [
        ("label", "cat", "dog"),
        ("p", "[0.5, 0.25]", "[0.5, 0.5]"),
    ]


def test_an_output_that_was_renamed_is_shown_as_missing_on_either_side() -> None:
    found = differing(Output(), {"churn": np.array([0.9])}, {"p_churn": np.array([0.9])}, 0)
    assert [(one.output, one.production, one.candidate) for one in found] == [
        ("churn", "0.9", "not given"),
        ("p_churn", "not given", "0.9"),
    ]


def test_values_that_rounding_makes_equal_are_shown_in_all_their_digits() -> None:
    ours, theirs = ({"y": np.array([value])} for value in (0.12345678, 0.12345679))
    (found,) = differing(Output(), ours, theirs, 0)
    assert (found.production, found.candidate) == ("0.12345678", "0.12345679")


def test_many_values_are_compared_as_few_are() -> None:
    """In NumPy's loops, with the answers that Python's give."""
    random = np.random.default_rng(5)
    exact = Output(kind="exact", tolerance=0.25)
    for _ in range(300):
        size = int(random.integers(1, 5))
        few: list[Any] = []
        for _ in range(2):
            kind = random.choice(["float64", "float32", "int64", "uint8", "bool", "object"])
            values = random.choice([0.0, 1.0, 1.125, 7.0, np.nan, np.inf], size)
            if kind == "object":
                few.append(np.array([str(value) for value in values], object))
            else:
                few.append(
                    np.nan_to_num(values, posinf=3.0).astype(kind)
                    if kind[0] != "f"
                    else values.astype(kind)
                )
        many = [np.tile(column, 200) for column in few]
        rows = [{"y": column.reshape(1, -1)} for column in (*few, *many)]
        assert same_row(exact, rows[0], rows[1], 0) == same_row(exact, rows[2], rows[3], 0), few


def test_the_text_of_a_long_vector_does_not_read_all_of_it() -> None:
    long = {"y": np.zeros((1, 4_000_000))}
    began = time.perf_counter()
    for _ in range(50):
        (shown,) = differing(Output(), long, {}, 0)
        assert shown.production == "[0, 0, 0, 0, 0, 0, 0, 0, ...]"
    assert time.perf_counter() - began < 0.5
    square = {"y": np.arange(10_000.0).reshape(1, 100, 100)}
    (shown,) = differing(Output(), square, {}, 0)
    assert shown.production.startswith("[[0, 1, 2, 3, 4, 5, 6, 7, ...], [100, 101,")
