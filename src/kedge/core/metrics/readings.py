"""Readings: what the exported metrics are computed from."""

from __future__ import annotations

from kedge.core.alerts.alerts import Alert
from kedge.core.evidence.label_summary import LabelSummary
from kedge.core.evidence.rules import Verdict, Word
from kedge.core.metrics.history import HistoryTotals
from kedge.core.stored.roster import Member
from kedge.core.values import State, Value


class EvidenceReading(Value, frozen=True, kw_only=True):
    """The evidence of one comparison, as the patrol stored it last."""

    judged: tuple[int, int]
    """The release that is the measure, and the one that is judged."""
    arms: tuple[str, str]
    """Their present arms."""
    log_arms: tuple[str, str]
    """Their arms in the prediction log, by which labels are counted."""
    decision: Word
    verdicts: tuple[Verdict, ...]
    threshold: float
    """The e-value at which a guardrail fails."""
    margins: dict[str, float]
    """By guardrail: how much worse is tolerated."""
    healthy_s: float
    window_s: float | None
    """The healthy time that the policy asks; None: this is no shadow."""
    newest: float | None
    """Unix time of the newest counted request; None: there was none."""
    labels: LabelSummary


class CopyReading(Value, frozen=True):
    """The copies for a shadow in the present comparison."""

    requests: int
    answered: int
    pairs: int
    agreeing: int


class EndpointReading(Value, frozen=True, kw_only=True):
    """What is known of one endpoint."""

    state: State
    step: tuple[int, int]
    """The canary's present step, and the number of steps."""
    history: HistoryTotals
    copies: CopyReading | None = None
    """None: nothing was copied."""
    evidence: EvidenceReading | None = None
    """None: nothing is compared, or it is not known."""
    alerts: tuple[Alert, ...] = ()
    """The open ones."""
    failed: tuple[str, ...] | None = None
    """The checks that failed in the newest check of readiness; None: there was none."""


class SiteReading(Value, frozen=True, kw_only=True):
    """What is known of all endpoints and processes."""

    at: float
    """Unix time of the reading."""
    version: str
    """The version of kedge."""
    endpoints: tuple[EndpointReading, ...]
    members: tuple[Member, ...]
    silent: frozenset[str]
    """Replicas without a heartbeat."""
    ledger: bool
    """Whether the ledger could be read; otherwise these are the last known rows."""
    evidence: bool
    """Whether the counts could be read."""
