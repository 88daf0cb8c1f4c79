"""Readings: what the operations return, as the pages take it."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.evidence.rules import JudgeRules
from kedge.core.readiness import Check
from kedge.core.speed import Speed
from kedge.core.stored.ledger import Entry
from kedge.core.stored.notes import DrillResult
from kedge.core.values import Release, Value
from kedge.operations.evidence.read import RolloutEvidence
from kedge.operations.status.view import EndpointStatus


class FleetReading(Value, frozen=True):
    """All endpoints."""

    found: tuple[EndpointStatus, ...]


class PageReading(Value, frozen=True, kw_only=True):
    """One endpoint, as its pages show it."""

    status: EndpointStatus
    entries: tuple[Entry, ...]
    evidence: RolloutEvidence | None
    """None: nothing is compared, or it cannot be read."""
    unread: str
    """Why the evidence cannot be read; empty: it can, or there is none."""
    rules: JudgeRules | None
    """The margins of the comparison; None: nothing is compared."""
    steps: tuple[float, ...]
    """The canary steps of the policy in per cent."""
    shadow_window: str
    """Length of the healthy window that the policy asks for."""
    finding: DiagnosisSummary | None
    releases: tuple[Release, ...]
    """All releases that the row knows, newest first."""
    refusals: dict[str, tuple[str, str]] = {}
    """Why a command is not possible now, with its hint, by the name of the act."""
    transformations: tuple[int, ...] = ()
    """Versions of production's features, newest first."""


class ReadyReading(Value, frozen=True, kw_only=True):
    """The results of the checks, the newest drills and the runbook."""

    checks: tuple[Check, ...]
    drills: tuple[tuple[str, DrillResult], ...]
    """Each with its time."""
    runbook: str
    speed: Speed | None


def seen(
    found: Sequence[EndpointStatus], endpoints: tuple[str, ...] | None
) -> tuple[EndpointStatus, ...]:
    """Return the endpoints that a viewer may see."""
    return tuple(one for one in found if endpoints is None or one.endpoint in endpoints)
