"""Status read from the state directory, with what a rollout under way still waits for."""

from __future__ import annotations

from typing import Any

from kedge.config.locate import find_deletion
from kedge.core.errors import Unavailable
from kedge.core.names import get_known
from kedge.core.stored.ledger import Note
from kedge.core.stored.roster import Tally
from kedge.core.values import State
from kedge.engine.libraries import find_differences
from kedge.engine.pins import read_pins
from kedge.engine.unrecorded import UnrecordedPredictions, unrecorded
from kedge.inspection.independence import release_mark
from kedge.operations.evidence.read import estimate_of
from kedge.operations.status.view import describe
from kedge.workspace import Workplace

OPEN_ALERTS = 200
"""Open alerts of one endpoint that status shows at most."""


def status_of(place: Workplace, endpoint: str | None) -> list[dict[str, Any]]:
    """Return the status of one endpoint, or of all; without the ledger, as this host remembers it.

    Raises:
        Refused: there is no such endpoint.
    """
    found = status_without_estimates(place, endpoint)
    for item in found:
        item.update(estimate=None, decision=None)
        if item["candidate"] is not None and item["stage"] in ("canary", "shadow"):
            item.update(_waits(place, item["endpoint"]))
    return found


def _waits(place: Workplace, endpoint: str) -> dict[str, Any]:
    """Return what a rollout waits for; without the ledger nothing is said of it."""
    try:
        state = place.ledger.read().states.get(endpoint)
    except Unavailable:
        return {}
    found = estimate_of(place, state) if state is not None else None
    return {} if found is None else {"decision": found.decision, "estimate": found.estimate}


def status_without_estimates(place: Workplace, endpoint: str | None) -> list[dict[str, Any]]:
    """Return the status of one endpoint, or of all; without the ledger, as this host remembers it.

    Raises:
        Refused: there is no such endpoint.
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
    found = []
    pins, unpinned = read_pins(place.disk)
    for name in sorted(states) if endpoint is None else [endpoint]:
        members = place.roster.members()
        tallies, aside, unread, missing = _observed(place, states[name])
        open_ = place.alerts.listed(name, over=False, limit=OPEN_ALERTS) if not lost else ()
        item = describe(
            states[name], members, tallies, pins, now=place.clock.unix(), alerts=open_, aside=aside
        )
        for part, number in (
            ("production", states[name].production),
            ("candidate", states[name].candidate),
        ):
            if item[part] is not None and number is not None:
                release = states[name].releases[number]
                item[part]["rows"] = release_mark(place.artifacts, release)
                item[part]["libraries"] = find_differences(place.artifacts, release.model_digest)
        item["unrecorded"] = missing
        item["readiness"] = None if lost else _readiness(place, name)
        if lost:
            item["faults"].insert(
                0, f"the ledger cannot be read ({lost}): this is what the host remembers"
            )
        if unread:
            item["faults"].append(f"the evidence cannot be read ({unread})")
        if unpinned:
            item["faults"].append(unpinned)
        found.append(item)
    return found


def _observed(
    place: Workplace, state: State
) -> tuple[tuple[Tally, ...], list[str], str, UnrecordedPredictions | None]:
    """What was counted of an endpoint, what is kept aside, why that cannot be read, and what left no record.

    A full disk hides no state.
    """
    tallies: tuple[Tally, ...] = ()
    try:
        tallies = place.evidence.tallies(state.endpoint)
        aside = place.list_aside(state)
        return tallies, aside, "", unrecorded(place.evidence, place.records, state.endpoint)
    except Unavailable as error:
        return tallies, [], f"{error.code}: {error}", None


def _readiness(place: Workplace, endpoint: str) -> dict[str, Any] | None:
    """What was filed last of an endpoint's readiness; None: no check has run yet."""
    for entry in place.ledger.entries(endpoint, "readiness"):
        if isinstance(entry.event, Note):
            return {
                "ready": entry.event.body.get("ready"),
                "at": entry.at,
                "failed": entry.event.body.get("failed", []),
            }
    return None
