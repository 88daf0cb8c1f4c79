"""Rows: objects with the fields as members, read as tensors of the same values are."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.errors import BadRequest
from kedge.core.values import Field
from kedge.gateway.contract import Contract
from kedge.gateway.decode import parse
from kedge.gateway.http.app import status_of

AGE = Field("age", "float64")
FIELDS = (
    AGE,
    Field("visits", "int64", nullable=True),
    Field("level", "uint8", nullable=True),
    Field("town", "string", nullable=True),
    Field("member", "bool", nullable=True),
    Field("small", "float32", nullable=True),
    Field("grid", "float64", (2, 2), nullable=True),
    Field("tokens", "int64", (-1,), nullable=True),
)
CONTRACT = Contract(FIELDS, rows=4, entity="visits")


REQUIRED: dict[str, Any] = {"age": st.floats(allow_nan=False, allow_infinity=False)}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def read(body: object, contract: Contract = CONTRACT) -> tuple[Any, int]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return contract.columns(*parse(raw, None))


def rows(*given: Any) -> Any:
    return read({"rows": list(given)})[0]


def refused(body: object, contract: Contract = CONTRACT) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(body, contract)
    assert 400 <= status_of(caught.value) < 500
    for word in ("float'", "int'", "<class", "Error", "`", "got "):
        assert word not in str(caught.value)
    return caught.value


def test_rows_become_the_columns_that_tensors_of_the_same_values_do() -> None:
    """Types, shapes and nulls."""
    full = {
        "age": 40,
        "visits": 7,
        "level": 3,
        "town": "Köln",
        "member": True,
        "small": 0.5,
        "grid": [[1, 2], [3, 4.5]],
        "tokens": [5, 6],
    }
    columns, count = read({"rows": [full, {"age": 41.5, "tokens": [7, 8]}]})
    assert count == 2
    assert columns["age"].tolist() == [40.0, 41.5]
    assert columns["age"].dtype == np.float64
    assert columns["visits"].tolist() == [7, None]
    assert columns["town"].tolist() == ["Köln", None]
    assert columns["member"].tolist() == [True, None]
    assert columns["small"].dtype == np.float32
    assert columns["small"][0] == 0.5
    assert np.isnan(columns["small"][1])
    assert columns["grid"][0].tolist() == [[1.0, 2.0], [3.0, 4.5]]
    assert np.isnan(columns["grid"][1]).all()
    assert columns["tokens"].tolist() == [[5, 6], [7, 8]]
    assert [columns[field.name].shape[0] for field in FIELDS] == [2] * len(FIELDS)


@given(
    st.lists(
        st.fixed_dictionaries(
            REQUIRED,
            optional={
                "visits": st.none() | st.integers(-(2**63), 2**63 - 1),
                "level": st.none() | st.integers(0, 255),
                "town": st.none() | TEXTS,
                "member": st.none() | st.booleans(),
            },
        ),
        min_size=1,
        max_size=4,
    )
)
def test_rows_and_tensors_agree(given_rows: list[dict[str, Any]]) -> None:
    """Whatever the values are."""
    types = {"age": "FP64", "visits": "INT64", "level": "UINT8", "town": "BYTES", "member": "BOOL"}
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": [len(given_rows)],
            "data": [row.get(name) for row in given_rows],
        }
        for name, datatype in types.items()
    ]
    theirs, ours = read({"inputs": inputs})[0], rows(*given_rows)
    for name in types:
        assert ours[name].dtype == theirs[name].dtype
        assert ours[name].tolist() == theirs[name].tolist()


def test_a_whole_float_is_taken_as_the_integer_that_it_is() -> None:
    """As many writers of JSON write every number."""
    columns = rows({"age": 1, "visits": 40.0, "level": 2.0})
    assert columns["visits"].tolist() == [40]
    assert type(columns["visits"][0]) is int
    assert columns["level"].tolist() == [2]


@pytest.mark.parametrize(
    "row, field, code",
    [
        ({"age": 1, "agee": 2}, "agee", "unknown_field"),
        ({}, "age", "missing_field"),
        ({"town": "a"}, "age", "missing_field"),
        ({"age": None}, "age", "null_value"),
        ({"age": "forty"}, "age", "wrong_dtype"),
        ({"age": True}, "age", "wrong_dtype"),
        ({"age": [1]}, "age", "wrong_dtype"),
        ({"age": {}}, "age", "wrong_dtype"),
        ({"age": 2**53 + 1}, "age", "wrong_dtype"),
        ({"age": -(2**53) - 1}, "age", "wrong_dtype"),
        ({"age": 10**30}, "age", "wrong_dtype"),
        ({"age": 1, "small": 2**24 + 1}, "small", "wrong_dtype"),
        ({"age": 1, "small": 1e39}, "small", "not_finite"),
        ({"age": 1, "visits": 1.5}, "visits", "wrong_dtype"),
        ({"age": 1, "visits": 2.0**53}, "visits", "wrong_dtype"),
        ({"age": 1, "visits": 2**63}, "visits", "wrong_dtype"),
        ({"age": 1, "visits": "1"}, "visits", "wrong_dtype"),
        ({"age": 1, "level": 256}, "level", "wrong_dtype"),
        ({"age": 1, "level": -1}, "level", "wrong_dtype"),
        ({"age": 1, "town": 5}, "town", "wrong_dtype"),
        ({"age": 1, "member": 1}, "member", "wrong_dtype"),
        ({"age": 1, "grid": [1, 2, 3, 4]}, "grid", "wrong_shape"),
        ({"age": 1, "grid": [[1, 2], [3]]}, "grid", "wrong_shape"),
        ({"age": 1, "grid": [[1, 2], [3, [4]]]}, "grid", "wrong_shape"),
        ({"age": 1, "grid": 7}, "grid", "wrong_shape"),
        ({"age": 1, "grid": [[1, 2], [3, "x"]]}, "grid", "wrong_dtype"),
        ({"age": 1, "tokens": [1, 2, 3]}, "tokens", "wrong_shape"),
        ({"age": 1, "tokens": 5}, "tokens", "wrong_shape"),
    ],
)
def test_a_fault_is_reported_with_its_row_and_field(
    row: dict[str, Any], field: str, code: str
) -> None:
    """The second row is at fault, as in the third of three."""
    error = refused({"rows": [{"age": 0, "tokens": [1, 2]}, row, {"age": 1, "tokens": [1, 2]}]})
    assert (error.details["field"], error.code, error.details["row"]) == (field, code, 1)
    assert f"row {error.details['row']}" in str(error)
    assert field in str(error)


@pytest.mark.parametrize("number", [b"1e400", b"9" * 5000])
def test_a_number_that_no_machine_has_is_a_fault_of_its_row(number: bytes) -> None:
    error = refused(b'{"rows": [{"age": 1}, {"age": %s}]}' % number)
    assert (error.code, error.details) == ("wrong_dtype", {"field": "age", "row": 1})


def test_a_field_that_a_row_gives_twice_is_refused() -> None:
    """Which of the two was meant cannot be known; a colon in a text is none of it."""
    assert refused(b'{"rows": [{"age": 1, "age": 2}]}').code == "duplicate_field"
    assert rows({"age": 1, "town": "a:b::c"})["town"].tolist() == ["a:b::c"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"rows": null}',
        b'{"rows": {"age": 1}}',
        b'{"rows": "x"}',
        b'{"rows": 3}',
        b'{"rows": [1]}',
        b'{"rows": [[1]]}',
        b'{"rows": [{"age": 1}, null]}',
        b'{"age": 40}',
        b'{"dataframe_records": [{"age": 40}]}',
        b'{"instances": [{"age": 40}]}',
    ],
)
def test_a_body_of_another_form_is_answered_with_the_form(body: bytes) -> None:
    """With fields of this endpoint, ready to be copied."""
    error = refused(body)
    assert error.code == "malformed_body"
    assert '{"rows": [{"age": 0.0, "visits": 0, ' in error.hint


def test_rows_and_inputs_together_are_refused() -> None:
    """Also where one of them is empty."""
    assert refused({"rows": [{"age": 1}], "inputs": []}).code == "malformed_body"


@pytest.mark.parametrize(
    "raw, said",
    [
        (b'{"rows": ' + b"[" * 2000 + b"]" * 2000 + b"}", "nested too deeply"),
        (b'{"rows": [[1e400]]}', "number out of range"),
        (b'{"rows": {"age": 1e400}}', "number out of range"),
    ],
)
def test_rows_that_cannot_be_read_are_reported_like_any_fault(raw: bytes, said: str) -> None:
    """Where no row and no field can be named too."""
    error = refused(raw)
    assert (error.code, said in str(error)) == ("malformed_body", True)


def test_the_number_of_rows_is_bounded() -> None:
    assert read({"rows": [{"age": 1}] * 4})[1] == 4
    assert refused({"rows": [{"age": 1}] * 5}).code == "too_many_rows"
    assert refused({"rows": []}).code == "wrong_shape"


def test_id_and_outputs_stand_beside_rows_as_beside_inputs() -> None:
    raw = json.dumps({"rows": [{"age": 1}], "id": "a", "outputs": [{"name": "score"}]}).encode()
    request, _ = parse(raw, None)
    assert (request.id, [output.name for output in request.outputs or ()]) == ("a", ["score"])


def test_the_entity_of_a_row_is_that_of_its_field() -> None:
    columns, count = read({"rows": [{"age": 1, "visits": 42.0}]})
    assert CONTRACT.entity(columns, count) == "42"


def test_a_batch_of_many_rows_is_read() -> None:
    """Beyond the bound on other objects of a body, and in rows whose texts look like JSON."""
    many = Contract((AGE, Field("town", "string")), rows=20_000, entity=None)
    body = {"rows": [{"age": n, "town": "{[,:" * 3} for n in range(15_000)]}
    columns, count = read(body, many)
    assert (count, columns["age"][-1]) == (15_000, 14_999.0)


@pytest.mark.parametrize(
    "raw, code",
    [
        (b'{"rows": [' + b"{}," * 1_000_000 + b"{}]}", "too_many_rows"),
        (b'{"rows": [' + b"[]," * 1_000_000 + b"[]]}", "wrong_shape"),
        (b'{"rows": [{"age": [' + b"1," * 1_000_000 + b"1]}]}", "wrong_shape"),
        (b'{"rows": [{"age":1}], "outputs": [' + b"{}," * 1_000_000 + b"{}]}", "malformed_body"),
        (b'{"rows": ' + b"[" * 500_000, "malformed_body"),
    ],
)
def test_more_than_the_contract_allows_is_refused_before_it_is_built(raw: bytes, code: str) -> None:
    """A million objects take a quarter of a gigabyte."""
    contract = Contract((AGE,), rows=4, entity=None)
    tracemalloc.start()
    try:
        assert refused(raw, contract).code == code
        assert tracemalloc.get_traced_memory()[1] < 3 * len(raw) + 1_000_000
    finally:
        tracemalloc.stop()
