"""Rollback: the reads before it, the pin of a host without the ledger, and the finding beside it.

This module imports no NumPy, so that a rollback is fast.
"""

from __future__ import annotations

import time
from pathlib import Path

from kedge.core.diagnosis.summary import about
from kedge.core.errors import KedgeError
from kedge.core.features.generations import Run, runs_of
from kedge.core.release.commands import Rollback
from kedge.core.release.machine import apply, decide
from kedge.core.values import Refusal, State
from kedge.engine.findings import newest_finding
from kedge.engine.pins import HostDisk, read_pins
from kedge.engine.submission import SILENT_S, replicas
from kedge.operations.receipts import FindingBeside, PinnedHost
from kedge.system.pause import pause
from kedge.workspace import Workplace, actor

LOCAL_ACK_S = 5.0
FINDING_S = 0.5
"""How long a completed rollback waits for the newest finding while the ledger is busy."""


def landing_reads(place: Workplace, endpoint: str, command: Rollback) -> tuple[Run, ...]:
    """Return the runs that a rollback would restore and production does not read today."""
    state = place.ledger.read().states.get(endpoint, State(endpoint=endpoint))
    events = decide(state, command, place.clock.now())
    if isinstance(events, Refusal) or state.production is None:
        return ()
    after = state
    for event in events:
        after = apply(after, event)
    assert after.production is not None
    today = runs_of(state.releases[state.production].generation)
    landing = runs_of(after.releases[after.production].generation)
    return tuple(run for run in landing if run not in today)


def pin_host(state_dir: Path, endpoint: str, command: Rollback, *, reason: str) -> PinnedHost:
    """Pin this host without the ledger, and wait until its gateways acknowledge."""
    place = Workplace(state_dir, patience_s=0.2)
    started = time.monotonic()
    pin = place.disk.pin(endpoint, command, by=actor(), reason=reason, at=place.clock.now())
    acks: dict[str, float] = {}
    try:
        waiting = {
            m.name for m in replicas(place.roster.members()) if time.time() - m.beat_at < SILENT_S
        }
        while waiting and time.monotonic() - started < LOCAL_ACK_S:
            for member in place.roster.members():
                served = member.pinned.get(endpoint) == pin.state.production
                if member.name in waiting and (served or _is_unpinned(place.disk, endpoint)):
                    acks[member.name] = round((time.monotonic() - started) * 1e3, 1)
                    waiting.discard(member.name)
            pause(0.005)
    except KedgeError:
        waiting = set()
    return PinnedHost(
        endpoint=endpoint,
        serves=f"r{pin.state.production}",
        left_epoch=pin.left,
        acks=acks,
        silent=tuple(sorted(waiting)),
    )


def _is_unpinned(disk: HostDisk, endpoint: str) -> bool:
    """Return whether the pin was submitted already; unreadable pins count as present."""
    pins, fault = read_pins(disk)
    return not fault and endpoint not in pins


def finding_beside(state_dir: Path, endpoint: str, left: str | None) -> FindingBeside | None:
    """Return the newest finding if it is about the release that was left, and at most a day old.

    A fault is a field of the result, since the rollback is done.
    """
    try:
        place = Workplace(state_dir, patience_s=FINDING_S)
        found, now = newest_finding(place.ledger, endpoint), place.clock.unix()
    except KedgeError as error:
        return FindingBeside(fault=f"{error.code}: {error}", against=False)
    if found is None or left is None or not about(found, int(left.removeprefix("r")), now):
        return None
    return FindingBeside(
        fault="",
        age_s=max(now - found.at, 0.0),
        against=found.against,
        headline=found.headline,
        causes=found.causes,
        effect=found.effect,
        action=found.action,
        advice=found.advice,
        new=f"r{found.new}",
        old=f"r{found.old}" if found.old is not None else None,
    )
