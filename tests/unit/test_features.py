"""Schemas as interfaces: promises, changes, and how two implementations differ."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.errors import BadConfig, Refused
from kedge.core.features.schema import (
    EQUAL,
    compared,
    differences,
    misfit,
    outcome_of,
    refuse_change,
    worst,
)
from kedge.core.values import Field as Column
from kedge.core.values import Signature
from kedge.transforms.authoring import Field, schema

HOUR = Field("float32", unit="h", range=(0, 24))
FLIGHT = schema("flight/1", keys=["id"], fields={"hour": HOUR, "origin": Field("string")})


def other(**fields: Any) -> Any:
    return schema("flight/1", keys=["id"], fields={**FLIGHT.fields, **fields})


@pytest.mark.parametrize(
    "changed, told",
    [
        (other(hour=Field("float64", unit="h", range=(0, 24))), "hour.dtype"),
        (other(hour=Field("float32", unit="min", range=(0, 24))), "hour.unit"),
        (other(hour=Field("float32", unit="h", range=(0, 23))), "hour.range"),
        (other(hour=Field("float32", unit="h", range=(0, 24), null=True)), "hour.null"),
        (other(origin=Field("string", categories=("JFK",))), "origin.categories"),
        (other(more=Field("int64")), "more: added"),
        (schema("flight/1", keys=["id"], fields={"hour": HOUR}), "origin: removed"),
        (schema("flight/1", keys=[], fields=FLIGHT.fields), "keys"),
        (schema("flight/1", keys=["id"], fields=dict(reversed(FLIGHT.fields.items()))), "order"),
    ],
)
def test_a_change_of_anything_promised_is_another_schema(changed: Any, told: str) -> None:
    assert changed.digest != FLIGHT.digest
    (line,) = differences(FLIGHT, changed)
    assert line.startswith(told)
    with pytest.raises(Refused, match=told.partition(":")[0]) as caught:
        refuse_change(FLIGHT, changed)
    assert "flight/2" in caught.value.hint


def test_the_same_declaration_is_the_same_schema() -> None:
    assert other().digest == FLIGHT.digest
    assert differences(FLIGHT, other()) == ()
    refuse_change(FLIGHT, other())


def test_all_faults_of_a_declaration_are_reported_at_once() -> None:
    with pytest.raises(BadConfig) as caught:
        schema(
            "Flight",
            fields={
                "1x": Field("float32"),
                "a": Field("string", range=(0, 1)),
                "b": Field("int64", null=True),
                "c": Field("float32", range=(2, 1)),
                "d": Field("float32", categories=("x",)),
                "e": Field("float32", shape=(0,)),
            },
        )
    assert len(caught.value.faults) == 7
    with pytest.raises(BadConfig, match="no columns"):
        schema("flight/1", fields={})


def test_a_model_fits_a_schema_that_gives_what_it_needs() -> None:
    def model(*inputs: Column) -> Signature:
        return Signature(inputs=inputs, outputs=())

    assert misfit(model(Column("hour", "float64")), FLIGHT) == ()
    (lacking,) = misfit(model(Column("seats", "float64")), FLIGHT)
    assert lacking.startswith("seats")
    assert misfit(model(Column("origin", "float64")), FLIGHT)


def test_columns_are_bit_equal_close_or_changed() -> None:
    old: dict[str, list[Any]] = {
        "a": [1.0, 2.0],
        "b": [1.0, float("nan")],
        "c": ["x", "y"],
        "d": [1, 2],
    }
    new: dict[str, list[Any]] = {
        "a": [1.0, 2.0 + 1e-9],
        "b": [1.5, float("nan")],
        "c": ["x", "z"],
        "d": [1, 2],
    }
    a, b, c, d = compared(old, new, ["a", "b", "c", "d"])
    assert (a.outcome, a.rows) == ("within tolerance", 1)
    assert (b.outcome, b.rows, b.largest) == ("changed", 1, 0.5)
    assert (c.outcome, c.largest, c.example) == ("changed", None, ("y", "z"))
    assert (d.outcome, d.example) == ("bit-equal", None)
    assert outcome_of([a, d]) == "within tolerance"
    assert outcome_of([a, b, d]) == "changed"


def test_on_rows_that_prove_nothing_no_outcome_is_given() -> None:
    """What differs is still named: it shows that the code is another."""
    old, new = {"a": [0.0, 0.0], "b": [1.0, 2.0]}, {"a": [0.0, 0.0], "b": [1.0, 3.0]}
    found = compared(old, new, ["a", "b"], tested=False)
    assert [(one.outcome, one.rows) for one in found] == [("untested", 0), ("untested", 1)]
    assert outcome_of(found) == "untested"
    assert {"bit-equal", "within tolerance"} == EQUAL


def test_of_two_comparisons_the_worse_counts_column_by_column() -> None:
    equal = compared({"a": [1.0], "b": [1.0]}, {"a": [1.0], "b": [1.0]}, ["a", "b"])
    close = compared({"a": [1.0], "b": [1.0]}, {"a": [1.0 + 1e-9], "b": [1.0]}, ["a", "b"])
    apart = compared({"a": [1.0], "b": [1.0]}, {"a": [1.0], "b": [2.0]}, ["a", "b"])
    assert [one.outcome for one in worst(equal, apart)] == ["bit-equal", "changed"]
    assert [one.outcome for one in worst(apart, close)] == ["within tolerance", "changed"]


def test_a_number_that_became_null_has_changed() -> None:
    (found,) = compared({"a": [1.0]}, {"a": [float("nan")]}, ["a"])
    assert found.outcome == "changed"


@given(st.lists(st.floats(), max_size=20))
def test_a_version_compared_with_itself_is_bit_equal(values: list[float]) -> None:
    (found,) = compared({"a": values}, {"a": list(values)}, ["a"])
    assert (found.outcome, found.rows) == ("bit-equal", 0)
