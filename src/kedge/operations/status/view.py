"""Status: what is live, ready, counted and wrong, as plain values: the same for people, JSON and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kedge.core.alerts.alerts import Alert
from kedge.core.release.guards import next_step, on_pass, promised, step_number
from kedge.core.release.needs import needs
from kedge.core.release.ways_back import returned
from kedge.core.stored.roster import Member, Tally
from kedge.core.values import BUCKETS, Release, Stage, State
from kedge.engine.pins import Pin
from kedge.engine.recording.recorder import summary
from kedge.engine.submission import SILENT, SILENT_S, Lack, Unready, first_of, lacking, replicas

WINDOW_OVER = Lack(Unready.WINDOW_OVER, "window over")
"""Why a replica is cold that does not hold a way back any more, as the policy has it."""


def describe(
    state: State,
    members: tuple[Member, ...],
    tallies: tuple[Tally, ...],
    pins: Mapping[str, Pin],
    *,
    now: float,
    alerts: Sequence[Alert] = (),
    aside: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything `kedge status` says of one endpoint.

    Args:
        state: the row.
        members: the roster.
        tallies: everything counted for the endpoint; those of other comparisons are left out.
        pins: the pins of this host.
        now: Unix time.
        alerts: those of the endpoint that are open, newest first.
        aside: names under which state is kept that could not be read.
    """
    serving = replicas(members)
    mine = [
        t
        for t in tallies
        if (t.production, t.candidate, t.salt) == (state.production, state.candidate, state.salt)
    ]
    counts = summary(mine)
    step = next_step(state) if state.stage is Stage.CANARY else None
    number, steps = step_number(state)
    return {
        "endpoint": state.endpoint,
        "epoch": state.epoch,
        "stage": state.stage.value,
        "paused": state.paused,
        "restored": state.automation.restored or None,
        "auto": state.automation.auto,
        "frozen": state.automation.frozen,
        "step": number if state.stage is Stage.CANARY else None,
        "steps": steps if state.stage is Stage.CANARY else None,
        "on_pass": on_pass(state),
        "production": _release(state, state.production),
        "previous": _release(state, state.previous),
        "candidate": _release(state, state.candidate),
        "weight": state.weight * 100 / BUCKETS,
        "holdback": state.holdback * 100 / BUCKETS if state.held is not None else 0.0,
        "next_weight": step * 100 / BUCKETS if step is not None else None,
        "sample": state.sample * 100 / BUCKETS,
        "audience": state.policy.audience,
        "back": way_back(state, state.back, serving, now),
        "back_model": way_back(state, state.back_model, serving, now),
        "back_features": way_back(state, state.back_features, serving, now),
        "drill": _drill(state, now),
        "condemned": [f"r{number}" for number in state.condemned],
        "failed": {
            f"r{one.candidate}": one.reason
            for one in state.automation.failures
            if one.production == returned(state).production
        },
        "answers": promised(state),
        "policy": state.policy_digest,
        "replicas": [_replica(member, state, now) for member in serving],
        "pin": _pin(pins.get(state.endpoint), state),
        "counts": counts,
        "shadow": counts["shadow"],
        "canary": counts["canary"],
        "alerts": [_alert(alert) for alert in alerts],
        "faults": [*_faults(state, serving, pins, now), *map(_unreadable, aside)],
        "processes": [_process(each) for each in members if each.faults or each.limited],
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "number": alert.number,
        "level": alert.level,
        "summary": alert.summary,
        "acknowledged_by": alert.acknowledged_by,
        "told": len(alert.told),
    }


def _process(member: Member) -> dict[str, Any]:
    return {
        "name": member.name,
        "kind": member.kind,
        "faults": [msgspec.structs.asdict(fault) for fault in member.faults],
        "limited": member.limited,
    }


def _release(state: State, number: int | None) -> dict[str, Any] | None:
    release: Release | None = state.releases.get(number) if number is not None else None
    if release is None:
        return None
    return {
        "release": release.label,
        "version": f"v{release.version}",
        "model": release.model,
        "flavour": release.flavour,
        "runtime": release.placement.value,
        "features": features_of(release),
        "digest": release.model_digest,
    }


def features_of(release: Release) -> str | None:
    """What its features are made by, as people write it: flight/1#4."""
    if release.transformation is None:
        return release.schema
    return f"{release.schema}#{release.transformation}"


def way_back(
    state: State, number: int | None, members: tuple[Member, ...], now: float
) -> dict[str, Any] | None:
    """A release that a rollback would land on, and where it is ready."""
    found = _release(state, number)
    if found is None or number is None:
        return None
    kept, cold = lacks_of(state, number, members, now)
    return {
        **found,
        "kept": kept,
        "ready": sorted(m.name for m in members if m.name not in cold),
        "cold": {name: lack.text for name, lack in cold.items()},
        "load_s": state.releases[number].load_s,
    }


def lacks_of(
    state: State, number: int, members: tuple[Member, ...], now: float
) -> tuple[bool, dict[str, Lack]]:
    """Return whether replicas are to hold a way back, and what each that is not ready lacks."""
    # One process makes it warm: a rollback does not wait for the second.
    wish = [
        first_of(need)
        for need in needs(state, now=now)
        if need.release == number and not need.beside
    ]
    silent = {m.name: SILENT for m in members if now - m.beat_at > SILENT_S}
    if wish:
        return True, silent | lacking(members, state.endpoint, wish)
    return False, dict.fromkeys((m.name for m in members), WINDOW_OVER) | silent


def _drill(state: State, now: float) -> dict[str, Any] | None:
    """The drill under way: what is restored, and how many seconds are left."""
    if state.drill is None:
        return None
    left_s = max(state.drill.until - now, 0.0)
    return {"left": f"r{state.drill.left}", "until": state.drill.until, "left_s": left_s}


def not_fenced(endpoint: str, members: tuple[Member, ...]) -> list[str]:
    """Which releases run in a process that lacks a part of the fence, in words."""
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


def _replica(member: Member, state: State, now: float) -> dict[str, Any]:
    return {
        "name": member.name,
        "pid": member.pid,
        "address": member.address,
        "epoch": member.epochs.get(state.endpoint),
        "silent": now - member.beat_at > SILENT_S,
        "beat_age_s": round(now - member.beat_at, 2),
        "head": member.head.short if member.head is not None else None,
        "ledger_age_s": round(now - member.ledger_at, 2),
        "lease": member.lease,
        "loads": member.loads,
        "pinned": f"r{member.pinned[state.endpoint]}" if state.endpoint in member.pinned else None,
        "holds": [
            {
                "release": f"r{h.release}",
                "placement": h.placement.value,
                "state": h.state,
                "detail": h.detail,
                "processes": h.copies,
                "unfenced": h.unfenced,
            }
            for h in member.holds
            if h.endpoint == state.endpoint
        ],
    }


def _pin(pin: Pin | None, state: State) -> dict[str, Any] | None:
    if pin is None:
        return None
    return {
        "serves": f"r{pin.state.production}",
        "left_epoch": pin.left,
        "row_epoch": state.epoch,
        "by": pin.by,
        "reason": pin.reason,
        "at": pin.at,
        "drift": pin.drift,
    }


def _restored(state: State) -> list[str]:
    """What an endpoint waits for that was restored from a backup; [] when a person confirmed it."""
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
        f"it could not be read, was begun anew, and is kept: {name} (delete it when it is not"
        " needed)"
    )


def _faults(
    state: State, members: tuple[Member, ...], pins: Mapping[str, Pin], now: float
) -> list[str]:
    """Return what an operator should look at, in words."""
    found = _restored(state)
    for member in members:
        if member.astray:
            found.append(f"{member.name} does not follow this ledger: {member.astray}")
        if now - member.beat_at > SILENT_S:
            found.append(f"{member.name} is silent since {now - member.beat_at:.0f} s")
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
