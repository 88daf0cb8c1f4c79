"""A model's description of its inputs, and the signature.json that states them."""

import json

from kedge.core.inputs import Described, pick_names, settled, signature_json, with_names
from kedge.core.values import Field


def test_a_signature_file_states_what_is_not_as_by_default() -> None:
    fields = (
        Field("age", "float64"),
        Field("town", "string", nullable=True),
        Field("x", "float32", (3,)),
    )
    assert json.loads(signature_json(fields)) == {
        "inputs": [
            {"name": "age"},
            {"name": "town", "dtype": "string", "nullable": True},
            {"name": "x", "dtype": "float32", "shape": [3]},
        ]
    }
    assert "\n" not in signature_json(fields)


def test_a_training_set_settles_what_was_assumed_and_nulls_where_nan_is_answered() -> None:
    inputs = (Field("a", "float64"), Field("b", "float64"), Field("c", "float64"))
    described = Described(assumed=("a",), tolerant=("b",))
    words = {name: Field(name, "string", nullable=True) for name in "abc"}
    assert settled(inputs, described, words) == (
        Field("a", "string", nullable=True),
        Field("b", "float64", nullable=True),
        inputs[2],
    )
    assert settled(inputs, described, {}) == inputs


def test_truth_values_of_a_training_set_are_those_of_an_input_that_is_computed_with() -> None:
    """To a scaler or a tree they are numbers, so that the model cannot say it; callers send true."""
    inputs = (Field("vip", "float64"), Field("age", "float64"))
    described = Described(computed=("vip", "age"))
    found = {"vip": Field("vip", "bool"), "age": Field("age", "string")}
    assert settled(inputs, described, found) == (Field("vip", "bool"), inputs[1])


def test_inputs_without_names_get_those_of_a_file() -> None:
    assert with_names([Field("X", "float64", (2,), nullable=True)], ["a", "b"]) == (
        Field("a", "float64", nullable=True),
        Field("b", "float64", nullable=True),
    )
    assert with_names([Field("x0", "string"), Field("x1", "float64")], ["a", "b"]) == (
        Field("a", "string"),
        Field("b", "float64"),
    )


def test_a_column_called_as_labels_are_is_no_input_where_there_is_one_too_many() -> None:
    assert pick_names(["Label", "a", "b"], 2) == ["a", "b"]
    assert pick_names(["a", "y"], 2) == ["a", "y"]
    assert pick_names(["a", "b", "c"], 2) == ["a", "b"]
