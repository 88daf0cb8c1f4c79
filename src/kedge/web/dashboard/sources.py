"""Sources of pages: what the operations return, gathered from the state directory."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from kedge.core.alerts.alerts import find_on_call, find_owner, rungs
from kedge.core.automation import rules
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.errors import BadRequest, KedgeError, Refused, Unavailable
from kedge.core.evidence.rules import JudgeRules
from kedge.core.names import get_known
from kedge.core.release.commands import Configured
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import DrillResult, ReceiptNote
from kedge.core.time.durations import seconds
from kedge.core.values import Release, Stage, State
from kedge.engine import runbook
from kedge.engine.findings import newest_finding
from kedge.operations.alerts import alerts_of, find_alert
from kedge.operations.diagnosis.stored import read_report
from kedge.operations.drills import speed_of
from kedge.operations.evidence.read import RolloutEvidence, estimate_of, evidence_of
from kedge.operations.evidence.view import ReasonedVerdict
from kedge.operations.history import history_of
from kedge.operations.readiness.check import look
from kedge.operations.status.read import status_without_estimates
from kedge.operations.status.view import EndpointStatus
from kedge.web.dashboard.course import ComparedPair
from kedge.web.dashboard.pages.comparison import ReleaseComparison, compare
from kedge.web.dashboard.pages.guardrails import VERDICTS_READ
from kedge.web.dashboard.pages.marks import is_marked
from kedge.web.dashboard.pages.readings import (
    AlertDuty,
    AlertsReading,
    ExampleReading,
    FindingsReading,
    FleetReading,
    HistoryReading,
    PageReading,
    PolicyEntry,
    ReadyReading,
    ReleaseReading,
)
from kedge.web.dashboard.pages.receipts import WrittenCommand
from kedge.web.dashboard.pages.refusals import outcomes_of, refusals_of, rollbacks_of
from kedge.workspace import Workplace

ENTRIES = 60
"""Entries of a history that a page shows."""
MARKED = 300
"""Newest entries among which charts find their events."""
FOLLOWING = 200
"""Entries read after a decision, of all endpoints: its receipt is written once replicas have
acknowledged it, seconds later."""
FINDINGS = 5
DRILLS = 10
POLICIES = 100
"""Policies that came into force which are looked at, the newest."""
STARTS = ("promoted", "canary_started", "shadow_started")
"""Events with which a release starts."""
SOURCE_BYTES = 32 << 10
"""Bytes of one file of a transformation that are compared."""
SOURCE_FILES = 10
COMMAND_EVENTS = 3
"""Events of the longest command: the rollout ends, production goes back, the features are held."""
EXAMPLES = 60
"""Worked examples of disagreement that are read."""


def read_fleet(place: Workplace) -> FleetReading:
    """Return all endpoints.

    Raises:
        Unavailable: the ledger cannot be read.
    """
    return FleetReading(tuple(status_without_estimates(place, None)))


def read_verdicts(place: Workplace) -> dict[str, ReasonedVerdict]:
    """Return the policy's decision on each rollout, by the state that the patrol stored last.

    Raises:
        Unavailable: the ledger cannot be read.
    """
    states = place.ledger.read().states
    found = {name: estimate_of(place, state) for name, state in states.items()}
    return {name: outlook.decision for name, outlook in found.items() if outlook is not None}


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
    at = place.clock.now()
    rollbacks = rollbacks_of(state, at)
    newest = tuple(place.ledger.history(endpoint, MARKED))
    return PageReading(
        status=_with_outlook(status_without_estimates(place, endpoint)[0], evidence),
        entries=newest[:ENTRIES],
        marked=tuple(entry for entry in newest if is_marked(entry)),
        evidence=evidence,
        unread=unread,
        pair=_pair(state),
        rules=_rules(state),
        steps=tuple(state.policy.canary.steps),
        shadow_window_s=seconds(state.policy.shadow.window),
        finding=_finding(place, endpoint),
        releases=tuple(sorted(state.releases.values(), key=lambda r: -r.number)),
        refusals=refusals_of(state, rollbacks, at),
        outcomes=outcomes_of(state, at),
        rollbacks=rollbacks,
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


def read_findings(place: Workplace, endpoint: str) -> FindingsReading:
    """Return the newest recorded diagnoses of an endpoint, and the evidence of the newest.

    Diagnoses that other versions of kedge recorded are left out.

    Raises:
        Unavailable: the ledger cannot be read.
    """
    entries = place.ledger.entries(endpoint, "finding", FINDINGS)
    found = tuple(
        (entry.seq, entry.event.body)
        for entry in entries
        if isinstance(entry.event, Note) and isinstance(entry.event.body, DiagnosisSummary)
    )
    return FindingsReading(found, read_report(place.state_dir, endpoint))


def read_history(place: Workplace, endpoint: str, cursor: str) -> HistoryReading:
    """Return a part of an endpoint's history, with the policies that came into force.

    Raises:
        BadRequest: `bad_cursor`.
        Unavailable: the ledger cannot be read.
    """
    page = history_of(place, endpoint, ENTRIES, whole=False, cursor=cursor)
    return HistoryReading(
        entries=page.entries,
        policies=_policies(place, endpoint),
        cursor=cursor,
        next=page.next,
    )


def read_decision(place: Workplace, endpoint: str, seq: int) -> HistoryReading:
    """Return an entry of an endpoint and what follows it, with the policies that came into force.

    Raises:
        BadRequest: `unknown_path`: the endpoint has no entry of this number.
        Unavailable: the ledger cannot be read.
    """
    later = place.ledger.later(seq - 1, FOLLOWING)
    found = tuple(entry for entry in reversed(later) if entry.endpoint == endpoint)
    if not found or found[-1].seq != seq:
        raise BadRequest(
            f"{endpoint} has no entry {seq}",
            code="unknown_path",
            hint="the page Decisions shows its newest entries",
        )
    # The first entries of a command that a link names by a later one.
    before = place.ledger.history(endpoint, COMMAND_EVENTS, before=(found[-1].epoch, seq))
    return HistoryReading(
        entries=(*found, *before), policies=_policies(place, endpoint), cursor="", next=None
    )


def _policies(place: Workplace, endpoint: str) -> tuple[PolicyEntry, ...]:
    entries = place.ledger.entries(endpoint, "configured", POLICIES)
    return tuple(
        PolicyEntry(entry.seq, entry.epoch, entry.event.digest, entry.event.policy)
        for entry in entries
        if isinstance(entry.event, Configured)
    )


def read_comparison(place: Workplace, endpoint: str, one: str, other: str) -> ReleaseComparison:
    """Compare two releases, in a reader's thread: long sources take a while.

    Raises:
        Refused: the endpoint or a release is not found.
        Unavailable: the ledger cannot be read.
    """
    numbers = (int(name.removeprefix("r")) for name in (one, other))
    return compare(*(_read_release(place, endpoint, number) for number in numbers))


def _read_release(place: Workplace, endpoint: str, number: int) -> ReleaseReading:
    release = get_known(place.ledger.read().states, endpoint).releases.get(number)
    if release is None:
        raise Refused(f"{endpoint} has no release r{number}", code="unknown_release")
    began = max(
        (
            (entry.epoch, entry.seq)
            for event in STARTS
            for entry in place.ledger.entries(endpoint, event, ENTRIES)
            if getattr(entry.event, "release", None) == number
        ),
        default=None,
    )
    policy = None
    if began is not None:
        known = _policies(place, endpoint)
        policy = next((one for one in known if (one.epoch, one.seq) <= began), None)
    return ReleaseReading(release=release, policy=policy, source=_source(place, release))


def _source(place: Workplace, release: Release) -> tuple[tuple[str, str], ...]:
    """Return the files of a release's transformation; none if they are missing on this host."""
    if release.code is None:
        return ()
    try:
        files = sorted(place.artifacts.path(release.code).glob("*.py"))
        return tuple(
            (file.name, file.read_bytes()[:SOURCE_BYTES].decode("utf-8", "replace"))
            for file in files[:SOURCE_FILES]
        )
    except (KedgeError, OSError):
        return ()


def read_segment(place: Workplace, endpoint: str, segment: str) -> RolloutEvidence:
    """Return the evidence on one segment, also if other segments are worse.

    Raises:
        Refused: the endpoint declares no such segment, or nothing is compared.
        Unavailable: the evidence cannot be read.
    """
    return evidence_of(place, endpoint, segment, examples=EXAMPLES)


def read_example(place: Workplace, reading: PageReading, name: str) -> ExampleReading | None:
    """Return one request that both releases answered; None: it is not known.

    Raises:
        Unavailable: the prediction log cannot be read.
    """
    agreement = reading.evidence.agreement if reading.evidence is not None else None
    pair = next((one for one in (agreement.examples if agreement else ()) if one.id == name), None)
    row = place.records.row(reading.status.endpoint, name)
    if pair is None and (row is None or not row.paired):
        return None
    inputs = msgspec.msgpack.decode(row.inputs) if row is not None and row.inputs else {}
    return ExampleReading(
        id=name,
        pair=pair,
        at=row.at if row is not None else None,
        segments=row.segments if row is not None else (),
        answers=(
            _answer(row.decision, row.score) if row is not None else "",
            _answer(row.shadow_decision, row.shadow_score) if row is not None else "",
        ),
        inputs=tuple(inputs.items()) if isinstance(inputs, dict) else (),
    )


def _answer(decision: str | None, score: float | None) -> str:
    said = (decision, None if score is None else f"score {score:.4g}")
    return ", ".join(part for part in said if part is not None)


def read_ready(place: Workplace, endpoint: str) -> ReadyReading:
    """Return the readiness of an endpoint. Nothing is proven or recorded.

    Raises:
        Refused: the endpoint is not found.
        Unavailable: the ledger cannot be read.
    """
    state = get_known(place.ledger.read().states, endpoint)
    checks, _ = look(place, state, by="dashboard", proving="never")
    drills = place.ledger.entries(endpoint, "drill", DRILLS)
    return ReadyReading(
        checks=checks,
        drills=tuple(
            (entry.at, entry.event.body)
            for entry in drills
            if isinstance(entry.event, Note) and isinstance(entry.event.body, DrillResult)
        ),
        runbook=runbook.made(place.ledger, place.clock, state, place.site),
        speed=speed_of(place, endpoint)[0],
    )


def read_written(place: Workplace, endpoint: str, above: int) -> WrittenCommand | None:
    """Return the command that moved an endpoint from an epoch; None: none did yet.

    Raises:
        Unavailable: the ledger cannot be read.
    """
    near = place.ledger.history(endpoint, ENTRIES, before=(above + COMMAND_EVENTS + 1, 0))
    events = [e for e in reversed(near) if e.epoch > above and not isinstance(e.event, Note)]
    if not events:
        return None
    receipts = place.ledger.entries(endpoint, "receipt", ENTRIES)
    parts = next(
        (
            entry.event.body.parts
            for entry in receipts
            if isinstance(entry.event, Note)
            and isinstance(entry.event.body, ReceiptNote)
            and entry.event.body.of == events[0].seq
        ),
        None,
    )
    first = events[0]
    same = tuple(e for e in events if (e.by, e.at, e.reason) == (first.by, first.at, first.reason))
    return WrittenCommand(entries=same, parts=parts)


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
        pair=None,
        rules=None,
        steps=(),
        shadow_window_s=0.0,
        finding=None,
        releases=(),
    )


def _pair(state: State) -> ComparedPair | None:
    if state.compared is None or state.production is None:
        return None
    return ComparedPair(
        production=state.production,
        compared=state.compared,
        salt=state.salt,
        paired=state.mirrored is not None,
        reverse=state.candidate is None,
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
        return evidence_of(place, state.endpoint, worst=VERDICTS_READ, examples=EXAMPLES), ""
    except (Refused, Unavailable) as error:
        return None, "" if error.code == "no_rollout" else str(error)


def _finding(place: Workplace, endpoint: str) -> DiagnosisSummary | None:
    try:
        return newest_finding(place.ledger, endpoint)
    except KedgeError:
        return None  # another version wrote it


def read_alerts(place: Workplace) -> AlertsReading:
    """Return the newest alerts of all endpoints, with the people and levels of each endpoint.

    Raises:
        Unavailable: the ledger cannot be read.
    """
    return AlertsReading(found=tuple(alerts_of(place, None, over=True)), duties=_duties(place))


def read_alert(place: Workplace, number: int) -> AlertsReading:
    """Return one alert, with the people and levels of each endpoint.

    Raises:
        Refused: `unknown_alert`.
        Unavailable: the ledger cannot be read.
    """
    return AlertsReading(found=(find_alert(place, number),), duties=_duties(place))


def _duties(place: Workplace) -> dict[str, AlertDuty]:
    now = place.clock.unix()
    duties = {}
    for name, state in place.ledger.read().states.items():
        owner, on_call = find_owner(state.policy), find_on_call(state.policy, now)
        duties[name] = AlertDuty(
            owner=owner.name if owner is not None else "",
            on_call=on_call.name if on_call is not None else "",
            levels=rungs(state.policy, now),
        )
    return duties
