"""Columns, answers, golden rows and statistics."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.columns import (
    Summary,
    check_answer,
    check_proof,
    columns_of,
    compare,
    lists_of,
    statistics,
)
from kedge.core.errors import BadRequest
from kedge.core.values import Field, Proof, Signature

if TYPE_CHECKING:
    from kedge.typing import Columns

TAKES = Signature(
    inputs=(
        Field("age", "float32"),
        Field("rooms", "int8"),
        Field("word", "string", nullable=True),
        Field("picture", "uint8", (2, -1)),
    ),
    outputs=(),
)
GIVES = Signature(inputs=(), outputs=(Field("score", "float64"), Field("label", "string")))
ROWS: dict[str, list[Any]] = {
    "age": [1, None],
    "rooms": [2, -3],
    "word": ["a", None],
    "picture": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
}


def answer(score: Any = (0.5,), label: Any = ("a",)) -> dict[str, Any]:
    return {"score": np.array(score), "label": np.array(label, dtype=object)}


def test_lists_become_columns_of_the_signatures_dtypes_and_shapes() -> None:
    columns = columns_of(ROWS, TAKES)
    assert [str(column.dtype) for column in columns.values()] == [
        "float32",
        "int8",
        "object",
        "uint8",
    ]
    assert columns["picture"].shape == (2, 2, 2)
    assert np.isnan(columns["age"][1])
    assert columns["word"].tolist() == ["a", None]


@pytest.mark.parametrize(
    "field, values, names",
    [
        ("age", ["1", 2], "age[0] is '1', not float32"),
        ("age", [True, 2], "age[0] is True, not float32"),
        ("rooms", [1, 300], "rooms[1] is 300, not int8"),
        ("rooms", [1, None], "rooms[1] is null, not int8"),
        ("rooms", [1, 2.0], "rooms[1] is 2.0, not int8"),
        ("word", ["a", 3], "word[1] is 3, not string"),
        ("picture", [[[1], [2]], [[3]]], "picture[1] is not a list of length 2"),
        ("picture", [1, 2], "picture[0] is not a list of length 2"),
        ("age", [1.0], "columns differ in length"),
        ("age", 7, "age is not a list of rows"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_field_and_row(
    field: str, values: Any, names: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        columns_of({**ROWS, field: values}, TAKES)
    assert names in str(caught.value)


def test_a_missing_and_an_unknown_column_are_both_named() -> None:
    given_names = {("years" if name == "age" else name): rows for name, rows in ROWS.items()}
    with pytest.raises(BadRequest, match=r"age is missing; years is not an input"):
        columns_of(given_names, TAKES)


@pytest.mark.parametrize(
    "given_answer, fault",
    [
        (answer(), None),
        (answer(score=[nan]), "score is not finite in row 0: nan"),
        (answer(score=[[0.5]]), "score has shape [1, 1], not [1]"),
        (answer(score=[0.5, 0.5]), "score has shape [2], not [1]"),
        (answer(score=[1]), "score is int64, not float64"),
        (answer(label=[3]), "label has 3 among its strings"),
        ({"score": np.array([0.5])}, "the answer has the outputs score, not score, label"),
        ({"points": np.array([0.5]), "label": np.array(["a"])}, "points, label, not score, label"),
        ({"score": 0.5, "label": "a"}, "not a mapping of names to arrays"),
        ({"score": np.float64(0.5), "label": np.array(["a"])}, "not a mapping of names to arrays"),
        (42, "not a mapping of names to arrays"),
    ],
)
def test_a_fault_of_an_answer_is_found_and_named(given_answer: Any, fault: str | None) -> None:
    found = check_answer(given_answer, GIVES, 1)
    assert found == fault if fault is None else fault in str(found)


@pytest.mark.parametrize("rows", [1, 64, 65, 500])
@pytest.mark.parametrize("bad", [nan, np.inf, -np.inf])
def test_one_bad_float_among_any_number_of_rows_is_found(rows: int, bad: float) -> None:
    score = np.full(rows, 1e308)
    columns = {"score": score, "label": np.array(["a"] * rows, dtype=object)}
    assert check_answer(columns, GIVES, rows) is None
    score[-1] = bad
    assert f"in row {rows - 1}" in str(check_answer(columns, GIVES, rows))


def test_nan_may_be_allowed_but_infinity_never_is() -> None:
    assert check_answer(answer(score=[nan]), GIVES, 1, nan_allowed=True) is None
    assert "inf" in str(check_answer(answer(score=[np.inf]), GIVES, 1, nan_allowed=True))


def test_an_open_length_takes_any_length_and_a_fixed_one_only_its_own() -> None:
    signature = Signature(inputs=(), outputs=(Field("p", "float64", (-1, 2)),))
    assert check_answer({"p": np.zeros((3, 7, 2))}, signature, 3) is None
    assert check_answer({"p": np.zeros((3, 7, 3))}, signature, 3) is not None


class Doubler:
    signature = Signature(inputs=(Field("x", "float64"),), outputs=(Field("y", "float64"),))

    def predict(self, columns: Columns) -> Columns:
        x: Any = columns["x"]
        if np.any(x == 13):
            raise RuntimeError("unlucky")
        return {"y": x * 2}


@pytest.mark.parametrize(
    "inputs, outputs, fault",
    [
        ([1.0, 2.0], [2.0, 4.0], None),
        ([1.0, None], [2.0, None], None),
        ([1.0, 2.0], [2.0, 4.0003], None),
        ([1.0, 2.0], [2.0, 4.01], "golden row 1: y is 4.0, expected 4.01"),
        ([1.0, 2.0], [2.0, None], "golden row 1: y is 4.0, expected None"),
        ([1.0, None], [2.0, 3.0], "golden row 1: y is nan, expected 3.0"),
        ([1.0], [2.0, 4.0], "y has 1 rows, expected 2"),
        ([13.0], [26.0], "the model raised RuntimeError: unlucky"),
        (["a"], [2.0], "x[0] is 'a', not float64"),
    ],
)
def test_golden_rows_name_the_row_and_both_values(
    inputs: list[Any], outputs: list[Any], fault: str | None
) -> None:
    found = check_proof(Doubler(), Proof({"x": inputs}, {"y": outputs}))
    assert found == fault


def test_labels_and_whole_numbers_are_compared_exactly() -> None:
    assert compare({"n": [1000000]}, {"n": [1000001]}, rtol=0.1, atol=1) is not None
    assert compare({"n": ["a"]}, {"n": ["b"]}, rtol=0.1, atol=1) is not None
    assert compare({"n": [True]}, {"n": [1]}, rtol=0.1, atol=1) is not None
    assert compare({"n": [1]}, {"n": [1.0]}, rtol=0, atol=0) is None
    assert compare({"n": [[1.0, 2.0]]}, {"n": [[1.0, 2.0, 3.0]]}, rtol=0.1, atol=1) is not None


def test_an_output_that_the_model_does_not_have_is_a_fault() -> None:
    assert "no output z" in str(compare({"y": [1]}, {"z": [1]}, rtol=0, atol=0))


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(nan), min_size=1, max_size=60),
    st.integers(1, 60),
)
def test_statistics_do_not_depend_on_how_the_rows_were_chunked(
    values: list[float], cut: int
) -> None:
    whole, parts = Summary(), Summary()
    whole.add(np.array(values))
    for start in range(0, len(values), cut):
        parts.add(np.array(values[start : start + cut]))
    one, other = whole.done(), parts.done()
    assert (one.count, one.nulls, one.distinct, one.minimum, one.maximum) == (
        other.count,
        other.nulls,
        other.distinct,
        other.minimum,
        other.maximum,
    )
    if one.mean is not None:
        assert one.mean == pytest.approx(other.mean, rel=1e-9, abs=1e-6)
        assert one.std == pytest.approx(other.std, rel=1e-6, abs=1e-3)


def test_statistics_agree_with_numpy_and_count_nulls_apart() -> None:
    values = np.array([1.0, 2.0, nan, 4.0])
    words = np.array(["b", "a", "b", None], dtype=object)
    found = statistics({"x": values, "w": words, "t": np.array([True, False, True, True])})
    assert found["x"].count == 4
    assert found["x"].nulls == 1
    assert found["x"].std == pytest.approx(np.nanstd(values))
    assert found["w"].values == {"b": 2, "a": 1}
    assert found["w"].nulls == 1
    assert found["t"].values == {"true": 3, "false": 1}


def test_the_memory_of_a_summary_is_bounded_and_counts_stay_exact() -> None:
    summary = Summary()
    summary.add(np.array(["common"] * 5, dtype=object))
    summary.add(np.array([f"w{i}" for i in range(30_000)], dtype=object))
    summary.add(np.array(["common"] * 5, dtype=object))
    done = summary.done()
    assert done.count == 30_010
    assert done.distinct == 10_000
    assert len(done.values) == 50
    assert done.values["common"] == 10


def test_columns_go_to_lists_and_back_unchanged() -> None:
    columns = columns_of(ROWS, TAKES)
    again = columns_of(lists_of({**columns, "age": np.array([1.0, 2.0], np.float32)}), TAKES)
    assert again["picture"].tolist() == columns["picture"].tolist()
