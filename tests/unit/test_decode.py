"""Bodies: every kind of fault, and that a valid body arrives unchanged."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from kedge.core.contract import FROM_OIP, OIP_DTYPES
from kedge.core.errors import BadRequest
from kedge.core.values import Field
from kedge.gateway.contract import Contract
from kedge.gateway.decode import parse
from kedge.gateway.fields import exceeds
from kedge.gateway.http.app import status_of
from kedge.testing.samples import fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CONTRACT = Contract(
    (
        *fields("x:float64,small:uint8?,word:string?,flag:bool?,single:float32?"),
        Field("grid", "float32", (2, -1), nullable=True),
        Field("pair", "int64", (2,), nullable=True),
    ),
    rows=4,
    entity="word",
)


def tensor(name: str, datatype: str, data: Any, shape: list[Any] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


X = tensor("x", "FP64", [1.0])


def read(
    body: object, json_length: int | None = None, contract: Contract = CONTRACT
) -> tuple[Mapping[str, NDArray[Any]], int]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return contract.columns(*parse(raw, json_length))


def given_x(*more: dict[str, Any]) -> Mapping[str, NDArray[Any]]:
    return read({"inputs": [X, *more]})[0]


def refused(body: object, json_length: int | None = None) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(body, json_length)
    assert 400 <= status_of(caught.value) < 500
    return caught.value


def fault(*tensors: dict[str, Any]) -> tuple[object, str]:
    """The field that is at fault, and the code."""
    error = refused({"inputs": list(tensors)})
    assert str(error.details["field"]) in str(error)
    return error.details["field"], error.code


# ---------------------------------------------------------------- not an infer request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"\xff\xfe",
        b'{"inputs": null}',
        b'{"inputs": [{}]}',
        b'{"inputs": [{"name": 3}]}',
        b'{"inputs": 3}',
        b'{"inputs": []',
        b'{"inputs": [], "id": 3}',
        b'{"inputs": [], "outputs": "all"}',
        b'{"inputs": []} trailing',
        b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1.5], "data": [1]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [true], "data": [1]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [NaN]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [Infinity]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1',
        b'{"inputs": [{"name": "word", "datatype": "BYTES", "shape": [1], "data": ["\\ud800"]}]}',
    ],
)
def test_a_body_that_is_no_infer_request_is_malformed(body: bytes) -> None:
    """Broken JSON, NaN as a word, another shape of document: one code."""
    assert refused(body).code == "malformed_body"


def test_nan_as_a_word_is_answered_with_what_to_send_instead() -> None:
    """JSON has no NaN, which many libraries still write."""
    body = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [NaN]}]}'
    assert "send null" in refused(body).hint


@pytest.mark.parametrize(
    "body, said, hint",
    [
        (b"", "the body is empty", '"rows"'),
        (b" \n", "the body is empty", '"rows"'),
        (b"rows=1", "not JSON: invalid character (byte 0)", '"rows"'),
        (b'{"note": "NaN", "rows": [', "not JSON: input data was truncated", '"rows"'),
        (b'{"rows": [{"x": -Infinity}]}', "not JSON: invalid", "send null"),
        ("{}".encode("utf-16"), "not JSON: it is not UTF-8", "as UTF-8"),
    ],
)
def test_a_body_that_is_not_json_gets_an_error_with_the_missing_part(
    body: bytes, said: str, hint: str
) -> None:
    """Small or large, and whatever the fault is: the hint is about this body."""
    assert str(refused(body)).startswith(said)
    assert hint in refused(body).hint


@pytest.mark.parametrize("pad", [b"", b" " * 40_000])
def test_a_byte_order_mark_is_passed_over(pad: bytes) -> None:
    """One; a second one is no JSON."""
    body = json.dumps({"inputs": [tensor("x", "FP64", [1.5])]}).encode() + pad
    mark = b"\xef\xbb\xbf"
    assert read(mark + body)[0]["x"].tolist() == [1.5]
    assert refused(mark * 2 + body).code == "malformed_body"


@pytest.mark.parametrize("depth", [900, 5_000, 200_000])
def test_deep_nesting_is_refused_or_flattened_and_never_a_crash(depth: int) -> None:
    """A stack overflow would take the whole worker with it."""
    head = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": '
    assert refused(head + b"[" * depth + b"1" + b"]" * depth + b"}]}").code in {
        "malformed_body",
        "wrong_shape",
        "wrong_dtype",
    }


def test_a_request_without_rows_has_no_answer() -> None:
    """No input at all, and a tensor of none."""
    assert refused({"inputs": []}).code == "wrong_shape"
    assert refused({"inputs": [tensor("x", "FP64", [], [0])]}).code == "wrong_shape"


def test_more_rows_than_the_limit_are_too_many() -> None:
    """A batch job is using an online endpoint."""
    assert read({"inputs": [tensor("x", "FP64", [1.0] * 4)]})[1] == 4
    error = refused({"inputs": [tensor("x", "FP64", [1.0] * 5)]})
    assert (error.code, status_of(error)) == ("too_many_rows", 413)


def test_members_that_the_protocol_does_not_know_are_passed_over() -> None:
    """As it asks."""
    extra = {"inputs": [{**X, "colour": "red", "parameters": {"a": 1}}], "more": {"deep": [1]}}
    assert read(extra)[1] == 1


# ---------------------------------------------------------------- names


def test_an_unknown_field_is_named_and_the_known_ones_are_listed() -> None:
    """A typo is seen at once."""
    assert fault(X, tensor("wrod", "BYTES", ["a"])) == ("wrod", "unknown_field")
    assert "word" in refused({"inputs": [tensor("wrod", "BYTES", ["a"])]}).hint


def test_a_field_that_is_given_twice_is_a_fault() -> None:
    """Which of the two was meant cannot be known."""
    assert fault(X, X) == ("x", "duplicate_field")


def test_a_field_that_may_not_be_null_may_not_be_left_out() -> None:
    """Told by name."""
    assert fault(tensor("word", "BYTES", ["a"])) == ("x", "missing_field")


def test_a_nullable_field_that_is_left_out_is_null_in_every_row() -> None:
    """NaN for floats, None for all else; each with the shape that one row has."""
    columns, rows = read({"inputs": [tensor("x", "FP64", [1.0, 2.0])]})
    assert rows == 2
    assert np.isnan(columns["single"]).all()
    assert np.isnan(columns["grid"]).all()
    for name in ("small", "word", "flag"):
        assert columns[name].tolist() == [None, None]
    assert columns["pair"].tolist() == [[None, None], [None, None]]
    assert columns["grid"].shape == (2, 2, 0)


# ---------------------------------------------------------------- datatypes and shapes


@pytest.mark.parametrize("datatype", ["fp64", "BOOL", "BYTES", "", "float64"])
def test_another_datatype_than_declared_is_a_fault(datatype: str) -> None:
    """Only numbers are taken as other numbers."""
    assert fault(tensor("x", datatype, [1.0])) == ("x", "wrong_dtype")


# ---------------------------------------------------------------- other datatypes


def widened(declared: str, datatype: str, *values: Any, nullable: bool = False) -> Any:
    """The column that a field makes of values of another datatype, in JSON and in bytes."""
    field = Field("v", declared, nullable=nullable)  # type: ignore[arg-type]
    contract = Contract((field,), rows=100, entity=None)
    columns, _ = read({"inputs": [tensor("v", datatype, list(values))]}, contract=contract)
    if None not in values:
        raw = np.array(values, FROM_OIP[datatype]).tobytes()
        theirs, _ = read(*packed(("v", datatype, [len(values)], raw)), contract=contract)
        assert theirs["v"].dtype == columns["v"].dtype
        assert theirs["v"].tolist() == columns["v"].tolist()
    return columns["v"]


@pytest.mark.parametrize(
    "declared, datatype, values",
    [
        ("float64", "INT64", [2**53, -(2**53), 40]),
        ("float64", "INT32", [-(2**31), 7]),
        ("float64", "UINT64", [2**53]),
        ("float64", "FP32", [0.5, 1.25]),
        ("float32", "FP16", [0.5]),
        ("float32", "INT64", [2**24, -(2**24)]),
        ("float16", "UINT8", [255]),
        ("float16", "INT64", [2048]),
        ("int64", "INT32", [-(2**31), 2**31 - 1]),
        ("int64", "UINT64", [2**63 - 1]),
        ("int32", "INT64", [2**31 - 1]),
        ("uint8", "INT64", [0, 255]),
        ("uint64", "INT8", [127]),
        ("int64", "FP64", [40.0, -(2.0**53) + 1]),
        ("int64", "FP32", [2.0**24 - 1]),
        ("int8", "FP16", [-128.0]),
    ],
)
@pytest.mark.parametrize("nullable", [False, True])
def test_a_number_that_the_declared_type_holds_unchanged_is_taken(
    declared: str, datatype: str, values: list[Any], nullable: bool
) -> None:
    """In JSON, in bytes and beside nulls, as the declared type."""
    column = widened(declared, datatype, *values, nullable=nullable)
    assert column.tolist() == values
    whole = declared.startswith(("int", "uint"))
    assert column.dtype == (object if nullable and whole else np.dtype(declared))
    assert not whole or {type(value) for value in column.tolist()} == {int}
    if nullable:
        with_null = widened(declared, datatype, *values, None, nullable=True)
        assert with_null.tolist()[:-1] == values
        assert with_null[-1] is None or np.isnan(with_null[-1])


@pytest.mark.parametrize(
    "declared, datatype, value",
    [
        ("float64", "INT64", 2**53 + 1),
        ("float64", "UINT64", 2**64 - 1),
        ("float64", "INT64", -(2**63)),
        ("float32", "INT64", 2**24 + 1),
        ("float16", "INT32", 2049),
        ("int32", "INT64", 2**31),
        ("uint8", "INT64", -1),
        ("int64", "UINT64", 2**63),
        ("uint64", "INT64", -1),
        ("int8", "UINT8", 128),
        ("int64", "FP64", 40.5),
        ("int64", "FP64", 2.0**53),
        ("int64", "FP32", 2.0**24),
        ("uint8", "FP64", 256.0),
        ("int8", "FP16", 128.0),
        ("int16", "FP16", 2048.0),
    ],
)
@pytest.mark.parametrize("nullable", [False, True])
def test_a_number_that_would_change_is_refused(
    declared: str, datatype: str, value: Any, nullable: bool
) -> None:
    """The value and its place are named, after others that fit."""
    with pytest.raises(BadRequest, match="value 1") as caught:
        widened(declared, datatype, 1, value, nullable=nullable)
    assert caught.value.code == "wrong_dtype"


@pytest.mark.parametrize(
    "declared, datatype",
    [
        ("float32", "FP64"),
        ("float16", "FP32"),
        ("int64", "BOOL"),
        ("bool", "INT8"),
        ("float64", "BYTES"),
        ("string", "INT64"),
        ("bool", "BYTES"),
    ],
)
def test_a_type_that_would_round_or_is_no_number_is_refused(declared: str, datatype: str) -> None:
    """The hint says what to send."""
    with pytest.raises(BadRequest) as caught:
        widened(
            declared,
            datatype,
            *([True] if datatype == "BOOL" else ["a"] if datatype == "BYTES" else [1]),
        )
    assert caught.value.code == "wrong_dtype"
    assert OIP_DTYPES[declared] in caught.value.hint


def test_a_whole_float_is_an_integer_in_json() -> None:
    """Many writers of JSON write every number as a float."""
    x = tensor("x", "FP64", [1, 2])
    columns, _ = read({"inputs": [x, tensor("small", "UINT8", [40.0, 2])]})
    assert columns["small"].tolist() == [40, 2]
    assert {type(value) for value in columns["small"]} == {int}


# ---------------------------------------------------------------- nested data


@pytest.mark.parametrize(
    "data, place",
    [
        ([[1, 2], [3, 4], [5, 6]], "3 values at data;"),
        ([[1], [2, 3, 4, 5, 6]], "data[0]"),
        ([[[1, 2, 3, 4, 5, 6]]], "1 value at data;"),
        ([[1, 2, 3, 4, 5, 6]], "1 value at data;"),
        ([[1, 2, 3], [4, 5]], "2 values at data[1]"),
        ([[1, 2, 3], [4, 5, [6]]], "a list at data[1][2]"),
        ([[1, 2, 3], 4, 5, 6], "4 values at data;"),
        ([1, 2, 3, [4, 5, 6]], "4 values at data;"),
        ([[1, 2, 3], 4], "4 at data[1]"),
        ([[1, 2, 3], None], "null at data[1]"),
        ([[], []], "0 values at data[0]"),
        ([[1, 2, 3], "456"], '"456" at data[1]'),
        ([[1, 2, 3], {"a": 4}], "an object at data[1]"),
        ([1, 2, 3, 4, 5], "5 values"),
        ([1, 2, 3, 4, 5, 6, 7], "7 values"),
        ([], "0 values"),
    ],
)
@pytest.mark.parametrize("padding", [0, 20_000])
def test_data_that_is_not_nested_as_its_shape_is_refused(
    data: Any, place: str, padding: int
) -> None:
    """With the field and the place, in a small body and in one that is counted first."""
    contract = Contract((Field("v", "float32", (3,), nullable=True),), rows=4, entity=None)
    one = {"name": "v", "datatype": "FP32", "shape": [2, 3]}
    text = json.dumps(data)[:-1] + " " * padding + "]"
    raw = json.dumps({"inputs": [one]})[:-3] + f', "data": {text}}}]}}'
    with pytest.raises(BadRequest) as caught:
        read(raw.encode(), contract=contract)
    assert (caught.value.code, caught.value.details["field"]) == ("wrong_shape", "v")
    assert padding or place in str(caught.value)


@pytest.mark.parametrize("data", [[[1], [2]], [[1, 2]], [[[1]], [[2]]]])
def test_one_value_a_row_may_be_nested_only_where_the_shape_is(data: Any) -> None:
    """[rows, 1] holds lists of one; [rows] holds none."""
    assert fault(tensor("x", "FP64", data, [2])) == ("x", "wrong_shape")
    if data == [[1], [2]]:
        assert read({"inputs": [tensor("x", "FP64", data, [2, 1])]})[0]["x"].tolist() == [1, 2]
    else:
        assert fault(tensor("x", "FP64", data, [2, 1])) == ("x", "wrong_shape")


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3).flatmap(
        lambda shape: st.tuples(st.just(shape), st.data())
    )
)
def test_flat_and_nested_data_of_one_shape_are_one_column(drawn: Any) -> None:
    """Row-major, whatever the shape."""
    shape, data = drawn
    size = int(np.prod(shape))
    values = data.draw(st.lists(st.integers(-9, 9), min_size=size, max_size=size))
    grid = np.array(values, np.int64).reshape(shape)
    contract = Contract((Field("v", "int64", (-1,) * len(shape)),), rows=4, entity=None)
    for given_values in (grid.reshape(-1).tolist(), [grid.tolist()]):
        columns, _ = read(
            {"inputs": [tensor("v", "INT64", given_values, [1, *shape])]}, contract=contract
        )
        assert columns["v"].tolist() == [grid.tolist()]


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    "shape",
    [
        [1, 2],
        [2],
        [0],
        [-1],
        [1, 1, 1],
        [-1, -1],
        [1, 0],
        [10**30],
        [-(10**30)],
        [2**63],
        [2**64 + 1],
    ],
)
def test_a_shape_that_is_not_one_value_a_row_is_a_fault(shape: list[int]) -> None:
    """Wrong count, wrong rank, negative, or larger than any array."""
    assert fault(tensor("x", "FP64", [1.0], shape)) == ("x", "wrong_shape")


def test_an_empty_shape_is_a_fault() -> None:
    """The first number is the rows: there must be one."""
    assert fault({**X, "shape": []}) == ("x", "wrong_shape")


def test_a_column_of_one_is_a_scalar_a_row_too() -> None:
    """[rows, 1] is how Triton's examples write it."""
    columns, rows = read({"inputs": [tensor("x", "FP64", [1.0, 2.0], [2, 1])]})
    assert (columns["x"].shape, rows) == ((2,), 2)


@pytest.mark.parametrize(
    "shape", [[1], [1, 2], [1, 3, 1], [1, 2, 1, 1], [1, 2, -1], [1, -2, 1], [0, 2, -5], [1, 2, 2]]
)
def test_a_shape_that_is_not_the_declared_one_is_a_fault(shape: list[int]) -> None:
    """grid is 2 by any length."""
    assert fault(X, tensor("grid", "FP32", [1.0, 2.0], shape)) == ("grid", "wrong_shape")


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_length_that_is_declared_open_takes_any(length: int) -> None:
    """Also none."""
    grid = tensor("grid", "FP32", [1.0] * 2 * length, [1, 2, length])
    assert given_x(grid)["grid"].shape == (1, 2, length)


@pytest.mark.parametrize("wide", [2**31, 2**40, 2**62, 2**64, 2**70])
def test_an_empty_tensor_of_an_impossible_shape_is_a_fault_and_not_a_crash(wide: int) -> None:
    """Zero times anything is zero, but no array has such an axis."""
    contract = Contract((Field("v", "float32", (-1, -1)),), rows=4, entity=None)
    for shape in ([1, wide, wide], [1, wide, 0, 0], [wide, wide, 0], [wide, 0, 0], [1, 0, wide]):
        one = {"name": "v", "datatype": "FP32", "shape": shape}
        raw = json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": 0}}]}).encode()
        for body, length in (({"inputs": [{**one, "data": []}]}, None), (raw, len(raw))):
            try:
                _, rows = read(body, length, contract)
            except BadRequest as error:
                assert error.code in {"wrong_shape", "too_many_rows"}  # noqa: PT017
            else:
                assert rows == 1


def test_fields_must_agree_on_the_rows() -> None:
    """The second one is blamed."""
    assert fault(X, tensor("word", "BYTES", ["a", "b"])) == ("word", "wrong_shape")


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    "name, datatype, value, code",
    [
        ("x", "FP64", "1.0", "wrong_dtype"),
        ("x", "FP64", True, "wrong_dtype"),
        ("x", "FP64", {}, "wrong_dtype"),
        ("x", "FP64", None, "null_value"),
        ("single", "FP32", 1e39, "not_finite"),
        ("single", "FP32", "a", "wrong_dtype"),
        ("small", "UINT8", 300, "wrong_dtype"),
        ("small", "UINT8", -1, "wrong_dtype"),
        ("small", "UINT8", 1.5, "wrong_dtype"),
        ("small", "UINT8", True, "wrong_dtype"),
        ("small", "UINT8", "1", "wrong_dtype"),
        ("small", "UINT8", 10**30, "wrong_dtype"),
        ("flag", "BOOL", 1, "wrong_dtype"),
        ("flag", "BOOL", "true", "wrong_dtype"),
        ("word", "BYTES", 1, "wrong_dtype"),
        ("word", "BYTES", ["a", "b"], "wrong_shape"),
    ],
)
def test_a_value_that_does_not_fit_is_found_while_decoding(
    name: str, datatype: str, value: object, code: str
) -> None:
    """No model ever sees it, and the field is named."""
    tensors = [tensor(name, datatype, [value])]
    assert fault(*(tensors if name == "x" else [X, *tensors])) == (name, code)


@pytest.mark.parametrize("literal", [b"1e400", b"-1e400", b"1" + b"0" * 400, b"9" * 5000])
def test_a_number_that_no_float_holds_is_a_fault_of_its_field(literal: bytes) -> None:
    """JSON can write what no machine has."""
    body = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [%s]}]}' % literal
    assert refused(body).details["field"] == "x"


def test_a_huge_integer_is_a_fault_of_its_field() -> None:
    """Also one that Python would take a second to read."""
    pair = b'{"name": "pair", "datatype": "INT64", "shape": [1, 2], "data": [1, %s]}' % (
        b"9" * 5000
    )
    error = refused(b'{"inputs": [%s, %s]}' % (json.dumps(X).encode(), pair))
    assert (error.details["field"], error.code) == ("pair", "wrong_dtype")


@pytest.mark.parametrize(
    "dtype, low, high",
    [(d, int(np.iinfo(d).min), int(np.iinfo(d).max)) for d in ("uint8", "int8", "int32", "uint64")],
)
@pytest.mark.parametrize("nullable", [False, True])
def test_an_integer_fits_its_dtype_exactly_or_is_refused(
    dtype: Any, low: int, high: int, nullable: bool
) -> None:
    """Nothing wraps around; a null beside it changes nothing."""
    contract = Contract((Field("i", dtype, nullable=nullable),), rows=4, entity=None)

    def ask(value: int) -> list[Any]:
        one = tensor("i", OIP_DTYPES[dtype], [value, *([None] if nullable else [])])
        return list(read({"inputs": [one]}, contract=contract)[0]["i"].tolist())

    assert (ask(low)[0], ask(high)[0]) == (low, high)
    for outside in (low - 1, high + 1):
        with pytest.raises(BadRequest, match=f"i does not fit {dtype}"):
            ask(outside)


@pytest.mark.parametrize("rows", [1, 100])
def test_a_float_must_be_finite_in_its_own_dtype(rows: int) -> None:
    """One row and many take different paths to the same answer."""
    for dtype, much in (("float16", 70_000.0), ("float32", 1e39)):
        contract = Contract(fields(f"f:{dtype}"), rows=200, entity=None)
        datatype = OIP_DTYPES[dtype]
        fine = tensor("f", datatype, [1.0] * rows)
        assert read({"inputs": [fine]}, contract=contract)[1] == rows
        with pytest.raises(BadRequest) as caught:
            read(
                {"inputs": [tensor("f", datatype, [1.0] * (rows - 1) + [much])]}, contract=contract
            )
        assert caught.value.code == "not_finite"


def test_null_in_a_field_that_is_not_nullable_says_how_to_make_it_so() -> None:
    """The most common mistake gets the most helpful answer."""
    error = refused({"inputs": [tensor("x", "FP64", [None])]})
    assert error.code == "null_value"
    assert "nullable" in error.hint


def test_null_in_a_nullable_field_is_nan_or_none() -> None:
    """Beside values that are none."""
    rows = {
        "inputs": [
            tensor("x", "FP64", [1, 2]),
            tensor("single", "FP32", [None, 2.5]),
            tensor("word", "BYTES", [None, "a"]),
            tensor("small", "UINT8", [7, None]),
            tensor("flag", "BOOL", [True, None]),
        ]
    }
    columns, _ = read(rows)
    assert np.isnan(columns["single"][0])
    assert columns["single"].dtype == np.float32
    assert columns["word"].tolist() == [None, "a"]
    assert columns["small"].tolist() == [7, None]
    assert columns["flag"].tolist() == [True, None]


def test_a_number_beside_a_null_must_still_be_finite() -> None:
    """1e39 in a nullable float32 is neither null nor a number."""
    tensors = {"inputs": [tensor("x", "FP64", [1, 2]), tensor("single", "FP32", [None, 1e39])]}
    assert refused(tensors).code == "not_finite"


@pytest.mark.parametrize("data", [b'["\xff"]', b'[["\xff"]]', b'["a", ["\xff"]]'])
def test_a_string_that_is_not_utf8_is_a_fault_of_its_field(data: bytes) -> None:
    """It is found late, while reading the values, flat or nested."""
    word = b'{"name": "word", "datatype": "BYTES", "shape": [1], "data": %s}' % data
    error = refused(b'{"inputs": [%s, %s]}' % (json.dumps(X).encode(), word))
    assert (error.details["field"], error.code) == ("word", "wrong_dtype")


@pytest.mark.parametrize("data", [None, "abc", 3, {}, {"a": 1}, True])
def test_data_that_is_no_list_is_a_fault_of_its_field(data: object) -> None:
    """And is not told as a null in a row."""
    assert fault({**X, "data": data}) == ("x", "wrong_dtype")


def test_a_tensor_without_data_is_a_fault_of_its_field() -> None:
    """Neither in the JSON nor behind it."""
    assert fault({"name": "x", "datatype": "FP64", "shape": [1]}) == ("x", "malformed_body")


def test_nested_data_is_read_as_the_shape_says() -> None:
    """The protocol allows both."""
    grid = tensor("grid", "FP32", [[[1.0, 2.0], [3.0, 4.0]]], [1, 2, 2])
    assert given_x(grid)["grid"].tolist() == [[[1.0, 2.0], [3.0, 4.0]]]
    assert read({"inputs": [tensor("x", "FP64", [[1.0], [2.0]], [2, 1])]})[1] == 2


@pytest.mark.parametrize(
    "data, code",
    [
        ([[1.0, "a"]], "wrong_dtype"),
        ([[1.0, None]], "null_value"),
        ([[None, "a"]], "null_value"),
        ([["a", None]], "wrong_dtype"),
        ([["got `null` - at", 1.0]], "wrong_dtype"),
        (None, "wrong_dtype"),
        ([[1.0], 2.0], "wrong_shape"),
        ([[1.0], {"a": 2.0}], "wrong_shape"),
        ([[1.0], "ab"], "wrong_shape"),
        ([[]], "wrong_shape"),
    ],
)
def test_nested_data_is_checked_like_any_other(data: object, code: str) -> None:
    """Lists beside what is none are not quietly taken apart."""
    contract = Contract((Field("v", "float64", (2,)),), rows=4, entity=None)
    with pytest.raises(BadRequest) as caught:
        read({"inputs": [tensor("v", "FP64", data, [1, 2])]}, contract=contract)
    assert (caught.value.details["field"], caught.value.code) == ("v", code)


def test_letters_of_a_string_are_not_strings() -> None:
    """ "yz" beside a list is a mistake, not two values."""
    words = tensor("word", "BYTES", [["x"], "yz"], [3])
    assert fault(tensor("x", "FP64", [1, 2, 3]), words) == ("word", "wrong_shape")


# ---------------------------------------------------------------- the binary extension


def packed(*tensors: tuple[str, str, list[int], bytes], more: bytes = b"") -> tuple[bytes, int]:
    """A body of the binary extension and the length of its JSON."""
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": datatype,
                    "shape": shape,
                    "parameters": {"binary_data_size": len(raw)},
                }
                for name, datatype, shape, raw in tensors
            ]
        }
    ).encode()
    return head + b"".join(raw for *_, raw in tensors) + more, len(head)


def strings(*texts: str) -> bytes:
    return b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)


ONE = ("x", "FP64", [1], struct.pack("<d", 1.5))


def test_binary_tensors_are_read_in_the_order_of_the_inputs() -> None:
    """Beside one that stands in the JSON."""
    body, length = packed(
        ("x", "FP64", [2], struct.pack("<2d", 1.5, -2.5)),
        ("word", "BYTES", [2], strings("", "Zürich")),
        ("small", "UINT8", [2], b"\x00\xff"),
        ("flag", "BOOL", [2], b"\x00\x01"),
        ("pair", "INT64", [2, 2], struct.pack("<4q", 1, 2, 3, -(2**63))),
    )
    columns, rows = read(body, length)
    assert rows == 2
    assert columns["x"].tolist() == [1.5, -2.5]
    assert columns["word"].tolist() == ["", "Zürich"]
    assert columns["small"].tolist() == [0, 255]
    assert columns["flag"].tolist() == [False, True]
    assert columns["pair"].tolist() == [[1, 2], [3, -(2**63)]]


@pytest.mark.parametrize("length", [-1, 10**9])
def test_a_json_length_beyond_the_body_is_malformed(length: int) -> None:
    """The header said so."""
    assert refused(packed(ONE)[0], length).code == "malformed_body"


def test_a_json_length_that_cuts_the_json_is_malformed() -> None:
    """At every place, also in the middle of a name."""
    body, length = packed(ONE)
    for at in range(length):
        assert refused(body, at).code == "malformed_body"


def test_a_body_that_was_cut_anywhere_in_its_binary_part_is_refused() -> None:
    """One byte or all of them: no short answer to half a question."""
    body, length = packed(("word", "BYTES", [2], strings("ab", "c")), ONE)
    for cut in range(1, len(body) - length + 1):
        error = refused(body[:-cut], length)
        assert error.details["field"] in {"word", "x"}
        assert error.code == "wrong_shape"


def test_binary_data_that_belongs_to_no_field_is_refused() -> None:
    """The client counted wrong, and every later tensor may be shifted."""
    assert refused(*packed(ONE, more=b"\x00")).code == "malformed_body"


@pytest.mark.parametrize("size", [-1, 9, 10**30, "8", 8.0, True, [8]])
def test_a_binary_size_that_cannot_be_is_a_fault_of_its_field(size: object) -> None:
    """Negative, too large, no number."""
    raw = struct.pack("<d", 1.0)
    one = {**X, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [one]}).encode()
    assert refused(head + raw, len(head)).details["field"] == "x"


def test_a_binary_size_without_the_header_is_a_fault_of_its_field() -> None:
    """The body then is all JSON."""
    assert fault({**X, "parameters": {"binary_data_size": 8}}) == ("x", "wrong_shape")


@pytest.mark.parametrize(
    "one, code",
    [
        (("x", "FP64", [1], b"1234567"), "wrong_shape"),
        (("x", "FP64", [1], b""), "wrong_shape"),
        (("x", "FP64", [1], bytes(16)), "wrong_shape"),
        (("x", "FP64", [2], bytes(8)), "wrong_shape"),
        (("x", "BOOL", [1], bytes(1)), "wrong_dtype"),
        (("single", "FP64", [1], bytes(8)), "wrong_dtype"),
        (("x", "FP64", [1], struct.pack("<d", np.nan)), "not_finite"),
        (("x", "FP64", [1], struct.pack("<d", np.inf)), "not_finite"),
        (("single", "FP32", [1], struct.pack("<f", -np.inf)), "not_finite"),
        (("flag", "BOOL", [1], b"\x02"), "wrong_dtype"),
        (("word", "BYTES", [1], b""), "wrong_shape"),
        (("word", "BYTES", [1], b"\x01\x00\x00"), "wrong_shape"),
        (("word", "BYTES", [1], b"\x05\x00\x00\x00ab"), "wrong_shape"),
        (("word", "BYTES", [1], b"\xff\xff\xff\xff"), "wrong_shape"),
        (("word", "BYTES", [1], b"\x01\x00\x00\x00\xff"), "wrong_dtype"),
        (("word", "BYTES", [1], strings("a", "b")), "wrong_shape"),
        (("word", "BYTES", [2], strings("a")), "wrong_shape"),
    ],
)
def test_a_binary_tensor_that_does_not_fit_is_a_fault_of_its_field(
    one: tuple[str, str, list[int], bytes], code: str
) -> None:
    """As strictly as JSON, and by the same codes."""
    error = refused(*packed(one))
    assert (error.details["field"], error.code) == (one[0], code)


def test_nan_in_a_nullable_binary_float_is_null() -> None:
    """There is no other way to write null in bytes."""
    columns, _ = read(*packed(ONE, ("single", "FP32", [1], struct.pack("<f", np.nan))))
    assert np.isnan(columns["single"]).all()


# ---------------------------------------------------------------- the entity


def test_the_entity_of_a_single_row_is_its_declared_field() -> None:
    """Without a value, or among several rows, there is none."""
    for words, entity in ((["N1"], "N1"), ([None], None), (["N1", "N2"], None), ([""], None)):
        xs = tensor("x", "FP64", [1.0] * len(words))
        columns, rows = read({"inputs": [xs, tensor("word", "BYTES", words)]})
        assert CONTRACT.entity(columns, rows) == entity


@pytest.mark.parametrize(
    "field, datatype, value, entity",
    [
        (Field("e", "int64"), "INT64", 7, "7"),
        (Field("e", "int64", nullable=True), "INT64", 2**63 - 1, str(2**63 - 1)),
        (Field("e", "bool"), "BOOL", True, "true"),
        (Field("e", "float64", nullable=True), "FP64", 42, "42"),
        (Field("e", "float32"), "FP32", 42.0, "42"),
        (Field("e", "float64", nullable=True), "FP64", None, None),
        (Field("e", "string"), "BYTES", "42.0", "42"),
        (Field("e", "string"), "BYTES", " Zoe\u0308 ", "Zo\u00eb"),
    ],
)
def test_an_entity_that_is_no_string_is_its_spelling(
    field: Field, datatype: str, value: object, entity: str | None
) -> None:
    """The same in every process, and the same as the header's; null names none."""
    contract = Contract((field,), rows=4, entity="e")
    columns, rows = read({"inputs": [tensor("e", datatype, [value])]}, contract=contract)
    assert contract.entity(columns, rows) == entity


@pytest.mark.parametrize(
    "field, datatype, value, code",
    [
        (Field("e", "float64"), "FP64", 0.5, "bad_entity"),
        (Field("e", "float64"), "FP64", 2.0**53, "bad_entity"),
        (Field("e", "float32"), "FP32", 2.0**24, "bad_entity"),
        (Field("e", "float16"), "FP16", 2048, "bad_entity"),
        (Field("e", "string"), "BYTES", "a\x00b", "bad_entity"),
        (Field("e", "string"), "BYTES", "e" * 257, "entity_too_long"),
    ],
)
def test_a_field_that_names_no_entity_is_refused(
    field: Field, datatype: str, value: object, code: str
) -> None:
    """A rounded number would name another caller."""
    contract = Contract((field,), rows=4, entity="e")
    columns, rows = read({"inputs": [tensor("e", datatype, [value])]}, contract=contract)
    with pytest.raises(BadRequest) as caught:
        contract.entity(columns, rows)
    assert (caught.value.code, caught.value.details["field"]) == (code, "e")
    assert status_of(caught.value) == 400


def test_an_entity_without_values_is_none() -> None:
    """A contract that was taken from a model may have any shape."""
    contract = Contract((Field("e", "float64", (-1,)),), rows=4, entity="e")
    columns, rows = read({"inputs": [tensor("e", "FP64", [], [1, 0])]}, contract=contract)
    assert contract.entity(columns, rows) is None


# ---------------------------------------------------------------- everything else


def answers_or_refuses(body: bytes, json_length: int | None) -> None:
    try:
        columns, rows = read(body, json_length)
    except BadRequest as error:
        assert 400 <= status_of(error) < 500  # noqa: PT017
    else:
        assert 1 <= rows <= 4
        assert all(len(column) == rows for column in columns.values())


@given(st.binary(), st.one_of(st.none(), st.integers(-5, 40)))
def test_any_bytes_are_answered_or_refused(body: bytes, json_length: int | None) -> None:
    """Nothing but BadRequest is raised."""
    answers_or_refuses(body, json_length)


_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=3),
        st.sampled_from([300, 1e39, 2**63, 2**64]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)
_tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "small", "word", "flag", "single", "grid", "pair", "other"]),
        "datatype": st.sampled_from([*OIP_DTYPES.values(), "odd"]),
        "shape": st.lists(st.one_of(st.integers(-1, 3), st.integers()), max_size=3),
    },
    optional={
        "data": st.one_of(_values, st.lists(_values, max_size=4)),
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 20)),
    },
)


@given(st.lists(_tensors, max_size=4), st.binary(max_size=24))
def test_any_tensors_are_answered_or_refused(tensors: list[Any], more: bytes) -> None:
    """With the right names and words, and everything else as it comes."""
    head = json.dumps({"inputs": tensors}).encode()
    answers_or_refuses(head, None)
    answers_or_refuses(head + more, len(head))


@given(st.sampled_from(sorted(OIP_DTYPES)), st.integers(1, 4), st.integers(1, 3), st.data())
def test_a_valid_tensor_arrives_as_it_was_sent(
    dtype: Any, rows: int, wide: int, data: st.DataObject
) -> None:
    """Every dtype; flat, nested and binary; alone and beside nulls."""
    shape = (rows, wide)
    array: NDArray[Any]
    if dtype == "string":
        texts = st.lists(
            st.text(st.characters(exclude_categories=["Cs"])),
            min_size=rows * wide,
            max_size=rows * wide,
        )
        array = np.array([*data.draw(texts), None], dtype=object)[:-1].reshape(shape)
        raw = strings(*array.ravel().tolist())
    else:
        elements = {"allow_nan": False, "allow_infinity": False} if "float" in dtype else {}
        array = data.draw(npst.arrays(dtype, shape, elements=elements or None))
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    for nullable in (False, True):
        contract = Contract((Field("v", dtype, (-1,), nullable=nullable),), rows=4, entity=None)
        one = {"name": "v", "datatype": OIP_DTYPES[dtype], "shape": [rows, wide]}
        for given_as in (array.ravel().tolist(), array.tolist()):
            columns, got = read({"inputs": [{**one, "data": given_as}]}, contract=contract)
            assert got == rows
            assert columns["v"].tolist() == array.tolist()
        columns, _ = read(*packed(("v", OIP_DTYPES[dtype], [rows, wide], raw)), contract=contract)
        assert columns["v"].tolist() == array.tolist()
        assert columns["v"].shape == shape


# ---------------------------------------------------------------- bounds before anything is built


def large(text: str, *, shape: str = "[4]", name: str = "x", datatype: str = "FP64") -> bytes:
    return (
        f'{{"inputs": [{{"name": "{name}", "datatype": "{datatype}", "shape": {shape}, "data": {text}}}]}}'
    ).encode()


@pytest.mark.parametrize(
    "raw, code",
    [
        (large("[" * 200 + "1" + "]" * 200 + " " * 1_000_000), "wrong_shape"),
        (large("[" + "[]," * 1_000_000 + "[]]"), "wrong_shape"),
        (large("[" + "1," * 1_000_000 + "1]"), "wrong_shape"),
        (large("[" + "1," * 1_000_000 + "1]", shape="[1000001]"), "too_many_rows"),
        (large("[" + '"",' * 1_000_000 + '""]', name="word", datatype="BYTES"), "wrong_shape"),
        (large("[1]", shape="[" + "1," * 1_000_000 + "1]"), "wrong_shape"),
        (b'{"inputs": [' + b"{}," * 1_000_000 + b"{}]}", "malformed_body"),
        (b'{"inputs": [], "outputs": [' + b"{}," * 1_000_000 + b"{}]}", "malformed_body"),
    ],
)
def test_more_than_the_contract_allows_is_refused_before_it_is_built(raw: bytes, code: str) -> None:
    """In less time than building it would take, whatever the list is called."""
    tracemalloc.start()
    try:
        assert refused(raw).code == code
        assert tracemalloc.get_traced_memory()[1] < 5 * len(raw)
    finally:
        tracemalloc.stop()


def test_a_large_body_is_read_as_a_small_one() -> None:
    """Blanks, commas, braces and brackets in strings are no values."""
    words = ['a, "b" {[' * 1000, "c\\", "[{,", ""]
    text = json.dumps(words)
    raw = large(text, name="word", datatype="BYTES")
    both = json.loads(raw)
    both["inputs"].append(X | {"shape": [4], "data": [1.0, 2.0, 3.0, 4.0]})
    columns, rows = read(both)
    assert rows == 4
    assert columns["word"].tolist() == words


def test_characters_in_strings_do_not_count() -> None:
    assert not exceeds(b'["[[[[", "a\\"[["]', b"[", 1)
    assert exceeds(b'["[", [[1]]]', b"[", 2)
    assert not exceeds(b'[1, ",,,"]', b",", 1)
    assert exceeds(b"[1, 2, 3]", b",", 1)
