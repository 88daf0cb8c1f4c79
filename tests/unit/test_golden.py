"""Made rows differ in every column; equal answers are evidence on real rows only."""

from typing import Any

import pytest

from kedge.core.bounds import permitted
from kedge.core.golden import (
    LEAST,
    MADE,
    Known,
    blank_rows,
    count,
    distinct,
    is_real,
    joined,
    made_rows,
    seen,
    spread,
    taken,
    unlike,
    whole,
)
from kedge.core.values import Field, Origin

FIELDS = (
    Field("f", "float32"),
    Field("i", "int8"),
    Field("u", "uint64"),
    Field("s", "string", nullable=True),
    Field("b", "bool"),
    Field("t", "float64", (2, -1)),
)


def test_made_rows_differ_in_every_column_and_are_the_same_in_every_process() -> None:
    made = made_rows(FIELDS, {})
    assert made == made_rows(FIELDS, {})
    full = whole(made)
    assert count(full) == MADE
    assert all(len({repr(value) for value in values}) > 1 for values in full.values())
    assert distinct(full) == MADE
    assert all(isinstance(value, int) and value >= 0 for value in full["u"])


def test_the_first_made_row_is_blank_where_nothing_is_known() -> None:
    (first,) = zip(*taken(made_rows(FIELDS, {}), [0]).values(), strict=True)
    assert first == (0.0, 0, 0, "", False, [[0.0], [0.0]])


def test_made_rows_stay_within_what_is_known() -> None:
    known = {"f": Known(5.0, 6.0), "i": Known(-3.0, -1.0), "s": Known(words=("JFK", "LGA"))}
    made = whole(made_rows(FIELDS, known))
    assert all(5 <= value <= 6 for value in made["f"])
    assert set(made["i"]) <= {-3, -2, -1}
    assert set(made["s"]) == {"JFK", "LGA"}


BOUNDED = (
    Field("age", "float64", range=(18.5, 18.500001)),
    Field("rooms", "int64", range=(0.6, 3.4)),
    Field("debt", "float32", range=(-9.0, -2.0)),
    Field("plan", "string", nullable=True, categories=("gold", "free")),
    Field("zone", "int32", categories=(4, 9)),
    Field("code", "string", max_length=2),
    Field("items", "int64", (-1,), max_length=2, range=(1, 5)),
    Field("kind", "uint8", categories=(300, 7, 255), range=(0, 100)),
    Field("size", "string", max_length=1, categories=("XXL", "M")),
    Field("floor", "int8", range=(100, 1_000)),
)


@pytest.mark.parametrize(
    "known",
    [
        {},
        {
            "age": Known(0.0, 100.0),
            "rooms": Known(numbers=(0.0, 9.0)),
            "plan": Known(words=("free", "old")),
            "zone": Known(numbers=(1.0, 9.0)),
            "code": Known(words=("abc", "de")),
            "debt": Known(5.0, 6.0),
        },
    ],
)
def test_no_made_row_lies_outside_the_bounds_of_its_fields(known: dict[str, Known]) -> None:
    """No caller can send such a row, and the example of a call is made of one."""
    like = {"items": [[1, 2, 3, 4]]}
    for rows in (made_rows(BOUNDED, known, like), blank_rows(BOUNDED)):
        assert permitted(BOUNDED, rows) == rows
    if known:
        full = whole(made_rows(BOUNDED, known))
        assert (set(full["kind"]), set(full["size"]), max(full["floor"])) == ({7}, {"M"}, 125)
        assert (set(full["plan"]), set(full["zone"])) == ({"free"}, {9})


def test_rows_outside_the_bounds_are_left_out_and_nulls_are_not() -> None:
    fields = (Field("age", "float64", range=(0, 120)), Field("plan", "string", categories=("a",)))
    rows: dict[str, list[Any]] = {
        "age": [40.0, 400.0, None, 7.0],
        "plan": ["a", "a", "a", "z"],
        "raw": [1, 2, 3, 4],
    }
    assert permitted(fields, rows) == {"age": [40.0, None], "plan": ["a", "a"], "raw": [1, 3]}


def test_some_made_rows_have_nulls_where_a_column_may() -> None:
    made = made_rows(FIELDS, {})
    assert count(made) == MADE + 2
    assert [None in row for row in zip(*made.values(), strict=True)] == [False] * MADE + [True] * 2
    assert None not in made["i"] + made["b"] + made["t"]
    assert count(made_rows((Field("i", "int8"),), {})) == MADE


def test_open_lengths_follow_rows_that_are_there_and_wide_rows_are_few() -> None:
    like = {"t": [[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]]}
    made = made_rows((Field("t", "float64", (2, -1)),), {}, like)
    assert [len(part) for part in made["t"][0]] == [3, 3]
    assert count(made_rows((Field("image", "uint8", (3, 224, 224)),), {})) == LEAST


def test_blank_rows_fit_every_field() -> None:
    assert blank_rows(FIELDS) == {
        "f": [0.0] * 3,
        "i": [0] * 3,
        "u": [0] * 3,
        "s": [""] * 3,
        "b": [False] * 3,
        "t": [[[0.0], [0.0]]] * 3,
    }


@pytest.mark.parametrize(
    "rows, origin, real",
    [
        ({"x": [1.0, 2.0]}, "log", True),
        ({"x": [1.0]}, "given", True),
        ({"x": [1.0, 2.0]}, "training", True),
        ({"x": [1.0, 2.0]}, "made", False),
        ({}, "log", False),
        ({"x": [0.0, 0.0, 0.0]}, "unknown", False),  # made by an earlier version of kedge
        ({"x": [1.0, 2.0]}, "unknown", True),
    ],
)
def test_rows_that_kedge_did_not_make_are_real(
    rows: dict[str, list[float]], origin: Origin, real: bool
) -> None:
    assert is_real(rows, origin) is real


def test_rows_are_joined_by_the_columns_of_the_first_that_has_any() -> None:
    assert joined([{}, {"x": [1], "y": [2]}, {"x": [3]}, {"y": [4], "x": [5]}]) == {
        "x": [1, 5],
        "y": [2, 4],
    }
    assert joined([]) == {}


def test_rows_that_are_known_are_not_taken_twice() -> None:
    known: dict[str, list[Any]] = {"y": ["a"], "x": [1.0]}
    rows: dict[str, list[Any]] = {
        "x": [1.0, 2.0, 2.0, float("nan"), float("nan")],
        "y": ["a", "a", "a", "b", "b"],
    }
    assert unlike(rows, known)["y"] == ["a", "b"]
    assert unlike(rows, {})["x"][:2] == [1.0, 2.0]
    assert unlike({}, {}) == {}


def test_numbers_are_spread_evenly() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(10, 5) == [0, 2, 4, 6, 8]


def test_rows_tell_ranges_and_words_of_their_columns() -> None:
    rows: dict[str, list[Any]] = {
        "x": [1.0, 5.0, None],
        "s": ["b", None, "a"],
        "one": [[3.0, 3.0]],
        "none": [None],
        "b": [True],
    }
    found = seen(rows)
    assert found == {"x": Known(1.0, 5.0), "s": Known(words=("a", "b")), "one": Known(0.0, 6.0)}
