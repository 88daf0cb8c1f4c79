"""Reading of a rollout's evidence: fold the stored windows, ask the policy, plan the steps.

It needs NumPy, which a rollback must not wait for, so that it is a module of its own.
"""

from __future__ import annotations

from itertools import islice
from math import inf

import msgspec

from kedge.core.automation import PatrolFacts, decide, rules
from kedge.core.errors import Refused, Unavailable
from kedge.core.estimate import RolloutEstimate, estimate, proven_after
from kedge.core.evidence.forecast import ExpectedTraffic, ForecastStep, detection
from kedge.core.evidence.records import Correction
from kedge.core.evidence.verdicts import PROVABLE
from kedge.core.names import check_segment, get_known
from kedge.core.stored.ledger import Note
from kedge.core.time.instants import read_instant, read_when
from kedge.core.values import BUCKETS, Stage, State, Value
from kedge.engine.control.patrol import covered, fold_labels, unwritten
from kedge.engine.recording.counts import summary
from kedge.engine.recording.custom import set_fence
from kedge.engine.submission import Say
from kedge.engine.unrecorded import UnrecordedPredictions, unrecorded
from kedge.engine.watch import Watch, comparison_of
from kedge.operations.evidence.view import (
    EXAMPLES,
    WORST,
    ComparisonView,
    CoursePoint,
    ReasonedVerdict,
    course,
    describe,
)
from kedge.system.pause import pause
from kedge.workspace import Workplace

RECENT = 20
"""Entries that are read for the newest change of a row: one command writes few notes."""
BATCH = 5_000
CORRECTIONS = 20
"""Limit of corrections of labels that are shown, the newest first."""
DAY_S = 86_400
LOGGED = 200_000
"""Limit of logged predictions in which callers are counted: some seconds of reading."""
MEASURED_S = 5.0
"""How long `plan` measures the traffic: five heartbeats of every worker."""
OWN_S = 5.0
"""How long a command waits for the child process in which the policy's function judges labels."""
COUNTED = 100
"""Requests from which on the rate of failures is precise enough for a plan."""


class CorrectedLabels(Value, frozen=True):
    """Corrected labels of an endpoint."""

    count: int
    newest: tuple[Correction, ...]
    """The newest corrections, newest first."""


class RolloutEvidence(ComparisonView, frozen=True, kw_only=True):
    """The evidence of a rollout, and the endpoint's records. Pairs are as in ComparisonView."""

    unrecorded: UnrecordedPredictions | None
    """Null: it cannot be read."""
    corrections: CorrectedLabels | None
    """Null: they cannot be read."""


class RolloutOutlook(Value, frozen=True):
    """The condition that a rollout waits for, by the state that the patrol stored last."""

    decision: ReasonedVerdict
    estimate: RolloutEstimate | None
    """Null: time alone changes nothing."""


class PlannedStep(ForecastStep, frozen=True, kw_only=True):
    """The forecast of one canary step."""

    proven_s: float | None
    """Seconds until a candidate that fails as often as production can pass; null: over a month."""


class RolloutPlan(Value, frozen=True, kw_only=True):
    """The time to find a worse candidate at each canary step."""

    endpoint: str
    rate: float
    """Requests a second."""
    errors: float
    """Share of requests that production fails, 0 to 1."""
    counted: int
    """Requests that it was measured on, unless it was stated."""
    times: float
    """The factor by which the worse candidate fails more often."""
    alpha: float
    """The probability that a healthy candidate is rolled back."""
    callers: int | None
    """Number of different callers; null: most requests have no entity."""
    provable: int
    """Number of the candidate's callers from which on a candidate without failures can pass."""
    steps: tuple[PlannedStep, ...]


def evidence_of(
    place: Workplace,
    endpoint: str,
    segment: str | None = None,
    *,
    worst: int = WORST,
    examples: int = EXAMPLES,
) -> RolloutEvidence:
    """Return a rollout's evidence: the patrol's stored state, and every window since.

    Without a `segment`, the verdicts on the `worst` segments are in it. It has as many worked
    `examples` of disagreement at most, those of the `segment` alone if there is one.

    Raises:
        Refused: the endpoint is not found, it has no rollout, or `unknown_segment`.
    """
    state = state_of(place, endpoint)
    if segment is not None:
        check_segment(segment, state.policy.segments, endpoint)
    if state.compared is None:
        raise Refused(
            f"nothing is compared on {endpoint} (stage: {state.stage})",
            code="no_rollout",
            hint=f"kedge history {endpoint} has the verdicts of earlier ones",
        )
    watch, unread = Watch(state), ""
    lost: UnrecordedPredictions | None = None
    corrections: CorrectedLabels | None = None
    try:
        watch = Watch(state, place.windows.kept(endpoint, comparison_of(state)))
        if watch.own is not None:
            set_fence(place.state_dir, place.fence)
        _fold_all(place, state, watch)
        corrections = CorrectedLabels(*place.records.corrections(endpoint, CORRECTIONS))
        lost = unrecorded(place.evidence.tallies(endpoint), place.records, endpoint)
    except Unavailable as error:
        unread = f"the evidence cannot be read: {error}"
    facts = msgspec.structs.replace(
        _facts(place, watch, endpoint), unread=unread, unwritten=unwritten(place.roster)
    )
    found = describe(
        state,
        watch,
        decide(state, facts),
        facts,
        segment=segment,
        past=_past(place, endpoint),
        worst=worst,
        examples=examples,
    )
    return RolloutEvidence(
        **msgspec.structs.asdict(found), unrecorded=lost, corrections=corrections
    )


def estimate_of(place: Workplace, state: State) -> RolloutOutlook | None:
    """Return what a rollout waits for and how long, by the patrol's last state; None if unknown.

    It reads no newer window, since `kedge status` runs every second.
    """
    if state.candidate is None or state.stage not in (Stage.CANARY, Stage.SHADOW):
        return None
    try:
        watch = Watch(state, place.windows.kept(state.endpoint, comparison_of(state)))
        facts = _facts(place, watch, state.endpoint)
        past = _past(place, state.endpoint)
    except Unavailable:
        return None  # status reports the fault itself
    found = decide(state, facts)
    return RolloutOutlook(
        ReasonedVerdict(found.verdict, found.code, found.reason),
        estimate(state, found, facts, watch.judge, past),
    )


def _facts(place: Workplace, watch: Watch, endpoint: str) -> PatrolFacts:
    """Return the facts of a comparison; without any request, also how old the row is.

    Raises:
        Unavailable: the ledger cannot be read.
    """
    now = place.clock.unix()
    facts = watch.facts(now)
    if any(facts.requests) or facts.pairs:
        return facts
    changes = (e for e in place.ledger.history(endpoint, RECENT) if not isinstance(e.event, Note))
    newest = next(changes, None)
    since_s = max(now - read_instant(newest.at), 0.0) if newest is not None else inf
    return msgspec.structs.replace(facts, since_s=since_s)


def _past(place: Workplace, endpoint: str) -> tuple[int, int]:
    """Return production's failures and requests, all that were counted."""
    try:
        requests, failed = _answered(place, endpoint)
    except Unavailable:
        return 0, 0
    return failed, requests


def course_of(place: Workplace, endpoint: str, since: str) -> list[CoursePoint]:
    """Return the course of an endpoint's evidence: minutes and hours of windows, oldest first.

    Raises:
        Refused: the endpoint is not found; `bad_time`, `in_the_future`.
    """
    state_of(place, endpoint)
    begin = read_when(since, place.clock.unix())
    return [course(roll) for roll in place.rolls.read(endpoint, begin)]


def _fold_all(place: Workplace, state: State, watch: Watch) -> None:
    while True:
        watch.cursor, windows = place.windows.read(state.endpoint, watch.cursor, BATCH)
        for window in windows:
            watch.fold(window)
        if len(windows) < BATCH:
            break
    while fold_labels(place.records, state, watch, place.clock.unix(), OWN_S):
        continue
    watch.label_coverage = covered(place.records, watch, state)
    watch.reused = place.records.reused(state.endpoint)


def state_of(place: Workplace, endpoint: str) -> State:
    """Return the endpoint's row.

    Raises:
        Refused: the endpoint is not found.
    """
    return get_known(place.ledger.read().states, endpoint)


def plan_of(
    place: Workplace,
    endpoint: str,
    *,
    rate: float | None,
    errors: float | None,
    times: float,
    callers: int | None,
    say: Say,
) -> RolloutPlan:
    """Return how soon a worse candidate would be found at each canary step.

    `callers`: the number of different callers; None: counted in the last day of the prediction log.

    Raises:
        Refused: there is no traffic to plan from, and no rate was given.
    """
    state = state_of(place, endpoint)
    before = _answered(place, endpoint)
    if rate is None:
        say(f"watching the traffic for {MEASURED_S:g} s")
        pause(MEASURED_S)
        rate = (_answered(place, endpoint)[0] - before[0]) / MEASURED_S
    if rate <= 0:
        raise Refused(
            f"no request reached {endpoint} within {MEASURED_S:g} s, so there is no rate to plan"
            " with",
            code="no_traffic",
            hint=f"state the rate that you expect: kedge plan {endpoint} --rate 100 --errors 0.1",
        )
    requests, failed = _answered(place, endpoint)
    if errors is None and requests < COUNTED:
        raise Refused(
            f"only {requests} requests to {endpoint} were counted: the share that production fails"
            " is not known",
            code="no_traffic",
            hint=f"state it in per cent: kedge plan {endpoint} --rate {rate:g} --errors 0.1",
        )
    # Half a failure is added: an event not seen in n requests may still occur once in 2n.
    share = errors / 100 if errors is not None else (failed + 0.5) / (requests + 1)
    asked = rules(state.policy, paired=False)
    if callers is None:
        callers = _callers(place, state)
    traffic = ExpectedTraffic(rate=rate, errors=share, callers=callers)
    steps: list[PlannedStep] = []
    for step in state.policy.canary.steps:
        weight = round(step * BUCKETS / 100)
        found = detection(asked, traffic, times=times, weight=weight)
        proven_s = proven_after(state.policy, traffic, weight)
        steps.append(PlannedStep(**msgspec.structs.asdict(found), proven_s=proven_s))
    return RolloutPlan(
        endpoint=endpoint,
        rate=round(rate, 2),
        errors=share,
        counted=requests,
        times=times,
        alpha=asked.alpha,
        callers=callers,
        provable=PROVABLE,
        steps=tuple(steps),
    )


def _callers(place: Workplace, state: State) -> int | None:
    """Return the number of callers of a day, by the sampled log; None: most have no entity."""
    share = state.policy.log.sample / 100
    if share <= 0:
        return None
    now = place.clock.unix()
    units: set[str] = set()
    rows = keyless = 0
    for row in islice(place.records.rows(state.endpoint, now - DAY_S, now), LOGGED):
        if not row.inputs:
            continue  # it is not in the sample
        rows += 1
        keyless += not row.unit
        units.add(row.unit)
    if not rows or keyless * 2 > rows:
        return None
    return max(round(len(units) / share), 1)


def _answered(place: Workplace, endpoint: str) -> tuple[int, int]:
    """Return the answered requests, and those that production failed."""
    counts = summary(place.evidence.tallies(endpoint))
    failed = sum(counts.errors.values())
    return sum(counts.requests.values()) + failed, failed
