"""Progress: nothing within a second, then how far it is, and how long the rest takes."""

from __future__ import annotations

import pytest

from kedge.cli.screen.bar import cut, get_line
from kedge.operations.progress import (
    DRAWN_S,
    EVERY_S,
    FIRST_S,
    Advance,
    Meter,
    Progress,
    duration,
)


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


class Drawn(Meter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.moves: list[Advance] = []

    def __call__(self, text: str) -> None:
        raise AssertionError(text)

    def move(self, advance: Advance) -> None:
        self.moves.append(advance)


def test_where_progress_is_drawn_it_is_drawn_often_and_says_the_same() -> None:
    now, drawn = [0.0], Drawn()
    work = Progress(drawn, lambda: now[0], "rows made", 400)
    for _ in range(3):
        now[0] += DRAWN_S
        work.add(100)
    assert drawn.moves == [
        Advance(100, 400, "100 of 400 rows made; about 1 s left"),
        Advance(200, 400, "200 of 400 rows made; about 1 s left"),
        Advance(300, 400, "300 of 400 rows made; about 1 s left"),
    ]


@pytest.mark.parametrize(
    ("advance", "width", "line"),
    [
        (Advance(1, 4, "1 of 4"), 40, " 25% ━━━━━━━────────────────────  1 of 4"),
        (Advance(4, 4, "4 of 4"), 21, "100% 4 of 4"),
        (Advance(5, 4, "5 of 4"), 80, f"100% {'━' * 30}  5 of 4"),
        (Advance(7, 0, "7 labels read"), 80, "7 labels read"),
        (Advance(7, 0, "7 \x1b[2J日本"), 13, "7 \\u001b[2J日"),
    ],
)
def test_a_bar_is_a_line_that_fits(advance: Advance, width: int, line: str) -> None:
    assert get_line(advance, width) == line


def test_a_wide_character_is_never_cut_in_half() -> None:
    assert [cut("日本", width) for width in range(5)] == ["", "", "日", "日", "日本"]
