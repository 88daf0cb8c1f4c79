"""Sources of pages: what the operations return, gathered from the state directory."""

from __future__ import annotations

from msgspec.structs import replace

from kedge.core.automation import rules
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.errors import KedgeError, Refused, Unavailable
from kedge.core.evidence.rules import JudgeRules
from kedge.core.names import get_known
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import DrillResult, RunbookNote
from kedge.core.values import Stage, State
from kedge.engine.findings import newest_finding
from kedge.operations.alerts import ListedAlert, alerts_of
from kedge.operations.drills import speed_of
from kedge.operations.evidence.read import RolloutEvidence, evidence_of
from kedge.operations.readiness.check import look
from kedge.operations.status.read import status_without_estimates
from kedge.operations.status.view import EndpointStatus
from kedge.web.dashboard.pages.readings import (
    FleetReading,
    PageReading,
    ReadyReading,
)
from kedge.web.dashboard.pages.refusals import refusals_of
from kedge.workspace import Workplace

ENTRIES = 60
"""Entries of a history that a page shows."""
FINDINGS = 5
DRILLS = 10
SEGMENTS = 300
"""Verdicts on segments that are read for a table."""


def read_fleet(place: Workplace) -> FleetReading:
    """Return all endpoints.

    Raises:
        Unavailable: the ledger cannot be read.
    """
    return FleetReading(tuple(status_without_estimates(place, None)))


def remember_fleet(place: Workplace) -> FleetReading:
    """Return all endpoints as this host remembers them, without the ledger.

    Raises:
        Unavailable: this host remembers none.
    """
    return FleetReading(tuple(status_without_estimates(place, None)))


def read_endpoint(place: Workplace, endpoint: str) -> PageReading:
    """Return one endpoint.

    Raises:
        Refused: the endpoint is not found.
        Unavailable: the ledger cannot be read.
    """
    state = get_known(place.ledger.read().states, endpoint)
    evidence, unread = _evidence(place, state)
    return PageReading(
        status=_with_outlook(status_without_estimates(place, endpoint)[0], evidence),
        entries=tuple(place.ledger.history(endpoint, ENTRIES)),
        evidence=evidence,
        unread=unread,
        rules=_rules(state),
        steps=tuple(state.policy.canary.steps),
        shadow_window=state.policy.shadow.window,
        finding=_finding(place, endpoint),
        releases=tuple(sorted(state.releases.values(), key=lambda r: -r.number)),
        refusals=refusals_of(state, place.clock.now()),
        transformations=_transformations(place, state),
    )


def _with_outlook(status: EndpointStatus, evidence: RolloutEvidence | None) -> EndpointStatus:
    """Return the status of a rollout with the estimate of its evidence: it is the costly part."""
    candidate = status.candidate.release if status.candidate is not None else None
    if evidence is None or evidence.candidate != candidate:
        return status
    return replace(status, estimate=evidence.estimate, decision=evidence.decision)


def _transformations(place: Workplace, state: State) -> tuple[int, ...]:
    live = state.releases.get(state.production) if state.production is not None else None
    if live is None or live.schema is None:
        return ()
    return tuple(sorted((v.number for v in place.features.versions(live.schema)), reverse=True))


def read_findings(place: Workplace, endpoint: str) -> tuple[DiagnosisSummary, ...]:
    """Return the newest recorded diagnoses of an endpoint; those of other versions are left out.

    Raises:
        Unavailable: the ledger cannot be read.
    """
    entries = place.ledger.entries(endpoint, "finding", FINDINGS)
    bodies = (entry.event.body for entry in entries if isinstance(entry.event, Note))
    return tuple(body for body in bodies if isinstance(body, DiagnosisSummary))


def read_ready(place: Workplace, endpoint: str) -> ReadyReading:
    """Return the readiness of an endpoint. Nothing is proven or recorded.

    Raises:
        Refused: the endpoint is not found.
        Unavailable: the ledger cannot be read.
    """
    state = get_known(place.ledger.read().states, endpoint)
    checks, _ = look(place, state, by="dashboard", proving="never")
    drills = place.ledger.entries(endpoint, "drill", DRILLS)
    books = place.ledger.entries(endpoint, "runbook")
    book = books[0].event.body if books and isinstance(books[0].event, Note) else None
    return ReadyReading(
        checks=checks,
        drills=tuple(
            (entry.at, entry.event.body)
            for entry in drills
            if isinstance(entry.event, Note) and isinstance(entry.event.body, DrillResult)
        ),
        runbook=book.markdown if isinstance(book, RunbookNote) else "",
        speed=speed_of(place, endpoint)[0],
    )


def remember_endpoint(place: Workplace, endpoint: str) -> PageReading:
    """Return one endpoint as this host remembers it, without the ledger.

    Raises:
        Refused: the endpoint is not found.
        Unavailable: this host remembers none.
    """
    return PageReading(
        status=status_without_estimates(place, endpoint)[0],
        entries=(),
        evidence=None,
        unread="",
        rules=None,
        steps=(),
        shadow_window="",
        finding=None,
        releases=(),
    )


def _rules(state: State) -> JudgeRules | None:
    if state.compared is None:
        return None
    paired = state.mirrored is not None
    return rules(state.policy, paired=paired, held=state.holdback if state.held else 0)


def _evidence(place: Workplace, state: State) -> tuple[RolloutEvidence | None, str]:
    if state.compared is None or state.stage is Stage.EMPTY:
        return None, ""
    try:
        return evidence_of(place, state.endpoint, worst=SEGMENTS), ""
    except (Refused, Unavailable) as error:
        return None, "" if error.code == "no_rollout" else str(error)


def _finding(place: Workplace, endpoint: str) -> DiagnosisSummary | None:
    try:
        return newest_finding(place.ledger, endpoint)
    except KedgeError:
        return None  # another version wrote it


def read_alerts(place: Workplace) -> tuple[ListedAlert, ...]:
    """Return the newest alerts of all endpoints, also those that are over."""
    return tuple(alerts_of(place, None, over=True))
