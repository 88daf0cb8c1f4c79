"""A window of the log: answers and outcomes as numbers, ids apart from inputs, and losses."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from kedge.core.errors import Refused
from kedge.core.evidence.answers import target
from kedge.core.evidence.records import JoinRow, Known
from kedge.core.time.instants import read_when
from kedge.core.values import Field, LogPolicy, Output, Policy, State
from kedge.operations.diagnosis.window import AnswerReading, Logged, _lost, asked, read_columns

NOW = 1_770_000_000.0


def row(number: int, inputs: dict[str, Any] | None = None, **more: Any) -> JoinRow:
    known: dict[str, Any] = {
        "unit": "",
        "endpoint": "flights",
        "production": 2,
        "candidate": 1,
        "salt": "",
        "weight": 0,
        "arm": "production",
        "failed": False,
        "segments": (),
        "score": 0.5,
        "decision": "1",
        "inputs": msgspec.msgpack.encode(inputs) if inputs is not None else b"",
    }
    return JoinRow(id=f"{number}/0", at=NOW + number, **{**known, **more})


def logged(rows: list[JoinRow]) -> Logged:
    return Logged(NOW, NOW + 100, rows, [None] * len(rows))


@pytest.mark.parametrize(
    "kind, outcomes, numbers",
    [
        ("binary", [1.0, "no", True, None, 3.0], [1.0, 0.0, 1.0, np.nan, np.nan]),
        ("score", [2.5, "3", None, "x"], [2.5, 3.0, np.nan, np.nan]),
        ("exact", ["a", "b", "a", None], [0.0, 1.0, 0.0, np.nan]),
        ("exact", [1.0, "2"], [1.0, 2.0]),
    ],
)
def test_outcomes_are_read_as_the_output_says(
    kind: Any, outcomes: list[Known], numbers: list[float]
) -> None:
    found = AnswerReading(Output(kind=kind)).outcomes(outcomes)
    np.testing.assert_array_equal(found, numbers)


def test_an_answer_that_says_nothing_was_asked_and_failed() -> None:
    binary = AnswerReading(Output(kind="binary"))
    assert binary.answer(0.3, "0") == 0.3
    assert binary.answer(None, "1") == 1.0
    assert binary.answer(float("nan"), None) == np.inf
    assert binary.answer(None, None) == np.inf


def test_words_are_numbered_alike_in_answers_and_outcomes() -> None:
    words = AnswerReading(Output(kind="exact"))
    told = words.outcomes(["late", "early"])
    assert [words.answer(None, word) for word in ("early", "late", "never")] == [
        told[1],
        told[0],
        2.0,
    ]


def test_the_arm_names_the_release_that_answered() -> None:
    assert asked(row(1)) == 2
    assert asked(row(1, arm="candidate")) == 1
    assert asked(row(1, failed=True)) == 2


def test_ids_and_times_and_what_is_redacted_are_no_inputs() -> None:
    names = ("age", "city", "id", "asked_at", "secret", "who", "added")
    fields = tuple(Field(n, "string" if n in ("city", "id", "who") else "float64") for n in names)
    policy = Policy(entity="who", log=LogPolicy(redact=("secret",)))
    rng = np.random.default_rng(3)
    rows = [
        row(
            n,
            {
                "age": float(rng.normal()),
                "city": "oslo" if n % 3 else None,
                "id": f"q{n}",
                "asked_at": NOW + n,
                "secret": 1.0,
                "who": "me",
            },
        )
        for n in range(200)
    ]
    window = logged(rows)
    read_columns(State(endpoint="flights", fields=fields, policy=policy), window)
    assert sorted(window.columns) == ["age", "city"]
    assert window.left_out == ("asked_at", "id")
    assert window.columns["city"].tolist().count(None) == 67
    without = logged([*rows, row(200)])
    read_columns(State(endpoint="flights", fields=fields, policy=policy), window, without)
    assert without.columns == {}


def test_losses_are_counted_from_labels_and_without_them_from_hours() -> None:
    assert _lost(200, 150, (7,), 0.0, 7_200.0) == 0.25
    assert _lost(200, 200, (), 0.0, 7_200.0) == 0.0
    assert _lost(10, 2, (7,), 0.0, 7_200.0) == 0.5
    assert _lost(10, 2, (), 0.0, 7_200.0) == 0.0


def test_a_time_is_a_duration_back_or_an_read_when() -> None:
    assert read_when("2h", NOW) == NOW - 7_200
    assert read_when("2026-02-02T02:40:00Z", NOW) == NOW
    assert read_when("2026-02-02T02:40:00", NOW) == NOW
    assert read_when("2026-02-02T03:40:00+01:00", NOW) == NOW
    with pytest.raises(Refused) as caught:
        read_when("yesterday", NOW)
    assert caught.value.code == "bad_time"


def test_classes_are_distinguished_whatever_the_tolerance() -> None:
    """ "007" and "7" are two words; numbered, two words are further apart than any tolerance."""
    output = target(Output(tolerance=3.0), [Field("label", "string")])
    reading = AnswerReading(output)
    told = reading.outcomes(["007", "7", "late"])
    assert [reading.answer(None, word) for word in ("007", "7", "late")] == told.tolist()
    assert np.abs(np.diff(told)).min() > 3.0


def test_a_class_that_is_a_number_is_one_however_it_is_written() -> None:
    whole = AnswerReading(target(Output(kind="class", label="label"), [Field("label", "int64")]))
    told = whole.outcomes([42.0, "42", "yes", 1.5])
    assert told[0] == told[1] == whole.answer(42.0, "42")
    assert np.isnan(told[2:]).all()
    assert np.isnan(AnswerReading(Output(), "absolute_error").outcomes(["late"])).all()
