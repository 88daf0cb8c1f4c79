"""History of an endpoint as totals: rollouts, rollbacks, drills and alerts of the whole ledger.

The ledger keeps every entry, so these totals continue over a restart of control.
"""

from __future__ import annotations

from collections import Counter
from typing import get_args

from kedge.core.metrics.definitions import ROLLBACK_BOUNDS
from kedge.core.release.commands import Aborted, CandidateRolledBack, Promoted
from kedge.core.speed import Incident, LedgerLine, Practice, Sign, SpeedReader
from kedge.core.stored.notes import AlertOpened
from kedge.core.values import Value


class Durations(Value, frozen=True):
    """A distribution of seconds, as a histogram."""

    counts: tuple[int, ...]
    """Cumulative, by bound; the last is the number of all."""
    total: float


class HistoryTotals(Value, frozen=True, kw_only=True):
    """The totals of one endpoint."""

    rollouts: dict[str, int]
    """By status."""
    rollbacks: dict[tuple[str, str], int]
    """By arm and first sign of harm."""
    phases: dict[str, Durations]
    """Duration of rollbacks, by phase."""
    drills: dict[str, int]
    drill: Durations
    drill_at: float | None
    """When the newest drill that succeeded began."""
    alerts: dict[str, int]
    """Opened ones, by level."""


class LedgerHistory:
    """Folds an endpoint's entries, oldest first, each once."""

    def __init__(self) -> None:
        self._reader = SpeedReader()
        self._rollouts = Counter({"Promoted": 0, "Aborted": 0, "RolledBack": 0})
        self._alerts: Counter[str] = Counter({"warn": 0, "page": 0})

    def take(self, line: LedgerLine) -> None:
        """Fold one entry."""
        self._reader.take(line)
        match line.event:
            case Promoted(replaced=replaced) if replaced is not None:
                self._rollouts["Promoted"] += 1
            case Aborted():
                self._rollouts["Aborted"] += 1
            case CandidateRolledBack():
                self._rollouts["RolledBack"] += 1
        if isinstance(line.note, AlertOpened):
            self._alerts[line.note.level] += 1

    def totals(self) -> HistoryTotals:
        """Return the totals so far."""
        incidents, drills = list(self._reader.incidents()), list(self._reader.drills())
        real = [one for one in drills if not one.dry and one.ok is not None]
        answers = [one.back.first_answer_s for one in real if one.back is not None]
        succeeded = [one.at for one in real if one.ok]
        return HistoryTotals(
            rollouts=dict(self._rollouts),
            rollbacks=_causes(incidents),
            phases=_phases(incidents),
            drills=_results(real),
            drill=durations([s for s in answers if s is not None]),
            drill_at=max(succeeded, default=None),
            alerts=dict(self._alerts),
        )


def _causes(incidents: list[Incident]) -> dict[tuple[str, str], int]:
    # From zero on: Prometheus sees no increase in the first value of a series.
    found = {(arm, sign): 0 for arm in ("production", "candidate") for sign in get_args(Sign)}
    for one in incidents:
        arm = "candidate" if one.event == "candidate_rolled_back" else "production"
        found[arm, one.sign] += 1
    return found


def _results(drills: list[Practice]) -> dict[str, int]:
    succeeded = sum(bool(one.ok) for one in drills)
    return {"ok": succeeded, "failed": len(drills) - succeeded}


def _phases(incidents: list[Incident]) -> dict[str, Durations]:
    """Return the known durations of each phase; a part that was not recorded is left out."""
    found: dict[str, list[float]] = {}
    for one in incidents:
        flip = one.machine
        parts = {"detect": one.detect_s, "respond": one.decide_s, "total": one.total_s}
        if flip is not None:
            parts |= {
                "decide": flip.decide_s,
                "prepare": flip.prepare_s,
                "write": flip.write_s,
                "last_ack": flip.last_ack_s,
                "first_answer": flip.first_answer_s,
            }
        for phase, taken in parts.items():
            if taken is not None:
                found.setdefault(phase, []).append(taken)
    return {phase: durations(taken) for phase, taken in sorted(found.items())}


def durations(taken: list[float]) -> Durations:
    """Return the histogram of some durations in seconds."""
    below = (sum(one <= bound for one in taken) for bound in ROLLBACK_BOUNDS)
    return Durations((*below, len(taken)), sum(taken))
