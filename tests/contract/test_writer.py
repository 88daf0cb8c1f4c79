"""The recording's thread: it survives whatever is raised in it, and its silence is a fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge.adapters.clock import SystemClock
from kedge.core.evidence.records import JoinRow
from kedge.core.evidence.windows import PRODUCTION
from kedge.core.values import LogPolicy, Policy, Stage, State
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.recording.observation import Observation
from kedge.engine.replica import writer as recording_file
from kedge.engine.replica.writer import SILENT, Recording
from kedge.engine.request import Request
from kedge.workspace import Workplace
from support.waiting import wait_until

STATE = State(
    endpoint="e", stage=Stage.SETTLED, production=1, policy=Policy(log=LogPolicy(sample=100.0))
)


class Clock(SystemClock):
    """Time that can be moved on."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Pen:
    """A recording whose spool does what it is told."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = Clock()
        self.act: Callable[[], None] = lambda: None
        self.rows = 0
        place = Workplace(tmp_path)
        self.recording = Recording(
            Duty(self.clock, ProcessFaults(self.clock)),
            "w0",
            windows=place.windows,
            evidence=place.evidence,
            spool=self.spool,
            lives=list,
        )
        self.recorder = self.recording.recorder(STATE, "w0")

    def spool(self, rows: Sequence[JoinRow]) -> int:
        self.act()
        self.rows += len(rows)
        return 0

    def ask(self) -> None:
        """A request that is answered and counted."""
        names = ("production", "requests.production", "rows.production")
        self.recorder.answered(names, 1, 9, keyless=False)
        self.offer()

    def offer(self) -> None:
        """An observation alone."""
        request = Request(id="q", columns={"x": np.array([1.0])}, rows=1, entity="u", draw=0)
        answer: dict[str, Any] = {"y": np.array([0.5])}
        self.recording.recorder(STATE, "w0").offer(
            Observation(1.0, request, PRODUCTION, 9, failed=False, weight=0, ours=answer)
        )


@pytest.fixture
def pen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pen:
    monkeypatch.setattr(recording_file, "BEAT_S", 0.02)
    return Pen(tmp_path)


def test_a_recording_that_hangs_while_requests_come_is_a_fault(pen: Pen) -> None:
    held = threading.Event()
    pen.recording.start()
    try:
        pen.ask()
        wait_until(lambda: pen.rows == 1, "the first row")
        entered = threading.Event()

        def hang() -> None:
            entered.set()
            held.wait(20)

        pen.act = hang
        pen.ask()
        assert entered.wait(10)
        assert pen.recording.fault() == ""
        pen.ask()
        pen.clock.ahead = 5.5
        assert pen.recording.fault() == SILENT
        held.set()
        wait_until(lambda: pen.recording.fault() == "", "the fault to end")
    finally:
        held.set()
        pen.recording.close(5)


def test_silence_without_requests_is_none(pen: Pen) -> None:
    held = threading.Event()
    pen.recording.start()
    try:
        pen.ask()
        wait_until(lambda: pen.rows == 1, "the first row")
        wait_until(lambda: pen.recording._told_requests == 1, "a beat that knows of it")
        entered = threading.Event()

        def hang() -> None:
            entered.set()
            held.wait(20)

        pen.act = hang
        pen.offer()
        assert entered.wait(10)
        pen.clock.ahead = 60
        assert pen.recording.fault() == ""
    finally:
        held.set()
        pen.recording.close(5)


@pytest.mark.parametrize("error", [SystemExit("no"), RuntimeError("x"), KeyboardInterrupt()])
def test_no_exception_ends_the_thread(pen: Pen, error: BaseException) -> None:
    def fail() -> None:
        pen.act = lambda: None
        raise error

    pen.act = fail
    pen.recording.start()
    pen.ask()
    wait_until(lambda: type(error).__name__ in pen.recording.fault(), "the fault to be told")
    pen.ask()
    wait_until(lambda: pen.rows >= 1 and not pen.recording.fault(), "it to write again")
    pen.recording.close(5)


def test_predictions_that_cannot_be_written_are_counted_by_cause(pen: Pen) -> None:
    pen.recording._spool = len
    pen.offer()
    pen.recording.flush([(STATE, pen.recorder)])
    assert pen.recorder.tally().counts["unrecorded.spool"] == 1

    def fail(rows: object) -> int:
        raise ValueError("a fault of the recording")

    pen.recording._spool = fail
    pen.offer()
    pen.recording.flush([(STATE, pen.recorder)])
    assert pen.recorder.tally().counts["unrecorded.fault"] == 1


def test_predictions_beyond_a_recorders_bound_are_counted(
    pen: Pen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kedge.engine.recording.recorder.BOUND", 2)
    for _ in range(5):
        pen.offer()
    assert pen.recorder.tally().counts["unrecorded.recorder"] == 3
