"""The candidate's own failures, folded from the windows of several workers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kedge.core.evidence.faults import Faults, FaultSpread, Sources, folded
from kedge.core.evidence.windows import BadUnit, Conduct, Window


def window(
    at: int,
    *,
    replica: str = "w0",
    weight: int = 500,
    paired: bool = False,
    more: dict[str, Any] | None = None,
    **conduct: Any,
) -> Window:
    return Window(
        replica=replica,
        number=at,
        endpoint="flights",
        production=1,
        candidate=2,
        salt="s",
        at=at,
        weight=weight,
        paired=paired,
        conduct=Conduct(**conduct),
        **(more or {}),
    )


def fold(*windows: Window, own: bool = True) -> Faults:
    faults = Faults()
    for one in windows:
        faults = folded(faults, one, own=own)
    return faults


# ---------------------------------------------------------------- runs of failures


def test_a_run_of_one_caller_is_no_streak_and_one_of_three_is() -> None:
    known: dict[str, Any] = {"callers": (1, 2, 3)}
    one = window(1, more={"streak": 50}, streak_callers=(1,), **known)
    three = window(2, more={"streak": 20}, streak_callers=(1, 2, 3), **known)
    assert fold(one).streak == 0
    assert fold(one, three).streak == fold(three, one).streak == 20


def test_where_fewer_callers_ask_all_of_them_are_enough() -> None:
    assert fold(window(1, more={"streak": 20}, streak_callers=(1,), callers=(1,))).streak == 20
    more = window(2, replica="w1", callers=(2,))
    assert fold(window(1, more={"streak": 20}, streak_callers=(1,), callers=(1,)), more).streak == 0


def test_a_run_without_callers_needs_three_seconds() -> None:
    assert fold(window(1, more={"streak": 30}, streak_seconds=2)).streak == 0
    assert fold(window(1, more={"streak": 30}, streak_seconds=3)).streak == 30


def test_a_window_of_an_older_worker_says_nothing() -> None:
    """It has no conduct: nothing is known of whose failures they are."""
    assert fold(window(1, more={"streak": 30})).streak == 0


# ---------------------------------------------------------------- crashes and silence


def test_a_crash_that_two_workers_saw_is_one() -> None:
    """Their windows may name neighbouring seconds."""
    seen = [window(5, crashes=1), window(6, replica="w1", crashes=1), window(9, crashes=1)]
    assert fold(*seen).crashes == 2


def test_a_silence_counts_when_it_is_longer_than_every_workers_patience() -> None:
    short, long = window(9, patience_s=3.0), window(9, replica="w1", patience_s=12.0)
    silent = window(14, patience_s=3.0, silent_s=4.5)
    assert fold(short, silent).silence_s == 4.5
    assert fold(short, long, silent).silence_s == 0.0
    late = window(90, patience_s=3.0, silent_s=4.5)
    assert fold(short, long, late).silence_s == 4.5, "a worker that is gone holds up nothing"


def test_a_sign_to_any_worker_ends_a_silence() -> None:
    silent = window(20, silent_s=8.0, patience_s=3.0)
    assert fold(window(11, replica="w1", answered=1), silent).silence_s == 8.0
    assert fold(window(17, replica="w1", answered=1), silent).silence_s == 0.0
    assert fold(silent, window(21, answered=1)).silence_s == 0.0


def test_workers_that_are_gone_are_forgotten() -> None:
    many = [window(at * 2, replica=f"w{at}", patience_s=3.0) for at in range(500)]
    assert len(fold(*many).patience) < 100


# ---------------------------------------------------------------- what was never asked


def test_requests_that_were_never_sent_are_counted_by_step() -> None:
    first = [window(1, routed=10, unasked={"model_down": 4}), window(2, routed=10, late=3)]
    both = fold(*first, window(3, routed=5, unasked={"model_down": 1, "breaker_open": 2}))
    assert (both.routed, both.unasked) == (25, {"model_down": 5, "breaker_open": 2})
    assert both.late == 3
    after = folded(both, window(9, weight=2_500, routed=7))
    assert (after.routed, after.unasked) == (7, {})


# ---------------------------------------------------------------- whose the bad units are


def bad(unit: int, arm: int = 1, metric: int = 0) -> BadUnit:
    return BadUnit(unit=unit, metric=metric, arm=arm, segments=())


def test_in_a_canary_an_error_is_a_callers_only_when_production_answered_it() -> None:
    """What both fail is the request's: chosen callers who send it condemn no release."""
    poison = window(1, more={"units": (bad(1), bad(2), bad(3))}, callers=(1, 2, 3))
    assert fold(poison).spread("errors") == FaultSpread(0, 0, 3)
    real = window(2, failed_callers=(1, 2, 3), callers=(1, 2, 3))
    assert fold(poison, real).spread("errors").enough


@pytest.mark.parametrize("own", [True, False])
def test_elsewhere_they_are_those_of_the_bad_units(own: bool) -> None:
    units = (bad(1), bad(2), bad(3, arm=0), bad(2, metric=2), bad(9, metric=2))
    cells = {"errors": {"": (3, 0)}, "latency.p99": {"": (0, 2), "origin=JFK": (0, 1)}}
    found = fold(window(7, paired=own, more={"units": units, "bad": cells}), own=own)
    assert found.spread("errors") == FaultSpread(2, 0, 3)
    assert found.spread("latency.p99") == FaultSpread(2, 1, 3)
    assert found.spread("violations") == FaultSpread(0, 0, 3)


def test_seconds_are_counted_each_once_and_no_further_than_needed() -> None:
    seen = [window(at, failed=4) for at in (5, 5, 6, 8, 9, 10)]
    assert [fold(*seen[:n]).spread("errors").seconds for n in range(1, 7)] == [1, 1, 2, 3, 3, 3]
    assert fold(*seen).sources == {"errors": Sources((), (5, 6, 8))}


def test_the_conduct_of_the_release_that_was_left_is_not_productions() -> None:
    """After a promotion production is judged, and the other one's crashes are its own."""
    found = fold(
        window(1, crashes=1, routed=9, more={"streak": 50}, streak_seconds=3, callers=(4,)),
        own=False,
    )
    assert msgspec.structs.replace(found, callers=()) == Faults()


@pytest.mark.parametrize(
    ("spread", "text"),
    [
        (FaultSpread(), "no caller"),
        (FaultSpread(1), "1 caller"),
        (FaultSpread(3), "at least 3 callers"),
        (FaultSpread(2, 1), "2 callers and 1 second without a caller's name"),
        (FaultSpread(0, 3), "at least 3 seconds without callers' names"),
    ],
)
def test_it_says_how_many(spread: FaultSpread, text: str) -> None:
    assert spread.text == text
