"""The conduct of a candidate at one worker: the report of each second, and runs that continue."""

from __future__ import annotations

from kedge.core.evidence.windows import CALLERS, INSTANT_S, Conduct
from kedge.core.routing import key_of, unit_of
from kedge.engine.recording.conduct import CRASH_S, Tracker


def number(salt: str, unit: str) -> int:
    return unit_of(key_of(salt), unit)[0]


def failing(tracker: Tracker, *entities: str | None, every: float = 0.2, at: float = 1.0) -> None:
    for number, entity in enumerate(entities):
        tracker.failed(entity, at + number * every)


def test_failures_of_one_instant_are_one_event_of_all_their_callers() -> None:
    tracker = Tracker("s")
    failing(tracker, *"abcde", every=INSTANT_S / 100)
    streak, conduct = tracker.taken()
    assert streak == 1
    assert len(conduct.streak_callers) == len(conduct.failed_callers) == CALLERS


def test_a_run_continues_over_seconds_and_ends_with_an_answer() -> None:
    tracker = Tracker("s")
    failing(tracker, *["a"] * 7)
    assert tracker.taken()[0] == 7
    failing(tracker, *["b"] * 7, at=5.0)
    tracker.answered()
    failing(tracker, "c", at=9.0)
    streak, conduct = tracker.taken()
    assert (streak, len(conduct.streak_callers)) == (14, 2), "the longest, with its callers"
    assert tracker.taken()[0] == 1
    tracker.answered()
    assert tracker.taken()[0] == 1, "it was going on until now"
    assert tracker.taken() == (0, Conduct())


def test_requests_without_an_entity_are_distinguished_by_their_seconds() -> None:
    tracker = Tracker("s")
    failing(tracker, *[None] * 12)
    _, conduct = tracker.taken()
    assert (conduct.failed, conduct.failed_callers, conduct.streak_seconds) == (12, (), 3)


def test_only_news_is_reported() -> None:
    tracker = Tracker("s")
    for entity in ("a", "a", "b", "c", "d", None):
        tracker.routed(entity)
    tracker.unasked("breaker_open")
    tracker.late()
    tracker.alive()
    tracker.silent_s, tracker.patience_s = 4.0, 3.0
    _, first = tracker.taken()
    assert first == Conduct(
        routed=6,
        unasked={"breaker_open": 1},
        answered=1,
        late=1,
        silent_s=4.0,
        patience_s=3.0,
        callers=tuple(number("s", name) for name in "abc"),
    )
    tracker.unasked("model_down")
    _, second = tracker.taken()
    assert second == Conduct(unasked={"model_down": 1}, callers=first.callers, patience_s=3.0), (
        "a silence is told once: at its newest question"
    )


def test_questions_that_died_together_died_of_one_crash() -> None:
    tracker = Tracker("s")
    for at in (1.0, 1.001, 1.5, 1.0 + CRASH_S, 9.0):
        tracker.crashed(at)
    assert tracker.taken()[1].crashes == 3


def test_another_comparison_hashes_its_callers_otherwise() -> None:
    assert number("s", "a") != number("t", "a")
    assert 0 <= number("s", "\udcff") < 1 << 63, "a header may hold a broken surrogate"
