"""Rows with nulls beside golden ones: the cause that a model's failure is assigned to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kedge.adapters.process.trial import with_nulls
from kedge.core.errors import Refused
from kedge.core.values import Field, Signature

SIGNATURE = Signature(
    (Field("town", "string", nullable=True), Field("plan", "string", nullable=True)),
    (Field("y", "float64"),),
)
ROWS: dict[str, list[Any]] = {"town": ["Bern", "Oslo"], "plan": ["a", "b"]}
FURTHER = {"town": ["Bern", "Oslo", None, "Bern"], "plan": ["a", "b", "a", None]}


class Towns:
    """Knows two towns, and fails as it is told to."""

    signature = SIGNATURE

    def __init__(self, refuses: Callable[[list[Any]], bool] = lambda _: False) -> None:
        self._refuses = refuses

    def predict(self, columns: Any) -> Any:
        towns = columns["town"].tolist()
        if not {*towns} <= {"Bern", "Oslo", None}:
            raise ValueError("unknown town")
        if self._refuses(towns):
            raise ValueError("refused")
        return {"y": np.zeros(len(towns))}


def test_each_nullable_input_is_null_in_a_row() -> None:
    assert with_nulls(Towns(), ROWS) == FURTHER


def test_golden_rows_with_an_unknown_word_are_not_put_down_to_null() -> None:
    """The row that is repeated with nulls has the word, so that every one of them fails."""
    rows = {"town": ["Rome", "Oslo"], "plan": ["a", "b"]}
    assert with_nulls(Towns(), rows) == rows


@pytest.mark.parametrize("fails", [lambda t: len(t) > 1, lambda t: len(t) > 3])
def test_a_model_of_few_rows_is_not_put_down_to_null(fails: Any) -> None:
    rows = {name: values[:1] for name, values in ROWS.items()} if fails("ab") else ROWS
    assert with_nulls(Towns(fails), rows) == rows


def test_a_model_that_takes_no_single_row_gets_its_nulls_beside_others() -> None:
    assert with_nulls(Towns(lambda towns: len(towns) < 2), ROWS) == FURTHER


@pytest.mark.parametrize(
    "fails, said",
    [
        (lambda towns: None in towns, "with null in it the model raised"),
        (
            lambda towns: None in towns and len(towns) > 1,
            "with null in it in one of several rows, the model raised",
        ),
    ],
)
def test_an_input_at_whose_null_the_model_fails_is_named(fails: Any, said: str) -> None:
    """Also where it fails only beside another value: sorting null among words raises."""
    with pytest.raises(Refused, match=f"town is nullable, and {said}") as caught:
        with_nulls(Towns(fails), ROWS)
    assert caught.value.code == "null_raised"
    assert '{"name": "town", "dtype": "string"}' in caught.value.hint
