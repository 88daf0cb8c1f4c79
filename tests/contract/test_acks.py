"""Acks of a command: from a real roster, by a clock that a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kedge.adapters.sql.roster import SqlRoster
from kedge.adapters.sql.sqlite.create import open_roster
from kedge.core.stored.roster import Member
from kedge.engine.submission import Control


@dataclass
class Steps:
    """A clock, and a wake-up that moves it: at each wait something may happen."""

    running: float = 100.0
    at: dict[int, Any] = field(default_factory=dict)
    waited: int = 0
    boot: str = "one"

    def now(self) -> str:
        return ""

    def unix(self) -> float:
        return 1_800_000_000.0 + self.running

    def monotonic(self) -> float:
        return self.running

    def sleep(self, seconds: float) -> None:
        self.running += seconds

    def wait(self, _: float) -> bool:
        self.running += 0.5
        self.waited += 1
        self.at.get(self.waited, lambda: None)()
        return True

    def close(self) -> None: ...


def member(name: str, epoch: int) -> Member:
    return Member(
        name=name,
        host="here",
        pid=1,
        kind="gateway",
        address="",
        started_at="",
        beat_at=0.0,
        ledger_at=0.0,
        epochs={"flights": epoch},
    )


@pytest.fixture
def steps(tmp_path: Path) -> tuple[Steps, SqlRoster, Control]:
    clock = Steps()
    roster = SqlRoster(open_roster(tmp_path), clock)
    control = Control(ledger=None, roster=roster, signal=clock, clock=clock)  # type: ignore[arg-type]
    for name in ("one", "two"):
        roster.publish(member(name, 4))
    return clock, roster, control


def test_a_replica_that_ends_before_its_ack_is_waited_for_three_seconds(
    steps: tuple[Steps, SqlRoster, Control],
) -> None:
    clock, roster, control = steps
    members = roster.members()
    clock.at = {1: lambda: roster.publish(member("one", 5)), 2: lambda: roster.leave("two")}
    acks, ended = control._await_acks("flights", 5, members, clock.running)
    assert (set(acks), ended) == ({"one"}, {"two"})
    assert clock.running - 100.0 == pytest.approx(4.0, abs=0.6)


def test_replicas_of_a_new_roster_are_awaited(
    steps: tuple[Steps, SqlRoster, Control],
) -> None:
    clock, roster, control = steps
    members = roster.members()
    clock.at = {
        1: lambda: [roster.leave(name) for name in ("one", "two")],  # type: ignore[func-returns-value]
        3: lambda: [roster.publish(member(name, 4)) for name in ("one", "two")],  # type: ignore[func-returns-value]
        12: lambda: roster.publish(member("one", 5)),
    }
    acks, ended = control._await_acks("flights", 5, members, clock.running)
    assert (set(acks), ended) == ({"one"}, set())
    assert clock.running - 100.0 == pytest.approx(10.0, abs=0.6)
