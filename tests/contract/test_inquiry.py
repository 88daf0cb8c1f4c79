"""Control's own diagnoses: when one is begun, how it ends, and that nothing waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from contract.sql_world import POLICY, World, world
from contract.test_alerts import HandClock
from contract.test_records import row
from kedge.adapters.records.spool import Spool
from kedge.core.alerts.alerts import Sight
from kedge.core.automation import Decision
from kedge.core.diagnosis.findings import Cause
from kedge.core.evidence.records import Outcome
from kedge.core.release.commands import Promote
from kedge.core.stored.ledger import Note
from kedge.core.values import State
from kedge.engine.control.diagnosis import AGAIN_S, EVERY_S, LABELS, LOOK_S, WITHIN_S, Inquiry
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.workspace import Workplace
from support.waiting import wait_until
from unit.test_summary import finding

LATE = Decision("fail", "late_regression", "quality is worse")


class Place:
    """An endpoint whose diagnosis is a process that does as it is told."""

    def __init__(self, tmp_path: Path) -> None:
        self.world: World = world(tmp_path, releases=2, configured=False)
        self.world.configure(POLICY)
        self.world.do(Promote(release=1))
        self.world.do(Promote(release=2, override="a test"))
        self.place = Workplace(self.world.state_dir)
        self.clock = HandClock()
        self.begun = tmp_path / "begun"
        self.program = "pass"
        self.sight = Sight()
        self.leads = True
        self.inquiry = self.fresh()
        self.number = 0

    def fresh(self) -> Inquiry:
        place = Workplace(self.world.state_dir)
        return Inquiry(
            Duty(self.clock, ProcessFaults(self.clock), leads=lambda: self.leads, by="patrol@here"),
            ledger=place.ledger,
            records=place.records,
            sight=lambda: self.sight,
            command=self.command,
        )

    def command(self, state: State, within_s: float) -> Sequence[str]:
        note = f"open({str(self.begun)!r}, 'a').write('{state.endpoint} {within_s:g}\\n')"
        return sys.executable, "-c", f"{note}\n{self.program}"

    def look(self) -> None:
        """Look until what was begun, if anything, has ended."""
        self.inquiry.look()
        wait_until(self._over, "its end", 20)

    def _over(self) -> bool:
        self.inquiry.look()
        return self.inquiry._running is None

    @property
    def times(self) -> int:
        return len(self.begun.read_text().splitlines()) if self.begun.exists() else 0

    def label(self, n: int) -> None:
        """So many predictions with their outcomes."""
        names = [f"a{self.number + k}/0" for k in range(n)]
        self.number += n
        spool = Spool(self.place.records.spool, "w0")
        spool.append([row(name, at=self.clock.unix()) for name in names])
        spool.close()
        self.place.records.ingest(self.clock.unix())
        self.place.records.join(
            "flights", [Outcome(name, 1.0) for name in names], self.clock.unix()
        )

    def fail(self) -> None:
        self.sight = Sight({"flights": (self.world.row().epoch, LATE)})


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.inquiry._end("the test is over")


def test_new_labels_are_asked_about_every_hour(at: Place) -> None:
    at.look()
    assert at.times == 0
    at.label(LABELS - 1)
    at.clock.go(LOOK_S)
    at.look()
    assert at.times == 0
    at.label(1)
    at.clock.go(LOOK_S)
    at.look()
    assert at.times == 1
    at.label(LABELS)
    at.clock.go(EVERY_S - 1)
    at.look()
    assert at.times == 1
    at.clock.go(LOOK_S)
    at.look()
    assert at.times == 2
    at.clock.go(2 * EVERY_S)
    at.look()
    assert at.times == 2


def test_a_failure_after_a_promotion_is_asked_about_at_once_and_once(at: Place) -> None:
    at.fail()
    at.look()
    at.clock.go(AGAIN_S)
    at.look()
    assert at.begun.read_text() == f"flights {WITHIN_S:g}\n"
    at.world.do(Promote(release=1, override="a test"))
    at.look()
    assert at.times == 1
    at.fail()
    at.look()
    assert at.times == 2
    at.world.do(Promote(release=2, override="a test"))
    at.fail()
    at.clock.go(AGAIN_S - 1)
    at.look()
    assert at.times == 2


def test_another_control_continues_from_the_records(at: Place) -> None:
    at.label(LABELS)
    known = finding(Cause.NOISE, at=at.clock.unix() - 60)
    note = Note(kind="finding", body=msgspec.to_builtins(known))
    at.place.ledger.note("flights", note, by="me", reason="", at=at.clock.now())
    at.look()
    at.clock.go(EVERY_S)
    at.look()
    assert at.times == 0
    at.label(LABELS)
    at.clock.go(LOOK_S)
    at.look()
    assert at.times == 1


def test_a_finding_that_cannot_be_read_prevents_no_new_diagnosis(at: Place) -> None:
    at.label(LABELS)
    note = Note(kind="finding", body={"from": "the future"})
    at.place.ledger.note("flights", note, by="me", reason="", at=at.clock.now())
    at.look()
    assert at.times == 1


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)"])
def test_one_that_dies_is_not_restarted_at_once(at: Place, program: str) -> None:
    at.program = program
    at.label(LABELS)
    at.look()
    at.label(LABELS)
    at.clock.go(AGAIN_S)
    at.look()
    assert at.times == 1


def test_one_that_hangs_is_ended_with_all_that_it_started(at: Place) -> None:
    pid = at.begun.parent / "pid"
    at.program = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid)!r}, 'w').write(str(p.pid))\ntime.sleep(600)"
    )
    at.label(LABELS)
    began = time.monotonic()
    at.inquiry.look()
    assert time.monotonic() - began < 5
    wait_until(lambda: pid.exists() and pid.read_text(), "what it starts", 20)
    at.fail()
    at.inquiry.look()
    assert at.times == 1
    at.clock.go(WITHIN_S)
    at.inquiry.look()
    assert at.inquiry._running is None
    wait_until(lambda: _gone(int(pid.read_text())), "the end of both", 10)


def _gone(pid: int) -> bool:
    """Dead, or waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


def test_without_the_ledger_nothing_is_started(at: Place, tmp_path: Path) -> None:
    at.label(LABELS)
    ledger = at.world.state_dir / "ledger"
    ledger.rename(tmp_path / "away")
    at.inquiry.look()
    assert at.inquiry._running is None
    (tmp_path / "away").rename(ledger)
    at.clock.go(LOOK_S)
    at.look()
    assert at.times == 1
