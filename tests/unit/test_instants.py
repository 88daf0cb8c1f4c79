"""Instants: valid times, their spellings, and impossible ones."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.errors import Refused
from kedge.core.time.instants import (
    AHEAD_S,
    EARLIEST_S,
    QUARTER_S,
    ROUNDED_S,
    SKEW_S,
    early,
    iso,
    read_instant,
    read_when,
    stamp,
    to_minute,
    untrue,
)

NOW = datetime(2026, 11, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T10:00:00Z",
        "2026-11-20 10:00:00+00:00",
        "2026-11-20T11:00:00+0100",
        "20261120T100000Z",
        "2026-11-20T10:00:00.000000000Z",
        " 2026-11-20T10:00:00Z ",
        "2026-11-20T10:00",
        1795168800,
        1795168800.0,
    ],
)
def test_one_instant_in_every_spelling(text: object) -> None:
    assert read_instant(text) == 1_795_168_800.0


@pytest.mark.parametrize(
    "given",
    [
        None,
        True,
        "",
        "soon",
        "01/02/2026",
        "20.11.2026",
        "2026-1-2",
        "2026-02-30",
        [],
        b"2026-11-20",
        10**400,
        "2026-11-20" * 1_000,
        "infinity",
        "1795168800",
    ],
)
def test_what_is_no_time_says_what_one_looks_like(given: object) -> None:
    with pytest.raises(
        ValueError, match="is not a valid time; write Unix seconds, or ISO 8601"
    ) as caught:
        read_instant(given)
    assert len(str(caught.value)) < 200


def test_a_zone_may_be_demanded() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        read_instant("2026-11-20T10:00:00", zone_needed=True)
    assert read_instant("2026-11-20T10:00:00Z", zone_needed=True) == 1_795_168_800.0


@pytest.mark.parametrize(
    "given", ["yesterday", "2026-11-20", "20.11.2026", "", True, None, 10**400]
)
@pytest.mark.parametrize("zone_needed", [True, False])
def test_every_form_that_an_error_suggests_would_be_read(given: object, zone_needed: bool) -> None:
    try:
        read_instant(given, zone_needed=zone_needed)
    except ValueError as error:
        found = re.findall(r"[0-9]{4}-[0-9T:-]{6,}Z?", str(error).partition("; write ")[2])
        assert found
        assert [read_instant(one, zone_needed=zone_needed) for one in found]
    else:
        assert not zone_needed


@pytest.mark.parametrize(
    ("at", "why"),
    [
        (0, "never set"),
        (20_261_129, "2026-11-29 as a date"),
        (1_795_168_800_000, "milliseconds"),
        (1.795e15, "microseconds"),
        (1.795e18, "nanoseconds"),
        (-1.0, "before 1971"),
        (-1e13, "milliseconds"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        (NOW + 2 * AHEAD_S, "future"),
        (4.07e9, "future"),
    ],
)
def test_an_impossible_time_is_named(at: float, why: str) -> None:
    said = untrue(at, NOW)
    assert said is not None
    assert ("date without hyphens" if "as a date" in why else why) in said


def test_what_is_old_or_a_little_ahead_can_be_true() -> None:
    for at in (EARLIEST_S, 1e9, NOW, NOW + AHEAD_S):
        assert untrue(at, NOW) is None


@given(st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none(), st.booleans()))
def test_nothing_but_a_value_error_comes_out(given: Any) -> None:
    try:
        at = read_instant(given)
    except ValueError:
        return
    why = untrue(at, NOW)
    assert (why is None) == (EARLIEST_S <= at <= NOW + AHEAD_S)
    assert len(iso(at)) < 400


def test_a_time_of_a_command_that_cannot_be_true_is_refused() -> None:
    for text, code in (
        ("1970-01-01", "bad_time"),
        ("2099-01-01", "in_the_future"),
        ("99999d", "bad_time"),
    ):
        with pytest.raises(Refused) as caught:
            read_when(text, NOW)
        assert caught.value.code == code


def test_an_outcome_before_its_prediction_is_early_but_for_skew_and_rounded_times() -> None:
    given_at = NOW + 36_000.5
    for at in (given_at, given_at - SKEW_S, given_at + 1e6, NOW, NOW - 50_400 + QUARTER_S):
        assert early(at, given_at) is None
    for at in (given_at - SKEW_S - 1, given_at - ROUNDED_S, NOW - ROUNDED_S, 1e9):
        why = early(at, given_at)
        assert why is not None
        assert "is before its prediction, which was given at 2026-11-30T10:00:00Z" in why


def test_an_instant_is_written_as_the_ledger_has_it_and_read_again() -> None:
    assert stamp(1_772_355_600.25) == "2026-03-01T09:00:00.250000Z"
    assert read_instant(stamp(1_772_355_600.25)) == 1_772_355_600.25
    assert to_minute(1_772_355_659.9) == "2026-03-01 09:00"
