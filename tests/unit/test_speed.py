"""Speed-to-rollback, read out of entries as the ledger has them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kedge.core.release.commands import (
    Aborted,
    AnyEvent,
    CanaryStarted,
    CandidateRolledBack,
    DrillEnded,
    DrillStarted,
    Promoted,
    RolledBack,
    ShadowStarted,
    WeightSet,
)
from kedge.core.speed import LedgerLine, Quantiles, Speed, machine_of, speed, spread
from kedge.core.stored.notes import ReceiptNote
from kedge.core.stored.upcast import read_body
from kedge.core.values import ActorKind
from kedge.testing.samples import AT

PATROL, ADA, MALLORY = "p", "ada", "patrol@here"
KINDS = {PATROL: ActorKind.PATROL, ADA: ActorKind.PERSON, MALLORY: ActorKind.PERSON}
DAY = 86_400.0
PARTS = {
    "decide_ms": 1.0,
    "prepare_ms": 2.0,
    "write_ms": 3.0,
    "last_ack_ms": 10.0,
    "first_old_answer_ms": 20.0,
    "total_ms": 25.0,
}


RECEIPT = msgspec.convert({"of": 1, "command": "any", **PARTS}, ReceiptNote)


class Book:
    """A ledger in the making. Events of one call are one command, and so share their instant."""

    def __init__(self) -> None:
        self.lines: list[LedgerLine] = []

    def did(
        self, at: float, by: str, *events: AnyEvent, receipt: bool = True, **parts: Any
    ) -> Book:
        first = len(self.lines) + 1
        for event in events:
            self.lines.append(LedgerLine(len(self.lines) + 1, at, by, event=event, actor=KINDS[by]))
        if receipt:
            self.note(at + 0.5, by, "receipt", **{"of": first, "command": "any", **PARTS, **parts})
        return self

    def note(self, at: float, by: str, kind: str, **body: Any) -> Book:
        self.lines.append(LedgerLine(len(self.lines) + 1, at, by, note=read_body(kind, body)))
        return self

    def read(self, now: float = 1_000.0, *, after: int = 0) -> Speed:
        return speed("flights", self.lines[after:], now)


def promoted(release: int, replaced: int | None = None) -> Promoted:
    return Promoted(release=release, replaced=replaced, at=AT)


def canary(release: int, weight: int = 100) -> CanaryStarted:
    return CanaryStarted(release=release, weight=weight, salt="s")


def gone(release: int) -> CandidateRolledBack:
    return CandidateRolledBack(release=release, weight=100)


def back(release: int, left: int) -> RolledBack:
    return RolledBack(release=release, left=left, at=AT)


def two() -> Book:
    """r1 at 0, r2 in production at 100."""
    return Book().did(0, ADA, promoted(1)).did(100, ADA, promoted(2, 1))


def test_nothing_happened_is_nothing_measured() -> None:
    found = two().read()
    assert (found.incidents, found.drills, found.within) == ((), (), None)
    assert found.whole_s == found.drill_s == Quantiles()
    assert (found.unknown, found.unreceipted) == (0, 0)


def test_an_automatic_rollback_is_detected_by_itself_and_decided_at_once() -> None:
    (one,) = two().did(200, ADA, canary(3)).did(230, PATROL, gone(3)).read().incidents
    assert (one.release, one.event, one.automatic) == (3, "candidate_rolled_back", True)
    assert (one.sign, one.detect_s, one.decide_s) == ("patrol", 30, 0)
    assert one.machine == machine_of(RECEIPT)
    assert one.total_s == pytest.approx(30 + 0.020)


def test_a_name_does_not_make_a_rollback_automatic() -> None:
    (one,) = two().did(200, ADA, canary(3)).did(230, MALLORY, gone(3)).read().incidents
    assert (one.by, one.automatic, one.sign) == ("patrol@here", False, "command")


def test_a_person_decides_after_the_first_alert_about_the_release() -> None:
    book = two()
    book.note(150, PATROL, "alert_opened", alert=1, topic="failing", subject=9)
    book.note(160, PATROL, "alert_opened", alert=2, topic="failing", subject=2)
    book.note(170, PATROL, "verdict", verdict="fail", subject=2)
    (one,) = book.did(400, ADA, back(1, 2)).read().incidents
    assert (one.sign, one.detect_s, one.decide_s) == ("alert", 60, 240)
    assert one.total_s == pytest.approx(300.020)


def test_a_failed_verdict_is_a_sign_and_another_verdict_is_none() -> None:
    book = two().note(150, PATROL, "verdict", verdict="inconclusive", subject=2)
    book.note(180, PATROL, "verdict", verdict="fail", subject=2)
    (one,) = book.did(190, ADA, back(1, 2)).read().incidents
    assert (one.sign, one.detect_s, one.decide_s) == ("verdict", 80, 10)


def test_without_any_sign_the_command_is_the_sign_and_nothing_is_known_of_deciding() -> None:
    (one,) = two().did(400, ADA, back(1, 2)).read().incidents
    assert (one.sign, one.detect_s, one.decide_s) == ("command", 300, None)
    assert one.total_s == pytest.approx(300.020)


def test_a_sign_before_any_caller_met_it_does_not_count() -> None:
    """A failed shadow harmed no caller."""
    book = two().did(150, ADA, ShadowStarted(release=3, sample=1, salt="s"))
    book.note(160, PATROL, "verdict", verdict="fail", subject=3)
    (one,) = book.did(200, ADA, canary(3)).did(210, ADA, gone(3)).read().incidents
    assert (one.sign, one.detect_s) == ("command", 10)


def test_a_release_reaches_callers_with_its_first_weight_and_stays_so_until_it_is_gone() -> None:
    book = two().did(200, ADA, canary(3, 0)).did(220, ADA, WeightSet(weight=100, previously=0))
    book.did(230, ADA, WeightSet(weight=500, previously=100)).did(240, ADA, promoted(3, 2))
    (one,) = book.did(260, ADA, back(2, 3)).read().incidents
    assert one.detect_s == 40
    book.did(300, ADA, canary(4)).did(310, ADA, Aborted(release=4)).did(400, ADA, canary(4))
    assert book.did(405, ADA, gone(4)).read().incidents[-1].detect_s == 5


def test_a_release_that_a_rollback_restored_counts_from_then() -> None:
    """And what was replaced has left callers."""
    book = two().did(200, ADA, back(1, 2)).did(250, ADA, promoted(3, 1)).did(270, ADA, back(1, 3))
    assert [one.detect_s for one in book.read().incidents] == [100, 20]
    assert book.did(300, ADA, back(0, 1)).read().incidents[-1].detect_s == 30


def test_the_receipt_of_a_command_of_several_events_names_the_first() -> None:
    book = two().did(200, ADA, ShadowStarted(release=3, sample=1, salt="s"))
    (one,) = book.did(300, ADA, Aborted(release=3), back(1, 2)).read().incidents
    assert one.machine is not None


def test_a_missing_receipt_is_counted_and_never_guessed() -> None:
    found = two().did(200, ADA, back(1, 2), receipt=False).read()
    assert found.incidents[0].machine is None
    assert found.incidents[0].total_s is None
    assert (found.unknown, found.unreceipted, found.within) == (1, 1, None)
    assert found.whole_s == Quantiles()


def test_a_silent_replica_or_an_unseen_answer_leaves_the_total_unknown() -> None:
    found = two().did(200, ADA, back(1, 2), first_old_answer_ms=None, last_ack_ms=None).read()
    assert found.incidents[0].machine is not None
    assert found.incidents[0].machine.last_ack_s is None
    assert (found.incidents[0].total_s, found.unknown, found.unreceipted) == (None, 1, 0)


def test_what_reached_callers_before_what_was_read_is_not_known_to_be_detected() -> None:
    found = two().did(200, ADA, back(1, 2)).read(after=4)
    assert found.incidents[0].detect_s is None
    assert found.unknown == 1


def test_a_drill_has_both_its_receipts_and_how_it_came_out() -> None:
    book = two().did(300, ADA, DrillStarted(release=1, left=2, until=310.0))
    book.did(308, ADA, DrillEnded(release=2), first_old_answer_ms=40.0)
    book.note(309, ADA, "drill", ok=True, release=1, why="", dry=False)
    (one,) = book.read().drills
    assert (one.release, one.by, one.ok, one.dry, one.lasted_s) == (1, ADA, True, False, 8)
    assert one.back == machine_of(RECEIPT)
    assert one.forward is not None
    assert one.forward.first_answer_s == 0.04
    assert book.read().drill_s == Quantiles(1, 0.02, 0.02)
    assert book.read().incidents == ()


def test_a_drill_whose_process_died_is_shown_as_such() -> None:
    book = two().did(300, ADA, DrillStarted(release=1, left=2, until=310.0), receipt=False)
    book.did(311, PATROL, DrillEnded(release=2))
    book.note(312, PATROL, "drill", ok=False, release=1, why="its process died", dry=False)
    found = book.read()
    assert (found.drills[0].ok, found.drills[0].back) == (False, None)
    assert (found.unreceipted, found.drill_s) == (1, Quantiles())


def test_a_rollback_within_a_drill_is_an_incident_and_ends_it() -> None:
    book = two().did(300, ADA, DrillStarted(release=1, left=2, until=310.0))
    book.did(305, ADA, back(1, 2))
    book.note(306, ADA, "drill", ok=False, release=1, why="ended", dry=False)
    found = book.read()
    assert (found.incidents[0].release, found.incidents[0].detect_s) == (2, 205)
    assert (found.drills[0].lasted_s, found.drills[0].ok) == (None, False)
    assert found.unreceipted == 0


def test_a_dry_drill_is_listed_and_proves_no_speed() -> None:
    found = two().note(300, ADA, "drill", ok=True, release=1, why="", dry=True).read()
    assert (found.drills[0].dry, found.drills[0].ok) == (True, True)
    assert (found.drill_s, found.unreceipted) == (Quantiles(), 0)


def test_the_outcome_of_a_drill_that_was_never_filed_is_not_that_of_the_next() -> None:
    book = two().did(300, ADA, DrillStarted(release=1, left=2, until=310.0))
    book.did(311, PATROL, DrillEnded(release=2))
    book.did(400, ADA, DrillStarted(release=1, left=2, until=410.0)).did(
        408, ADA, DrillEnded(release=2)
    )
    book.note(409, ADA, "drill", ok=True, release=1, why="", dry=False)
    assert [one.ok for one in book.read().drills] == [None, True]


def test_the_share_within_the_slo_is_of_those_whose_whole_is_known() -> None:
    book = two().did(200, ADA, back(1, 2)).did(1_000, ADA, promoted(3, 1))
    book.did(2_000, ADA, back(1, 3)).did(2_100, ADA, promoted(4, 1))
    found = book.did(2_200, ADA, back(1, 4), receipt=False).read()
    assert (found.within, found.unknown) == (0.5, 1)
    assert found.whole_s.n == 2
    assert (found.whole_s.p50, found.whole_s.p95) == pytest.approx((100.02, 1_000.02))


def test_the_trend_is_ninety_days_against_the_ninety_before() -> None:
    book = Book().did(0, ADA, promoted(1))
    for at, release, took in ((1, 2, 10), (100, 3, 20), (150, 4, 30)):
        book.did(at * DAY, ADA, promoted(release, 1)).did(at * DAY + took, ADA, back(1, release))
    trend = book.read(now=180 * DAY).incident_trend
    assert (trend.last.n, trend.before.n) == (2, 1)
    later = book.read(now=200 * DAY).incident_trend
    assert [later.last.p50, later.before.p50] == pytest.approx([30.02, 20.02])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], Quantiles()),
        ([3.0], Quantiles(1, 3.0, 3.0)),
        ([2.0, 1.0], Quantiles(2, 1.0, 2.0)),
        ([float(n) for n in range(1, 101)], Quantiles(100, 50.0, 95.0)),
    ],
)
def test_each_quantile_is_one_that_was_measured(seconds: list[float], expected: Quantiles) -> None:
    assert spread(seconds) == expected
