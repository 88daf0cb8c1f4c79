"""The candidate's deadlines: from production's latency, growing with the rows of a request."""

from __future__ import annotations

from kedge.core.release.commands import Promote, Shadow
from kedge.core.values import Arm, Limits
from kedge.engine.recording.recorder import Recorder
from kedge.engine.serving.deadlines import (
    DEADLINE_CEILING_S,
    DEADLINE_FLOOR_S,
    DEADLINE_MIN_ANSWERS,
    SILENT_RATIO,
    SILENT_S,
    UNKNOWN_DEADLINE_S,
    Deadlines,
)
from kedge.engine.serving.pool import LARGEST_S, Handle
from kedge.testing.samples import endpoint, release, run

ROW = run(endpoint(release(1), release(2)), Promote(1), Shadow(2))


def known(*answers: tuple[int, int, int], limits: Limits | None = None) -> Deadlines:
    """Deadlines after answers of production: how many, of how many rows, microseconds each."""
    recorder, found = Recorder("w0", ROW), Deadlines(limits or Limits())
    names = (Arm.PRODUCTION.value, "requests", "rows")
    for times, rows, micros in answers:
        for _ in range(times):
            recorder.answered(names, rows, micros, keyless=True)
    found.refresh(recorder)
    return found


def test_a_size_that_production_answered_often_has_twice_its_own_p99() -> None:
    found = known((1_000, 1, 2_000), (DEADLINE_MIN_ANSWERS, 1_024, 350_000))
    assert found.by_rows(1) == found.by_rows(0) <= 0.8, "of all requests, large ones among them"
    assert 0.7 <= found.by_rows(1_024) <= 0.8
    assert found.by_rows(600) == found.by_rows(1_024), "the size goes up to it"


def test_it_may_be_longer_than_the_ceiling_of_a_single_row() -> None:
    found = known((DEADLINE_MIN_ANSWERS, 1_000, 5_000_000))
    assert found.by_rows(1) == DEADLINE_CEILING_S
    assert 10 <= found.by_rows(1_000) <= 11.3
    assert known((300, 64, 50_000_000)).by_rows(64) == Limits().timeout_ms / 1e3


def test_one_that_was_seen_seldom_has_at_least_twice_its_slowest() -> None:
    found = known((1_000, 1, 100), (3, 512, 4_000_000))
    assert found.by_rows(1) == DEADLINE_FLOOR_S
    assert 8 <= found.by_rows(512) <= 9


def test_one_that_was_never_seen_grows_with_its_rows_up_to_the_ceiling() -> None:
    found = known((1_000, 1, 100))
    assert [found.by_rows(rows) for rows in (1, 2, 4, 8)] == [0.05, 0.1, 0.2, 0.4]
    assert found.by_rows(1_024) == DEADLINE_CEILING_S
    assert known().by_rows(1_024) == DEADLINE_CEILING_S
    assert known().by_rows(1) == UNKNOWN_DEADLINE_S


def test_a_declared_deadline_is_that_of_every_request() -> None:
    found = known((1_000, 1, 900_000), (300, 512, 900_000), limits=Limits(candidate_deadline_ms=70))
    assert found.by_rows(1) == found.by_rows(512) == 0.07


def test_a_small_request_may_wait_for_a_large_one_before_it_for_a_minute() -> None:
    """The process works on one batch at a time."""
    found = known((100_000, 1, 100), (300, 1_024, 350_000))
    handle = Handle(ROW.releases[2])
    assert found.behind(handle, 1, 5.0) == DEADLINE_FLOOR_S
    handle.asks(1_024, 5.0)
    handle.asks(2, 6.0)
    assert found.behind(handle, 1, 7.0) == found.by_rows(1_024)
    assert found.behind(handle, 1, 6.0 + LARGEST_S) == DEADLINE_FLOOR_S
    handle.asks(2, 6.0 + LARGEST_S)
    assert handle.before(6.0 + LARGEST_S) == 2


def test_the_answer_to_a_copy_is_waited_for_as_long_as_production_was_ever_seen_to_take() -> None:
    """Also while few answers are known; and as long as this very request took."""
    assert known((3, 1, 100)).copy_patience(0.0, 0.05) == SILENT_S
    assert 8 <= known((3, 1, 2_000_000)).copy_patience(0.0, 0.05) <= 9
    assert known((3, 1, 100)).copy_patience(5.0, 10.0) == SILENT_RATIO * 5
    assert known((3, 1, 100)).copy_patience(0.0, 12.0) == 12.0
    assert known((3, 1, 20_000_000)).copy_patience(0.0, 0.05) == 30.0


def test_a_silence_is_no_response_when_production_was_never_silent_for_so_long() -> None:
    assert known().patience(1) == 30.0, "production's own timeout, until it is known"
    assert known((1_000, 1, 100)).patience(1) == SILENT_S
    slow = known((999, 1, 100), (1, 1, 2_000_000)).patience(1)
    assert SILENT_RATIO * 2 <= slow <= SILENT_RATIO * 2.25
    assert known((1_000, 1, 20_000)).patience(1_024) == 30.0
    assert known((1_000, 1, 100), limits=Limits(timeout_ms=1_000)).patience(1) == 1.0
