"""The releases that each replica must load, and for how long."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest

from kedge.core.release.commands import Canary, Configure, Drill, Promote, Return, Rollback, Shadow
from kedge.core.release.needs import NeededRelease, needs, within_window
from kedge.core.values import AfterPolicy, Placement, Policy, State
from kedge.testing.samples import AT, endpoint, release, run

INLINE, PROCESS = Placement.INLINE, Placement.PROCESS
NOW = datetime.fromisoformat(AT).timestamp()
DAY = timedelta(days=1).total_seconds()
EMPTY = endpoint(release(1), release(2), release(3))
FIRST = run(EMPTY, Promote(1))
SECOND = run(FIRST, Promote(2, override="a test"))


def held(
    state: State, *wanted: tuple[int, Placement], now: float = NOW
) -> list[tuple[int, Placement]]:
    found = needs(state, tuple((*wish, 1) for wish in wanted), now=now)
    return [(need.release, need.placement) for need in found if not need.beside]


def test_after_a_promotion_the_release_that_was_left_is_also_compared_with() -> None:
    """In a process, last of all, and only while the way back is kept."""
    assert needs(SECOND, now=NOW)[-1] == NeededRelease(1, PROCESS, beside=True)
    assert [need.beside for need in needs(run(SECOND, Shadow(3)), now=NOW)] == [False] * 3
    later = NOW + 15 * DAY
    assert [need.release for need in needs(SECOND, now=later)] == [2]
    off = Policy(after=AfterPolicy(sample=0))
    quiet = run(SECOND, Configure(policy=off, digest="sha256:off"))
    assert not any(need.beside for need in needs(quiet, now=NOW))


def test_an_empty_endpoint_needs_nothing() -> None:
    """Registering loads nothing."""
    assert held(EMPTY) == []


def test_production_is_needed_where_its_release_says_and_nothing_is_served_without_it() -> None:
    """It is the only essential one."""
    assert needs(FIRST, now=NOW) == (NeededRelease(release=1, placement=INLINE, essential=True),)
    apart = run(endpoint(release(1, placement=PROCESS)), Promote(1))
    assert needs(apart, now=NOW) == (
        NeededRelease(release=1, placement=PROCESS, essential=True, copies=2),
    )


def test_the_way_back_is_held_beside_production() -> None:
    """A rollback lands on what is loaded."""
    assert held(SECOND) == [(2, INLINE), (1, INLINE)]
    assert [need.essential for need in needs(SECOND, now=NOW)] == [True, False, False]


@pytest.mark.parametrize("command", [Shadow(3), Canary(3, 100)])
def test_a_candidate_runs_in_a_process_whatever_its_release_says(command: Shadow | Canary) -> None:
    """It has not earned a place inside the gateway."""
    assert held(run(SECOND, command)) == [(2, INLINE), (3, PROCESS), (1, INLINE)]


def test_the_previous_release_as_a_candidate_is_held_twice() -> None:
    """As candidate apart, as the way back in its place."""
    assert held(run(SECOND, Canary(1, 100))) == [(2, INLINE), (1, PROCESS), (1, INLINE)]


def test_after_a_promotion_the_new_and_the_old_production_are_held() -> None:
    """Each where its release says."""
    promoted = run(SECOND, Canary(3, 5000), Promote(full=True))
    assert held(promoted) == [(3, INLINE), (2, INLINE)]


def test_after_a_rollback_the_next_way_back_is_held_and_the_condemned_is_not() -> None:
    """Two rollbacks in a row go two steps back."""
    third = run(SECOND, Promote(3, override="a test"))
    assert held(run(third, Rollback())) == [(2, INLINE), (1, INLINE)]
    assert held(run(third, Rollback(), Rollback())) == [(1, INLINE)]


def test_the_releases_that_a_command_wishes_for_are_held_before_the_ways_back() -> None:
    """More important first: the pool loads one after the other."""
    assert held(SECOND, (3, INLINE)) == [(2, INLINE), (3, INLINE), (1, INLINE)]


def test_a_release_with_two_reasons_is_held_once() -> None:
    """And stays essential."""
    assert held(SECOND, (1, INLINE), (2, INLINE)) == [(2, INLINE), (1, INLINE)]
    assert needs(SECOND, ((2, INLINE, 1),), now=NOW)[0].essential


def test_a_wish_for_a_release_that_is_not_known_yet_is_passed_over() -> None:
    """Its author may have read a newer row."""
    assert held(SECOND, (9, INLINE)) == [(2, INLINE), (1, INLINE)]


def test_the_same_release_may_be_wished_for_in_another_place() -> None:
    """A candidate is prepared inline before its last step."""
    assert held(run(SECOND, Canary(3, 100)), (3, INLINE)) == [
        (2, INLINE),
        (3, PROCESS),
        (3, INLINE),
        (1, INLINE),
    ]


def test_the_ways_back_stay_for_the_window_and_not_a_second_longer() -> None:
    """After it a rollback has to load first; production and candidate are held for ever."""
    state = run(SECOND, Canary(3, 100))
    assert held(state, now=NOW + 14 * DAY) == [(2, INLINE), (3, PROCESS), (1, INLINE)]
    assert held(state, now=NOW + 14 * DAY + 1) == [(2, INLINE), (3, PROCESS)]


def test_the_window_is_the_policys() -> None:
    """And starts at the last flip of production."""
    short = run(SECOND, Configure(policy=Policy(back_window="90s"), digest="sha256:short"))
    assert within_window(short, NOW + 90)
    assert not within_window(short, NOW + 91)
    later = "2026-02-01T00:00:00.000000Z"
    flipped = run(short, Promote(3, override="a test"), at=later)
    assert within_window(flipped, datetime.fromisoformat(later).timestamp() + 90)


def test_a_rollout_does_not_move_the_window() -> None:
    """Only a flip of production does."""
    canaried = run(SECOND, Canary(3, 100), at="2026-03-01T00:00:00.000000Z")
    assert not within_window(canaried, NOW + 15 * DAY)


def test_before_the_first_flip_the_window_is_open() -> None:
    """There is nothing to measure from."""
    assert within_window(EMPTY, NOW)


def test_the_three_ways_back_are_held_when_they_differ() -> None:
    """An axis rollback may land on a pair that never served."""
    state = msgspec.structs.replace(FIRST, back=2, back_model=3, back_features=1)
    assert held(state) == [(1, INLINE), (2, INLINE), (3, INLINE)]


APART = endpoint(*(release(number, placement=PROCESS) for number in (1, 2, 3)))


def two(state: State, *wanted: tuple[int, Placement, int], now: float = NOW) -> list[int]:
    """Which releases one host runs two processes for."""
    return [need.release for need in needs(state, wanted, now=now) if need.copies == 2]


def test_production_and_every_way_back_have_a_second_process_and_a_candidate_has_none() -> None:
    """What one command makes production has both of its processes before it is."""
    state = run(APART, Promote(1), Promote(2, override="a test"), Canary(3, 100))
    assert two(state) == [2, 1]
    assert two(run(state, Promote(full=True))) == [3, 2]
    axes = msgspec.structs.replace(state, candidate=None, back=1, back_model=3, back_features=1)
    assert two(axes) == [2, 1, 3]
    assert two(state, now=NOW + 15 * DAY) == [2]
    inline = run(SECOND, Canary(3, 100))
    assert two(inline) == []
    assert {need.copies for need in needs(SECOND, now=NOW) if need.beside} == {1}


def test_a_wish_says_how_many_processes_a_command_needs() -> None:
    """A candidate that becomes production gets its second process while it is still a candidate."""
    state = run(APART, Promote(1), Canary(3, 100))
    assert two(state) == [1]
    assert two(state, (3, PROCESS, 2)) == [1, 3]
    assert [need.release for need in needs(state, ((3, PROCESS, 2),), now=NOW)] == [1, 3]
    assert two(run(SECOND, Canary(3, 100)), (3, INLINE, 2)) == []


@pytest.mark.parametrize("where", [INLINE, PROCESS])
def test_a_drill_holds_all_that_was_held_before_it(where: Placement) -> None:
    """Also when the window is over: the left release is restored, and a rollback stays where it is."""
    three = run(
        endpoint(
            release(1, placement=where), release(2, placement=where), release(3, placement=where)
        ),
        Promote(1),
        Promote(2, override="a test"),
        Promote(3, override="a test"),
    )
    drill = run(three, Drill(until=9.0))
    assert {(n.release, n.placement, n.beside) for n in needs(drill, now=NOW)} == {
        (n.release, n.placement, n.beside) for n in needs(three, now=NOW)
    }
    copies = 2 if where is PROCESS else 1
    assert needs(drill, now=NOW)[0] == NeededRelease(2, where, essential=True, copies=copies)
    late = needs(drill, now=NOW + 15 * DAY)
    assert [(n.release, n.placement) for n in late] == [(2, where), (3, where)]
    assert needs(run(drill, Return()), now=NOW) == needs(three, now=NOW)


def test_in_a_drill_both_ends_have_a_process_beside_them_where_they_run_in_one() -> None:
    """Of what is loaded inline there is one process, to be compared with, as before."""
    inline = endpoint(release(1), release(2))
    for state, expected in ((APART, [1, 2]), (inline, [])):
        drill = run(state, Promote(1), Promote(2, override="a test"), Drill(until=9.0))
        assert sorted(two(drill)) == expected
