"""Runs, their names, and the slices they are computed in."""

from __future__ import annotations

import pytest

from kedge.core.errors import BadConfig
from kedge.core.features.generations import (
    Mark,
    Run,
    ends,
    generation_of,
    last_end,
    mark_of,
    pack_mark,
    patience_s,
    row_bytes,
    run_of,
    runs_of,
    unneeded,
)
from kedge.core.features.schema import Feature, View, declared, materialised

DAY = 86_400.0
RUN = Run("carrier_delays/1", 2, 13)
VALUE = Feature("float32", null=True)


def test_a_run_is_known_by_its_label_and_lies_in_its_namespace() -> None:
    assert RUN.label == "carrier_delays/1#2@13"
    assert RUN.namespace == "carrier_delays/1/2/13"
    assert run_of(RUN.label) == RUN


@pytest.mark.parametrize(
    "text", ["", "a/1#2", "a/1@2", "a/0#1@1", "A/1#1@1", "a/1#1@1 ", "a/1#1@0"]
)
def test_what_is_no_label_names_no_run(text: str) -> None:
    assert run_of(text) is None


def test_a_release_names_every_run_that_it_reads_in_order() -> None:
    runs = (Run("b/1", 1, 1), Run("a/2", 3, 4))
    assert generation_of(runs) == "b/1#1@1+a/2#3@4"
    assert runs_of(generation_of(runs)) == runs
    assert runs_of(None) == ()
    assert runs_of("") == ()


def test_slices_end_at_multiples_and_only_those_that_are_over_are_computed() -> None:
    assert last_end(10.5 * DAY, DAY) == 10 * DAY
    assert list(ends(8 * DAY, 10.5 * DAY, DAY)) == [9 * DAY, 10 * DAY]
    assert list(ends(8.2 * DAY, 9 * DAY, DAY)) == [9 * DAY]
    assert list(ends(10 * DAY, 10.5 * DAY, DAY)) == []
    assert list(ends(12 * DAY, 10 * DAY, DAY)) == [], "a clock that went back computes nothing"


def test_a_run_is_stale_when_its_values_are_too_old_to_be_read() -> None:
    assert patience_s(DAY, 3 * DAY) == 3 * DAY
    assert patience_s(DAY, None) == 2 * DAY


def test_a_mark_survives_storage_and_nonsense_is_no_mark() -> None:
    mark = Mark(watermark=12.5, rows=3, ttl_s=None)
    assert mark_of(pack_mark(mark)) == mark
    assert mark_of(None) is None
    assert mark_of(b"nonsense") is None


def test_a_row_is_its_time_and_its_numbers() -> None:
    schema = declared("a/1", {"one": VALUE, "four": Feature("float32", (2, 2), null=True)}, ["k"])
    assert row_bytes(schema) == 8 + 5 * 4


def test_fields_that_cannot_be_stored_by_key_are_refused_with_every_fault() -> None:
    schema = declared("a/1", {"k": Feature("string"), "plain": Feature("float32")}, ["k"])
    view = View(source="x.parquet", time="at", every="daily", ttl="0s")
    with pytest.raises(BadConfig) as refused:
        materialised(schema, view)
    text = "; ".join(refused.value.faults)
    for part in (
        "a/1.k: a key is no field",
        "a/1.k: is kept as float32",
        "a/1.plain: a key may have no value",
        "every: 'daily'",
        "ttl is a second at least",
    ):
        assert part in text


def test_a_schema_without_keys_cannot_be_materialised() -> None:
    with pytest.raises(BadConfig, match="needs keys"):
        materialised(declared("a/1", {"x": VALUE}, []), View(source="x.parquet", time="at"))


def test_a_run_is_dropped_when_no_release_reads_it_and_a_newer_one_is_ready() -> None:
    first, second, third, other = (
        Run("a/1", 1, 1),
        Run("a/1", 1, 2),
        Run("a/1", 2, 1),
        Run("b/1", 1, 1),
    )
    runs = {first: "ready", second: "ready", third: "ready", other: "ready"}
    assert unneeded(runs, {first}) == (second,)
    assert unneeded(runs, set()) == (first, second)
    assert unneeded({**runs, third: "building"}, set()) == (first,), (
        "what is not ready replaces nothing"
    )
    assert unneeded({**runs, first: "dropped"}, set()) == (second,)
