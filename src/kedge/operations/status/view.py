"""View of status: live releases, readiness, counts, faults, the same for text, JSON and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from kedge.core.alerts.alerts import Alert, find_on_call, find_owner
from kedge.core.estimate import RolloutEstimate
from kedge.core.release.guards import next_step, on_pass, promised, step_number
from kedge.core.release.needs import needs
from kedge.core.release.ways_back import returned
from kedge.core.stored.roster import Member, ProcessFault, Tally
from kedge.core.values import (
    BUCKETS,
    Contact,
    Field,
    Placement,
    Release,
    RowsMark,
    Stage,
    State,
    Value,
)
from kedge.engine.pins import Pin
from kedge.engine.recording.counts import CanaryCounts, CountSummary, ShadowCounts, summary
from kedge.engine.submission import SILENT, SILENT_S, Lack, Unready, first_of, lacking, replicas
from kedge.engine.unrecorded import UnrecordedPredictions
from kedge.operations.evidence.view import ReasonedVerdict

WINDOW_OVER = Lack(Unready.WINDOW_OVER, "window over")
"""Why a replica is cold: by the policy it no longer keeps a way back loaded."""


class ReleaseSummary(Value, frozen=True, kw_only=True):
    """A release in short form."""

    release: str
    """The name of the release: r3."""
    version: str
    """The version of the model: v2."""
    model: str
    flavour: str
    runtime: Placement
    features: str | None
    """Its transformation, such as flight/1#4; null: the model has no schema."""
    digest: str
    """Digest of the model."""


class LiveRelease(ReleaseSummary, frozen=True, kw_only=True):
    """A release that can answer requests now."""

    rows: RowsMark = "independent"
    """Whether an answer depends on the other rows of the request."""
    libraries: tuple[str, ...] = ()
    """A sentence for each library whose version differs from that which wrote the model."""


class WayBack(ReleaseSummary, frozen=True, kw_only=True):
    """A release that a rollback would land on."""

    kept: bool
    """Whether replicas keep it loaded; false: `back_window` is over."""
    ready: tuple[str, ...]
    """Replicas on which it is ready."""
    cold: dict[str, str]
    """By replica on which it is not ready: the reason."""
    load_s: float
    """Duration of a load, in seconds."""


class RunningDrill(Value, frozen=True):
    """A drill under way."""

    left: str
    """The release that is restored after it."""
    until: float
    """Unix time at which it ends."""
    left_s: float
    """Seconds until then."""


class HoldStatus(Value, frozen=True, kw_only=True):
    """The state of a release on a replica."""

    release: str
    placement: Placement
    state: str
    """loading, ready or failed."""
    detail: str
    processes: int
    """Number of its processes that answer; 0 inline."""
    unfenced: tuple[str, ...]
    """The parts of the fence that its processes lack."""


class ReplicaStatus(Value, frozen=True, kw_only=True):
    """A gateway worker."""

    name: str
    pid: int
    address: str
    epoch: int | None
    """The endpoint's epoch that it serves; null: none yet."""
    silent: bool
    beat_age_s: float
    """Seconds since its last heartbeat."""
    head: str | None
    """The newest ledger entry that it followed, as NUMBER:HASH."""
    ledger_age_s: float
    """Seconds since it reached the ledger."""
    lease: bool
    """False: it lost the ledger, and gives no candidate a share."""
    loads: dict[str, int]
    """By digest: how often it loaded a model inline since its start."""
    pinned: str | None
    """The release that its host is pinned to; null: it follows the ledger."""
    holds: tuple[HoldStatus, ...]


class HostPin(Value, frozen=True, kw_only=True):
    """The pin of this host."""

    serves: str
    """The release that it is pinned to."""
    left_epoch: int
    """The endpoint's epoch when it was pinned."""
    row_epoch: int
    """The endpoint's epoch now."""
    by: str
    reason: str
    at: str
    drift: str
    """Why it cannot be submitted to the ledger; empty: it can."""


class OpenAlert(Value, frozen=True, kw_only=True):
    """An open alert in short form."""

    number: int
    level: Literal["warn", "page"]
    summary: str
    acknowledged_by: str
    """Empty: it is not acknowledged."""
    told: int
    """Number of channels that delivered it."""


class ProcessStatus(Value, frozen=True, kw_only=True):
    """A process of kedge that survived faults, or whose limits refused something."""

    name: str
    kind: str
    """gateway, supervisor or control."""
    faults: tuple[ProcessFault, ...]
    limited: dict[str, int]
    """By limit: how often it refused or dropped something since the process started."""


class ReadinessStatus(Value, frozen=True, kw_only=True):
    """The result of the newest check of an endpoint's readiness."""

    ready: bool
    at: str
    failed: tuple[str, ...]
    """Checks that failed."""


class EndpointStatus(Value, frozen=True, kw_only=True):
    """The live releases, readiness, counts and faults of an endpoint. Shares are per cent."""

    endpoint: str
    epoch: int
    stage: Stage
    paused: bool
    restored: str | None
    """When it was restored from a backup; null: it was not, or an operator confirmed it."""
    auto: bool
    """Whether the patrol takes the canary's steps."""
    frozen: bool
    step: int | None
    """The current canary step, from 1; 0: before the first. Null: no canary."""
    steps: int | None
    """Number of canary steps; null: no canary."""
    on_pass: Literal["ask", "promote"]
    """The policy's action when a shadow's window, or the last canary step, is proven."""
    production: LiveRelease | None
    previous: ReleaseSummary | None
    candidate: LiveRelease | None
    weight: float
    """Share of callers that the candidate answers."""
    holdback: float
    """Share of callers that the previous release still answers after a promotion."""
    next_weight: float | None
    """Weight of the next canary step; null: production comes next, or no canary."""
    sample: float
    """Share of inputs that the shadow gets."""
    audience: Literal["customer", "internal"]
    owner: str | None
    """The accountable person; null: none is named."""
    on_call: str | None
    """The person whom an alert reaches now; null: none is named."""
    back: WayBack | None
    """The landing of a rollback; null: there is none."""
    back_model: WayBack | None
    """The landing of a rollback of the model alone."""
    back_features: WayBack | None
    """The landing of a rollback of the features alone."""
    drill: RunningDrill | None
    condemned: tuple[str, ...]
    failed: dict[str, str]
    """By candidate that failed against today's production: the reason."""
    answers: tuple[Field, ...]
    """The contract of answers."""
    policy: str
    """The digest of the policy in force."""
    replicas: tuple[ReplicaStatus, ...]
    pin: HostPin | None
    counts: CountSummary
    """Counts of the comparison of today's production and candidate."""
    shadow: ShadowCounts
    """`counts.shadow`."""
    canary: CanaryCounts
    """`counts.canary`."""
    alerts: tuple[OpenAlert, ...]
    """Newest first."""
    faults: tuple[str, ...]
    """Faults for the operator to check, a sentence each."""
    processes: tuple[ProcessStatus, ...]
    unrecorded: UnrecordedPredictions | None = None
    """Null: it cannot be read."""
    readiness: ReadinessStatus | None = None
    """Null: no check has run, or the ledger cannot be read."""
    estimate: RolloutEstimate | None = None
    """How long the rollout waits for its next step; null: no rollout, or time changes nothing."""
    decision: ReasonedVerdict | None = None
    """The policy's decision on the rollout; null: no rollout, or no evidence."""
    link: str = ""
    """Its page of the dashboard; empty without `[server] public_url`."""


def describe(
    state: State,
    members: tuple[Member, ...],
    tallies: tuple[Tally, ...],
    pins: Mapping[str, Pin],
    *,
    now: float,
    alerts: Sequence[Alert] = (),
    aside: Sequence[str] = (),
) -> EndpointStatus:
    """Return the part of `kedge status` of one endpoint that follows from these.

    Args:
        state: the row.
        members: the roster.
        tallies: all tallies of the endpoint; those of other comparisons are ignored.
        pins: the pins of this host.
        now: Unix time.
        alerts: the open alerts of the endpoint, newest first.
        aside: names under which unreadable state was set aside.
    """
    serving = replicas(members)
    counts = summary(_own(state, tallies))
    step = next_step(state) if state.stage is Stage.CANARY else None
    number, steps = step_number(state)
    return EndpointStatus(
        endpoint=state.endpoint,
        epoch=state.epoch,
        stage=state.stage,
        paused=state.paused,
        restored=state.automation.restored or None,
        auto=state.automation.auto,
        frozen=state.automation.frozen,
        step=number if state.stage is Stage.CANARY else None,
        steps=steps if state.stage is Stage.CANARY else None,
        on_pass=on_pass(state),
        production=_live(state, state.production),
        previous=_release(state, state.previous),
        candidate=_live(state, state.candidate),
        weight=state.weight * 100 / BUCKETS,
        holdback=state.holdback * 100 / BUCKETS if state.held is not None else 0.0,
        next_weight=step * 100 / BUCKETS if step is not None else None,
        sample=state.sample * 100 / BUCKETS,
        audience=state.policy.audience,
        owner=_name(find_owner(state.policy)),
        on_call=_name(find_on_call(state.policy, now)),
        back=way_back(state, state.back, serving, now),
        back_model=way_back(state, state.back_model, serving, now),
        back_features=way_back(state, state.back_features, serving, now),
        drill=_drill(state, now),
        condemned=tuple(f"r{number}" for number in state.condemned),
        failed={
            f"r{one.candidate}": one.reason
            for one in state.automation.failures
            if one.production == returned(state).production
        },
        answers=promised(state),
        policy=state.policy_digest,
        replicas=tuple(_replica(member, state, now) for member in serving),
        pin=_pin(pins.get(state.endpoint), state),
        counts=counts,
        shadow=counts.shadow,
        canary=counts.canary,
        alerts=tuple(_alert(alert) for alert in alerts),
        faults=(*_faults(state, serving, pins, now), *map(_unreadable, aside)),
        processes=tuple(_process(each) for each in members if each.faults or each.limited),
    )


def _own(state: State, tallies: tuple[Tally, ...]) -> list[Tally]:
    """Return the tallies of the present comparison."""
    present = (state.production, state.candidate, state.salt)
    return [one for one in tallies if (one.production, one.candidate, one.salt) == present]


def _name(person: Contact | None) -> str | None:
    return person.name if person is not None else None


def _alert(alert: Alert) -> OpenAlert:
    return OpenAlert(
        number=alert.number,
        level=alert.level,
        summary=alert.summary,
        acknowledged_by=alert.acknowledged_by,
        told=len(alert.told),
    )


def _process(member: Member) -> ProcessStatus:
    return ProcessStatus(
        name=member.name,
        kind=member.kind,
        faults=member.faults,
        limited=member.limited,
    )


def _release(state: State, number: int | None) -> ReleaseSummary | None:
    release = state.releases.get(number) if number is not None else None
    if release is None:
        return None
    return ReleaseSummary(
        release=release.label,
        version=f"v{release.version}",
        model=release.model,
        flavour=release.flavour,
        runtime=release.placement,
        features=features_of(release),
        digest=release.model_digest,
    )


def _live(state: State, number: int | None) -> LiveRelease | None:
    found = _release(state, number)
    return LiveRelease(**msgspec.structs.asdict(found)) if found is not None else None


def features_of(release: Release) -> str | None:
    """Return the transformation of a release as users write it: flight/1#4."""
    if release.transformation is None:
        return release.schema
    return f"{release.schema}#{release.transformation}"


def way_back(
    state: State, number: int | None, members: tuple[Member, ...], now: float
) -> WayBack | None:
    """Return a release that a rollback would land on, and the replicas on which it is ready."""
    found = _release(state, number)
    if found is None or number is None:
        return None
    kept, cold = lacks_of(state, number, members, now)
    return WayBack(
        **msgspec.structs.asdict(found),
        kept=kept,
        ready=tuple(sorted(m.name for m in members if m.name not in cold)),
        cold={name: lack.text for name, lack in cold.items()},
        load_s=state.releases[number].load_s,
    )


def lacks_of(
    state: State, number: int, members: tuple[Member, ...], now: float
) -> tuple[bool, dict[str, Lack]]:
    """Return whether replicas keep a way back loaded, and what each unready replica lacks."""
    # One process is enough: a rollback does not wait for the second.
    wish = [
        first_of(need)
        for need in needs(state, now=now)
        if need.release == number and not need.beside
    ]
    silent = {m.name: SILENT for m in members if now - m.beat_at > SILENT_S}
    if wish:
        return True, silent | lacking(members, state.endpoint, wish)
    return False, dict.fromkeys((m.name for m in members), WINDOW_OVER) | silent


def _drill(state: State, now: float) -> RunningDrill | None:
    """Return the current drill: the release that is restored, and the seconds left."""
    if state.drill is None:
        return None
    left_s = max(state.drill.until - now, 0.0)
    return RunningDrill(f"r{state.drill.left}", state.drill.until, left_s)


def not_fenced(endpoint: str, members: tuple[Member, ...]) -> list[str]:
    """Return the releases whose process lacks a part of the fence, in words."""
    found = {
        (hold.release, member.host, hold.unfenced)
        for member in members
        for hold in member.holds
        if hold.endpoint == endpoint and hold.unfenced
    }
    return [
        f"NOT FENCED: r{release} on {host} lacks {', '.join(parts)}: it could read and do what"
        " kedge's user can"
        for release, host, parts in sorted(found)
    ]


def _replica(member: Member, state: State, now: float) -> ReplicaStatus:
    return ReplicaStatus(
        name=member.name,
        pid=member.pid,
        address=member.address,
        epoch=member.epochs.get(state.endpoint),
        silent=now - member.beat_at > SILENT_S,
        beat_age_s=round(now - member.beat_at, 2),
        head=member.head.short if member.head is not None else None,
        ledger_age_s=round(now - member.ledger_at, 2),
        lease=member.lease,
        loads=member.loads,
        pinned=f"r{member.pinned[state.endpoint]}" if state.endpoint in member.pinned else None,
        holds=tuple(
            HoldStatus(
                release=f"r{h.release}",
                placement=h.placement,
                state=h.state,
                detail=h.detail,
                processes=h.copies,
                unfenced=h.unfenced,
            )
            for h in member.holds
            if h.endpoint == state.endpoint
        ),
    )


def _pin(pin: Pin | None, state: State) -> HostPin | None:
    if pin is None:
        return None
    return HostPin(
        serves=f"r{pin.state.production}",
        left_epoch=pin.left,
        row_epoch=state.epoch,
        by=pin.by,
        reason=pin.reason,
        at=pin.at,
        drift=pin.drift,
    )


def _restored(state: State) -> list[str]:
    """Return what an endpoint restored from a backup waits for; [] once a person confirmed it."""
    if not state.unconfirmed:
        return []
    frozen = (
        "; it was frozen before the backup, and that ends then too"
        if state.automation.frozen
        else ""
    )
    told = (
        f"restored from a backup at {state.automation.restored[:19]}Z: kedge promotes, rolls back,"
        f" drills and alerts nothing here by itself until kedge thaw {state.endpoint} confirms"
        f" it{frozen}"
    )
    return [told]


def _unreadable(name: str) -> str:
    return (
        f"it could not be read and was replaced; it is kept: {name} (delete it when it is not"
        " needed)"
    )


def _faults(
    state: State, members: tuple[Member, ...], pins: Mapping[str, Pin], now: float
) -> list[str]:
    """Return the faults for the operator to check, in words."""
    found = _restored(state)
    for member in members:
        if member.astray:
            found.append(f"{member.name} does not follow this ledger: {member.astray}")
        if now - member.beat_at > SILENT_S:
            found.append(f"{member.name} has been silent for {now - member.beat_at:.0f} s")
        elif (
            member.epochs.get(state.endpoint, -1) < state.epoch
            and state.endpoint not in member.pinned
            and not member.astray
        ):
            found.append(
                f"{member.name} serves epoch {member.epochs.get(state.endpoint)}, not {state.epoch}"
            )
        if member.unwritten:
            found.append(f"{member.name} cannot write what it counts: {member.unwritten}")
        if not member.lease:
            found.append(f"{member.name} has lost the ledger: it gives no candidate a share")
        found.extend(
            f"{member.name} cannot load r{hold.release} ({hold.placement}): {hold.detail}"
            for hold in member.holds
            if hold.endpoint == state.endpoint and hold.state == "failed"
        )
        found.extend(
            f"{member.name} has only {hold.copies} process of r{hold.release}, the other cannot"
            f" load: {hold.detail}"
            for hold in member.holds
            if hold.endpoint == state.endpoint and hold.state == "ready" and hold.detail
        )
    found += not_fenced(state.endpoint, members)
    pin = pins.get(state.endpoint)
    if pin is not None:
        found.append(
            f"this host is pinned to r{pin.state.production} by {pin.by}"
            + (f"; it drifts: {pin.drift}" if pin.drift else "")
        )
    if not members:
        found.append("no replica is known: is kedge up running?")
    return found
