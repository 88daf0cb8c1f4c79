"""A course has the whole comparison in a bounded number of points, and nothing of other ones."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kedge.core.evidence.rollup import Roll
from kedge.core.evidence.windows import Spent
from kedge.web.dashboard.course import POINTS, ComparedPair, Course, CourseLine

PAIR = ComparedPair(production=1, compared=2, salt="s", paired=False, reverse=False)


def roll(at: int, **more: Any) -> Roll:
    known: dict[str, Any] = {
        "endpoint": "flights",
        "production": 1,
        "candidate": 2,
        "salt": "s",
        "weight": 5_000,
        "paired": False,
        "at": at,
        "span": 60,
        "exposed": {"": (10, 20), "x=1": (1, 2)},
        "bad": {"errors": {"": (1, 4), "x=1": (1, 1)}},
    }
    return Roll(**{**known, **more})


def lines(course: Course) -> dict[str, CourseLine]:
    return {line.metric: line for line in course.lines()}


def test_both_releases_have_their_rate_over_time() -> None:
    course = Course(PAIR)
    course.add([roll(0), roll(0), roll(10, exposed={"": (5, 0)}, bad={})])
    errors = lines(course)["errors"]
    assert errors == CourseLine("errors", (0.0, 10.0), (0.1, 0.0), (0.2, None))
    assert "cost" not in lines(course)


def test_another_comparison_of_the_same_releases_is_left_out() -> None:
    course = Course(PAIR)
    course.add([roll(0, salt="earlier"), roll(0, paired=True), roll(0, candidate=3)])
    assert lines(course)["errors"].at == ()


def test_after_a_promotion_the_release_that_was_left_is_the_measure() -> None:
    """The windows name production first, and the page the measure."""
    course = Course(replace(PAIR, reverse=True))
    course.add([roll(0, costs={"": Spent((10, 5.0, 0.0), (20, 40.0, 0.0))})])
    found = lines(course)
    assert (found["errors"].production, found["errors"].candidate) == ((0.2,), (0.1,))
    assert (found["cost"].production, found["cost"].candidate) == ((2.0,), (0.5,))


def test_a_comparison_of_weeks_keeps_its_beginning_and_its_counts() -> None:
    course = Course(PAIR)
    for at in range(0, 30 * 86_400, 600):
        course.add([roll(at)])
    errors = lines(course)["errors"]
    assert POINTS // 4 <= len(errors.at) <= POINTS
    assert errors.at[0] == 0
    assert set(errors.production) == {0.1}
    assert set(errors.candidate) == {0.2}
