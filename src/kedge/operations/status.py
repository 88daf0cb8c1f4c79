"""Status of endpoints: what is live, ready and wrong, with what a rollout under way still waits for."""

from __future__ import annotations

from typing import Any

from kedge.core.errors import Unavailable
from kedge.operations import releases
from kedge.operations.evidence.read import estimate_of
from kedge.workspace import Workplace


def status_of(place: Workplace, endpoint: str | None) -> list[dict[str, Any]]:
    """Return the status of one endpoint, or of all; without the ledger, as this host remembers it.

    Raises:
        Refused: there is no such endpoint.
    """
    found = releases.status_of(place, endpoint)
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
    return (estimate_of(place, state) if state is not None else None) or {}
