"""Progress: nothing within a second, then how far it is, and how long the rest takes."""

from __future__ import annotations

import pytest

from kedge.operations.progress import EVERY_S, FIRST_S, Progress, duration


def test_what_is_over_within_a_second_says_nothing_and_the_rest_says_how_far_it_is() -> None:
    lines: list[str] = []
    now = [0.0]
    work = Progress(lines.append, lambda: now[0], "rows made", 400)
    work.add(10)
    assert lines == []
    now[0] = FIRST_S
    work.add(90)
    now[0] += EVERY_S - 0.1
    work.add(100)
    now[0] += 0.2
    work.add(200)
    assert lines == ["100 of 400 rows made; about 3 s left", "400 of 400 rows made"]


def test_of_an_unknown_number_only_what_is_done_is_said() -> None:
    lines: list[str] = []
    clock = iter([0.0, 2.0])
    Progress(lines.append, lambda: next(clock), "labels read").add(20_000, ", up to noon")
    assert lines == ["20,000 labels read, up to noon"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.1, "1 s"), (59, "59 s"), (61, "2 min"), (9_000, "2.5 h")]
)
def test_durations_are_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said
