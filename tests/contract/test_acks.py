"""Acks of a command: from a real roster, by a clock that a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kedge.adapters.sql.roster import SqlRoster
from kedge.adapters.sql.sqlite.create import open_roster
from kedge.core.stored.roster import Member
from kedge.core.values import State
from kedge.engine import submission
from kedge.engine.submission import Control, Hooks


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


AFTER = State(endpoint="flights", epoch=5, production=1)


@pytest.mark.parametrize(
    ("answers", "reported", "asked", "waited"),
    [
        ({"one": 1, "two": 1}, False, ["one"], 0),
        ({"one": 2, "two": 1}, False, ["one", "two"], 0),
        ({"one": None}, True, ["one"], 0),
        ({}, False, ["one", "two"], 1),
    ],
)
def test_a_first_answer_is_asked_for_at_once(
    steps: tuple[Steps, SqlRoster, Control],
    answers: dict[str, int | None],
    reported: bool,
    asked: list[str],
    waited: int,
) -> None:
    """By a probe of each replica in turn; else, and where there is no probe, from the roster."""
    clock, roster, _ = steps
    seen: list[str] = []

    def probe(one: Member, endpoint: str, epoch: int) -> int | None:
        seen.append(one.name)
        return answers.get(one.name)

    control = Control(
        ledger=None,  # type: ignore[arg-type]
        roster=roster,
        signal=clock,  # type: ignore[arg-type]
        clock=clock,
        hooks=Hooks(probe=probe),
    )
    if reported:
        roster.publish(replace(member("two", 5), answered={"flights": 5}))
    found = control._first_answer("flights", AFTER, roster.members(), clock.running)
    assert (seen, clock.waited) == (asked, waited)
    assert (found is not None) == (bool(answers))


def test_without_a_probe_the_first_answer_is_that_of_the_traffic(
    steps: tuple[Steps, SqlRoster, Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, roster, control = steps
    monkeypatch.setattr(submission, "ANSWER_S", 10.0)
    answered = replace(member("two", 5), answered={"flights": 5})
    clock.at = {3: lambda: roster.publish(answered)}
    found = control._first_answer("flights", AFTER, roster.members(), clock.running)
    assert (found, clock.waited) == (1500.0, 3)
