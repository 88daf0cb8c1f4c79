"""The ways back, one promise a test."""

import msgspec
import pytest

from kedge.core.release.ways_back import (
    condemned_as,
    drilled,
    failed_as,
    first_starved,
    returned,
    starved,
    ways_back,
)
from kedge.core.values import Automation, Drilling, Failure, Placement, Stage, State
from kedge.testing.samples import endpoint, fields, release

WIDE = "dep_delay:float32,origin:string"


def served(*numbers: int, condemned: tuple[int, ...] = ()) -> State:
    known = (
        release(1),
        release(2),
        release(3, version=2, transformation=2),
        release(4, needs=WIDE),
        release(5, version=2, placement=Placement.PROCESS),
    )
    return msgspec.structs.replace(
        endpoint(*known),
        production=numbers[-1] if numbers else None,
        served=numbers,
        condemned=condemned,
        fields=fields("dep_delay:float32"),
    )


@pytest.mark.parametrize(
    ("state", "back", "back_model", "back_features"),
    [
        (served(), None, None, None),
        (served(1), None, None, None),
        (served(1, 2), 1, 1, None),
        (served(2, 1), 2, 2, None),
        (served(1, 2, 3), 2, None, 2),
        (served(1, 3, 2), 3, 1, 3),
        (served(1, 2, 3, condemned=(2,)), 1, None, None),
        (served(1, 2, condemned=(1,)), None, None, None),
        (served(1, 4, 2), 1, 1, None),
        (served(1, 2, 5), 2, 1, None),
        (served(99, 2), None, None, None),
    ],
)
def test_each_way_back_is_the_newest_good_release_that_fits(
    state: State, back: int | None, back_model: int | None, back_features: int | None
) -> None:
    assert ways_back(state) == {
        "back": back,
        "back_model": back_model,
        "back_features": back_features,
    }


def test_a_way_back_is_there_even_when_production_itself_is_unknown() -> None:
    assert ways_back(served(1, 99))["back"] == 1


def test_without_a_contract_nothing_starves() -> None:
    state = served(1, 2)
    assert starved(state, 4, ()) == ()
    assert starved(state, 4, state.fields) == ("origin (not declared)",)
    assert starved(state, 99, state.fields) == starved(state, None, state.fields) == ()


def test_the_first_live_release_that_a_contract_starves_is_named() -> None:
    state = msgspec.structs.replace(served(1, 2), back=4)
    assert first_starved(state, fields("dep_delay:float32")) == (4, ("origin (not declared)",))
    assert first_starved(state, fields(WIDE)) is None


def test_condemnation_follows_the_bundle_and_not_the_number() -> None:
    state = served(1, condemned=(2,))
    assert [condemned_as(state, n) for n in (None, 1, 2, 3, 5, 99)] == [
        None,
        None,
        2,
        None,
        2,
        None,
    ]


def test_a_good_release_that_served_is_not_condemned_by_its_twin() -> None:
    assert condemned_as(served(5, 1, condemned=(2,)), 5) is None


def test_a_drill_changes_no_way_back() -> None:
    """A rollback within it lands where one before it would have."""
    for state in (served(1, 2), served(1, 2, 3), served(1, 3, 2)):
        drill = drilled(state, 1, Drilling(left=state.served[-1], until=9.0))
        assert ways_back(drill) == ways_back(state)


def test_what_returns_from_a_drill_is_as_it_was_and_without_one_nothing_changes() -> None:
    state = msgspec.structs.replace(served(1, 2), stage=Stage.SETTLED)
    assert returned(drilled(state, 1, Drilling(left=2, until=9.0))) == state
    assert returned(state) is state


def test_a_failed_verdict_is_on_a_bundle_and_against_one_production() -> None:
    failed = Failure(
        candidate=2, production=1, reason="quality", salt="s", stage=Stage.SHADOW, policy="p"
    )
    state = msgspec.structs.replace(served(1), automation=Automation(failures=(failed,)))
    assert [failed_as(state, n) for n in (2, 5, 3, 4, None)] == [failed, failed, None, None, None]
    assert failed_as(msgspec.structs.replace(state, production=4), 2) is None
    passed = Automation(failures=(failed,), proven=(5, 1))
    assert failed_as(msgspec.structs.replace(state, automation=passed), 5) is None
    assert failed_as(msgspec.structs.replace(state, automation=passed), 2) == failed
