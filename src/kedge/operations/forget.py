"""Removal of an entity (`kedge log forget`): what is removed of it, and what stays that kedge cannot remove.

Removed: its predictions with their inputs; its labels, also those that wait, were refused or corrected.
What workers wrote and is not taken in yet; and hashes of its ids beside the predictions. Kept for thirty
days: a hash of the entity, by which what is still on its way is dropped. Also a hash of each id that two
requests used, so that no label is joined to either.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from kedge.adapters.offline.log import OFFLINE_DIR
from kedge.core import entities
from kedge.core.errors import KedgeError, Refused, Unavailable
from kedge.core.evidence.records import Ingested
from kedge.core.values import Proof, State, Value
from kedge.workspace import Workplace

COPIES = "exports, training sets and backups are copies that kedge does not know: remove it there"
HASHES = (
    "the evidence of rollouts, also of those that ended, holds keyed hashes of callers, and the ids"
    " of up to 20 requests that were answered differently"
)


class Forgotten(NamedTuple):
    """What became of it.

    Attributes:
        entity: as it is spelled.
        removed: predictions and labels.
        under_way: predictions in files that workers still write: they are dropped when they are taken in.
        stays: what kedge cannot remove, a sentence each.
    """

    entity: str
    removed: int
    under_way: int
    stays: tuple[str, ...]


class ForgottenEntity(Value, frozen=True):
    """What was removed of an entity."""

    removed: int
    """Predictions and labels."""
    under_way: int | msgspec.UnsetType = msgspec.UNSET
    """Predictions in files that workers still write: they are dropped within seconds. Absent: none."""


def forget(place: Workplace, text: str, endpoint: str | None) -> Forgotten:
    """Remove everything that is kept of an entity.

    Args:
        place: where.
        text: the entity, in whatever spelling callers use.
        endpoint: of this endpoint only. None: of all.

    Raises:
        Refused: `unknown_endpoint`; `nothing_forgotten`: nothing of it is kept, `details.stays` has what
            could not be looked into.
        BadRequest: `no_unit`, `bad_entity`, `entity_too_long`.
        Unavailable: the records cannot be reached.
    """
    states = place.ledger.read().states
    if endpoint is not None and endpoint not in states:
        raise Refused(
            f"no endpoint {endpoint}",
            code="unknown_endpoint",
            hint=f"known are: {', '.join(sorted(states)) or 'none'}",
        )
    entity = entities.spell(text) or ""
    spellings = _spellings(entity, text)
    now = place.clock.unix()
    waiting = place.records.under_way(spellings, endpoint)
    removed = place.records.forget(entity, endpoint, until=now, also=spellings[1:])
    _drop_waiting(place, now)
    under_way = place.records.under_way(spellings, endpoint)
    removed += max(waiting - under_way, 0)
    mine = [state for name, state in sorted(states.items()) if endpoint in (None, name)]
    stays = (*_golden(place, mine, spellings), *_values(place), *_segments(mine), HASHES, COPIES)
    if not removed and not under_way:
        raise Refused(
            f"nothing is recorded of {entity}" + (f" on {endpoint}" if endpoint else ""),
            code="nothing_forgotten",
            details={"removed": 0, "stays": list(stays)},
            hint=(
                "is it spelled as callers spell it? kedge log export shows the entities that are"
                " recorded"
            ),
        )
    return Forgotten(entity, removed, under_way, stays)


def _spellings(entity: str, text: str) -> list[str]:
    """Return how records may have it: the one spelling first, then those of an earlier kedge."""
    latin = entity.encode(errors="surrogatepass").decode("latin-1")
    return list(dict.fromkeys([entity, text, latin]))


def _drop_waiting(place: Workplace, now: float) -> None:
    """Take in what workers wrote, so that what is to be forgotten is dropped."""
    with suppress(Unavailable):  # it is dropped as soon as it can be taken in
        while place.records.waiting() and place.records.ingest(now) != Ingested():
            pass


def _golden(place: Workplace, states: list[State], spellings: list[str]) -> list[str]:
    """Return which versions' golden rows, or rows of their training sets, have it."""
    found = []
    for state in states:
        for version in place.registry.versions(state.endpoint):
            try:
                proof = place.artifacts.proof(version.digest)
            except KedgeError:
                continue  # without rows, or without readable ones
            if _holds(proof, state.policy.entity, spellings):
                found.append(
                    f"golden rows of {version.model} v{version.number} have it: register the model"
                    " again with other rows (--golden FILE), and remove this version"
                )
    return found


def _holds(proof: Proof, field: str | None, spellings: list[str]) -> bool:
    """Return whether rows have an entity: in its field in any spelling, elsewhere as a word."""
    return any(
        value in spellings if isinstance(value, str) else name == field and _is(value, spellings)
        for rows in (proof.inputs, proof.raw)
        for name, column in rows.items()
        for value in column
    )


def _is(value: Any, spellings: list[str]) -> bool:
    try:
        return entities.spell(value) in spellings
    except KedgeError:
        return False


def _values(place: Workplace) -> list[str]:
    """Return which values by key may have it: their sources do, which are not of kedge."""
    schemas = sorted({run.schema for run in place.generations.runs()})
    if not schemas:
        return []
    where = f"in the online store and under {OFFLINE_DIR}/"
    how = (
        "remove it from their source, then kedge features backfill, and remove the folders of"
        " earlier runs"
    )
    return [f"values by key of {', '.join(schemas)} may have it, {where}: {how}"]


def _segments(states: list[State]) -> list[str]:
    return [
        f"{state.endpoint} counts segments of {state.policy.entity}, by value, in its evidence and"
        " its history"
        for state in states
        if state.policy.entity is not None and state.policy.entity in state.policy.segments
    ]
