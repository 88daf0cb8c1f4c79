"""Ids, versions and delays of predictions and their labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.evidence.records import (
    COUNTS,
    HOUR_S,
    Joined,
    JoinRow,
    delay_bin,
    delay_upper_s,
    id_hour,
    live_version,
    row_hour,
    spellings,
)
from kedge.gateway.http.infer import fresh_id

SEVEN = "019aa0f0-5c00-7abc-8def-0123456789ab"
HOUR = 0x019AA0F05C00 // (HOUR_S * 1000)


def row(name: str, at: float) -> JoinRow:
    return JoinRow(
        id=name,
        at=at,
        unit="",
        endpoint="flights",
        production=1,
        candidate=None,
        salt="",
        weight=0,
        arm="production",
        failed=False,
        segments=(),
        score=None,
        decision=None,
    )


def test_an_id_of_our_own_names_its_hour() -> None:
    assert id_hour(SEVEN) == id_hour(f"{SEVEN}/3") == HOUR
    assert id_hour(fresh_id()) is not None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "q",
        "flight-7",
        SEVEN.replace("-7", "-4"),
        SEVEN + "x",
        SEVEN[:-1],
        "g" + SEVEN[1:],
        SEVEN.replace("-", "_"),
        "\ud800" * 36,
    ],
)
def test_any_other_id_names_none(name: str) -> None:
    assert id_hour(name) is None


def test_an_id_far_from_its_answer_is_of_another_request() -> None:
    """Made elsewhere or used again: then the hour of the answer counts."""
    assert row_hour(row(SEVEN, HOUR * HOUR_S + 60.0)) == (HOUR, True)
    assert row_hour(row(SEVEN, (HOUR + 1) * HOUR_S + 60.0)) == (HOUR, True)
    assert row_hour(row(SEVEN, (HOUR + 50) * HOUR_S + 60.0)) == (HOUR + 50, False)
    assert row_hour(row("mine", 7_300.0)) == (2, False)


def test_the_only_row_of_a_request_may_be_asked_for_without_its_number() -> None:
    assert spellings("q") == ("q/0", "q")
    assert spellings("q/2") == ("q/2", "q/2/0")


@given(st.floats(1, 1e8))
def test_a_delay_lies_in_its_bin(seconds: float) -> None:
    index = delay_bin(seconds)
    assert delay_upper_s(index - 1) <= seconds * 1.0000001
    assert seconds <= delay_upper_s(index) * 1.0000001


def test_a_label_before_its_prediction_has_the_first_bin() -> None:
    assert delay_bin(-5.0) == delay_bin(0.2) == 0


def test_a_new_label_version_takes_over_when_it_has_caught_up() -> None:
    assert live_version({"v1": 100, "v2": 99}) == "v1"
    assert live_version({"v1": 100, "v2": 100}) == "v2"
    assert live_version({"v9": 5, "v10": 5}) == "v10"
    assert live_version({}) == ""


def test_batches_add_up() -> None:
    one = Joined(joined=2, parked=1, delays={3: 2})
    other = Joined(joined=1, conflicts=4, delays={3: 1, 5: 1})
    both = one.plus(other)
    assert {name: getattr(both, name) for name in COUNTS if getattr(both, name)} == {
        "joined": 3,
        "parked": 1,
        "conflicts": 4,
    }
    assert both.delays == {3: 3, 5: 1}
