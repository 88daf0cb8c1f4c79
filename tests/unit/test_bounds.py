"""Bounds: a caller's value that the contract excludes is a 400 before a model is asked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.config import load
from kedge.core.bounds import (
    TrainingColumn,
    bounded,
    is_within,
    learn,
    misdeclared,
    toml_lines,
    unbounded,
)
from kedge.core.errors import BadConfig, BadRequest
from kedge.core.values import Field, Signature
from kedge.gateway.contract import Contract
from kedge.gateway.decode import parse
from kedge.gateway.http.app import status_of

AGE = Field("age", "float64", range=(0, 120))
ITEM = Field("item", "int64", range=(0, 999))
TOWN = Field("town", "string", categories=("Rome", "Oslo"))
NOTE = Field("note", "string", max_length=5)
TOKENS = Field("tokens", "int64", (-1,), max_length=4, range=(0, 99))
LEVEL = Field("level", "int32", categories=(1, 2, 3), nullable=True)
RATE = Field("rate", "float32", range=(0.1, 0.9), nullable=True)
KIND = Field("kind", "uint8", categories=(1, 255, 256, -1))
WIDE = Field("wide", "int64", categories=(2**62, 2**53))
PAIRS = Field("pairs", "int64", (-1, 3), max_length=2)
WORDS = Field("words", "string", (-1,), max_length=2)
TYPES = {
    "float64": "FP64",
    "float32": "FP32",
    "int64": "INT64",
    "int32": "INT32",
    "uint8": "UINT8",
    "string": "BYTES",
}


def asked(field: Field, *values: Any) -> Any:
    """The column of a field, as rows and as a tensor; both or neither are refused."""
    contract = Contract((field,), rows=1000, entity=None)
    shape = list(np.shape(values)) if field.shape else [len(values)]
    tensor = {"name": field.name, "datatype": TYPES[field.dtype], "shape": shape, "data": values}
    bodies: list[object] = [
        {"rows": [{field.name: value} for value in values]},
        {"inputs": [tensor]},
    ]
    found: list[Any] = []
    for body in bodies:
        try:
            found.append(contract.columns(*parse(json.dumps(body).encode(), None))[0][field.name])
        except BadRequest as error:
            found.append(error)
    assert type(found[0]) is type(found[1])
    if isinstance(found[0], BadRequest):
        assert found[0].code == found[1].code
        assert "row" not in found[1].details
        raise found[0]
    return found[0]


@pytest.mark.parametrize(
    "field, values",
    [
        (AGE, [0, 120, 40.5]),
        (AGE, [40] * 900),
        (ITEM, [0, 999]),
        (TOWN, ["Rome", "Oslo"]),
        (NOTE, ["", "abcde", "ééééé"]),
        (TOKENS, [[0, 1, 98, 99]]),
        (TOKENS, [[]]),
        (LEVEL, [1, None, 3]),
        (RATE, [0.1, 0.9, None]),
        (RATE, [None, 0.5] * 100),
        (KIND, [1, 255] * 100),
        (TOWN, ["Rome", "Oslo"] * 100),
        (PAIRS, [[[1, 2, 3], [4, 5, 6]]]),
    ],
)
def test_a_value_within_the_bounds_is_read(field: Field, values: list[Any]) -> None:
    """Both ends are within, also where a float32 is not what was written; null is within."""
    assert len(asked(field, *values)) == len(values)


@pytest.mark.parametrize(
    "field, values, row, said",
    [
        (AGE, [40, 120.5], 1, "is 120.5 in row 1; it takes 0 to 120"),
        (AGE, [40] * 899 + [-1], 899, "is -1.0 in row 899"),
        (ITEM, [40_000], 0, "0 to 999"),
        (TOWN, ["Rome", "rome"], 1, 'is "rome" in row 1; it takes "Rome", "Oslo"'),
        (TOWN, [""], 0, '"Rome"'),
        (NOTE, ["abcdef"], 0, "has 6 characters in row 0; it takes 5 at most"),
        (TOKENS, [[1] * 5], None, "has 5 values in a row; it takes 4 at most"),
        (TOKENS, [[1, 2], [3, 100]], 1, "is 100 in row 1"),
        (LEVEL, [None, 4], 1, "it takes 1, 2, 3"),
        (RATE, [None, 0.91], 1, "is 0.91 in row 1; it takes 0.1 to 0.9"),
        (RATE, [None, 0.05] * 100, 1, "it takes 0.1"),
        (KIND, [1, 255] * 100 + [2], 200, "is 2 in row 200"),
        (TOWN, ["Rome", "Oslo"] * 100 + ["Bern"], 200, 'is "Bern" in row 200'),
        (WIDE, [2**62] * 100 + [2**53 + 1], 100, "in row 100"),
    ],
)
def test_a_value_out_of_bounds_is_a_400_with_its_row(
    field: Field, values: list[Any], row: int | None, said: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        asked(field, *values)
    error = caught.value
    assert (error.code, status_of(error)) == ("out_of_bounds", 400)
    assert (error.details["field"], error.details.get("row")) == (field.name, row)
    assert said in str(error)


def test_many_categories_are_not_all_listed() -> None:
    field = Field("code", "string", categories=tuple(f"c{n}" for n in range(30)))
    with pytest.raises(BadRequest, match='"c9" and 20 others'):
        asked(field, "d")


def test_bounds_hold_for_binary_data_too() -> None:
    contract = Contract((ITEM,), rows=4, entity=None)
    one = {
        "name": "item",
        "datatype": "INT64",
        "shape": [2],
        "parameters": {"binary_data_size": 16},
    }
    head = json.dumps({"inputs": [one]}).encode()
    for values, fits in (([0, 999], True), ([0, 1000], False)):
        body = head + np.array(values, np.int64).tobytes()
        if fits:
            assert contract.columns(*parse(body, len(head)))[1] == 2
        else:
            with pytest.raises(BadRequest, match="item is 1000 in row 1"):
                contract.columns(*parse(body, len(head)))


@pytest.mark.parametrize(
    "field, bound",
    [
        (Field("f", "string", range=(0, 1)), "range"),
        (Field("f", "bool", range=(0, 1)), "range"),
        (Field("f", "int64", range=(2, 1)), "range"),
        (Field("f", "int64", max_length=3), "max_length"),
        (Field("f", "string", max_length=0), "max_length"),
        (Field("f", "string", categories=()), "categories"),
        (Field("f", "int64", (3,), max_length=3), "max_length"),
        (Field("f", "float64", categories=(1,)), "categories"),
        (Field("f", "bool", categories=(1,)), "categories"),
        (Field("f", "string", categories=("a", 1)), "categories"),
        (Field("f", "int8", categories=("a",)), "categories"),
        (Field("f", "int64", range=(0.2, 0.8)), "range"),
        (Field("f", "uint8", range=(-9, -1)), "range"),
        (Field("f", "float16", range=(70_000, 80_000)), "range"),
        (Field("f", "int8", categories=(300, -300)), "categories"),
        (Field("f", "int64", range=(0, 9), categories=(10, 11)), "categories"),
        (Field("f", "string", max_length=2, categories=("gold", "free")), "categories"),
    ],
)
def test_a_bound_that_does_not_fit_its_field_is_a_fault_of_the_configuration(
    field: Field, bound: str
) -> None:
    assert list(misdeclared(field)) == [bound]


@pytest.mark.parametrize(
    "field", [AGE, ITEM, TOWN, NOTE, TOKENS, LEVEL, RATE, KIND, WIDE, Field("f", "bool")]
)
def test_bounds_that_fit_their_field_have_no_fault(field: Field) -> None:
    assert misdeclared(field) == {}


def test_a_signature_without_its_bounds_is_as_it_was() -> None:
    """What a model process says of itself knows none; a signature that had none is not copied."""
    plain = Signature(inputs=(Field("age", "float64"),), outputs=())
    assert unbounded(Signature(inputs=(AGE,), outputs=())) == plain
    assert unbounded(plain) is plain


@pytest.mark.parametrize(
    "field, value, fits",
    [
        (AGE, 120, True),
        (AGE, 121, False),
        (AGE, None, True),
        (AGE, float("nan"), True),
        (TOWN, "Rome", True),
        (TOWN, "rome", False),
        (NOTE, "abcde", True),
        (NOTE, "abcdef", False),
        (TOKENS, [1, 2, 3, 4], True),
        (TOKENS, [1, 2, 3, 4, 5], False),
        (TOKENS, [1, 100], False),
        (LEVEL, 3, True),
        (LEVEL, 4, False),
        (Field("f", "string"), "x" * 99, True),
        (PAIRS, [[1, 2, 3], [4, 5, 6]], True),
        (PAIRS, [[1, 2, 3]] * 3, False),
        (WORDS, ["abcdef"], True),
        (WORDS, ["a"] * 3, False),
    ],
)
def test_a_golden_row_is_within_the_bounds_or_not(field: Field, value: Any, fits: bool) -> None:
    """By the rule of the gateway."""
    assert is_within(field, value) is fits


@pytest.mark.parametrize(
    "dtype, seen, bounds",
    [
        ("int64", TrainingColumn(100, 0, 999), {"range": (0.0, 999.0)}),
        ("int8", TrainingColumn(1, -3, -3), {"range": (-3.0, -3.0)}),
        ("float64", TrainingColumn(100, 18, 90), {"range": (0.0, 162.0)}),
        ("float64", TrainingColumn(100, -10, 10), {"range": (-30.0, 30.0)}),
        ("float32", TrainingColumn(100, -9.5, -0.5), {"range": (-18.5, 0.0)}),
        ("float64", TrainingColumn(100, 0, 0), {"range": (0.0, 0.0)}),
        ("float64", TrainingColumn(100, 5, 5), {"range": (0.0, 10.0)}),
        ("float64", TrainingColumn(100, 1000.2, 1234.56), {"range": (765.0, 1470.0)}),
        ("string", TrainingColumn(100, words=("b", "a")), {"categories": ("a", "b")}),
        ("string", TrainingColumn(19, words=("b", "a")), {}),
        ("string", TrainingColumn(9999), {}),
        ("string", TrainingColumn(9999, longest=40), {"max_length": 80}),
        ("string", TrainingColumn(9999, longest=617), {"max_length": 1240}),
        ("string", TrainingColumn(100, words=("b", "a"), longest=1), {"categories": ("a", "b")}),
        ("string", TrainingColumn(9999, words=tuple(map(str, range(51)))), {}),
        ("bool", TrainingColumn(100, 0, 1), {}),
        ("int64", TrainingColumn(0), {}),
    ],
)
def test_bounds_are_learned_of_what_training_data_shows(
    dtype: Any, seen: TrainingColumn, bounds: dict[str, Any]
) -> None:
    """Codes as they were seen, measures with room, words where each came often."""
    field = Field("f", dtype)
    assert learn(field, seen) == Field("f", dtype, **bounds)
    assert misdeclared(learn(field, seen)) == {}


def test_the_length_of_a_list_is_learned_as_it_was_seen() -> None:
    """It is a position, as of a token. A list of words has categories too, where each came often."""
    seen = TrainingColumn(100, 0, 5, longest=7)
    assert learn(Field("f", "int64", (-1,)), seen) == Field(
        "f", "int64", (-1,), range=(0.0, 5.0), max_length=7
    )
    assert learn(Field("f", "int64", (7,)), TrainingColumn(100, 0, 5)).max_length is msgspec.UNSET
    words = TrainingColumn(100, words=("a",), longest=3)
    assert learn(Field("f", "string", (-1,)), words) == Field(
        "f", "string", (-1,), max_length=3, categories=("a",)
    )


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_what_was_seen_is_within_what_is_learned(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for dtype in ("float64", "int64"):
        field = learn(Field("f", dtype), TrainingColumn(2, low, high))
        assert is_within(field, low)
        assert is_within(field, high)


def test_declared_bounds_go_before_learned_ones() -> None:
    assert learn(AGE, TrainingColumn(100, 0, 5)) == AGE
    plain = Field("age", "float64"), Field("town", "string")
    assert bounded(plain, {"age": AGE}) == (AGE, plain[1])
    assert bounded((AGE,), {"age": Field("age", "float64", range=(0, 1))}) == (AGE,)


def test_bounds_are_written_as_kedge_toml_reads_them() -> None:
    """Names that are not bare are quoted, and only what differs from the defaults is there."""
    odd = Field('a "b', "string", categories=('x"y', "é"), max_length=3)
    fields = (AGE, ITEM, TOWN, NOTE, TOKENS, LEVEL, RATE, odd)
    text = "\n".join(["[endpoints.e]", *toml_lines("e", fields)])
    assert load.read(text).endpoints["e"].fields == fields


def test_a_bound_on_an_answer_is_a_fault() -> None:
    with pytest.raises(BadConfig, match="bound what callers send"):
        load.read('[endpoints.e.answers]\np = {dtype = "float64", range = [0, 1]}')
    with pytest.raises(BadConfig, match=r"fields.p.range: is \[LEAST"):
        load.read('[endpoints.e.fields]\np = {dtype = "float64", range = [1, 0]}')
