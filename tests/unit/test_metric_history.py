"""History for Prometheus: rollbacks by cause with their parts, drills, alerts, ends of rollouts."""

from __future__ import annotations

from kedge.core.metrics.definitions import ROLLBACK_BOUNDS
from kedge.core.metrics.history import LedgerHistory, durations
from kedge.core.release.commands import AnyEvent, CanaryStarted, CandidateRolledBack
from kedge.core.speed import LedgerLine
from kedge.core.stored.notes import AlertOpened, NoteBody, ReceiptNote, VerdictNote
from kedge.core.values import ActorKind


def told(*entries: AnyEvent | NoteBody) -> LedgerHistory:
    history = LedgerHistory()
    for n, one in enumerate(entries, start=1):
        note = one if isinstance(one, NoteBody) else None
        event = None if isinstance(one, NoteBody) else one
        line = LedgerLine(n, 10.0 * n, "patrol", event=event, note=note, actor=ActorKind.PATROL)
        history.take(line)
    return history


CANARY = CanaryStarted(release=2, weight=500, salt="s")
BACK = CandidateRolledBack(release=2, weight=0)
RECEIPT = ReceiptNote(
    of=3,
    command="rollback",
    decide_ms=1.0,
    prepare_ms=2.0,
    write_ms=4.0,
    last_ack_ms=8.0,
    first_old_answer_ms=9.0,
    total_ms=9.0,
)


def test_a_rollback_is_counted_by_its_first_sign_with_its_parts() -> None:
    verdict = VerdictNote(verdict="fail", subject=2)
    found = told(CANARY, verdict, BACK, RECEIPT).totals()
    assert {key: n for key, n in found.rollbacks.items() if n} == {("candidate", "verdict"): 1}
    assert len(found.rollbacks) == 8, "each begins at zero, so that its first increase is seen"
    assert found.rollouts == {"Promoted": 0, "Aborted": 0, "RolledBack": 1}
    assert found.phases["detect"].total == 10.0
    assert found.phases["respond"].total == 10.0
    assert found.phases["last_ack"] == durations([0.008])
    assert found.phases["total"].counts[-1] == 1


def test_a_part_that_was_not_recorded_has_no_observation() -> None:
    found = told(CANARY, BACK).totals()
    assert found.rollbacks["candidate", "patrol"] == 1
    assert set(found.phases) == {"detect", "respond"}


def test_totals_only_grow_while_entries_arrive() -> None:
    entries = (CANARY, BACK, RECEIPT, AlertOpened(alert=1, level="page"))
    sizes = []
    for n in range(len(entries) + 1):
        found = told(*entries[:n]).totals()
        sizes.append(
            sum(found.rollbacks.values())
            + sum(taken.counts[-1] for taken in found.phases.values())
            + sum(found.alerts.values())
        )
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[1]


def test_a_duration_is_within_every_larger_bound() -> None:
    found = durations([0.001, 0.5, 1e9])
    assert found.counts[0] == 1
    assert found.counts[ROLLBACK_BOUNDS.index(0.5)] == 2
    assert found.counts[-2:] == (2, 3)
