"""Reading of status from the state directory, with the condition that a rollout still waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from kedge.config.locate import find_deletion
from kedge.core.errors import Unavailable
from kedge.core.names import get_known
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import ReadinessNote
from kedge.core.stored.roster import Member, Tally
from kedge.core.values import Stage, State
from kedge.engine.libraries import find_differences
from kedge.engine.pins import Pin, read_pins
from kedge.engine.unrecorded import UnrecordedPredictions, unrecorded
from kedge.inspection.independence import release_mark
from kedge.operations.evidence.read import estimate_of
from kedge.operations.status.view import EndpointStatus, LiveRelease, ReadinessStatus, describe
from kedge.workspace import Workplace

OPEN_ALERTS = 200
"""Limit of open alerts of one endpoint in its status."""


class HostReading(NamedTuple):
    """What the status of every endpoint is read with."""

    members: tuple[Member, ...]
    pins: Mapping[str, Pin]
    unpinned: str
    """Why the pins cannot be read; empty: they were."""
    lost: str
    """Why the ledger cannot be read; empty: it was."""


def status_of(place: Workplace, endpoint: str | None) -> list[EndpointStatus]:
    """Return the status of one endpoint, or of all; without the ledger, from this host's memory.

    Raises:
        Refused: the endpoint is not found.
    """
    return [_with_estimate(place, item) for item in status_without_estimates(place, endpoint)]


def _with_estimate(place: Workplace, item: EndpointStatus) -> EndpointStatus:
    """Return a status with its rollout's estimate; without the ledger it has none."""
    if item.candidate is None or item.stage not in (Stage.CANARY, Stage.SHADOW):
        return item
    try:
        state = place.ledger.read().states.get(item.endpoint)
    except Unavailable:
        return item
    found = estimate_of(place, state) if state is not None else None
    if found is None:
        return item
    return replace(item, estimate=found.estimate, decision=found.decision)


def status_without_estimates(place: Workplace, endpoint: str | None) -> list[EndpointStatus]:
    """Return the status of one endpoint, or of all; without the ledger, from this host's memory.

    Raises:
        Refused: the endpoint is not found.
    """
    lost = ""
    try:
        states = place.ledger.read().states
    except Unavailable as error:
        fault = find_deletion(place.state_dir) or error
        states, lost = place.disk.remembered(), f"{fault.code}: {fault}"
        if not states:
            raise fault from (None if fault is error else error)
    if endpoint is not None:
        get_known(states, endpoint)
    names = sorted(states) if endpoint is None else [endpoint]
    host = HostReading(place.roster.members(), *read_pins(place.disk), lost)
    return [_read(place, states[name], host) for name in names]


def _read(place: Workplace, state: State, host: HostReading) -> EndpointStatus:
    """Return the status of one endpoint."""
    members, pins, unpinned, lost = host
    tallies, aside, unread, missing = _observed(place, state)
    open_ = place.alerts.listed(state.endpoint, over=False, limit=OPEN_ALERTS) if not lost else ()
    item = describe(
        state, members, tallies, pins, now=place.clock.unix(), alerts=open_, aside=aside
    )
    first = (
        (f"the ledger cannot be read ({lost}): this is the last state known to this host",)
        if lost
        else ()
    )
    last = (f"the evidence cannot be read ({unread})",) if unread else ()
    return replace(
        item,
        production=_inspected(place, state, state.production, item.production),
        candidate=_inspected(place, state, state.candidate, item.candidate),
        unrecorded=missing,
        readiness=None if lost else _readiness(place, state.endpoint),
        link=place.site.links.endpoint(state.endpoint),
        faults=(*first, *item.faults, *last, *filter(None, [unpinned])),
    )


def _inspected(
    place: Workplace, state: State, number: int | None, live: LiveRelease | None
) -> LiveRelease | None:
    """Return a live release with the properties of its artifacts."""
    if live is None or number is None:
        return None
    release = state.releases[number]
    return replace(
        live,
        rows=release_mark(place.artifacts, release),
        libraries=find_differences(place.artifacts, release.model_digest),
    )


def _observed(
    place: Workplace, state: State
) -> tuple[tuple[Tally, ...], list[str], str, UnrecordedPredictions | None]:
    """Return the tallies, the state set aside, why that cannot be read, and unrecorded predictions.

    A full disk must not hide the state.
    """
    tallies: tuple[Tally, ...] = ()
    try:
        tallies = place.evidence.tallies(state.endpoint)
        aside = place.list_aside(state)
        return tallies, aside, "", unrecorded(tallies, place.records, state.endpoint)
    except Unavailable as error:
        return tallies, [], f"{error.code}: {error}", None


def _readiness(place: Workplace, endpoint: str) -> ReadinessStatus | None:
    """Return the newest recorded readiness of an endpoint; None: no check has run yet."""
    for entry in place.ledger.entries(endpoint, "readiness"):
        if isinstance(entry.event, Note) and isinstance(entry.event.body, ReadinessNote):
            body = entry.event.body
            return ReadinessStatus(ready=body.ready, at=entry.at, failed=body.failed)
    return None
