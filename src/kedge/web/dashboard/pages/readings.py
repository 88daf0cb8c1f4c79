"""Readings: what the operations return, as the pages take it."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.core.alerts.alerts import Rung
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.evidence.rules import JudgeRules
from kedge.core.readiness import Check
from kedge.core.runbook import Runbook
from kedge.core.speed import Speed
from kedge.core.stored.ledger import Entry
from kedge.core.stored.notes import DrillResult
from kedge.core.values import Policy, Release, Value
from kedge.operations.alerts import ListedAlert
from kedge.operations.diagnosis.document import DiagnosisReport
from kedge.operations.evidence.read import RolloutEvidence
from kedge.operations.evidence.view import DisagreementExample
from kedge.operations.status.view import EndpointStatus
from kedge.web.dashboard.course import ComparedPair
from kedge.web.dashboard.pages.refusals import ActRefusal, RollbackChoice


class FleetReading(Value, frozen=True):
    """All endpoints."""

    found: tuple[EndpointStatus, ...]


class PageReading(Value, frozen=True, kw_only=True):
    """One endpoint, as its pages show it."""

    status: EndpointStatus
    entries: tuple[Entry, ...]
    """The newest entries of the ledger, newest first."""
    marked: tuple[Entry, ...] = ()
    """Those of the newest entries that charts mark, newest first."""
    evidence: RolloutEvidence | None
    """None: nothing is compared, or it cannot be read."""
    unread: str
    """Why the evidence cannot be read; empty: it can, or there is none."""
    pair: ComparedPair | None
    """The comparison whose evidence it is; None: nothing is compared."""
    rules: JudgeRules | None
    """The margins of the comparison; None: nothing is compared."""
    steps: tuple[float, ...]
    """The canary steps of the policy in per cent."""
    shadow_window_s: float
    """Length of the healthy window that the policy asks for."""
    finding: DiagnosisSummary | None
    releases: tuple[Release, ...]
    """All releases that the row knows, newest first."""
    refusals: dict[str, ActRefusal] = {}
    """Why a command is not possible now, by the name of the act."""
    outcomes: dict[str, str] = {}
    """The entry that a command would write, by the name of the act."""
    rollbacks: tuple[RollbackChoice, ...] = ()
    """The rollbacks that are possible now."""
    transformations: tuple[int, ...] = ()
    """Versions of production's features, newest first."""


class FindingsReading(Value, frozen=True):
    """The newest diagnoses of an endpoint."""

    found: tuple[tuple[int, DiagnosisSummary], ...]
    """Each with the number of its entry in the ledger, newest first."""
    report: DiagnosisReport | None
    """The newest with its whole evidence; None: it was lost, or another version wrote it."""


class PolicyEntry(Value, frozen=True):
    """A policy that came into force."""

    seq: int
    epoch: int
    digest: str
    policy: Policy


class HistoryReading(Value, frozen=True, kw_only=True):
    """A part of an endpoint's history, newest first."""

    entries: tuple[Entry, ...]
    policies: tuple[PolicyEntry, ...]
    """Those that came into force, newest first."""
    cursor: str
    """Where the part begins; empty: at the newest entry."""
    next: str | None
    """The cursor of the next part; None: there is none."""


class ReleaseReading(Value, frozen=True, kw_only=True):
    """A release as a comparison needs it."""

    release: Release
    policy: PolicyEntry | None
    """That in force when it last started; None: not known."""
    source: tuple[tuple[str, str], ...]
    """The files of its transformation, each with its text; empty: none, or they are missing."""


class AlertDuty(Value, frozen=True, kw_only=True):
    """The people of an endpoint, and the levels of its escalation."""

    owner: str = ""
    on_call: str = ""
    levels: tuple[Rung, ...] = ()


class AlertsReading(Value, frozen=True, kw_only=True):
    """The newest alerts of all endpoints, also those that are over."""

    found: tuple[ListedAlert, ...]
    duties: dict[str, AlertDuty]
    """By endpoint."""


class ExampleReading(Value, frozen=True, kw_only=True):
    """One request: what the prediction log has of it, and how both releases answered."""

    id: str
    pair: DisagreementExample | None
    """Null: it is no longer among the kept disagreements."""
    at: float | None
    """Unix time of the answer; None: the log does not have it."""
    segments: tuple[str, ...]
    answers: tuple[str, str]
    """Both answers by the log; empty: it has none."""
    inputs: tuple[tuple[str, object], ...]
    """Its inputs, by name; empty: they are not in the log."""


class ReadyReading(Value, frozen=True, kw_only=True):
    """The results of the checks, the newest drills and the runbook."""

    checks: tuple[Check, ...]
    drills: tuple[tuple[str, DrillResult], ...]
    """Each with its time."""
    runbook: Runbook
    """As of now, with the newest durations."""
    speed: Speed | None


def seen(
    found: Sequence[EndpointStatus], endpoints: tuple[str, ...] | None
) -> tuple[EndpointStatus, ...]:
    """Return the endpoints that a viewer may see."""
    return tuple(one for one in found if endpoints is None or one.endpoint in endpoints)
