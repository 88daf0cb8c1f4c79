"""Faults of the answer of a materialised function."""

from __future__ import annotations

from math import ceil, inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.features.generations import due, ends
from kedge.core.features.schema import Feature, Spec, View, declared
from kedge.core.time.durations import seconds
from kedge.operations.features.materialise import SliceProgress, keyed, misfit, outside

SCHEMA = declared(
    "delays/1",
    {
        "mean": Feature("float32", null=True, range=(0, 10)),
        "pair": Feature("float32", (2,), default=0.0),
    },
    ["carrier", "hour"],
)
SPEC = Spec(schema=SCHEMA, entry="a:b", raw=(), view=View(source="x.parquet", time="at"))


def answer(**other: Any) -> dict[str, Any]:
    return {
        "carrier": np.array(["AA", "UA"]),
        "hour": np.array([1, 1]),
        "mean": [1.0, np.nan],
        "pair": np.ones((2, 2)),
        **other,
    }


def test_an_answer_that_keeps_the_schema_is_no_fault() -> None:
    assert misfit(answer(), SPEC) is None


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"carrier": ["AA", "AA"]}, "1 keys are there twice"),
        ({"hour": [1]}, "hour has the shape (1,), not (2,)"),
        ({"mean": [1.0]}, "mean has the shape (1,), not (2,)"),
        ({"pair": [1.0, 2.0]}, "pair has the shape (2,), not (2, 2)"),
        ({"pair": [[1, 2], [3, np.nan]]}, "pair is null, and may not be"),
        ({"mean": ["x", "y"]}, "mean: could not convert"),
    ],
)
def test_a_fault_names_the_column(other: dict[str, Any], fault: str) -> None:
    assert fault in str(misfit(answer(**other), SPEC))


def test_columns_that_are_not_there_are_named_together() -> None:
    assert misfit({"carrier": ["AA"]}, SPEC) == "it gave no hour, mean, pair"
    assert misfit([1, 2], SPEC) == "it gave a list, not columns by name"


def test_values_out_of_range_are_counted_and_not_refused() -> None:
    wide = answer(mean=np.array([11.0, np.nan], np.float32))
    assert misfit(wide, SPEC) is None
    assert outside(wide, SPEC) == {"mean": 1}
    assert outside({}, SPEC) == {}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.array([1, 2, 3]), np.array([1, 2, 3])),
        (np.array([1.0, np.nan, 3.0]), np.array([1, 3])),
        (np.array(["a", None, ""], object), ["a"]),
        (np.array([7.5, 2.0**53, 7.0]), np.array([7])),
        (np.array([2**64 - 1, 1, 2], np.uint64), ["18446744073709551615", "1", "2"]),
        (np.array(["b", "a", "a\x1fb"]), ["b", "a"]),
        (np.array([1, "a", None], object), ["1", "a"]),
    ],
)
def test_a_row_without_a_key_is_left_out_and_keys_stay_whole(given: Any, kept: Any) -> None:
    schema = declared("d/1", {"x": Feature("float32", null=True)}, ["k"])
    columns, keys, lost = keyed({"k": given, "x": np.arange(3, dtype=np.float32)}, schema)
    assert columns["k"].tolist() == list(kept)
    assert columns["k"].dtype == (np.int64 if isinstance(kept, np.ndarray) else object)
    assert (keys, lost) == ([str(each) for each in kept], 3 - len(kept))
    assert len(columns["x"]) == len(kept)


def said(every: str, days: int, *, step_s: float, empty: int = 0) -> list[str]:
    """What is said while slices of the days since 2001-01-01 come in, `step_s` apart."""
    lines: list[str] = []
    clock = iter(n * step_s for n in range(100_000))
    every_s, begin = seconds(every), 978_307_200.0
    full = [range(int(begin / every_s) + 1, int(begin / every_s) + 1 + days)]
    work = SliceProgress(
        lines.append, "spend/1#1@1", every, full, lambda: next(clock), over=days + empty
    )
    for number in full[0]:
        work.done(3, number * every_s)
    return lines


def test_few_slices_are_said_one_by_one() -> None:
    assert said("1d", 3, step_s=1.0) == [
        f"spend/1#1@1: 3 rows as of 2001-01-0{day}T00:00:00Z" for day in (2, 3, 4)
    ]


def test_slices_without_rows_are_said_and_not_computed() -> None:
    assert said("1d", 0, step_s=1.0, empty=20_000) == [
        "spend/1#1@1: 20,000 further slices of 1d have no rows"
    ]


def test_many_slices_say_how_many_and_when_they_will_be_over() -> None:
    first, *lines = said("1d", 20_800, step_s=0.1)
    assert first == (
        "spend/1#1@1: 20,800 slices of 1d, that end from 2001-01-02T00:00:00Z to 2057-12-13T00:00:00Z"
    )
    assert 400 < len(lines) < 420, "a line each five seconds"
    assert "of 20,800 slices of spend/1#1@1 are in, as of " in lines[100]
    assert lines[100].endswith(" min left")


def brute(
    rows: list[float], known: set[float], after: float, at: float, every_s: float, back_s: float
) -> set[float]:
    """The ends of slices that have a row, or are known: looked at one by one."""
    return {
        end
        for end in ends(after, at, every_s)
        if end in known or any(end - back_s < row <= end for row in rows)
    }


@given(
    rows=st.lists(st.integers(0, 400).map(lambda n: n / 4), max_size=12),
    known=st.lists(st.integers(0, 20).map(lambda n: n * 5.0), max_size=3),
    after=st.floats(0, 60),
    span=st.floats(0, 60),
    back_s=st.sampled_from([1.0, 5.0, 12.0, inf]),
)
def test_the_slices_that_are_due_are_those_with_rows_and_those_that_are_known(
    rows: list[float], known: list[float], after: float, span: float, back_s: float
) -> None:
    every_s = 5.0
    newest: dict[int, float] = {}
    for row in sorted(rows):
        newest[ceil(row / every_s)] = row
    found = due(newest.items(), known, after, after + span, every_s, back_s)
    numbers = [number for numbers in found for number in numbers]
    assert numbers == sorted(set(numbers))
    wanted = brute(rows, set(known), after, after + span, every_s, back_s)
    assert {number * every_s for number in numbers} == wanted
