"""The example of a call: the gateway accepts it, whatever the row contains."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any

from kedge.core.values import Field
from kedge.gateway.contract import Contract
from kedge.gateway.decode import parse
from kedge.operations.example import example_call, first_call

FIELDS = (
    Field("age", "float64", nullable=True),
    Field('town\'s "name"', "string", nullable=True),
    Field("grid", "int64", (2,), nullable=True),
)


def test_the_example_is_a_request_that_the_gateway_takes() -> None:
    """Of the first row without a null, quoted for a shell."""
    rows: dict[str, list[Any]] = {
        "age": [float("nan"), 40.5],
        'town\'s "name"': ["Rome", "L'Aquila $HOME"],
        "grid": [[1, 2], [3, 4]],
    }
    command = shlex.split(example_call("http://127.0.0.1:8080", "e", FIELDS, rows))
    assert command[:3] == ["curl", "http://127.0.0.1:8080/v2/models/e/infer", "-d"]
    columns, count = Contract(FIELDS, rows=4, entity=None).columns(
        *parse(command[3].encode(), None)
    )
    assert count == 1
    assert columns["age"].tolist() == [40.5]
    assert columns['town\'s "name"'].tolist() == ["L'Aquila $HOME"]
    assert columns["grid"].tolist() == [[3, 4]]


def test_a_row_with_nulls_is_shown_where_there_is_no_other() -> None:
    rows: dict[str, list[Any]] = {"age": [float("nan")], 'town\'s "name"': [None], "grid": [[1, 2]]}
    assert '"age": null' in example_call("http://h", "e", FIELDS, rows)


def test_a_row_that_is_too_wide_is_not_shown() -> None:
    assert example_call("http://h", "e", FIELDS[2:], {"grid": [[0] * 1000]}) == ""
    assert example_call("http://h", "e", FIELDS, {}) == ""


def test_the_first_call_has_a_row_of_the_newest_version_that_callers_can_send() -> None:
    def call(*schemas: str | None) -> str:
        signature = SimpleNamespace(inputs=FIELDS[:1])
        versions = [SimpleNamespace(digest="d", signature=signature, schema=one) for one in schemas]
        place: Any = SimpleNamespace(
            registry=SimpleNamespace(versions=lambda _: versions),
            artifacts=SimpleNamespace(proof=lambda _: SimpleNamespace(inputs={"age": [40.5]})),
        )
        return first_call(place, "http://h", "e")

    assert (
        call("risk/1", None) == """curl http://h/v2/models/e/infer -d '{"rows": [{"age": 40.5}]}'"""
    )
    assert call(None, "risk/1") == call() == "curl http://h/v2/models/e"
