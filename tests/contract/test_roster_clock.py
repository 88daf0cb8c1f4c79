"""Heartbeats by a clock that processes share and that never jumps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kedge.adapters.clock import SystemClock
from kedge.adapters.sql.roster import SqlRoster
from kedge.adapters.sql.sqlite.create import open_roster
from kedge.core.stored.roster import Member

DAY_S = 86_400.0


@dataclass
class Hands:
    """A clock that a test moves."""

    wall: float = 1_800_000_000.0
    running: float = 500.0
    boot: str = "one"
    slept: list[float] = field(default_factory=list)

    def now(self) -> str:
        return ""

    def unix(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.running

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def member(clock: Hands) -> Member:
    return Member(
        name="here/w0.1",
        host="here",
        pid=1,
        kind="gateway",
        address="",
        started_at="",
        beat_at=clock.unix(),
        ledger_at=clock.unix() - 4,
    )


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S, -300 * DAY_S, 0.0])
def test_an_age_is_what_passed_whatever_the_wall_clock_did(tmp_path: Path, jump_s: float) -> None:
    clock = Hands()
    roster = SqlRoster(open_roster(tmp_path), clock)
    roster.publish(member(clock))
    clock.wall += jump_s + 7
    clock.running += 7
    (found,) = roster.members()
    assert clock.wall - found.beat_at == pytest.approx(7)
    assert clock.wall - found.ledger_at == pytest.approx(11)


@pytest.mark.parametrize(
    ("passed_s", "age_s"), [(3.0, 3.0), (9.0, 9.0), (-1.0, 0.0), (-5.0, None), (-DAY_S, None)]
)
def test_a_row_by_another_clock_is_taken_as_it_says_within_bounds(
    tmp_path: Path, passed_s: float, age_s: float | None
) -> None:
    """Before a reboot, or on another machine: a row of the future is silence."""
    clock = Hands()
    SqlRoster(open_roster(tmp_path), clock).publish(member(clock))
    clock.wall += passed_s
    other = Hands(wall=clock.wall, running=1.0, boot="two")
    (found,) = SqlRoster(open_roster(tmp_path), other).members()
    if age_s is None:
        assert (found.beat_at, found.ledger_at) == (0.0, 0.0)
    else:
        assert other.wall - found.beat_at == pytest.approx(age_s)


def test_processes_of_one_host_share_the_clock() -> None:
    assert SystemClock().boot == SystemClock().boot != ""
