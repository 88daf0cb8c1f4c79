"""Rolls are sums: nothing is lost between seconds, minutes and hours."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kedge.core.evidence.rollup import HOUR, MINUTE, SEGMENTS, Roll, roll_of, rolled
from kedge.core.evidence.windows import CANDIDATE, Agreement, BadUnit, Spent, Window


def window(at: int, **more: Any) -> Window:
    known: dict[str, Any] = {
        "replica": "w0",
        "number": at,
        "endpoint": "flights",
        "production": 1,
        "candidate": 2,
        "salt": "s",
        "at": at,
        "weight": 500,
        "paired": False,
        "exposed": {"": (10, 1)},
    }
    return Window(**{**known, **more})


def total(rolls: list[Roll]) -> list[int]:
    return [sum(roll.exposed.get("", (0, 0))[arm] for roll in rolls) for arm in (0, 1)]


@given(st.lists(st.tuples(st.integers(0, 3 * HOUR), st.integers(0, 9), st.integers(0, 9))))
def test_minutes_and_hours_add_up_to_the_seconds(seen: list[tuple[int, int, int]]) -> None:
    windows = [window(at, number=n, exposed={"": (p, c)}) for n, (at, p, c) in enumerate(seen)]
    minutes = rolled(map(roll_of, windows), MINUTE)
    hours = rolled(minutes, HOUR)
    wanted = [sum(p for _, p, _ in seen), sum(c for _, _, c in seen)]
    assert total(minutes) == total(hours) == wanted
    assert hours == rolled(map(roll_of, windows), HOUR)
    assert all(roll.at % roll.span == 0 for roll in minutes + hours)


def test_every_count_is_there() -> None:
    one = window(
        61,
        exposed={"": (9, 9), "origin=JFK": (3, 3)},
        bad={"errors": {"": (1, 0)}},
        units=(BadUnit(7, 0, CANDIDATE, ("origin=JFK",)),),
        agreement={"": Agreement(4, 3)},
        costs={"": Spent((1, 2.0, 4.0))},
        mirrored=5,
        copied=4,
        lost=3,
    )
    (found,) = rolled([roll_of(one), roll_of(one)], MINUTE)
    assert (found.at, found.span) == (60, MINUTE)
    assert found.bad == {"errors": {"": (2, 2), "origin=JFK": (0, 2)}}
    assert found.agreement[""] == Agreement(8, 6)
    assert found.costs[""].production == (2, 4.0, 8.0)
    assert (found.mirrored, found.copied, found.lost) == (10, 8, 6)


def test_strata_and_comparisons_are_kept_apart() -> None:
    """Pooled over a ramp they would mislead (Simpson)."""
    rolls = rolled(map(roll_of, [window(1), window(2, weight=2_500), window(3, candidate=3)]), HOUR)
    assert len(rolls) == 3


def test_segments_are_bounded_by_their_traffic_and_what_is_left_out_is_counted() -> None:
    cells = {f"tail=N{n}": (n, 0) for n in range(SEGMENTS + 50)}
    (found,) = rolled([roll_of(window(1, exposed={"": (5, 5), **cells}))], MINUTE)
    assert len(found.exposed) == SEGMENTS + 1
    assert "" in found.exposed
    assert "tail=N0" not in found.exposed
    assert found.left_out == 50
